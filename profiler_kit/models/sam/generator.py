"""All masks of an image: a grid of points is asked of a model, and the good answers are kept.

The options and the result are those of segment-anything's SamAutomaticMaskGenerator, and so are the masks, in the same
order. The work is arranged otherwise: answers are filtered by their predicted IoU while they are small, what is left is
enlarged in chunks of a fixed size, duplicates go before anything is encoded, and the run lengths are found on the
device, packed there into COCO's text where that is asked for, and come to the host in one copy.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch

from profiler_kit.capture.regions import region
from profiler_kit.errors import InputError, OptionError

Pixels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
Runs = npt.NDArray[np.int32]
Size = tuple[int, int]
Box = tuple[int, int, int, int]
Tensor = torch.Tensor
OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]
EDGE_PX: Final = 20.0  # a mask this close to the edge of a crop is likely cut off by it
ENLARGED: Final = 64  # masks in memory at the size of the image at a time


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions:
    """As segment-anything names them.

    points_per_side: of the grid; None for `point_grids`, one array float[N, 2] in 0 to 1 for each layer of crops.
    points_per_batch: how many are decoded at once. pred_iou_thresh, stability_score_thresh: the least that is kept.
    stability_score_offset: how far the threshold is moved up and down for the stability. box_nms_thresh,
    crop_nms_thresh: the IoU of two boxes from which on the worse is a duplicate, in one crop and among all.
    crop_n_layers: layer i adds 4**i crops that overlap by crop_overlap_ratio; their grids are coarser by
    crop_n_points_downscale_factor**i. min_mask_region_area: holes and islands of fewer pixels go (needs scipy).
    output_mode: how `segmentation` is given.
    """

    points_per_side: int | None = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    point_grids: Sequence[Points] | None = None
    min_mask_region_area: int = 0
    output_mode: OutputMode = "binary_mask"

    def __post_init__(self) -> None:
        if (self.points_per_side is None) == (self.point_grids is None):
            found = "neither" if self.points_per_side is None else "both"
            raise OptionError(f"points_per_side and point_grids: found {found}, expected one of them.")
        if self.point_grids is not None and len(self.point_grids) <= self.crop_n_layers:
            raise OptionError(
                f"point_grids: found {len(self.point_grids)}, expected {self.crop_n_layers + 1}: one for the image and "
                "one for each of crop_n_layers."
            )
        for number, points in enumerate(self.point_grids or ()):
            grid = np.asarray(points, dtype=np.float64)
            if grid.ndim != 2 or grid.shape[1:] != (2,) or not len(grid) or not ((grid >= 0) & (grid <= 1)).all():
                raise OptionError(
                    f"point_grids, layer {number}: found shape {grid.shape}, expected float[N, 2] in 0 to 1: shares of "
                    "the width and the height."
                )
        wholes = {"points_per_side": 1, "points_per_batch": 1, "crop_n_layers": 0, "crop_n_points_downscale_factor": 1}
        for name, least in wholes.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{name} is {value}, expected a whole number from {least}.")
        factor = self.crop_n_points_downscale_factor**self.crop_n_layers
        if self.points_per_side is not None and self.points_per_side < factor:
            raise OptionError(
                f"points_per_side is {self.points_per_side}, which leaves no point for the crops of the last layer, "
                f"expected {factor} or more: crop_n_points_downscale_factor to the power of crop_n_layers."
            )
        if self.min_mask_region_area > 0 and find_spec("scipy") is None:
            raise OptionError(f"min_mask_region_area is {self.min_mask_region_area}: needs scipy. pip install scipy")
        if self.output_mode not in get_args(OutputMode):
            raise OptionError(
                f"output_mode is {self.output_mode!r}, expected one of {', '.join(get_args(OutputMode))}."
            )

    def grid(self, layer: int) -> Points:
        """The points for a crop of that layer: float64[N, 2] in 0 to 1, x then y."""
        if self.point_grids is not None:
            return np.asarray(self.point_grids[layer], dtype=np.float64)
        assert self.points_per_side is not None
        side = int(self.points_per_side / self.crop_n_points_downscale_factor**layer)
        first = 1 / (2 * side)
        along = np.linspace(first, 1 - first, side)
        return np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)


class Segmenter(Protocol):
    """What the generator asks of a model. An embedding is whatever `embed` gives; it knows the size of its image."""

    mask_threshold: float

    def embed(self, images: Sequence[Pixels]) -> Sequence[Any]:
        """What the encoder makes of each uint8[H, W, 3], on the device; the sizes may differ."""

    def decode(self, embedding: Any, points: Points) -> tuple[Tensor, Tensor]:
        """Three answers to each of P foreground points (pixels of the image): logits float[P, 3, h, w], IoU [P, 3]."""

    def enlarge(self, logits: Tensor, embedding: Any) -> Tensor:
        """float[N, h, w] to float[N, H, W], the size of the image."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Answers that passed, of one crop, on the device.

    logits: float[N, h, w]. iou, stability: float[N]. boxes: int[N, 4], x0 y0 x1 y1 in the crop. point: int[N], which
    of the crop's.
    """

    logits: Tensor
    iou: Tensor
    stability: Tensor
    boxes: Tensor
    point: Tensor

    def take(self, chosen: Tensor) -> Kept:
        """Some of them, by number or by flag."""
        return Kept(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def _joined(parts: Sequence[Kept]) -> Kept:
    return Kept(*(torch.cat([getattr(part, name) for part in parts]) for name in Kept.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class _Crop:
    box: Box
    points: Points
    embedding: Any
    kept: Kept


class MaskGenerator:
    """Gives all masks of an image. model: a Segmenter. options: those of GeneratorOptions."""

    def __init__(self, model: Segmenter, **options: Any) -> None:
        self.model = model
        self.options = GeneratorOptions(**options)

    def generate(self, image: Pixels) -> list[dict[str, Any]]:
        """One record a mask, as segment-anything's: segmentation, area, bbox, predicted_iou, point_coords,
        stability_score, crop_box (boxes as x, y, width, height).
        """
        return self.generate_batch([image])[0]

    def generate_batch(
        self, images: Sequence[Pixels], points: Sequence[Points | None] | None = None
    ) -> list[list[dict[str, Any]]]:
        """The same of several images, whose sizes may differ; the encoder sees them together, crops one by one.

        points: what is asked of each image, as `segment` takes them; None for the grid, and all masks.
        """
        return list(self.generate_each(images, points))

    @torch.no_grad()
    def generate_each(
        self, images: Sequence[Pixels], points: Sequence[Points | None] | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """As `generate_batch`, but each image's masks as soon as they are known."""
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                found = f"{image.dtype}[{', '.join(map(str, image.shape))}]"
                raise InputError(f"an image: found {found}, expected uint8[H, W, 3]: red, green and blue.")
        whole, asked = self.model.embed(images), points or [None] * len(images)
        for image, embedding, some in zip(images, whole, asked, strict=True):
            yield self._image(image, embedding) if some is None else self._each(image, embedding, some)

    def segment(self, image: Pixels, points: Points) -> list[dict[str, Any]]:
        """One record for each point (pixels of the image, x then y): of its three answers the one the model prefers."""
        return self.generate_batch([image], [points])[0]

    def _each(self, image: Pixels, embedding: Any, points: Points) -> list[dict[str, Any]]:
        """A mask for each point."""
        size = image.shape[:2]
        kept = _joined([self._best(embedding, points, start) for start in self._starts(len(points))])
        crop = _Crop((0, 0, size[1], size[0]), points, embedding, kept)
        with region("rle"):
            return self._written([crop], torch.zeros_like(kept.point), kept.point, kept.boxes, size)

    def _best(self, embedding: Any, points: Points, start: int) -> Kept:
        """The best answer to each of one batch of points."""
        asked = points[start : start + self.options.points_per_batch]
        logits, iou = self.model.decode(embedding, asked)
        with region("filter"):
            point = torch.arange(len(asked), device=iou.device)
            score, chosen = iou.max(1)
            logits = logits[point, chosen]
            chunks = [self._measured(part, embedding) for part in torch.split(logits, ENLARGED)]
            stability, boxes = (torch.cat(parts) for parts in zip(*chunks, strict=True))
            return Kept(logits, score, stability, boxes, point + start)

    def _image(self, image: Pixels, embedding: Any) -> list[dict[str, Any]]:
        o = self.options
        size = image.shape[:2]
        first, *rest = crop_boxes(size, o.crop_n_layers, o.crop_overlap_ratio)
        crops = [self._crop(size, embedding, first)]
        for (x0, y0, x1, y1), layer in rest:
            (part,) = self.model.embed([image[y0:y1, x0:x1]])
            crops.append(self._crop(size, part, ((x0, y0, x1, y1), layer)))
        number = torch.cat([torch.full_like(one.kept.point, at) for at, one in enumerate(crops)])
        boxes = torch.cat([_moved(one.kept.boxes, one.box) for one in crops])
        order = torch.arange(len(number), device=number.device)
        if len(crops) > 1:
            with region("nms"):  # what a smaller crop saw is preferred
                areas = torch.tensor([float(_area(one.box)) for one in crops], device=number.device)
                order = _without_duplicates(boxes, 1 / areas[number], o.crop_nms_thresh)
        with region("rle"):
            return self._written(crops, number, order, boxes, size)

    def _written(
        self, crops: Sequence[_Crop], number: Tensor, order: Tensor, boxes: Tensor, size: Size
    ) -> list[dict[str, Any]]:
        """Records of the masks in `order`. number, boxes: the crop of each mask, and its box in the image."""
        found = {**self._encoded(crops, number, order, size), "boxes": boxes[order]}
        o = self.options
        if o.output_mode == "coco_rle" and not o.min_mask_region_area and boxes.is_cuda:
            found["text"], found["characters"] = packed(found.pop("lengths"), found["counts"])
        return self._records(_on_host(found), crops, size)

    def _crop(self, size: Size, embedding: Any, of: tuple[Box, int]) -> _Crop:
        """The answers for one crop, each once. size: of the image. of: the crop and its layer."""
        box, layer = of
        points = self.options.grid(layer) * np.array([box[2] - box[0], box[3] - box[1]])
        parts = [self._ask(embedding, points, start, box, size) for start in self._starts(len(points))]
        with region("nms"):
            kept = _joined(parts)
            kept = kept.take(_without_duplicates(kept.boxes, kept.iou, self.options.box_nms_thresh))
        return _Crop(box, points, embedding, kept)

    def _starts(self, count: int) -> range:
        return range(0, count, self.options.points_per_batch)

    def _ask(self, embedding: Any, points: Points, start: int, box: Box, size: Size) -> Kept:
        """What passes of the answers to one batch of points."""
        o = self.options
        asked = points[start : start + o.points_per_batch]
        logits, iou = self.model.decode(embedding, asked)
        with region("filter"):
            point = torch.arange(start, start + len(asked), device=iou.device).repeat_interleave(iou.shape[1])
            logits, iou = logits.flatten(0, 1), iou.flatten()
            if o.pred_iou_thresh > 0:
                passed = (iou > o.pred_iou_thresh).nonzero()[:, 0]
                logits, iou, point = logits[passed], iou[passed], point[passed]
            chunks = [self._measured(part, embedding) for part in torch.split(logits, ENLARGED)]
            stability, boxes = (torch.cat(parts) for parts in zip(*chunks, strict=True))
            good = ~_near_edge(boxes, box, size)
            if o.stability_score_thresh > 0:
                good &= stability >= o.stability_score_thresh
            return Kept(logits, iou, stability, boxes, point).take(good.nonzero()[:, 0])

    def _measured(self, logits: Tensor, embedding: Any) -> tuple[Tensor, Tensor]:
        """Stability float[N] and boxes int[N, 4] of N masks."""
        if not len(logits):  # which torch does not enlarge
            return logits.new_zeros(0), torch.zeros((0, 4), dtype=torch.int64, device=logits.device)
        full = self.model.enlarge(logits, embedding)
        threshold, offset = self.model.mask_threshold, self.options.stability_score_offset
        inner, outer = (_pixels(full > threshold + step) for step in (offset, -offset))
        return inner / outer, _boxes(full > threshold)

    def _encoded(self, crops: Sequence[_Crop], number: Tensor, order: Tensor, size: Size) -> dict[str, Tensor]:
        """The runs of the masks in `order`, and what is known of each. number: the crop of each mask."""
        which = number[order]
        firsts = list(itertools.accumulate((len(one.kept.point) for one in crops), initial=0))
        runs: list[tuple[Tensor, Tensor, Tensor]] = []
        chosen = which.tolist() if len(crops) > 1 else [0] * len(which)
        at = 0
        for crop, group in itertools.groupby(chosen):
            count = len(list(group))
            one = crops[crop]
            mine = order[at : at + count] - firsts[crop]
            for part in torch.split(one.kept.logits[mine], ENLARGED):
                masks = self.model.enlarge(part, one.embedding) > self.model.mask_threshold
                runs.append((*run_lengths(_in_image(masks, one.box, size)), _pixels(masks)))
            at += count
        kept = {
            name: torch.cat([getattr(one.kept, name) for one in crops])[order] for name in ("iou", "stability", "point")
        }
        lengths, counts, area = (torch.cat(parts) for parts in zip(*runs, strict=True)) if runs else (order,) * 3
        return {"lengths": lengths, "counts": counts, "area": area, "crop": which, **kept}

    def _records(self, host: dict[str, Any], crops: Sequence[_Crop], size: Size) -> list[dict[str, Any]]:
        """What `generate` gives, from arrays on the host."""
        o = self.options
        boxes, area, order = host["boxes"], host["area"], np.arange(len(host["counts"]))
        runs = _parts(host["lengths"], host["counts"]) if "lengths" in host else []
        if o.min_mask_region_area > 0 and runs:
            threshold = max(o.box_nms_thresh, o.crop_nms_thresh)
            runs, boxes, order = _without_specks(runs, boxes, size, o.min_mask_region_area, threshold)
            area = np.array([one[1::2].sum() for one in runs])
        text = _parts(host["text"], host["characters"]) if "text" in host else []
        records = []
        for at in order.tolist():
            crop = crops[int(host["crop"][at])]
            x, y = crop.points[int(host["point"][at])].tolist()
            counts: Any
            if o.output_mode == "coco_rle":
                counts = text[at].tobytes().decode("ascii") if text else _packed_here(runs[at], size)
            else:
                counts = runs[at].tolist() if o.output_mode == "uncompressed_rle" else runs[at]
            rle = {"size": [*size], "counts": counts}
            records.append(
                {
                    "segmentation": mask_of(rle) if o.output_mode == "binary_mask" else rle,
                    "area": int(area[at]),
                    "bbox": _xywh(boxes[at].tolist()),
                    "predicted_iou": float(host["iou"][at]),
                    "point_coords": [[x + crop.box[0], y + crop.box[1]]],
                    "stability_score": float(host["stability"][at]),
                    "crop_box": _xywh(crop.box),
                }
            )
        return records


