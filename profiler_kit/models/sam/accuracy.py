"""Measure how well masks agree with those of another run, or with the true ones.

A mask is an RLE of pycocotools: {"size": [height, width], "counts": bytes or text}. Needs no torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt

from profiler_kit.errors import RunFormatError
from profiler_kit.files import write_json
from profiler_kit.formats.checked import Count, Meta, Score, Share, read_as
from profiler_kit.formats.ladder_record import HINT, WHAT, Agreement, Truth
from profiler_kit.models.sam.scenes import Mask

Rle = dict[str, Any]
Floats = npt.NDArray[np.float64]

SMALL, LARGE = 32**2, 96**2  # COCO's bounds, in pixels of the true mask; an area on a bound belongs to the larger class
PARTNER: Final = 0.5  # two masks of a lower IoU show different things


@dataclass(frozen=True)
class TrueMask:
    """A true mask: its area in pixels, the IoU of the mask that answers for it, and what it shows, where known."""

    area: Count
    iou: Share
    category: str = ""


@dataclass(frozen=True)
class ImageMasks:
    """The masks of one image, in the order of the prompts or as generated. true: one for each true mask, if known."""

    name: str
    height: int
    width: int
    counts: tuple[str, ...]
    scores: tuple[float, ...]
    true: tuple[TrueMask, ...] = ()

    @property
    def rles(self) -> list[Rle]:
        return [{"size": [self.height, self.width], "counts": counts.encode("ascii")} for counts in self.counts]


def encode(masks: Mask) -> list[Rle]:
    """bool[N, H, W] to N encoded masks."""
    import pycocotools.mask

    if not len(masks):
        return []
    return list(pycocotools.mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8))))


def decode(rle: Rle) -> Mask:
    """One encoded mask to bool[H, W]; raises ValueError when its runs are of another size."""
    import pycocotools.mask

    if _run_lengths(_text(rle["counts"])) != rle["size"][0] * rle["size"][1]:
        raise ValueError(f"its runs do not fill {rle['size'][1]} x {rle['size'][0]} pixels")
    with warnings.catch_warnings():  # pycocotools lacks a keyword that numpy 2 asks its arrays for
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.asarray(pycocotools.mask.decode(rle), dtype=np.bool_)


def image_masks(
    name: str,
    size: tuple[int, int],
    rles: Sequence[Rle],
    scores: Sequence[float],
    true: Sequence[Rle],
    *,
    paired: bool,
    true_areas: Sequence[int] = (),
    categories: Sequence[str] = (),
) -> ImageMasks:
    """The masks of one image with their agreement with the true ones.

    paired: mask i answers for true mask i; otherwise the best of all masks answers for each true one. true_areas:
    pixels of the true masks as annotated, by which their class of size is told; counted when empty. categories: of the
    true masks, where known.
    """
    counts = tuple(_text(rle["counts"]) for rle in rles)
    known: tuple[TrueMask, ...] = ()
    if true:
        ious = paired_iou(rles, true) if paired else _best(pairwise_iou(rles, true))
        every = zip(true_areas or areas(true), ious, categories or [""] * len(true), strict=True)
        known = tuple(TrueMask(area, float(iou), category) for area, iou, category in every)
    return ImageMasks(name, size[0], size[1], counts, tuple(float(score) for score in scores), known)


def write_masks_file(path: Path, images: Sequence[ImageMasks]) -> None:
    """Write masks.json in COCO's form, with `true` [{area, iou, category}] added to each image."""
    rows: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, image in enumerate(images):
        true = [{key: value for key, value in asdict(mask).items() if value != ""} for mask in image.true]
        rows.append({"id": number, "file_name": image.name, "height": image.height, "width": image.width, "true": true})
        for counts, score in zip(image.counts, image.scores, strict=True):
            segmentation = {"size": [image.height, image.width], "counts": counts}
            annotations.append(
                {"id": len(annotations), "image_id": number, "segmentation": segmentation, "score": score}
            )
    write_json(path, {"images": rows, "annotations": annotations})


