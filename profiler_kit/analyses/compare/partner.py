"""Choose the run that another is best compared with: the same model, device and task, as complete, nearest in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from profiler_kit.load.discover.runs import RunFolder

PARTS = ("trace", "memory", "layers")


def device_kind(run: RunFolder) -> str:
    """`cuda`, `cpu`, …; "" where no run.json says it."""
    return run.record.device.partition(":")[0] if run.record is not None else ""


def best_partner(run: RunFolder, others: Sequence[RunFolder], when: Callable[[RunFolder], datetime]) -> RunFolder:
    """The one of `others` that most is the same of. when: when a run was recorded, which decides between equals."""

    def alike(other: RunFolder) -> tuple[float, ...]:
        a, b = run.record, other.record
        task = (False, False, False)
        if a is not None and b is not None:
            sizes = (a.batch_size, a.image_size) == (b.batch_size, b.image_size)
            task = (a.model == b.model, sizes, a.workload.get("spec") == b.workload.get("spec"))
        shared = [part for part in PARTS if getattr(run, part) is not None and getattr(other, part) is not None]
        return (
            other.problem is None and bool(shared),
            device_kind(run) == device_kind(other),
            *task,
            run.requests is not None if other.requests is not None else run.requests is None,
            len(shared),
            -abs((when(run) - when(other)).total_seconds()),
        )

    return max(others, key=alike)
