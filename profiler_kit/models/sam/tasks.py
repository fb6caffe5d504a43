"""What a row of the ladder is asked: points, boxes, or all masks of an image (a SAM and scenes in, masks out)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import torch

from profiler_kit.capture.regions import region
from profiler_kit.errors import OptionError
from profiler_kit.files import whole_file
from profiler_kit.models.sam.accuracy import ImageMasks, encode, image_masks
from profiler_kit.models.sam.coco import load_coco
from profiler_kit.models.sam.prompts import LARGEST_GRID, PromptChoice
from profiler_kit.models.sam.scenes import Scene, generate_scenes, load_images
from profiler_kit.models.sam.workload import SamWorkload, Stopwatch, prepare_batch

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

TASKS: Final = ("points", "boxes", "amg")
PROMPTS: Final = {"points": PromptChoice("centers"), "boxes": PromptChoice("boxes")}
DISTINCT: Final = 4  # batches prepared for the timed iterations, which take them round and round


@dataclass(frozen=True)
class Source:
    """Where images come from: a folder of photographs, a COCO folder, or the generator; at most `count` of them."""

    count: int
    seed: int = 0
    images: str | None = None
    coco: str | None = None

    def scenes(self, image_size: int, kept: Path | None = None) -> Sequence[Scene]:
        """The images; generated ones are as wide as the model's input and three quarters as high.

        kept: a file that generated ones are read from, or written to when it is not there; drawing takes a while.
        """
        if self.images is not None:
            return load_images(Path(self.images), limit=self.count)
        if self.coco is not None:
            return load_coco(Path(self.coco), limit=self.count)
        if kept is not None and kept.is_file():
            return _read_scenes(kept)
        made = generate_scenes(self.count, height=image_size * 3 // 4, width=image_size, seed=self.seed)
        if kept is not None:
            _write_scenes(kept, made)
        return made

    def __str__(self) -> str:
        return self.coco or self.images or f"generated:{self.seed}"


def _write_scenes(path: Path, scenes: Sequence[Scene]) -> None:
    """Images and packed masks as arrays, named by number and scene."""
    arrays: dict[str, Any] = {}
    for number, scene in enumerate(scenes):
        arrays[f"image {number} {scene.name}"] = scene.image
        arrays[f"masks {number} {scene.name}"] = np.packbits(scene.masks, axis=-1)
    with whole_file(path) as temporary:
        np.savez(temporary, **arrays)


def _read_scenes(path: Path) -> tuple[Scene, ...]:
    scenes = []
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            kind, _, name = key.partition(" ")
            if kind == "image":
                image = arrays[key]
                masks = np.unpackbits(arrays[f"masks {name}"], axis=-1, count=image.shape[1]).astype(np.bool_)
                scenes.append(Scene(image, masks, name.partition(" ")[2]))
    return tuple(scenes)


class Task(Protocol):
    """A workload of the ladder: something to run over and over, and the masks it makes of every image."""

    def step(self, number: int) -> object:
        """Run batch `number` (counted round and round)."""

    def timed_step(self, number: int) -> int:
        """Run it and return how long `timed region` took, in nanoseconds."""

    def masks(self, scenes: Sequence[Scene]) -> Iterator[ImageMasks]:
        """The masks of every image, outside all timing."""


def make_task(
    name: str,
    sam: Sam,
    scenes: Sequence[Scene],
    device: torch.device,
    *,
    batch_size: int,
    points_per_side: int,
    points_per_batch: int,
) -> Task:
    """The task of that name, ready to run."""
    if name == "amg":
        return GenerateTask(sam, scenes, device, points_per_side=points_per_side, points_per_batch=points_per_batch)
    return PromptTask(sam, scenes, device, PROMPTS[name], batch_size)


def check_task(name: str, points_per_side: int, points_per_batch: int) -> None:
    """Raises OptionError for a task that is not known or points outside 1 to LARGEST_GRID a side."""
    if name not in TASKS:
        raise OptionError(f"--task {name}: not known, want one of {', '.join(TASKS)}.")
    if not 1 <= points_per_side <= LARGEST_GRID:
        raise OptionError(f"--points-per-side {points_per_side}: want 1 to {LARGEST_GRID}.")
    if not 1 <= points_per_batch <= LARGEST_GRID**2:
        raise OptionError(f"--points-per-batch {points_per_batch}: want 1 to {LARGEST_GRID**2}.")


class PromptTask:
    """One prompt an object, what SamPredictor.predict_torch computes for it: batches of images through SamForward."""

    def __init__(
        self, sam: Sam, scenes: Sequence[Scene], device: torch.device, choice: PromptChoice, batch_size: int
    ) -> None:
        self._sam, self._choice, self._size = sam, choice, batch_size
        self._pin = device.type == "cuda"
        count = min(-(-len(scenes) // batch_size), DISTINCT)
        endless = islice(cycle(range(len(scenes))), count * batch_size)
        first = [scenes[number] for number in endless]
        chunks = [first[start : start + batch_size] for start in range(0, len(first), batch_size)]
        batches = [prepare_batch(sam, chunk, choice, pin=self._pin) for chunk in chunks]
        self.workload = SamWorkload(sam, batches, device)

    def step(self, number: int) -> object:
        return self.workload.step(number)

    def timed_step(self, number: int) -> int:
        return self.workload.timed_step(number)

    def masks(self, scenes: Sequence[Scene]) -> Iterator[ImageMasks]:
        for start in range(0, len(scenes), self._size):
            chunk = [scenes[at] for at in range(start, min(start + self._size, len(scenes)))]
            full = list(islice(cycle(chunk), self._size))  # the shape the model was compiled for
            one = SamWorkload(self._sam, [prepare_batch(self._sam, full, self._choice)], self.workload.device)
            for scene, prediction in zip(chunk, one.step(0), strict=False):
                best, scores = prediction.best()
                asked = not self._choice.falls_back(scene)
                true = encode(scene.masks) if asked else []
                yield image_masks(scene.name, scene.size, encode(best), scores.tolist(), true, paired=True)


class GenerateTask:
    """All masks of one image with segment-anything's SamAutomaticMaskGenerator, one image at a time.

    The timed region is a whole `generate` call: what a user waits for, resizing, copies and non-maximum suppression
    included.
    """

    def __init__(
        self, sam: Sam, scenes: Sequence[Scene], device: torch.device, *, points_per_side: int, points_per_batch: int
    ) -> None:
        from segment_anything import SamAutomaticMaskGenerator

        self._device = device
        self._images = [scenes[number].image for number in range(min(len(scenes), DISTINCT))]
        self._generator = SamAutomaticMaskGenerator(
            sam, points_per_side=points_per_side, points_per_batch=points_per_batch, output_mode="coco_rle"
        )

    def step(self, number: int) -> object:
        return self._generate(self._images[number % len(self._images)])

    def timed_step(self, number: int) -> int:
        clock = Stopwatch(self._device)
        self.step(number)
        return clock.stop_ns()

    def masks(self, scenes: Sequence[Scene]) -> Iterator[ImageMasks]:
        for scene in scenes:
            found = self._generate(scene.image)
            rles = [mask["segmentation"] for mask in found]
            scores = [mask["predicted_iou"] for mask in found]
            yield image_masks(scene.name, scene.size, rles, scores, encode(scene.masks), paired=False)

    def _generate(self, image: Any) -> list[dict[str, Any]]:
        with region("timed region"):
            found: list[dict[str, Any]] = self._generator.generate(image)
        return found
