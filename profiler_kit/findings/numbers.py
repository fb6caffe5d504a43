"""The handful of numbers that sum up a run, the same wherever a run is shown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Final

from profiler_kit.analyses.gpu.window import span_ns
from profiler_kit.analyses.memory.stats import AT_LEAST
from profiler_kit.findings.time import busy_shares, gpus
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.run import Run
from profiler_kit.snapshot import DeviceRow, Snapshot
from profiler_kit.text import fmt_bound, fmt_bytes, fmt_count, fmt_ns, fmt_percent, fmt_rate
from profiler_kit.units import NS_PER_S

UNRECORDED: Final = (
    "Without the profiler: GPU work in one `{}` of the trace, divided by the median latency, which is measured "
    "without recording."
)
BUSY: Final = (
    "Share of the recorded span in which at least one kernel or copy ran. Recording slows the host, so the GPU "
    "waits more than it otherwise would."
)
EACH_BUSY: Final = "Share of the recorded span in which each GPU ran at least one kernel or copy."
BUSY_NAMES: Final = ("Busy while recorded", "At least one busy")  # of one GPU, of several
TOTAL: Final = "From the start of the first GPU event in the trace to the end of the last, with the profiler on."
HOST_TOTAL: Final = "From the start of the first region or operator in the trace to the end of the last."
LATENCY: Final = "Half of the timed iterations took less. Measured without the profiler, one iteration is one batch."
RATE: Final = "Batch size divided by the median latency."
PEAK: Final = (
    "Highest memory allocated during the timed iterations (torch.cuda.max_memory_allocated): blocks as the allocator "
    "rounds them up."
)
SNAPSHOT_PEAK: Final = "Highest total held by tensors in the memory snapshot, in requested bytes."
AT_END: Final = "Held by tensors when the snapshot was saved, in requested bytes."
MOST: Final = 6


@dataclass(frozen=True)
class Number:
    """One number with its unit, and what it means."""

    name: str
    value: str
    meaning: str


def numbers(run: Run) -> list[Number]:
    """The numbers that sum up a run, the most telling first; empty when the run holds none."""
    shown = _of_trace(run) + _of_record(run.record)
    if run.snapshot is not None and (run.record is None or run.record.peak_bytes is None):
        shown.append(_of_snapshot(run.snapshot))
    if run.trace is not None:
        events = run.trace.summary()["events"]
        shown.append(Number("Events in the trace", fmt_count(events), "Entries of traceEvents in the file."))
    return shown[:MOST]


def _of_trace(run: Run) -> list[Number]:
    trace = run.trace
    if trace is None:
        return []
    if not len(trace.gpu_events()):
        span = span_ns(trace.operators(), trace.region_instances())
        return [Number("Recorded span", fmt_ns(span), HOST_TOTAL)] if span else []
    time, shown = trace.summary()["gpu_timeline"], []
    several = len(gpus(trace)) > 1
    if several:
        shown.append(Number("GPUs busy while recorded", busy_shares(trace), EACH_BUSY))
    elif run.load is not None:
        shown.append(Number("GPU busy", fmt_percent(run.load.busy_share), UNRECORDED.format(run.load.region)))
    shown.append(
        Number(
            BUSY_NAMES[several],
            fmt_percent(time["busy_ns"] / max(1, time["total_ns"])),
            BUSY,
        )
    )
    return [*shown, Number("Recorded span", fmt_ns(time["total_ns"]), TOTAL)]


def _of_record(record: RunRecord | None) -> list[Number]:
    shown: list[Number] = []
    if record is None:
        return shown
    if record.latency_ns:
        median, samples = statistics.median(record.latency_ns), len(record.latency_ns)
        shown.append(Number("Median latency" if samples > 1 else "Latency, one sample", fmt_ns(median), LATENCY))
        if median:
            shown.append(
                Number(f"{record.unit.capitalize()} a second", fmt_rate(record.batch_size * NS_PER_S / median), RATE)
            )
    if record.peak_bytes is not None:
        meaning = SNAPSHOT_PEAK if record.peak_memory_bytes is None else PEAK
        shown.append(Number("Peak memory", fmt_bytes(record.peak_bytes), meaning))
    return shown


def _of_snapshot(snapshot: Snapshot) -> Number:
    rows = snapshot.summary()["devices"]
    peaks = [row["peak_allocated_bytes"] for row in rows if row["history_followed"]]
    if peaks or not rows:
        bound = AT_LEAST if any(row["peak_bound"] for row in rows) else ""
        return Number("Peak memory", fmt_bound(bound, max(peaks, default=0)), SNAPSHOT_PEAK)
    return Number("Memory at the end", fmt_bytes(max(row["end_allocated_bytes"] for row in rows)), AT_END)


def of_device(row: DeviceRow) -> list[Number]:
    """The numbers that sum up the memory of one device."""
    peak, end = fmt_bound(row["peak_bound"], row["peak_allocated_bytes"]), fmt_bytes(row["end_allocated_bytes"])
    highest = Number("Peak requested", peak, SNAPSHOT_PEAK)
    shown = [highest] if row["history_followed"] else []
    held = Number("Requested at the end", end, AT_END)
    events = Number("Events", fmt_count(row["events"]), "Entries of the allocator's history on this device.")
    if row["device_type"] == "cpu":  # its memory comes from the system and goes back: nothing is reserved
        return [*shown, held, events]
    reserved, unused = fmt_bytes(row["reserved_bytes"]), fmt_percent(row["fragmentation"])
    return [
        *shown,
        Number(
            "Reserved at the end",
            reserved,
            "Reserved from the driver when the snapshot was saved; what nvidia-smi shows.",
        ),
        held,
        Number("Unused at the end", unused, "Fragmentation: share of reserved memory in no active block."),
        events,
    ]