def crop_boxes(size: Size, layers: int, overlap_ratio: float) -> Iterator[tuple[Box, int]]:
    """The image, then the crops of each layer, with the number of the layer; as segment-anything cuts them."""
    height, width = size
    yield (0, 0, width, height), 0
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        w, h = (math.ceil((overlap * (count - 1) + length) / count) for length in (width, height))
        for x, y in itertools.product(range(count), range(count)):
            x0, y0 = (w - overlap) * x, (h - overlap) * y
            yield (x0, y0, min(x0 + w, width), min(y0 + h, height)), layer


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, without a wait for what that is doing."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)


def run_lengths(masks: Tensor) -> tuple[Tensor, Tensor]:
    """The runs of each mask, column by column as COCO counts: int32[R] of all masks, and int64[N] how many.

    masks: bool[N, H, W]. A mask that begins with a pixel that is set has a first run of nothing.
    """
    flat = masks.transpose(1, 2).flatten(1)
    last = flat.new_ones((len(flat), 1))
    ends = torch.cat([flat[:, :1], flat[:, 1:] ^ flat[:, :-1], last], dim=1)
    mask, end = ends.nonzero().to(torch.int32).unbind(1)
    start = torch.where(mask == mask.roll(1), end.roll(1), 0)  # where the run before ended, if that is of this mask
    start[:1] = 0
    return end - start, ends.sum(1)


