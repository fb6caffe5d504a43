"""SAM 2 as a workload: what sets it apart from SAM's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from profiler_kit.capture.layer_tree import Label, Select
from profiler_kit.models.sam.forward import Batch
from profiler_kit.models.sam.generator import MaskGenerator
from profiler_kit.models.sam.scenes import Scene
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.models.sam2.forward import Sam2Forward, block_label, is_timed, prepare_batch
from profiler_kit.models.sam2.models import KIND, Sam2, check_model, load_model, shipped_checkpoint
from profiler_kit.models.sam2.optimizations import (
    ALL_MASKS,
    ALL_MASKS_LADDER,
    CPU_ALL_MASKS_LADDER,
    CPU_LADDER,
    LADDER,
    MODES,
    OPTIMIZATIONS,
    encoder_dtype,
)
from profiler_kit.models.sam2.segmenter import DEFAULTS, Sam2Segmenter


@dataclass(eq=False)
class Sam2Workload(SamWorkload):
    """A SAM 2.1, images and what is asked of them, with the options of SamWorkload.

    Meta's mask generator is not at hand, so that all masks of an image are always made by ours.
    """

    name: str = "sam2_large"

    spec = "profiler_kit.models.sam2.workload:Sam2Workload"
    family = "SAM 2"
    image_step = 32
    optimizations = OPTIMIZATIONS
    all_masks = ALL_MASKS
    modes = MODES
    ladders = ((CPU_LADDER, LADDER), (CPU_ALL_MASKS_LADDER, ALL_MASKS_LADDER))

    def _check_model(self) -> None:
        check_model(self._published)

    @property
    def _seed(self) -> int | None:
        return None if shipped_checkpoint(self._published) else self.seed  # which is then that of the scenes alone

    def _weights_of(self) -> str:
        return KIND.weights(self._checkpoint or shipped_checkpoint(self._published), self._seed)

    def model(self, device: torch.device) -> Sam2:
        """transformers' model."""
        name, checkpoint = self._published, self._checkpoint
        loaded = load_model(name, checkpoint=checkpoint, seed=self._seed, device=device, side=self.side)
        self.weights, self.image_size = loaded.weights, loaded.model.image_size
        return loaded.model

    def _prepared(self, sam: Any, scenes: Sequence[Scene], *, pin: bool = False) -> Batch:
        return prepare_batch(sam, scenes, self.choice, pin=pin)

    def _forward(self, sam: Any) -> torch.nn.Module:
        return Sam2Forward(sam)

    def _generator(self, sam: Any, how: Mapping[str, bool], options: Mapping[str, Any]) -> Any:
        return MaskGenerator(Sam2Segmenter(sam, on_device=bool(how.get("on_device"))), **{**DEFAULTS, **options})

    def dtype(self, model: Any) -> torch.dtype:
        """That of the image encoder."""
        return encoder_dtype(model)

    def layers(self, program: Any) -> tuple[Select | None, Label | None]:
        """The layers people talk about; windowed and global blocks apart, and those that halve the map."""
        return is_timed, block_label(program)
