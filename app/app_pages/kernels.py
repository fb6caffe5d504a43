"""Kernels by name, kind or stream; of the one picked its durations over time, and where it was launched."""

from __future__ import annotations

from typing import cast

import streamlit as st

from app import cache, query_params, state
from app.parts import tables, widgets
from profiler_kit.analyses.gpu.kernels import By
from profiler_kit.findings import work
from profiler_kit.findings.time import missing_gpu
from profiler_kit.names import printable
from profiler_kit.render.figures import kernels as figures

GROUPS: dict[str, By] = {"By name": "name", "By kind of work": "kind", "By stream": "stream"}
BY_HELP = (
    "Kind of work is told by the name: matrix products, attention, elementwise, … A stream runs its work in order."
)
DETAIL_HELP = "Pick a row above to see another one. Each dot is one execution; its colour is that of its region."
ORIGIN_HELP = "A GPU event belongs to the call that launched it, and the call to all that was open on its thread."

folder = state.run()
st.title("Kernels")
trace = widgets.trace_or_stop(folder, "Kernels come from a trace.")
if trace.presence.ran != "gpu":
    said = missing_gpu(trace.presence).sentence
    widgets.empty("No kernels in this trace", f"{said} Record on a GPU:", widgets.record_hint(folder, on_gpu=True))
    widgets.go("operators", "Operators on the host")
    st.stop()

by = GROUPS[widgets.switch("Group kernels", list(GROUPS), "by", meaning=BY_HELP)]
if st.session_state.get("kernels-grouped-by", by) != by:
    query_params.keep("kernel", "")  # the row that was picked is of another grouping
st.session_state["kernels-grouped-by"] = by
groups = cache.table(folder, "kernel_groups", by=by)
widgets.say(work.of_table(groups))
keys = [str(key) for key in groups.frame["key"]]
row = tables.pick_row(groups, f"kernels-{by}-{folder.key}", rows=10, names=keys, param="kernel")
key = keys[row or 0]

name = printable(work.group_name(key, by))
st.subheader(widgets.plain(name if row is not None else f"Longest: {name}"), help=DETAIL_HELP)
mine = trace.events_of_group(by, key)
if name != key:
    st.code(printable(key), language=None, wrap_lines=True)  # whole, with a button that copies it
st.caption(widgets.plain(work.group_numbers(mine)))
left, right = st.columns([3, 2], gap="large")
with left:
    regions = [name for path in trace.regions()["path"] for name in path]
    widgets.figure(figures.durations_over_time(mine, regions, start_ns=trace.zero_ns), "kernel-over-time")
with right:
    widgets.figure(figures.duration_histogram(mine), "kernel-histogram")
st.subheader("Where it was launched", help=ORIGIN_HELP)
origins = cache.table(folder, "kernel_origins", by=cast("str", by), key=key)
tables.show(origins, "kernel-origins", rows=8)
if (unknown := work.no_call_sites(origins.frame)) is not None:
    widgets.note(unknown)
