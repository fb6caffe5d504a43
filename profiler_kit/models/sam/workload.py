"""Segment Anything as a workload: its models, scenes and prompts behind the protocol that any model follows."""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.capture.layer_tree import Label, Select
from profiler_kit.errors import OptionError
from profiler_kit.files import whole_file
from profiler_kit.formats.ladder_record import BASELINE, SAMPLES, RowResult, too_few_masks
from profiler_kit.formats.run_record import MASKS
from profiler_kit.models.sam.accuracy import (
    ImageMasks,
    against_baseline,
    against_truth,
    encode,
    image_masks,
    read_masks_file,
    write_masks_file,
)
from profiler_kit.models.sam.coco import load_coco
from profiler_kit.models.sam.forward import Batch, SamForward, block_label, is_timed, move_batch, prepare_batch
from profiler_kit.models.sam.generator import MaskGenerator, Points
from profiler_kit.models.sam.masks import write_masks
from profiler_kit.models.sam.models import check_model, load_model, shipped_checkpoint, weights_of
from profiler_kit.models.sam.optimizations import (
    ALL_MASKS,
    ALL_MASKS_LADDER,
    CPU_ALL_MASKS_LADDER,
    CPU_LADDER,
    LADDER,
    MODES,
    OPTIMIZATIONS,
    encoder_dtype,
    generating,
)
from profiler_kit.models.sam.prompts import LARGEST_GRID, PromptChoice, make_prompts, parse_prompts
from profiler_kit.models.sam.scenes import Scene, generate_scenes, load_images
from profiler_kit.models.sam.segmenter import PublishedPredictor, SamSegmenter
from profiler_kit.workload.optimizations import LadderRow
from profiler_kit.workload.protocol import DISTINCT, Bench, Workload

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

TASKS: Final = {  # of a ladder: what is asked of an image
    "points": "centers",
    "boxes": "boxes",
    "amg": "centers",
    "single-point": "centers",
    "multi-point": "centers",
}
REQUESTS: Final = ("amg", "single-point", "multi-point")  # from one image on the host to packed masks there
Rows = tuple[LadderRow, ...]
COMPONENTS: Final = {
    "image_encoder": "image encoder",
    "prompt_encoder": "prompt encoder",
    "mask_decoder": "mask decoder",
    "postprocess": "postprocess",
}
_PATCH: Final = 16
_KEPT: Final = "scenes.npz"
_SAMPLE_IMAGES: Final = 2  # kept as pictures by a ladder's baseline, for overlays