def packed(lengths: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Run lengths as COCO's text: uint8[T], the characters of all masks, and int64[N] how many.

    lengths: int32[R]; counts: int64[N], runs of each mask. From the fourth run on, what is written is the difference
    to the run two before. Five bits a character, the lowest first; the sixth says that the number goes on, and the
    fifth of the last is its sign.
    """
    first = (counts.cumsum(0) - counts).repeat_interleave(counts, output_size=len(lengths))
    number = torch.arange(len(lengths), device=lengths.device) - first
    value = lengths - torch.where(number > 2, lengths.roll(2), 0)
    fives = torch.arange(0, 35, 5, device=value.device, dtype=torch.int32)
    size = value ^ (value >> 31)  # as many bits as the number has beside its sign
    more = (size[:, None] >> (fives[:6] + 4)) > 0  # whether it goes on after each character
    more = torch.cat([more, torch.zeros_like(more[:, :1])], dim=1)
    written = torch.cat([torch.ones_like(more[:, :1]), more[:, :-1]], dim=1)
    text = ((value[:, None] >> fives & 31 | more.to(torch.int32) << 5) + 48).to(torch.uint8)[written]
    until = torch.cat([counts.new_zeros(1), written.sum(1).cumsum(0)])  # characters before each run, and all of them
    last = counts.cumsum(0)
    return text, until[last] - until[last - counts]


def _packed_here(runs: Runs, size: Size) -> str:
    """The same of one mask on the host, where pycocotools is the fastest."""
    import pycocotools.mask

    found: bytes = pycocotools.mask.frPyObjects({"size": [*size], "counts": runs}, *size)["counts"]
    return found.decode("ascii")


def _parts(values: npt.NDArray[Any], counts: npt.NDArray[np.int64]) -> list[npt.NDArray[Any]]:
    """So many of the values each."""
    return np.split(values, np.cumsum(counts)[:-1]) if len(counts) else []


def _pixels(masks: Tensor) -> Tensor:
    """int32[N]: an image is at most 32,767 pixels wide, so that a row's sum fits in 16 bits."""
    return masks.sum(-1, dtype=torch.int16).sum(-1, dtype=torch.int32)


def _boxes(masks: Tensor) -> Tensor:
    """int64[N, 4]: the first and last column and row that are set, x0 y0 x1 y1; zeros for an empty mask."""
    sides = []
    for axis in (-2, -1):
        hit = masks.any(axis)
        at = torch.arange(hit.shape[1], device=hit.device)
        sides.append((torch.where(hit, at, hit.shape[1]).amin(1), torch.where(hit, at, 0).amax(1)))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], dim=1) * (x1 >= x0).unsqueeze(1)


