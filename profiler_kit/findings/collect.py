"""Everything worth saying about a run, a trace or a snapshot, the most important first."""

from __future__ import annotations

from profiler_kit.finding import Finding
from profiler_kit.findings import advice, layers, limits, memory, quality, records, serving, time
from profiler_kit.run import Run
from profiler_kit.snapshot import Snapshot
from profiler_kit.trace import Trace


def findings_of(run: Run) -> list[Finding]:
    """Everything worth saying about a run, the most important first: where the time (else the memory, else the layers)
    went, what is broken, lost or missing, what the GPU waited for, what to try, then memory and layers.
    """
    missing = records.absent(run)  # reads every part: what cannot be read is known from here on
    found = [time.headline(run), *records.problems(run)]
    if run.trace is not None:
        found += quality.losses(run.trace)
    found.append(missing)
    if run.presence is not None and run.presence.ran == "gpu":
        found += [time.why_idle(run), time.bound_by(run)]
        found += [limits.by_category(run.trace), limits.replayed(run.trace)] if run.trace is not None else []
    found += [*serving.of_requests(run), *advice.advice(run)]
    if run.snapshot is not None:
        found += memory.of_snapshot(run.snapshot)
    if run.layers is not None:
        found += layers.of_layers(run.layers, run.record)
    return [one for one in found if one is not None]


def headline(run: Run) -> Finding | None:
    """The one sentence that sums up a run: where the time went, else the memory, else what batching gains."""
    if run.trace is not None:
        return time.headline(run)
    if run.snapshot is not None and (device := memory.fullest(run.snapshot)) is not None:
        return memory.peak(run.snapshot, device)
    return layers.scaling(run.layers.totals) if run.layers is not None else None


def findings_of_trace(trace: Trace) -> list[Finding]:
    """Everything worth saying about a trace by itself."""
    return findings_of(Run.holding(trace.path, trace))


def findings_of_snapshot(snapshot: Snapshot) -> list[Finding]:
    """Everything worth saying about a memory snapshot by itself."""
    return memory.of_snapshot(snapshot)