_Side = Annotated[int, Meta(ge=1, le=1 << 16)]  # of a picture: what JPEG can hold


@dataclass(frozen=True)
class _Image:
    id: int
    file_name: str
    height: _Side
    width: _Side
    true: tuple[TrueMask, ...] = ()


@dataclass(frozen=True)
class _Segmentation:
    counts: str


@dataclass(frozen=True)
class _Annotation:
    image_id: int
    segmentation: _Segmentation
    score: Score


@dataclass(frozen=True)
class _MasksFile:
    images: tuple[_Image, ...]
    annotations: tuple[_Annotation, ...]


def read_masks_file(path: Path) -> list[ImageMasks]:
    """Read what `write_masks_file` wrote; raises InputError or RunFormatError."""
    found = read_as(path, _MasksFile, WHAT, HINT)
    of: dict[int, list[_Annotation]] = {image.id: [] for image in found.images}
    for annotation in found.annotations:
        of.setdefault(annotation.image_id, []).append(annotation)
    for image in found.images:
        for number, one in enumerate(of[image.id]):
            pixels = _run_lengths(one.segmentation.counts)
            if pixels != image.height * image.width:
                raise RunFormatError(
                    f"{path}: mask {number} of image {image.id} has {'no run lengths' if pixels is None else pixels} "
                    f"for {image.width} x {image.height} pixels, expected {WHAT}. {HINT}"
                )
    return [
        ImageMasks(
            image.file_name,
            image.height,
            image.width,
            tuple(a.segmentation.counts for a in of[image.id]),
            tuple(a.score for a in of[image.id]),
            image.true,
        )
        for image in found.images
    ]


def _run_lengths(counts: str) -> int | None:
    """The sum of the runs that COCO's text holds, None where it is none: the library decodes it without a check.

    Five bits a character, the lowest first; the sixth says that the number goes on, the fifth of the last is its sign.
    From the fourth run on, what is written is the difference to the run two before.
    """
    runs: list[int] = []
    value = bits = 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 30:
            return None
        value |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        value -= (1 << bits) if code & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return None
        value = bits = 0
    return sum(runs) if not bits else None


def against_truth(images: Sequence[ImageMasks]) -> Truth | None:
    """Mean IoU with the true masks, over all, by their size and by category; None when no true mask is known."""
    true = [mask for image in images for mask in image.true]
    if not true:
        return None
    area = np.array([mask.area for mask in true])
    iou = np.array([mask.iou for mask in true])
    classes = [area < SMALL, (area >= SMALL) & (area < LARGE), area >= LARGE]
    small, medium, large = (float(iou[chosen].mean()) if chosen.any() else None for chosen in classes)
    counts = (int(classes[0].sum()), int(classes[1].sum()), int(classes[2].sum()))
    names = np.array([mask.category for mask in true])
    named = {str(name): iou[names == name] for name in np.unique(names[names != ""])}
    categories = {name: (len(of), float(of.mean())) for name, of in named.items()}
    return Truth(len(true), float(iou.mean()), small, medium, large, counts, categories)


def against_baseline(images: Sequence[ImageMasks], baseline: Sequence[ImageMasks], *, paired: bool) -> Agreement:
    """Agreement with the baseline's masks of the same images, in the same order.

    paired: mask i of one belongs to mask i of the other (the same prompt). Otherwise masks are matched one to one,
    the pair of highest IoU first. Strict is how the sam2 server counts: only images whose number of masks is the same,
    masks paired in order of their area; a mean over masks in each image, then over images. Empty masks do not count as
    masks there.
    """
    if [image.name for image in images] != [image.name for image in baseline]:
        raise ValueError("masks of other images than the baseline's")
    ious: list[Floats] = []
    strict: list[float] = []
    count_mismatch = match_mismatch = 0
    for image, base in zip(images, baseline, strict=True):
        mine, wanted = image.rles, base.rles
        matched = paired_iou(mine, wanted) if paired else matched_iou(mine, wanted)
        ious.append(matched)
        lonely = len(mine) != len(wanted) or bool((matched < PARTNER).any())
        match_mismatch += lonely
        strict_iou = _strict(mine, wanted, matched if paired else None)
        if strict_iou is None:
            count_mismatch += 1
        elif len(strict_iou):
            strict.append(float(strict_iou.mean()))
    every = np.concatenate(ious) if ious else np.zeros(0)
    return Agreement(
        len(images),
        len(every),
        float(every.mean()) if len(every) else None,
        float(np.mean(strict)) if strict else None,
        count_mismatch,
        match_mismatch,
    )


