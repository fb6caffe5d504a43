"""Choose the run that another is best compared with: of the same model, device kind and task, as complete, nearest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from profiler_kit.load.discover.runs import RunFolder

PARTS = ("trace", "memory", "layers")


def device_kind(run: RunFolder) -> str:
    """`cuda`, `cpu`, …; "" where no run.json says it."""
    return run.record.device.partition(":")[0] if run.record is not None else ""


def best_partner(
    run: RunFolder, others: Sequence[RunFolder], when: Callable[[RunFolder], datetime]
) -> RunFolder | None:
    """The one of `others` of which most is the same; None where none is known to be of the same model, device kind and
    task: only run.json tells.

    when: when a run was recorded, which decides between equals.
    """
    mine = _task(run)

    def shared(other: RunFolder) -> int:
        return sum(getattr(run, part) is not None and getattr(other, part) is not None for part in PARTS)

    def alike(other: RunFolder) -> tuple[float, ...]:
        a, b = run.record, other.record
        assert a is not None and b is not None
        same_size = (a.batch_size, a.image_size) == (b.batch_size, b.image_size)
        return same_size, shared(other), -abs((when(run) - when(other)).total_seconds())

    related = [other for other in others if mine is not None and _task(other) == mine and shared(other)]
    return max(related, key=alike, default=None)


def _task(run: RunFolder) -> tuple[object, ...] | None:
    """Model, kind of device, what ran, and whether it was served; None where no run.json says it."""
    if run.record is None:
        return None
    return run.record.model, device_kind(run), run.record.workload.get("spec"), run.requests is not None