@dataclass(eq=False)
class SamWorkload(Workload):
    """A SAM, images and what is asked of them; the fields are its options on the command line.

    name: of the model. checkpoint: if None, the weights that ship with the model, or random ones of `seed`. images,
    coco: folders of photographs; without, scenes are generated from the seed. count: how many images, one batch if
    None. prompts: "centers", "boxes" or "grid:N". task: one of TASKS, for a ladder, in place of `prompts`.
    multimask: of each box three masks, the one with the highest predicted IoU counts. annotated: boxes and areas of
    objects as COCO's json has them, not of their masks' pixels. crowds: COCO's crowds count as objects.
    pred_iou_thresh, stability_score_thresh: of the mask generator, its own if None. side: of the model's input, its own
    if 0.
    """

    name: str = "vit_b"
    checkpoint: str | None = None
    seed: int = 0
    images: str | None = None
    coco: str | None = None
    count: int | None = None
    prompts: str = "centers"
    task: str = ""
    points_per_side: int = 32
    points_per_batch: int = 64
    multimask: bool = False
    annotated: bool = False
    crowds: bool = False
    pred_iou_thresh: float | None = None
    stability_score_thresh: float | None = None
    side: int = 0

    spec = "profiler_kit.models.sam.workload:SamWorkload"
    family = "SAM"
    unit = "images"
    compares = "masks"
    image_step = _PATCH
    optimizations = OPTIMIZATIONS
    all_masks = ALL_MASKS  # optimizations for REQUESTS beside those
    modes = MODES
    # of prompts and of REQUESTS, each on a CPU and on a GPU
    ladders: ClassVar[tuple[tuple[Rows, Rows], tuple[Rows, Rows]]] = (
        (CPU_LADDER, LADDER),
        (CPU_ALL_MASKS_LADDER, ALL_MASKS_LADDER),
    )

    def __post_init__(self) -> None:
        self.weights = ""
        self._sam: Callable[[], Any] = lambda: None
        self.options = dataclasses.asdict(self)
        if self.task in REQUESTS:
            self.optimizations = {**self.optimizations, **self.all_masks}
        if self.task in REQUESTS and self.task != "amg":  # no grid of points
            self.optimizations = {name: one for name, one in self.optimizations.items() if name != "all_points"}
        self.smaller = "fewer --points-per-batch, or a smaller --model" if self.task == "amg" else "a smaller --model"

    @property
    def choice(self) -> PromptChoice:
        """What is asked of an image."""
        found = parse_prompts(TASKS[self.task] if self.task else self.prompts)
        return replace(found, multimask=self.multimask)

    def check(self, batch_size: int) -> None:
        """As `Workload.check`, with SAM's own options; of a folder of images one is read."""
        self._check_model()
        super().check(batch_size)
        if self.task:
            self._check_task(batch_size)
        if self.multimask and self.choice.kind != "boxes":
            raise OptionError("--multimask: a point always gets three masks. Use it with --task boxes.")
        for option, given in (("--annotated", self.annotated), ("--crowds", self.crowds)):
            if given and self.coco is None:
                raise OptionError(f"{option}: found without annotations, expected --coco DIR.")
        if self.images is not None and self.coco is not None:
            raise OptionError("--images and --coco: found both; choose one of them.")
        if self.count is not None and self.count < 1:
            raise OptionError(f"--{'num-images' if self.task else 'scenes'} {self.count}: expected 1 or more.")
        if self.count is not None and self.images is not None and not self.task:
            raise OptionError("--scenes and --images: found both; choose one of them, --scenes generates images.")
        assert self.choice
        if self.images is not None:
            load_images(Path(self.images), limit=1)

    def _check_task(self, batch_size: int) -> None:
        if self.task not in TASKS:
            raise OptionError(f"--task {self.task}: not known, expected one of {', '.join(TASKS)}.")
        if not 1 <= self.points_per_side <= LARGEST_GRID:
            raise OptionError(f"--points-per-side {self.points_per_side}: expected 1 to {LARGEST_GRID}.")
        if not 1 <= self.points_per_batch <= LARGEST_GRID**2:
            raise OptionError(f"--points-per-batch {self.points_per_batch}: expected 1 to {LARGEST_GRID**2}.")
        for name, value in self._thresholds.items():
            if not 0 <= value <= 1:
                raise OptionError(f"--{name.replace('_', '-')} {value}: expected a share from 0 to 1.")
        if self.task in REQUESTS and batch_size != 1:
            batches = " Its batches are of points: use --points-per-batch." if self.task == "amg" else ""
            raise OptionError(f"--batch-size {batch_size}: --task {self.task} takes one image at a time.{batches}")

    def setup(self) -> Mapping[str, Any]:
        """The fields of a ladder's setup that are SAM's; reads the folders and the checkpoint: bad files end here."""
        if self._checkpoint is not None and not self.weights:
            self.model(torch.device("cpu"))
        self.weights = self.weights or self._weights_of()
        given = self.images is not None or self.coco is not None
        return {
            "task": self.task,
            "images": self.source,
            "num_images": len(self.scenes(self.count or 1)) if given else self.count,
            "points_per_side": self.points_per_side,
            "points_per_batch": self.points_per_batch,
            "multimask": self.multimask,
            "annotated": self.annotated,
            "crowds": self.crowds,
            **self._thresholds,
        }

    @property
    def _thresholds(self) -> dict[str, float]:
        """Those that were given."""
        given = {name: getattr(self, name) for name in ("pred_iou_thresh", "stability_score_thresh")}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def source(self) -> str:
        """Where the images come from."""
        return self.coco or self.images or f"generated:{self.seed}"

    @property
    def _checkpoint(self) -> Path | None:
        return None if self.checkpoint is None else Path(self.checkpoint)

    # What follows is SAM's own; another model behind the same protocol has its own of each.

    def _check_model(self) -> None:
        check_model(self._published)

    @property
    def _published(self) -> str:
        """The name of the model that is loaded."""
        return self.name

    @property
    def _seed(self) -> int | None:
        return None if shipped_checkpoint(self._published) else self.seed  # which is then that of the scenes alone

    def _weights_of(self) -> str:
        return weights_of(self._published, self._checkpoint, self._seed)

    def model(self, device: torch.device) -> Any:
        """The published model."""
        loaded = load_model(self._published, checkpoint=self._checkpoint, seed=self._seed, device=device)
        self.weights = loaded.weights
        sam = resized(loaded.model, self.side) if self.side else loaded.model
        self.image_size = int(sam.image_encoder.img_size)
        return sam

    def _prepared(self, sam: Any, scenes: Sequence[Scene], *, pin: bool = False) -> Batch:
        return prepare_batch(sam, scenes, self.choice, pin=pin)

    def _forward(self, sam: Any) -> torch.nn.Module:
        return SamForward(sam)

    def _generator(self, sam: Any, how: Mapping[str, bool], options: Mapping[str, Any]) -> Any:
        if self.task != "amg" and not how.get("ours"):
            return PublishedPredictor(sam)
        if how.get("ours"):
            return MaskGenerator(SamSegmenter(sam, on_device=bool(how.get("on_device"))), **options)
        from segment_anything import SamAutomaticMaskGenerator

        return SamAutomaticMaskGenerator(sam, **options)

    def dtype(self, model: Any) -> torch.dtype:
        """That of the image encoder."""
        return encoder_dtype(model)

    def layers(self, program: Any) -> tuple[Select | None, Label | None]:
        """The layers people talk about; windowed and global blocks apart."""
        return is_timed, block_label(program)

    def _applicable(self, rows: Sequence[LadderRow]) -> tuple[LadderRow, ...]:
        """Those rows without the optimizations that the task has not, each combination once."""
        found: dict[tuple[str, ...], LadderRow] = {}
        for row in rows:
            names = tuple(name for name in row.optimizations if name in self.optimizations)
            found.setdefault(names, replace(row, optimizations=names))
        return tuple(found.values())

    # The rest is any of them.

    def ladder(self, device: torch.device) -> tuple[LadderRow, ...]:
        """On a CPU a short one."""
        is_request, on_gpu = self.task in REQUESTS, device.type == "cuda"
        rows = self.ladders[is_request][on_gpu]
        return self._applicable(rows) if is_request else rows

    def scenes(self, count: int) -> Sequence[Scene]:
        """At most `count` images; generated ones are as wide as the model's input and three quarters as high.

        Drawing takes a while: a ladder's rows read what the first of them has drawn.
        """
        if self.images is not None:
            return load_images(Path(self.images), limit=count)
        if self.coco is not None:
            return load_coco(Path(self.coco), limit=count, annotated=self.annotated, crowds=self.crowds)
        kept = None if self.scratch is None else self.scratch / _KEPT
        if kept is not None and kept.is_file():
            return read_scenes(kept)
        made = generate_scenes(count, height=self.image_size * 3 // 4, width=self.image_size, seed=self.seed)
        if kept is not None:
            write_scenes(kept, made)
        return made

    def batches(self, size: int, device: torch.device) -> Sequence[Any]:
        """The images in batches, the first ones again to fill the last; a request is a batch of its own."""
        given = self.images is not None or self.coco is not None
        scenes = self.scenes(self.count or (size * DISTINCT if given else size))
        if self.task in REQUESTS:
            return [(scene.image, self._points(scene)) for scene in scenes[:DISTINCT]]
        endless = itertools.cycle(scenes)
        count = min(-(-len(scenes) // size), DISTINCT)
        return [self._prepare(list(itertools.islice(endless, size)), device) for _ in range(count)]

    def batch(self, size: int, device: torch.device) -> Any:
        """The first image, `size` times: what differs between sizes is then not the number of prompts."""
        return self._prepare(list(self.scenes(1)[:1]) * size, device)

    def _prepare(self, scenes: Sequence[Scene], device: torch.device) -> Any:
        return self._prepared(self._model_at_hand(), scenes, pin=device.type == "cuda")

    def _model_at_hand(self) -> Any:
        sam = self._sam()
        assert sam is not None, "assemble first"
        return sam

    def transfer(self, batch: Any, device: torch.device) -> Any:
        """Images and prompts on the device; a request is copied inside."""
        return batch if self.task in REQUESTS else move_batch(batch, device)

    def assemble(self, model: Any) -> Any:
        """The published forward, or the mask generator, of the optimized model."""
        self._sam = weakref.ref(model)  # so that its memory is free once the bench is gone
        if self.task not in REQUESTS:
            return self._forward(model)
        how = generating(model)
        batch = self.points_per_side**2 if how.get("all_points") else self.points_per_batch
        options = {"points_per_side": self.points_per_side, "points_per_batch": batch, "output_mode": "coco_rle"}
        return self._generator(model, how, {**options, **self._thresholds})

    def step(self, model: Any, batch: Any) -> Any:
        """One Prediction an image; of a request packed masks, as a user waits for them."""
        if self.task not in REQUESTS:
            return model(batch)
        image, points = batch
        return model.generate(image) if self.task == "amg" else model.segment(image, points)

    def _points(self, scene: Scene) -> Points:
        """What a request asks for, float64[N, 2]: a point on each object, or one on the largest."""
        points = np.asarray(make_prompts(scene, self.choice).points, dtype=np.float64)
        return points if self.task == "multi-point" else points[_largest(scene)]

    def facts(self) -> Mapping[str, object]:
        """Where the images came from, and what was asked of them."""
        return {**super().facts(), "images": self.source, "prompts": self.task or self.prompts}

    def components(self, _program: Any) -> Mapping[str, str]:
        """The four parts of the forward."""
        return COMPONENTS

    def at_image_size(self, side: int) -> SamWorkload:
        """The same model for images of `side` pixels."""
        return replace(self, side=side)

    def finish(self, batch: Any, output: Any, folder: Path) -> list[str]:
        """masks.json of a batch, when pycocotools is there.

        Random weights make noise, which run-length encoding cannot pack: then only the first image is encoded.
        """
        notes = []
        if any(self.choice.falls_back(scene) for scene in batch.scenes):
            side = self.choice.grid
            notes.append(f"prompts: no object masks are known for the images, a grid of {side} x {side} points instead")
        noise = self.weights.startswith("random")
        images = 1 if noise else len(batch.scenes)
        try:
            agreement = write_masks(folder / MASKS, batch.scenes[:images], output[:images], self.choice)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "pycocotools":
                raise
            return [*notes, "masks: not written, pycocotools is not installed"]
        if noise:
            notes.append("masks: those of the first image only; the weights are random, so the masks are noise")
        elif agreement is not None:
            few = too_few_masks(sum(len(prediction.iou) for prediction in output[:images]), images)
            said = f" ({few})" if few else ""
            notes.append(f"masks: mean IoU {agreement:.4f} with the true masks of the first batch{said}")
        return notes

    def answer(self, bench: Bench, row: RowResult, folder: Path) -> RowResult:
        """Segment every image once more for masks.json; the baseline keeps the first images as pictures."""
        scenes = self.scenes(self.count or bench.size)
        images = list(self._masks(bench, scenes))
        write_masks_file(folder / MASKS, images)
        if row.technique == BASELINE:
            from PIL import Image

            target = folder.parent.parent / SAMPLES
            target.mkdir(exist_ok=True)
            for number, scene in enumerate(itertools.islice(scenes, _SAMPLE_IMAGES)):
                Image.fromarray(scene.image).save(target / f"{number}.jpg", quality=88)
        return replace(row, masks=sum(len(image.counts) for image in images), truth=against_truth(images))

    def _masks(self, bench: Bench, scenes: Sequence[Scene]) -> Iterator[ImageMasks]:
        if self.task in REQUESTS:
            for scene in scenes:
                found = bench.run((scene.image, self._points(scene)))
                rles, scores = ([mask[key] for mask in found] for key in ("segmentation", "predicted_iou"))
                objects = _largest(scene) if self.task == "single-point" else slice(None)
                true, areas, names = encode(scene.masks[objects]), scene.areas[objects], scene.categories[objects]
                known: dict[str, Any] = {"paired": self.task != "amg", "true_areas": areas, "categories": names}
                yield image_masks(scene.name, scene.size, rles, scores, true, **known)
            return
        for start in range(0, len(scenes), bench.size):
            chunk = [scenes[at] for at in range(start, min(start + bench.size, len(scenes)))]
            full = list(itertools.islice(itertools.cycle(chunk), bench.size))  # the shape the model was compiled for
            prepared = self._prepared(self._model_at_hand(), full)
            predictions = bench.run(move_batch(prepared, bench.device))
            for scene, prediction in zip(chunk, predictions, strict=False):
                best, scores = prediction.best()
                true = [] if self.choice.falls_back(scene) else encode(scene.masks)
                known = {"paired": True, "true_areas": scene.areas, "categories": scene.categories}
                yield image_masks(scene.name, scene.size, encode(best), scores.tolist(), true, **known)

    def compare(self, row: RowResult, folder: Path, baseline: Path) -> RowResult:
        """The row with its masks compared with the baseline's, where both are there."""
        mine, base = folder / MASKS, baseline / MASKS
        if row.agreement is not None and not mine.is_file():  # compared before, and resumed without its masks
            return row
        if not (base.is_file() and mine.is_file()):
            return replace(row, notes=(*row.notes, "masks: no masks of the baseline to compare with"))
        found = against_baseline(read_masks_file(mine), read_masks_file(base), paired=self.task != "amg")
        return replace(row, agreement=found)


def _largest(scene: Scene) -> slice:
    """Which object is the largest; of a photograph, where none is known, the first."""
    at = int(scene.masks.sum((1, 2)).argmax()) if len(scene.masks) else 0
    return slice(at, at + 1)


def write_scenes(path: Path, scenes: Sequence[Scene]) -> None:
    """Images and packed masks as arrays, named by number and scene."""
    arrays: dict[str, Any] = {}
    for number, scene in enumerate(scenes):
        arrays[f"image {number} {scene.name}"] = scene.image
        arrays[f"masks {number} {scene.name}"] = np.packbits(scene.masks, axis=-1)
    with whole_file(path) as temporary:
        np.savez(temporary, **arrays)


def read_scenes(path: Path) -> tuple[Scene, ...]:
    """What `write_scenes` wrote."""
    scenes = []
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            kind, _, name = key.partition(" ")
            if kind == "image":
                image = arrays[key]
                masks = np.unpackbits(arrays[f"masks {name}"], axis=-1, count=image.shape[1]).astype(np.bool_)
                scenes.append(Scene(image, masks, name.partition(" ")[2]))
    return tuple(scenes)


def resized(sam: Sam, side: int) -> Sam:
    """Change the model, in place, to take images of `side` pixels, as segment-anything's own code allows.

    The position embedding is resampled (bilinear), and so are the relative positions of global attention, as
    segment-anything's get_rel_pos does when it meets another grid. Windows stay as they are.
    """
    encoder, prompts = sam.image_encoder, sam.prompt_encoder
    grid = side // _PATCH
    position = encoder.pos_embed.detach().permute(0, 3, 1, 2)
    position = F.interpolate(position.float(), (grid, grid), mode="bilinear", antialias=True, align_corners=False)
    encoder.pos_embed = torch.nn.Parameter(
        position.permute(0, 2, 3, 1).to(encoder.pos_embed.dtype), requires_grad=False
    )
    for block in encoder.blocks:
        if block.window_size == 0:  # resampled here rather than at every forward, and where rewrites can see it
            for name in ("rel_pos_h", "rel_pos_w"):
                values = getattr(block.attn, name).detach()
                spread = F.interpolate(values.T[None].float(), 2 * grid - 1, mode="linear")[0].T.to(values.dtype)
                setattr(block.attn, name, torch.nn.Parameter(spread.contiguous(), requires_grad=False))
    encoder.img_size = side
    prompts.image_embedding_size = (grid, grid)
    prompts.input_image_size = (side, side)
    return sam
