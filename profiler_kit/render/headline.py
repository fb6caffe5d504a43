"""The handful of numbers and sentences that sum up a run (Run -> text), the same wherever a run is shown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final, cast

from profiler_kit.analyses.gpu.gpu_presence import Presence
from profiler_kit.analyses.gpu.window import operator_sums, span_ns
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.render.verdict import gpu_verdict, host_verdict
from profiler_kit.run import Run
from profiler_kit.snapshot import Snapshot
from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns, fmt_percent, fmt_rate
from profiler_kit.trace import Quality, Trace
from profiler_kit.units import NS_PER_S

Pieces = list[tuple[str, bool]]
UNRECORDED: Final = (
    "Without the profiler: GPU work in one `{}` of the trace, divided by the median latency, which is measured "
    "without recording."
)
BUSY: Final = (
    "Share of the recorded span in which at least one kernel or copy ran. Recording slows the host, so that the GPU "
    "waits more than it does otherwise."
)
TOTAL: Final = "From the start of the first GPU event in the trace to the end of the last, with the profiler on."
HOST_TOTAL: Final = "From the start of the first region or operator in the trace to the end of the last."
LATENCY: Final = "Half of the timed iterations took less. Measured without the profiler, one iteration is one batch."
RATE: Final = "Batch size divided by the median latency."
PEAK: Final = (
    "Highest memory allocated during the timed iterations (torch.cuda.max_memory_allocated): blocks as the allocator "
    "rounds them up."
)
SNAPSHOT_PEAK: Final = "Highest total held by tensors in the memory snapshot, in bytes they asked for."
_MOST: Final = 6


@dataclass(frozen=True)
class Number:
    """One number with its unit, and what it means."""

    name: str
    value: str
    meaning: str


def numbers(run: Run) -> list[Number]:
    """The numbers that sum up a run, the most telling first; empty when the run holds none."""
    shown = _trace_numbers(run) + _record_numbers(run.record)
    if run.snapshot is not None and (run.record is None or run.record.peak_memory_bytes is None):
        shown += [Number("Peak memory", fmt_bytes(peak_bytes(run.snapshot)), SNAPSHOT_PEAK)]
    if run.trace is not None:
        events = run.trace.summary()["events"]
        shown.append(Number("Events in the trace", fmt_count(events), "Entries of traceEvents in the file."))
    return shown[:_MOST]


def _trace_numbers(run: Run) -> list[Number]:
    trace = run.trace
    if trace is None:
        return []
    if not len(trace.gpu_events()):
        return [Number("Recorded span", fmt_ns(span_ns(trace.operators(), trace.region_instances())), HOST_TOTAL)]
    time, shown = trace.summary()["gpu_timeline"], []
    if run.load is not None:
        shown.append(Number("GPU busy", fmt_percent(run.load.busy_share), UNRECORDED.format(run.load.region)))
    shown.append(Number("Busy while recorded", fmt_percent(time["busy_ns"] / max(1, time["total_ns"])), BUSY))
    shown.append(Number("Recorded span", fmt_ns(time["total_ns"]), TOTAL))
    return shown


def _record_numbers(record: RunRecord | None) -> list[Number]:
    shown: list[Number] = []
    if record is None:
        return shown
    if record.latency_ns:
        median, samples = statistics.median(record.latency_ns), len(record.latency_ns)
        shown.append(Number("Median latency" if samples > 1 else "Latency, one sample", fmt_ns(median), LATENCY))
        if median:
            shown.append(Number("Images a second", fmt_rate(record.batch_size * NS_PER_S / median), RATE))
    if record.peak_memory_bytes is not None:
        shown.append(Number("Peak memory", fmt_bytes(record.peak_memory_bytes), PEAK))
    return shown


def peak_bytes(snapshot: Snapshot) -> int:
    """The highest allocated total of any device."""
    return max((row["peak_allocated_bytes"] for row in snapshot.summary()["devices"]), default=0)


def said(run: Run) -> Pieces:
    """The sentence that answers where the time went, or else the memory; True marks what to set in bold."""
    trace, presence = run.trace, run.presence
    if trace is not None and presence is not None:
        if presence.ran == "gpu":
            return gpu_verdict(cast("dict[str, int]", trace.summary()["gpu_timeline"]), trace.regions(), run.load)
        return host_verdict(trace.regions(), operator_sums(trace.operators()), presence)
    if run.snapshot is not None:
        return peak_said(run.snapshot, _fullest(run.snapshot))
    return scaling_said(run) if run.layers is not None else []


def _fullest(snapshot: Snapshot) -> int:
    rows = snapshot.summary()["devices"]
    return max(rows, key=lambda row: row["peak_allocated_bytes"])["device"] if rows else 0


def peak_said(snapshot: Snapshot, device: int) -> Pieces:
    """When and where the peak of one device was."""
    if device not in snapshot.devices:
        return [("The snapshot holds no device.", False)]
    row = snapshot.summary(device)["devices"][0]
    inside = snapshot.peak_region(device)
    text: Pieces = [("At its peak ", False), (fmt_bytes(row["peak_allocated_bytes"]), True), (" were allocated", False)]
    text += [(", inside ", False), (inside[-1], True)] if inside else []
    return [*text, (".", False)]


def scaling_said(run: Run) -> Pieces:
    """What the whole model gains from batching; empty when it was timed at one batch size."""
    if run.layers is None:
        return []
    totals = run.layers.totals
    top = totals[totals["depth"] == 0].sort_values("batch_size")
    if top["layer"].nunique() != 1 or len(top) < 2:
        return []
    first, last = top.iloc[0], top.iloc[-1]
    return [
        (f"From batch {first['batch_size']} to {last['batch_size']} an image goes from ", False),
        (fmt_ns(first["per_image_ns"]), True),
        (" to ", False),
        (fmt_ns(last["per_image_ns"]), True),
        (f" ({last['efficiency']:.2f} times as fast).", False),
    ]


def what_ran(record: RunRecord | None) -> str:
    """The run in one line: model, optimizations, number format, batch, device, torch."""
    if record is None:
        return "No run.json beside it: what ran is not known, only what was recorded."
    device = record.device_name if record.device_name == record.device else f"{record.device_name} ({record.device})"
    facts = [record.model, *(record.optimizations or ("no optimizations",)), record.dtype]
    facts += [f"batch {record.batch_size}", f"{record.image_size} px", device]
    facts += [f"torch {record.versions['torch']}"] if "torch" in record.versions else []
    return " · ".join(facts)


def losses(trace: Trace, presence: Presence) -> list[str]:
    """What of the trace was lost or cannot be told, one sentence each; empty when nothing was."""
    found = trace.quality
    lost = _lost(found, presence)
    out = ["This trace is not whole: " + "; ".join(lost) + "."] if lost else []
    if found.unlinked_gpu_events:
        out.append(
            f"{fmt_count(found.unlinked_gpu_events)} GPU events have no launch in the trace (started before "
            "recording); they count as (unlinked)."
        )
    return out


def _lost(found: Quality, presence: Presence) -> list[str]:
    lost = []
    if found.truncated:
        lost.append("the file is cut off, everything up to its last whole event is shown")
        if presence.ran == "gpu" and presence.unanswered:
            lost.append(
                f"{fmt_count(presence.unanswered)} of {fmt_count(presence.launches)} calls that launch GPU work have "
                "no GPU event"
            )
    if found.repaired_events:
        lost.append(f"{fmt_count(found.repaired_events)} events were repaired")
    if found.dropped_events:
        lost.append(f"{fmt_count(found.dropped_events)} events could not be read")
    return lost
