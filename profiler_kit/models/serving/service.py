"""A mask generator made ready to serve: a model in a named mode, warmed up at every size of batch it will see."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import torch
import torch._dynamo

from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.models.sam.compiled import PackagedEncoder
from profiler_kit.models.sam.generator import MaskGenerator, Pixels, Points, Segmenter, Tensor
from profiler_kit.workload.optimizations import Graphed, Optimization, optimized, parse_optimizations, unmet
from profiler_kit.workload.protocol import Workload, make_model

DEFAULT_MODE: Final = {"cuda": "furious", "cpu": "baseline"}
_MOST_GRAPHS: Final = 64
POINTS: Final = (1, 8, 64)  # how many are decoded at once, beside the grid's batches
COMPILE_ENCODER: Final = ("compile", "compile_max", "compile_graphs", "aoti")
Packages = Mapping[torch.Size, Callable[[Tensor], Any]]  # by the shape of the images


@dataclass(frozen=True)
class Service:
    """What a server runs and says of itself."""

    generator: MaskGenerator
    device: torch.device
    workload: Workload
    mode: str
    optimizations: tuple[str, ...]
    dtype: str
    buckets: tuple[int, ...]

    def prepare(self) -> None:
        """Run every size of batch once, so that no request waits for a compiler."""
        side = self.workload.image_size or 256
        image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        # blocks share their code, so that torch counts the graphs of all sizes and kinds of block together
        with torch._dynamo.config.patch(recompile_limit=_MOST_GRAPHS):
            for size in self.buckets:
                self.generator.generate_batch([image] * size)
            if isinstance(self.generator.model, Bucketed):
                for count in self.generator.model.points:
                    self.generator.segment(image, np.zeros((count, 2)))


class Bucketed:
    """A segmenter that sees images and points in batches of a few sizes only: a compiled model is made anew for each.

    points: those sizes; the largest is that of the grid's batches.
    """

    def __init__(self, model: Segmenter, buckets: Sequence[int], grid: int) -> None:
        self._model, self._buckets = model, buckets
        self.points = (*(size for size in POINTS if size < grid), grid)
        self.mask_threshold = model.mask_threshold

    def embed(self, images: Sequence[Pixels]) -> Sequence[Any]:
        """The last image again and again to fill a batch; what is made of it is dropped."""
        size = next(size for size in self._buckets if size >= len(images))
        found = self._model.embed([*images, *itertools.repeat(images[-1], size - len(images))])
        return found[: len(images)]

    def decode(self, embedding: Any, points: Points) -> tuple[Tensor, Tensor]:
        """The last point again and again likewise."""
        count = len(points)
        size = next(size for size in self.points if size >= count)
        logits, iou = self._model.decode(embedding, np.concatenate([points, points[-1:].repeat(size - count, axis=0)]))
        return logits[:count], iou[:count]

    def enlarge(self, logits: Tensor, embedding: Any) -> Tensor:
        """As the model."""
        return self._model.enlarge(logits, embedding)


def buckets_up_to(size: int) -> tuple[int, ...]:
    """The powers of two below `size`, and `size`."""
    return (*itertools.takewhile(lambda one: one < size, (1 << at for at in range(size.bit_length()))), size)


def mode_of(workload: Workload, mode: str | None, device: torch.device) -> tuple[str, tuple[Optimization, ...]]:
    """The mode, the device's own if None, and its optimizations; raises OptionError, WorkloadError."""
    mode = mode or DEFAULT_MODE[device.type]
    if mode not in workload.modes:
        raise OptionError(f"--mode {mode}: not known, expected one of {', '.join(workload.modes)}.")
    chosen = parse_optimizations(",".join(workload.modes[mode]), workload.optimizations)
    for one in chosen:
        if (problem := unmet(one, device)) is not None:
            raise WorkloadError(f"--mode {mode}: {one.name}: {problem}. Choose another mode.")
    return mode, chosen


def make_service(
    workload: Workload,
    mode: str | None,
    device: torch.device,
    stack: contextlib.ExitStack,
    *,
    batch_size: int,
    packages: Callable[[], Packages] | None = None,
) -> Service:
    """Load the model, optimized as the mode says; its settings of torch end with the stack.

    packages: loads what runs in place of an encoder that would be compiled. Raises OptionError, WorkloadError,
    CheckpointError.
    """
    mode, chosen = mode_of(workload, mode, device)
    ours = [one for one in chosen if packages is None or one.name not in COMPILE_ENCODER]
    model = stack.enter_context(optimized(make_model(workload, device), ours, device))
    if packages is not None:
        packaged = PackagedEncoder(model.image_encoder, packages())
        graphs = any(one.name == "compile_graphs" for one in chosen)
        model.image_encoder = Graphed(packaged) if graphs else packaged
    found = workload.assemble(model)
    if not isinstance(found, MaskGenerator):
        raise WorkloadError(f"--mode {mode}: {workload.spec} gives no mask generator, expected one to serve.")
    found.options = replace(found.options, output_mode="uncompressed_rle")
    buckets: tuple[int, ...] = (1,)
    if packages is not None or any(one.compiles for one in chosen):
        buckets = buckets_up_to(batch_size)
        found.model = Bucketed(found.model, buckets, found.options.points_per_batch)
    names = tuple(one.name for one in chosen)
    dtype = str(workload.dtype(model)).removeprefix("torch.")
    return Service(found, device, workload, mode, names, dtype, buckets)