def mask_iou(predicted: Mask, true: Mask) -> Floats:
    """Intersection over union of each pair of masks that are not encoded; two empty masks agree fully (1).

    predicted, true: bool[N, H, W], row i against row i. Returns float64[N].
    Raises ValueError when the shapes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"masks of shape {predicted.shape} and {true.shape}: expected the same shape")
    common = np.count_nonzero(predicted & true, axis=(1, 2))
    either = np.count_nonzero(predicted | true, axis=(1, 2))
    return np.where(either == 0, 1.0, common / np.maximum(either, 1))


def paired_iou(first: Sequence[Rle], second: Sequence[Rle]) -> Floats:
    """IoU of row i with row i, float64[N]; two empty masks agree fully (1)."""
    import pycocotools.mask

    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} masks: expected as many")
    pairs = zip(first, second, areas(first), areas(second), strict=True)
    return np.array(
        [
            1.0 if not area_a and not area_b else float(pycocotools.mask.iou([a], [b], [0])[0, 0])
            for a, b, area_a, area_b in pairs
        ]
    )


def pairwise_iou(first: Sequence[Rle], second: Sequence[Rle]) -> Floats:
    """IoU of each with each, float64[len(first), len(second)]."""
    import pycocotools.mask

    if not first or not second:
        return np.zeros((len(first), len(second)))
    return np.asarray(pycocotools.mask.iou(list(first), list(second), [0] * len(second)), dtype=np.float64)


def matched_iou(found: Sequence[Rle], wanted: Sequence[Rle]) -> Floats:
    """For each wanted mask the IoU of its partner, 0 without one: one to one, the pair of highest IoU first."""
    table = pairwise_iou(found, wanted)
    result = np.zeros(len(wanted))
    free_rows, free_columns = np.ones(len(found), dtype=bool), np.ones(len(wanted), dtype=bool)
    for flat in np.argsort(-table, axis=None, kind="stable"):
        row, column = divmod(int(flat), table.shape[1])
        if table[row, column] <= 0:  # no two of the others overlap
            break
        if free_rows[row] and free_columns[column]:
            result[column] = table[row, column]
            free_rows[row] = free_columns[column] = False
    return result


def areas(rles: Sequence[Rle]) -> list[int]:
    """Pixels of each mask."""
    import pycocotools.mask

    return [int(area) for area in pycocotools.mask.area(list(rles))] if rles else []


def _strict(mine: Sequence[Rle], wanted: Sequence[Rle], paired: Floats | None) -> Floats | None:
    """IoU of masks paired by prompt or by area; None when one side has more masks that are not empty."""
    my_areas, wanted_areas = areas(mine), areas(wanted)
    if np.count_nonzero(my_areas) != np.count_nonzero(wanted_areas):
        return None
    if paired is not None:
        return paired
    by_area = [
        [rles[at] for at in sorted(range(len(rles)), key=lambda at, sizes=sizes: -sizes[at]) if sizes[at]]  # type: ignore[misc]  # a default in a lambda
        for rles, sizes in ((mine, my_areas), (wanted, wanted_areas))
    ]
    return paired_iou(*by_area)


def _best(table: Floats) -> Floats:
    """The best of each column; 0 where there is no row."""
    return table.max(axis=0) if len(table) else np.zeros(table.shape[1])


def _text(counts: bytes | str) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
