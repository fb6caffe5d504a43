"""A mask generator made ready to serve: a model in a named mode, warmed up at every size of batch it will see."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.models.sam.generator import MaskGenerator, Pixels, Points, Segmenter, Tensor
from profiler_kit.workload.optimizations import optimized, parse_optimizations, unmet
from profiler_kit.workload.protocol import Workload, make_model

DEFAULT_MODE: Final = {"cuda": "furious", "cpu": "baseline"}


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
        for size in self.buckets:
            self.generator.generate_batch([image] * size)


class Bucketed:
    """A segmenter whose encoder sees batches of a few sizes only: a compiled model is made anew for each."""

    def __init__(self, model: Segmenter, buckets: Sequence[int]) -> None:
        self._model, self._buckets = model, buckets
        self.mask_threshold = model.mask_threshold

    def embed(self, images: Sequence[Pixels]) -> Sequence[Any]:
        """The last image again and again to fill a batch; what is made of it is dropped."""
        size = next(size for size in self._buckets if size >= len(images))
        found = self._model.embed([*images, *itertools.repeat(images[-1], size - len(images))])
        return found[: len(images)]

    def decode(self, embedding: Any, points: Points) -> tuple[Tensor, Tensor]:
        """As the model."""
        return self._model.decode(embedding, points)

    def enlarge(self, logits: Tensor, embedding: Any) -> Tensor:
        """As the model."""
        return self._model.enlarge(logits, embedding)


def buckets_up_to(size: int) -> tuple[int, ...]:
    """The powers of two below `size`, and `size`."""
    return (*itertools.takewhile(lambda one: one < size, (1 << at for at in range(size.bit_length()))), size)


def make_service(
    workload: Workload,
    mode: str | None,
    device: torch.device,
    stack: contextlib.ExitStack,
    *,
    batch_size: int,
) -> Service:
    """Load the model, optimized as the mode says; its settings of torch end with the stack.

    Raises OptionError, WorkloadError, CheckpointError.
    """
    mode = mode or DEFAULT_MODE[device.type]
    if mode not in workload.modes:
        raise OptionError(f"--mode {mode}: not known, expected one of {', '.join(workload.modes)}.")
    chosen = parse_optimizations(",".join(workload.modes[mode]), workload.optimizations)
    for one in chosen:
        if (problem := unmet(one, device)) is not None:
            raise WorkloadError(f"--mode {mode}: {one.name}: {problem}. Choose another mode.")
    model = stack.enter_context(optimized(make_model(workload, device), chosen, device))
    found = workload.assemble(model)
    if not isinstance(found, MaskGenerator):
        raise WorkloadError(f"--mode {mode}: {workload.spec} gives no mask generator, expected one to serve.")
    buckets: tuple[int, ...] = (1,)
    if any(one.compiles for one in chosen):
        buckets = buckets_up_to(batch_size)
        found.model = Bucketed(found.model, buckets)
    names = tuple(one.name for one in chosen)
    dtype = str(workload.dtype(model)).removeprefix("torch.")
    return Service(found, device, workload, mode, names, dtype, buckets)
