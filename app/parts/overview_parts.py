"""The parts of the overview: what ran, where the time went, and how far the file can be trusted."""

from __future__ import annotations

import statistics

import streamlit as st

from app.parts import loading_parts, widgets
from profiler_kit.analyses.gpu.batch_load import BatchLoad, batch_load
from profiler_kit.analyses.gpu.gpu_presence import Presence, what_ran
from profiler_kit.analyses.gpu.window import name_sums, operator_sums, span_ns
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render import bars, tables
from profiler_kit.render.figures import regions as figures
from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns, fmt_percent, fmt_rate
from profiler_kit.trace import Trace
from profiler_kit.units import NS_PER_S


def record_hint() -> str:
    """The command that records a run into the folder that is served."""
    return f"profiler-kit capture --out {widgets.in_root('my_run')} --model vit_b --device cuda"


def heading(run: RunFolder) -> None:
    """Name of the run, and what ran in one line."""
    st.title(widgets.plain(run.label if run.key != "." else run.path.name))
    record = run.record
    if record is None:
        st.caption("No run.json beside it: what ran is not known, only what was recorded.")
        return
    device = record.device_name if record.device_name == record.device else f"{record.device_name} ({record.device})"
    facts = [record.model, *(record.optimizations or ("no optimizations",)), record.dtype]
    facts += [f"batch {record.batch_size}", f"{record.image_size} px", device]
    facts += [f"torch {record.versions['torch']}"] if "torch" in record.versions else []
    st.caption(widgets.plain(" · ".join(tables.printable(fact) for fact in facts)))


def say(pieces: list[tuple[str, bool]]) -> None:
    """The verdict, with its figures in bold."""
    text = "".join(f"**{widgets.plain(p)}**" if bold else widgets.plain(p) for p, bold in pieces)
    with st.container(key="verdict"):
        st.markdown(text)


def presence(trace: Trace) -> Presence:
    """What the trace holds of the GPU, and what it lacks."""
    return what_ran(
        trace.gpu_events(), trace.launch_calls(), truncated=trace.quality.truncated, metadata=trace.metadata
    )


def load_of(trace: Trace, record: RunRecord | None) -> BatchLoad | None:
    """How busy the GPU is when nobody records, where the run tells."""
    return batch_load(trace.regions(), record.latency_ns) if record is not None else None


def numbers(run: RunFolder, trace: Trace | None) -> None:
    """The handful of numbers that sum up a run."""
    record = run.record
    shown: list[tuple[str, str, str]] = []
    if trace is not None and len(trace.gpu_events()):
        time = trace.summary()["gpu_timeline"]
        load = load_of(trace, record)
        if load is not None:
            shown.append(("GPU busy", fmt_percent(load.busy_share), _UNRECORDED.format(load.region)))
        shown.append(("Busy while recorded", fmt_percent(time["busy_ns"] / max(1, time["total_ns"])), _BUSY))
        shown.append(("Recorded span", fmt_ns(time["total_ns"]), _TOTAL))
    elif trace is not None:
        shown.append(("Recorded span", fmt_ns(span_ns(trace.operators(), trace.region_instances())), _HOST_TOTAL))
    if record is not None and record.latency_ns:
        median, samples = statistics.median(record.latency_ns), len(record.latency_ns)
        shown.append(("Median latency" if samples > 1 else "Latency, one sample", fmt_ns(median), _LATENCY))
        if median:
            shown.append(("Images a second", fmt_rate(record.batch_size * NS_PER_S / median), _RATE))
    if record is not None and record.peak_memory_bytes is not None:
        shown.append(("Peak memory", fmt_bytes(record.peak_memory_bytes), _PEAK))
    if trace is not None and len(shown) < 5:
        shown.append(
            ("Events in the trace", fmt_count(trace.summary()["events"]), "Entries of traceEvents in the file.")
        )
    for column, (name, value, meaning) in zip(st.columns(max(1, len(shown))), shown, strict=False):
        column.metric(name, value, help=meaning)


