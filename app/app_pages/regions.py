"""Regions: the tree of regions, the timeline under it, and the kernels (or operators) of what is selected."""

from __future__ import annotations

import streamlit as st

from app import answers, state
from app.parts import overview_parts, perfetto_parts, region_parts, widgets
from app.parts.timeline import key_of, latest, timeline
from profiler_kit.findings.time import bound_by, missing_gpu
from profiler_kit.render import tables
from profiler_kit.text import fmt_path

run = state.run()
st.title("Regions")
trace = overview_parts.load(run)
if trace is None:
    if run.trace is None:
        widgets.empty("No trace in this run", "Regions come from a trace. Record one:", overview_parts.record_hint())
    st.stop()

on_gpu = trace.presence.ran == "gpu"
if trace.presence.ran not in ("gpu", "host"):
    widgets.note(missing_gpu(trace.presence))
regions = region_parts.shown(trace, on_gpu=on_gpu)
if on_gpu:
    widgets.say(bound_by(answers.loaded(run)))
overview_parts.quality(trace)
if regions.empty:
    widgets.empty("No regions in this trace", "Name the parts of your code:", 'with region("encoder"): ...')
    path = None
else:
    row = widgets.pick_row(
        tables.region_table(regions, host=not on_gpu, utilization=answers.utilization(run.trace) if on_gpu else None),
        f"regions-{run.key}",
        rows=9,
        names=[fmt_path(path) for path in regions["path"]],
        param="region",
    )
    path = None if row is None else regions["path"].iloc[row]
focus = region_parts.focus(trace, path, on_gpu=on_gpu)

st.subheader("Timeline", help=region_parts.TIMELINE_HELP)
key, base_ns = key_of(run.key), state.timeline(run.trace)[0].start_ns
selected, number = state.selected_range(run.key, path, *latest(key, base_ns))
timeline(
    run.key,
    key=key,
    base_ns=base_ns,
    focus=focus,
    selected=selected,
    number=number,
)
perfetto_parts.link(run, selected if selected is not None else focus, base_ns)
(region_parts.kernels if on_gpu else region_parts.operators)(trace, path, selected)
