"""Time every layer of a SAM at several batch sizes (a model and scenes in, LAYER_CALLS and FORWARD_CALLS out)."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

import torch

from profiler_kit.capture.layers import layer_timer
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.formats.layer_file import FORWARD_CALLS, LAYER_CALLS, LayerFile
from profiler_kit.models.sam.prompts import PromptChoice
from profiler_kit.models.sam.scenes import Scene
from profiler_kit.models.sam.workload import (
    Batch,
    SamForward,
    Stopwatch,
    move_batch,
    no_garbage_collection,
    prepare_batch,
)
from profiler_kit.progress import Report, silent

if TYPE_CHECKING:
    import pandas as pd
    from segment_anything.modeling import Sam

# The layers people speak of. Deeper ones (qkv, proj, lin1) would double the hooks for little.
_TIMED: Final = re.compile(
    r"\(model\)|prompt_encoder|postprocess"
    r"|image_encoder(\.patch_embed|\.neck|\.blocks\.\d+(\.(norm1|attn|norm2|mlp))?)?"
    r"|mask_decoder(\.(output_upscaling|output_hypernetworks_mlps\.\d+|iou_prediction_head"
    r"|transformer(\.(layers\.\d+|final_attn_token_to_image|norm_final_attn))?))?"
)
_BLOCK: Final = re.compile(r"(image_encoder\.blocks\.\d+)(?:\.attn)?")
LARGEST_BATCH: Final = 1024


@dataclass(frozen=True)
class SweepPlan:
    """What to measure: for each batch size `iterations` forwards with hooks and as many without, after `warmup`."""

    batch_sizes: tuple[int, ...]
    warmup: int = 3
    iterations: int = 10

    @property
    def forwards(self) -> int:
        """How many forwards the whole sweep runs."""
        return len(self.batch_sizes) * (self.warmup + 2 * self.iterations)


def parse_batch_sizes(text: str, *, option: str = "--batch-sizes") -> tuple[int, ...]:
    """Read whole numbers separated by commas; returns them sorted, each once.

    Raises OptionError for anything else, for no number at all, and outside 1 to LARGEST_BATCH.
    """
    sizes = set()
    for part in text.split(","):
        number = part.strip()
        if not (number.isascii() and number.isdigit() and len(number) < 9 and 1 <= int(number) <= LARGEST_BATCH):
            raise OptionError(
                f"{option} {text!r}: found {number!r}, want whole numbers from 1 to {LARGEST_BATCH} separated by "
                "commas. Try 1,2,4,8."
            )
        sizes.add(int(number))
    return tuple(sorted(sizes))


def sweep_layers(
    sam: Sam,
    scenes: Sequence[Scene],
    choice: PromptChoice,
    device: torch.device,
    plan: SweepPlan,
    *,
    report: Report = silent,
) -> LayerFile:
    """Time the layers of `sam` at each batch size; batches take the scenes round and round.

    Forwards without and with hooks take turns, so that a machine which gets slower or faster meanwhile does not
    pass for the cost of hooks. The device is synchronised between forwards and never inside one. Host preparation
    and the copy to the device are outside.

    When a batch size does not fit in memory the sweep ends there: the batch sizes before it are returned, with a
    note. Raises WorkloadError when not even the first one fits.
    """
    import pandas as pd

    calls: list[pd.DataFrame] = []
    forwards: list[pd.DataFrame] = []
    notes: list[str] = []
    ticks = _Ticks(report, plan.forwards)
    for batch_size in plan.batch_sizes:
        ticks.note = f"layers at batch size {batch_size}"
        try:
            scenes_of_batch = list(islice(cycle(scenes), batch_size))
            batch = move_batch(prepare_batch(sam, scenes_of_batch, choice), device)
            found, whole = _measure(sam, batch, device, plan, ticks)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fitted = [size for size in plan.batch_sizes if size < batch_size]
            if not fitted:
                raise WorkloadError(
                    f"layers at batch size {batch_size}: out of memory on {device}. Try a smaller batch size, a "
                    "smaller model (--model vit_b) or --optimizations bf16."
                ) from error
            sizes = ", ".join(str(size) for size in fitted)
            notes.append(f"layers: batch size {batch_size} ran out of memory on {device}; measured {sizes}")
            break
        calls.append(found)
        forwards.append(whole)
    free_memory(device)
    return LayerFile(
        LAYER_CALLS.check(pd.concat(calls, ignore_index=True)),
        FORWARD_CALLS.check(pd.concat(forwards, ignore_index=True)),
        tuple(notes),
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not get memory, on a GPU or on the CPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def free_memory(device: torch.device) -> None:
    """Give what nobody holds any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()


def is_timed(name: str, _module: torch.nn.Module) -> bool:
    """Whether the layer of that path in a SamForward is one to time."""
    return _TIMED.fullmatch(name) is not None


class _Ticks:
    """Counts forwards for a Report."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0
        self.note = ""

    def tick(self) -> None:
        self._done += 1
        self._report(self._done, self._total, self.note)


def _measure(
    sam: Sam, batch: Batch, device: torch.device, plan: SweepPlan, ticks: _Ticks
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """LAYER_CALLS and FORWARD_CALLS of one batch size."""
    import pandas as pd

    forward = SamForward(sam)
    batch_size, label = len(batch.images), block_label(forward)
    for _ in range(plan.warmup):
        forward(batch)
        ticks.tick()
    synchronize(device)
    whole_ns, timers = [], []
    with no_garbage_collection():
        for _ in range(plan.iterations):
            clock = Stopwatch(device)
            forward(batch)
            whole_ns.append(clock.stop_ns())
            ticks.tick()
            with layer_timer(forward, batch_size=batch_size, label=label, select=is_timed) as timer:
                forward(batch)
                synchronize(device)
            timers.append(timer)
            ticks.tick()
    frames = [timer.frame().assign(iteration=number) for number, timer in enumerate(timers)]
    whole = pd.DataFrame({"batch_size": batch_size, "iteration": range(len(whole_ns)), "forward_ns": whole_ns})
    return pd.concat(frames, ignore_index=True), whole.astype("int64")


def synchronize(device: torch.device) -> None:
    """Wait for the device; a CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def block_label(model: torch.nn.Module) -> Callable[[str, torch.nn.Module], str]:
    """A label for `layer_timer`: "window 14" or "global" for the encoder's blocks and their attention, else ""."""
    windows = {name: block.window_size for name, block in model.named_modules() if hasattr(block, "window_size")}

    def label(name: str, _module: torch.nn.Module) -> str:
        block = _BLOCK.fullmatch(name)
        window = windows.get(block[1]) if block else None
        if window is None:
            return ""
        return f"window {window}" if window else "global"

    return label