_UNRECORDED = (
    "Without the profiler: GPU work in one `{}` of the trace, divided by the median latency, which is measured "
    "without recording."
)
_BUSY = (
    "Share of the recorded span in which at least one kernel or copy ran. Recording slows the host, so that the GPU "
    "waits more than it does otherwise."
)
_TOTAL = "From the start of the first GPU event in the trace to the end of the last, with the profiler on."
_HOST_TOTAL = "From the start of the first region or operator in the trace to the end of the last."
_LATENCY = "Half of the timed iterations took less. Measured without the profiler, one iteration is one batch."
_RATE = "Batch size divided by the median latency."
_PEAK = (
    "Highest memory allocated during the timed iterations (torch.cuda.max_memory_allocated): blocks as the allocator "
    "rounds them up. The Memory page counts the bytes that were asked for, a little less."
)


def on_gpu(trace: Trace, record: RunRecord | None) -> None:
    """Where the time of a run with GPU events went."""
    time, kernels = trace.summary()["gpu_timeline"], name_sums(trace.kernels())
    st.subheader(
        "What the GPU did while recorded",
        help="Every stream and device together; overlaps are counted once, in this order.",
    )
    st.caption(f"100 % is the recorded span, {fmt_ns(time['total_ns'])}: waiting is part of it.")
    widgets.figure(figures.activity_bar(time), "activity")
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("Where the GPU's time went", help=_BARS)
        st.caption(f"100 % is the time in which the GPU was busy, {fmt_ns(time['busy_ns'])}: waiting is left out.")
        st.html(bars.region_bars(trace.regions()))
        widgets.csv(tables.region_table(trace.regions()), "overview-regions")
        latency(record)
    with right:
        st.subheader("Longest kernels", help="Kernels, memory copies and memory sets, added up by name.")
        st.caption(f"100 % is the sum of all of them, {fmt_ns(int(kernels['sum_ns'].sum()))}.")
        st.html(bars.kernel_bars(kernels))
        widgets.csv(tables.kernel_table(trace.kernels()), "overview-kernels")


_BARS = (
    "Solid: busy, time in which a kernel the region launched ran, overlaps counted once. Pale: their sum. "
    "Nested regions are part of the one above them."
)


def on_host(trace: Trace, record: RunRecord | None) -> None:
    """Where the time of a run without GPU events went."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Time in each region", help="Host time inside record_function blocks, nested ones included.")
        if trace.regions()["host_ns"].gt(0).any():
            st.html(bars.region_bars(trace.regions(), host=True))
            widgets.csv(tables.region_table(trace.regions(), host=True), "overview-regions")
        else:
            widgets.empty("No regions in this trace", "Name the parts of your code:", 'with region("encoder"): ...')
        latency(record)
    with right:
        st.subheader("Time in each operator", help="Host time inside an operator, less the operators it calls.")
        operators = operator_sums(trace.operators())
        st.html(bars.operator_bars(operators))
        widgets.csv(tables.operator_table(operators), "overview-operators")


def quality(trace: Trace) -> None:
    """What was lost while loading; nothing when the file was whole."""
    found = trace.quality
    lost = []
    if found.truncated:
        lost.append("the file is cut off, everything up to its last whole event is shown")
        found_gpu = presence(trace)
        if found_gpu.ran == "gpu" and found_gpu.unanswered:
            lost.append(
                f"{fmt_count(found_gpu.unanswered)} of {fmt_count(found_gpu.launches)} calls that launch GPU work have "
                "no GPU event"
            )
    if found.repaired_events:
        lost.append(f"{fmt_count(found.repaired_events)} events were repaired")
    if found.dropped_events:
        lost.append(f"{fmt_count(found.dropped_events)} events could not be read")
    if lost:
        st.warning("This trace is not whole: " + "; ".join(lost) + ".", icon="⚠️")
    if found.unlinked_gpu_events:
        st.caption(
            f"{fmt_count(found.unlinked_gpu_events)} GPU events have no launch in the trace "
            "(started before recording); they count as (unlinked)."
        )


def latency(record: RunRecord | None) -> None:
    """The latency samples of a run, when it has any."""
    if record is None or not record.latency_ns:
        return
    st.subheader("Latency of each iteration", help=_LATENCY + " The dotted line is the median.")
    if len(record.latency_ns) == 1:
        st.caption(f"One timed iteration only: {fmt_ns(record.latency_ns[0])}. --iterations asks for more.")
        return
    widgets.figure(figures.latency_samples(record.latency_ns), "latency")


def load(run: RunFolder) -> Trace | None:
    """The run's trace; None without one, and while it loads or when it cannot be read, which the page then says."""
    if run.trace is None:
        return None
    return loading_parts.opened(run.trace)
