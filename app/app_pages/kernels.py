"""Kernels by name, kind or stream; of the one picked its durations over time, and where it was launched."""

from __future__ import annotations

import streamlit as st

from app import answers, state
from app.parts import kernel_parts as parts
from app.parts import overview_parts, widgets
from profiler_kit.findings import work
from profiler_kit.findings.time import missing_gpu
from profiler_kit.render import tables_work
from profiler_kit.render.figures import kernels as figures_kernels

run = state.run()
st.title("Kernels")
trace = overview_parts.load(run)
if trace is None:
    if run.trace is None:
        widgets.empty("No trace in this run", "Kernels come from a trace. Record one:", overview_parts.record_hint())
    st.stop()
presence = trace.presence
if presence.ran != "gpu":
    said = missing_gpu(presence).sentence
    widgets.empty("No kernels in this trace", f"{said} Record on a GPU:", overview_parts.record_hint())
    widgets.go("operators", "Operators on the host")
    st.stop()

by = parts.pick_grouping()
groups = answers.kernel_groups(run.trace, by)
widgets.say(work.longest_group(groups, by))
table = tables_work.group_table(groups, names=by == "name")
row = widgets.pick_row(table, f"kernels-{by}-{run.key}", rows=10, names=list(groups["key"]), param="kernel")
key = str(groups["key"].iloc[row or 0])

st.subheader(parts.heading(key, by, picked=row is not None), help=parts.DETAIL_HELP)
mine = answers.kernels_of(run.trace, by, key)
st.caption(widgets.plain(parts.facts(mine)))
left, right = st.columns([3, 2], gap="large")
with left:
    regions = [name for path in trace.regions()["path"] for name in path]
    start_ns = int(trace.gpu_events()["start_ns"].min())
    widgets.figure(figures_kernels.durations_over_time(mine, regions, start_ns=start_ns), "kernel-over-time")
with right:
    widgets.figure(figures_kernels.duration_histogram(mine), "kernel-histogram")
st.subheader("Where it was launched", help=parts.ORIGIN_HELP)
origins = answers.kernel_origins(run.trace, by, key)
widgets.table(tables_work.origin_table(origins), "kernel-origins", rows=8)
if (unknown := work.no_call_sites(origins)) is not None:
    widgets.note(unknown)
