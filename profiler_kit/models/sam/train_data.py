"""Scenes to train on, made by worker processes while a GPU trains."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import count, product, repeat
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from profiler_kit.models.sam.prompts import mask_box, mask_centre
from profiler_kit.models.sam.scenes import SMALLEST_SIDE, Scene, generate_scenes

if TYPE_CHECKING:
    from multiprocessing.context import DefaultContext, ForkContext
    from multiprocessing.queues import Queue

MOST_OBJECTS: Final = 12
BACKGROUND: Final = -1  # in `owner`: no object is here
PADDING: Final = -2  # in `owner`: outside the image
FIRST_SEED: Final = 1 << 40  # scene n is of seed FIRST_SEED + n: smaller seeds, which users ask for, stay unseen
_OTHER_SIZE: Final = 0.25  # share of scenes drawn at another size and resized, as photographs are


@dataclass(frozen=True, eq=False)
class Sample:
    """A scene in the frame of a model with an input of S x S pixels: resized to it and padded below or to the right, or
    stretched over it.

    image: uint8[S, S, 3], zero outside the image. owner: int8[S, S], the object at each pixel, BACKGROUND or PADDING.
    centres: int16[MOST_OBJECTS, 2], x then y; boxes: int16[MOST_OBJECTS, 4]; as `mask_centre` and `mask_box` say;
    rows beyond `objects` are zero.
    """

    image: npt.NDArray[np.uint8]
    owner: npt.NDArray[np.int8]
    centres: npt.NDArray[np.int16]
    boxes: npt.NDArray[np.int16]
    objects: int


def make_sample(number: int, side: int, *, stretched: bool = False) -> Sample:
    """Scene `number` of the endless training set, as `fit_sample` fits it.

    Landscape, square or portrait; 1 to MOST_OBJECTS objects, most often 8; a quarter of the scenes drawn between
    0.6 and 2 times as large and resized.
    """
    rng = np.random.default_rng([FIRST_SEED, number])
    height, width = [(side * 3 // 4, side), (side, side), (side, side * 3 // 4)][rng.choice(3, p=(0.6, 0.2, 0.2))]
    if rng.random() < _OTHER_SIZE:
        scale = float(np.exp(rng.uniform(np.log(0.6), np.log(2.0))))
        height, width = round(height * scale), round(width * scale)
    objects = 8 if rng.random() < 0.5 else int(rng.integers(1, MOST_OBJECTS + 1))
    (scene,) = generate_scenes(1, height=height, width=width, seed=FIRST_SEED + number, objects=objects)
    return fit_sample(scene, side, stretched=stretched)


def make_mosaic(number: int, side: int, *, stretched: bool = False) -> Sample:
    """Four scenes of seed FIRST_SEED + `number`, half as wide and side by side, as `fit_sample` fits them.

    Up to three objects each, a quarter as large as those of `make_sample`, which has hardly any small ones.
    """
    height, width = max(side * 3 // 8, SMALLEST_SIDE), side // 2
    image = np.zeros((2 * height, 2 * width, 3), dtype=np.uint8)
    masks = []
    scenes = generate_scenes(4, height=height, width=width, seed=FIRST_SEED + number, objects=MOST_OBJECTS // 4)
    for (row, column), scene in zip(product((0, height), (0, width)), scenes, strict=True):
        place = slice(row, row + height), slice(column, column + width)
        image[place] = scene.image
        for mask in scene.masks:
            masks.append(np.zeros(image.shape[:2], dtype=np.bool_))
            masks[-1][place] = mask
    return fit_sample(Scene(image, np.stack(masks), f"mosaic-{number}"), side, stretched=stretched)


def fit_sample(scene: Scene, side: int, *, stretched: bool = False) -> Sample:
    """Resize the image as segment-anything does (the mask by nearest pixel), pad, and note centres and boxes.

    stretched: to a square, as SAM 2 does; nothing is padded.
    """
    from PIL import Image as Pillow

    scale = side / max(scene.size)
    height, width = (side, side) if stretched else (int(length * scale + 0.5) for length in scene.size)
    image, owner = scene.image, np.full(scene.size, BACKGROUND, dtype=np.int8)
    for number, mask in enumerate(scene.masks):
        owner[mask] = number
    if (height, width) != scene.size:
        image = np.asarray(Pillow.fromarray(image).resize((width, height), Pillow.Resampling.BILINEAR))
        rows = ((np.arange(height) + 0.5) / height * scene.size[0]).astype(np.intp)
        columns = ((np.arange(width) + 0.5) / width * scene.size[1]).astype(np.intp)
        owner = owner[rows[:, None], columns]
    kept = [mask for mask in (owner == number for number in range(len(scene.masks))) if mask.any()]
    sample = Sample(
        np.zeros((side, side, 3), dtype=np.uint8),
        np.full((side, side), PADDING, dtype=np.int8),
        np.zeros((MOST_OBJECTS, 2), dtype=np.int16),
        np.zeros((MOST_OBJECTS, 4), dtype=np.int16),
        len(kept),
    )
    sample.image[:height, :width] = image
    sample.owner[:height, :width] = BACKGROUND
    for number, mask in enumerate(kept):
        sample.owner[:height, :width][mask] = number
        sample.centres[number], sample.boxes[number] = mask_centre(mask), mask_box(mask)
    return sample


@contextlib.contextmanager
def scene_feed(side: int, workers: int, *, stretched: bool = False) -> Iterator[Queue[Sample]]:
    """Start processes that make samples without end and give the queue they fill; they are ended with the block.

    Enter it before CUDA is touched: where the system can fork, the workers are forks.
    """
    context = process_context()
    samples: Queue[Sample] = context.Queue(maxsize=8 * workers)
    processes = [
        context.Process(target=_fill, args=(samples, side, stretched, first, workers), daemon=True)
        for first in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        yield samples
    finally:
        for process in processes:
            process.terminate()
        samples.close()
        samples.cancel_join_thread()
        for process in processes:
            process.join()


def unseen_scenes(side: int, count: int, workers: int) -> dict[str, list[Scene]]:
    """Scenes to evaluate on, by shape: `count` as `profiler-kit capture` makes them for a model of `side` pixels, and
    a quarter as many square, portrait and twice as large. Scene i of each is of seed i. Enter as `scene_feed`.
    """
    shapes = {
        "landscape": (side * 3 // 4, side, count),
        "square": (side, side, -(-count // 4)),
        "portrait": (side, side * 3 // 4, -(-count // 4)),
        "twice as large": (side * 3 // 2, side * 2, -(-count // 4)),
    }
    with ProcessPoolExecutor(workers, mp_context=process_context()) as pool:
        return {
            shape: list(pool.map(_unseen, repeat(height), repeat(width), range(number)))
            for shape, (height, width, number) in shapes.items()
        }


def waiting(samples: Queue[Sample], most: int) -> list[Sample]:
    """At most `most` of the samples that are ready now; waits for none."""
    ready: list[Sample] = []
    with contextlib.suppress(queue.Empty):
        while len(ready) < most:
            ready.append(samples.get_nowait())
    return ready


def default_workers() -> int:
    """One process for each core but one."""
    return max((os.cpu_count() or 2) - 1, 1)


def _unseen(height: int, width: int, seed: int) -> Scene:
    return generate_scenes(1, height=height, width=width, seed=seed)[0]


def process_context() -> DefaultContext | ForkContext:
    forks = "fork" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("fork") if forks else multiprocessing.get_context()


def _fill(samples: Queue[Sample], side: int, stretched: bool, first: int, step: int) -> None:
    os.nice(5)  # the process that feeds the GPU comes first
    for number in count(first, step):
        samples.put(make_sample(number, side, stretched=stretched))
