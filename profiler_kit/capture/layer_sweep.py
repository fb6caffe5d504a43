"""Time every layer of a model at several batch sizes, beside whole forwards without hooks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from profiler_kit.capture.device import Stopwatch, free_memory, is_out_of_memory, no_garbage_collection, synchronize
from profiler_kit.capture.layer_tree import Label, Select
from profiler_kit.capture.layers import layer_timer
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.formats.layer_file import FORWARD_CALLS, LAYER_CALLS, LayerFile
from profiler_kit.progress import Report, Ticks, silent

if TYPE_CHECKING:
    import pandas as pd

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
                f"{option} {text!r}: found {number!r}, expected whole numbers from 1 to {LARGEST_BATCH} separated by "
                "commas. Try 1,2,4,8."
            )
        sizes.add(int(number))
    return tuple(sorted(sizes))


def sweep_layers(
    model: torch.nn.Module,
    step: Callable[[Any], object],
    batch_of: Callable[[int], Any],
    device: torch.device,
    plan: SweepPlan,
    *,
    select: Select | None = None,
    label: Label | None = None,
    report: Report = silent,
) -> LayerFile:
    """Time the layers of `model` while `step(batch)` runs it, at each batch size.

    batch_of(size) gives a batch on the device, outside all timing. select, label: as `layer_timer`'s. Forwards without
    and with hooks take turns, so that a machine which gets slower or faster meanwhile does not pass for the cost of
    hooks. The device is synchronised between forwards and never inside one.

    When a batch size does not fit in memory the sweep ends there: the batch sizes before it are returned, with a
    note. Raises WorkloadError when not even the first one fits.
    """
    import pandas as pd

    calls: list[pd.DataFrame] = []
    forwards: list[pd.DataFrame] = []
    notes: list[str] = []
    ticks = Ticks(report, plan.forwards)

    def measure(size: int) -> None:
        batch = batch_of(size)
        for _ in range(plan.warmup):
            step(batch)
            ticks.tick()
        synchronize(device)
        whole_ns, timers = [], []
        with no_garbage_collection():
            for _ in range(plan.iterations):
                clock = Stopwatch(device)
                step(batch)
                whole_ns.append(clock.stop_ns())
                ticks.tick()
                with layer_timer(model, batch_size=size, label=label, select=select) as timer:
                    step(batch)
                    synchronize(device)
                timers.append(timer)
                ticks.tick()
        frames = [timer.frame().assign(iteration=number) for number, timer in enumerate(timers)]
        calls.append(pd.concat(frames, ignore_index=True))
        whole = {"batch_size": size, "iteration": range(len(whole_ns)), "forward_ns": whole_ns}
        forwards.append(pd.DataFrame(whole).astype("int64"))

    for size in plan.batch_sizes:
        ticks.note = f"layers at batch size {size}"
        try:
            measure(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fitted = ", ".join(str(smaller) for smaller in plan.batch_sizes if smaller < size)
            if not fitted:
                raise WorkloadError(
                    f"layers at batch size {size}: out of memory on {device}. Try a smaller batch size, a smaller "
                    "model or --optimizations bf16."
                ) from error
            notes.append(f"layers: batch size {size} ran out of memory on {device}; measured {fitted}")
            break
    free_memory(device)
    return LayerFile(
        LAYER_CALLS.check(pd.concat(calls, ignore_index=True)),
        FORWARD_CALLS.check(pd.concat(forwards, ignore_index=True)),
        tuple(notes),
    )
