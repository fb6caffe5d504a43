"""The parts of the overview: what ran, where the time went, what to try, and how far the file can be trusted."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.parts import memory_parts, tables, widgets
from profiler_kit.analyses.gpu.window import name_sums, operator_sums
from profiler_kit.analyses.layers.totals import best_depth, layers_at_depth
from profiler_kit.finding import Finding, of_kind
from profiler_kit.findings.advice import HELP, NOTHING
from profiler_kit.findings.layers import of_layers
from profiler_kit.findings.memory import fullest
from profiler_kit.findings.numbers import LATENCY
from profiler_kit.findings.out_of_memory import failures
from profiler_kit.findings.quality import losses
from profiler_kit.findings.records import PARTS, not_recorded, one_iteration, to_add, what_ran
from profiler_kit.findings.time import GROUPS, activities, grouped_by, wholes
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.names import printable
from profiler_kit.render import bars
from profiler_kit.render.figures import run as figures
from profiler_kit.render.figures.layers import layer_heatmap
from profiler_kit.run import Layers, Run
from profiler_kit.snapshot import Snapshot
from profiler_kit.tables.memory import live
from profiler_kit.trace import Trace

_SHOWN = 3
_PAGES = {"regions": "Regions", "kernels": "Kernels", "operators": "Operators", "layers": "Layers", "ranks": "Ranks"}


def heading(run: RunFolder) -> None:
    """Name of the run, and what ran in one line."""
    st.title(widgets.plain(run.label if run.key != "." else run.path.name))
    st.caption(widgets.plain(printable(what_ran(run.record, run.problem))))


def advice(found: list[Finding]) -> None:
    """The causes most worth fixing: the first three as cards side by side, the rest folded away."""
    st.subheader("Most worth fixing", help=HELP)
    if not found:
        st.caption(NOTHING)
    _cards(found[:_SHOWN])
    if len(found) > _SHOWN:
        with st.expander(f"{len(found) - _SHOWN} more"):
            for first in range(_SHOWN, len(found), _SHOWN):
                _cards(found[first : first + _SHOWN])


def _cards(found: list[Finding]) -> None:
    for column, one in zip(st.columns(_SHOWN, gap="medium"), found, strict=False):
        with column, st.container(border=True, key=f"hint-{one.id}", height="stretch"):
            st.markdown(f"**{widgets.plain(one.title)}**")
            if one.gain is not None:
                st.html(bars.gain(one.gain))
            st.markdown(widgets.sentence(one))
            st.markdown(f"**Try** {widgets.plain(one.attempt)}")
            if one.page:
                widgets.go(one.page, f"Show in {_PAGES.get(one.page, one.page.title())}", **one.link)


def out_of_memory(run: Run) -> list[Finding]:
    """Why allocations failed, as the Memory page says it."""
    snapshot = run.snapshot
    return [one for device in snapshot.devices for one in failures(snapshot, device)] if snapshot else []


def why(found: list[Finding]) -> None:
    """What the GPU waited for, and what bounds the regions."""
    for one in of_kind(found, "why"):
        st.markdown(widgets.sentence(one) + (f" **Try** {widgets.plain(one.attempt)}" if one.attempt else ""))


def on_gpu(folder: RunFolder, trace: Trace) -> None:
    """Where the time of a run with GPU events went."""
    kernels = name_sums(trace.kernels())
    of_span, of_busy, of_sum = wholes(trace, kernels)
    for number, (name, part) in enumerate(activities(trace)):
        st.subheader(
            f"What {name} did while recorded",
            help="Every stream together; overlaps are counted once, in this order.",
        )
        st.caption(f"{of_span}: waiting is part of it.")
        widgets.figure(figures.activity_bar(part), f"activity-{number}" if number else "activity")
    left, right = st.columns([3, 2], gap="large")
    with left:
        by = grouped_by(trace)
        title, meaning = GROUPS[by]
        st.subheader(title, help=meaning)
        if by == "region":
            st.caption(f"{of_busy}: waiting is left out.")
            st.html(bars.region_bars(trace.regions(), link=widgets.address("regions", "region")))
            widgets.csv(cache.table(folder, "regions"), "overview-regions")
        else:
            st.caption(f"{of_sum}.")
            link = widgets.address("operators", "operator") if by == "operator" else None
            st.html(bars.group_bars(trace.work_groups()[1], link=link))
        latency(folder.record)
    with right:
        st.subheader("Longest kernels", help="Kernels, memory copies and memory sets, added up by name.")
        st.caption(f"{of_sum}.")
        st.html(bars.kernel_bars(kernels, link=widgets.address("kernels", "kernel")))
        widgets.csv(cache.table(folder, "kernels"), "overview-kernels")


_TABLES = {"module": "module_work", "operator": "operator_work", "kind": "kernel_groups"}


def groups(folder: RunFolder, trace: Trace) -> None:
    """The table of what GPU time is added up by where no region names the parts of the code."""
    by = grouped_by(trace)
    if by != "region":
        st.subheader(GROUPS[by][0], help=GROUPS[by][1])
        options = {"by": "kind"} if by == "kind" else {}
        tables.show(cache.table(folder, _TABLES[by], **options), "work-groups", rows=10)


def on_host(folder: RunFolder, trace: Trace) -> None:
    """Where the time of a run without GPU events went."""
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Time in each region", help="Host time inside record_function blocks, nested ones included.")
        if trace.regions()["host_ns"].gt(0).any():
            st.html(bars.region_bars(trace.regions(), host=True, link=widgets.address("regions", "region")))
            widgets.csv(cache.table(folder, "regions"), "overview-regions")
        else:
            widgets.empty("No regions in this trace", "Name the parts of your code:", 'with region("encoder"): ...')
        latency(folder.record)
    with right:
        st.subheader("Time in each operator", help="Host time inside an operator, less the operators it calls.")
        link = widgets.address("operators", "operator")
        st.html(bars.operator_bars(operator_sums(trace.operators()), link=link))
        widgets.csv(cache.table(folder, "operator_sums"), "overview-operators")


def on_memory(folder: RunFolder, snapshot: Snapshot) -> None:
    """What held the memory, of a run without a trace."""
    device = fullest(snapshot)
    if device is None:
        return
    facts = next(row for row in snapshot.summary()["devices"] if row["device"] == device)
    memory_parts.over_time(snapshot, facts)
    held = cache.table(folder, live(facts).name, device=device)
    st.subheader(held.table.heading, help="What held the memory at that moment.")
    tables.show(held, "overview-live", rows=8)
    widgets.go("memory", "Show in Memory")


def on_layers(layers: Layers, record: RunRecord | None) -> None:
    """What batching gains, of a run without a trace."""
    for one in of_layers(layers, record):
        if one.id != "batching":  # it is the headline
            widgets.note(one)
    totals = layers.totals
    if not totals.empty:
        names = layers_at_depth(totals, best_depth(totals))
        widgets.figure(layer_heatmap(totals, names, dark=widgets.is_dark()), "overview-layers")
        widgets.go("layers", "Show in Layers")


def missing(folder: RunFolder) -> None:
    """What this run does not hold, and the one command that would record it of this model."""
    parts = [
        part for part, _, _ in PARTS if getattr(folder, part) is None and not (part == "record" and folder.problem)
    ]
    said = not_recorded([part for part, _, _ in PARTS if part not in parts])
    if said is not None:
        st.subheader("What is missing", help="What this run does not hold, and the command that records it.")
        widgets.note(said)
        st.code(
            to_add(folder.record, parts, widgets.in_root(f"{folder.path.name.partition('.')[0]}-more")),
            "bash",
            wrap_lines=True,
        )


def quality(trace: Trace) -> None:
    """What was lost while loading; nothing when the file was whole."""
    for one in losses(trace):
        widgets.note(one)


def latency(record: RunRecord | None) -> None:
    """The latency samples of a run, when it has any."""
    if record is None or not record.latency_ns:
        return
    st.subheader("Latency of each iteration", help=LATENCY + " The dotted line is the median.")
    if (one := one_iteration(record)) is not None:
        widgets.note(one)
        return
    widgets.figure(figures.latency_samples(record.latency_ns), "latency")