def _near_edge(boxes: Tensor, crop: Box, size: Size) -> Tensor:
    """bool[N]: close to an edge of the crop that is not an edge of the image."""
    moved = _moved(boxes, crop).float()
    whole = (0, 0, size[1], size[0])
    near_crop, near_image = (
        (moved - torch.tensor(edges, dtype=torch.float32, device=boxes.device)).abs() <= EDGE_PX
        for edges in (crop, whole)
    )
    return (near_crop & ~near_image).any(1)


def _without_duplicates(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """The numbers of those that stay, the best first."""
    from torchvision.ops import batched_nms

    kept: Tensor = batched_nms(boxes.float(), scores, torch.zeros_like(boxes[:, 0]), threshold)
    return kept


def _moved(boxes: Tensor, crop: Box) -> Tensor:
    return boxes + torch.tensor([crop[0], crop[1], crop[0], crop[1]], device=boxes.device)


def _in_image(masks: Tensor, crop: Box, size: Size) -> Tensor:
    """Masks of a crop in the frame of the whole image."""
    x0, y0, x1, y1 = crop
    around = (x0, size[1] - x1, y0, size[0] - y1)
    return torch.nn.functional.pad(masks, around) if any(around) else masks


def _on_host(found: dict[str, Tensor]) -> dict[str, Any]:
    """As numpy arrays, with one wait for all of them."""
    if not next(iter(found.values())).is_cuda:
        return {name: one.numpy() for name, one in found.items()}
    host = {name: torch.empty_like(one, device="cpu", pin_memory=True) for name, one in found.items()}
    for name, one in found.items():
        host[name].copy_(one, non_blocking=True)
    torch.cuda.current_stream().synchronize()
    return {name: one.numpy() for name, one in host.items()}


def mask_of(rle: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Run lengths as bool[H, W]."""
    height, width = rle["size"]
    values = np.arange(len(rle["counts"])) % 2 == 1
    return np.repeat(values, rle["counts"]).reshape(width, height).T


def _without_specks(
    runs: Sequence[Runs], boxes: npt.NDArray[np.int64], size: Size, area: int, threshold: float
) -> tuple[list[Runs], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Masks without holes and islands below `area` pixels, their boxes, and the order of those that are no duplicates.

    Masks that had none are preferred. Works on the host: connected components are found mask by mask.
    """
    cleaned = []
    for one in runs:
        mask = mask_of({"size": size, "counts": one})
        without_holes = _without_small(mask, area, holes=True)
        whole = _without_small(without_holes, area, holes=False)
        cleaned.append((torch.from_numpy(np.ascontiguousarray(whole)), whole is mask))
    masks = torch.stack([mask for mask, _ in cleaned])
    found = _boxes(masks)
    intact = torch.tensor([float(same) for _, same in cleaned])
    order = _without_duplicates(found, intact, threshold).numpy()
    changed = [at for at in order.tolist() if not cleaned[at][1]]
    runs, boxes = list(runs), boxes.copy()
    for at in changed:
        runs[at] = run_lengths(masks[at : at + 1])[0].numpy()
        boxes[at] = found[at].numpy()
    return runs, boxes, order


def _without_small(mask: npt.NDArray[np.bool_], area: int, *, holes: bool) -> npt.NDArray[np.bool_]:
    """The mask without holes (or islands) below `area` pixels, itself when it has none; the largest island stays.

    Of several as large the first in OpenCV's order, which segment-anything goes by: that of blocks of 2 x 2 pixels.
    """
    from scipy.ndimage import label

    labels: npt.NDArray[np.int32]
    labels, _ = label(mask ^ holes, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    sizes[0] = area  # not a region
    small = sizes < area
    if not small.any():
        return mask
    where: npt.NDArray[np.bool_]
    if holes:
        where = mask | small[labels]
        return where
    if small[1:].all():
        y, x = np.nonzero((sizes[labels] == sizes[1:].max()) & (labels > 0))
        first = np.lexsort((x // 2, y // 2))[0]
        small[labels[y[first], x[first]]] = False
    where = mask & ~small[labels]
    return where


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def _xywh(box: Sequence[int]) -> list[int]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]
