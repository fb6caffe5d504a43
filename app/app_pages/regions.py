"""Regions: their tree, the timeline under it, the kernels (or operators) of what is selected, and idle time."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import overview_parts, region_parts, tables, timeline_parts, widgets
from profiler_kit.findings.no_rows import is_hollow
from profiler_kit.findings.time import bound_by, missing_gpu, of_gpu, why_idle
from profiler_kit.findings.work import of_table
from profiler_kit.text import fmt_path

folder = state.run()
st.title("Regions")
trace = widgets.trace_or_stop(folder, "Regions come from a trace.")
on_gpu = trace.presence.ran == "gpu"
if trace.presence.ran not in ("gpu", "host"):
    widgets.note(missing_gpu(trace.presence))
if on_gpu:
    widgets.say(bound_by(cache.run(folder)))
overview_parts.quality(trace)
regions = cache.table(folder, "region_overview")
path = None
if not is_hollow(regions):
    names = [fmt_path(path) for path in regions.frame["path"]]
    row = tables.pick_row(regions, f"regions-{folder.key}", rows=9, names=names, param="region")
    path = None if row is None else regions.frame["path"].iloc[row]
else:
    widgets.hollow(regions)
if on_gpu:
    overview_parts.groups(folder, trace)
selected = timeline_parts.show(folder, path, region_parts.focus(trace, path, on_gpu=on_gpu))
region_parts.work(trace, path, selected)
if on_gpu and (why := why_idle(cache.run(folder))) is not None:
    st.subheader(f"Why {of_gpu(trace)} was idle")
    st.markdown(widgets.sentence(why))
    idle = tables.with_options(folder, "idle", scope="all")
    if (waits := of_table(idle)) is not None:
        st.markdown(widgets.sentence(waits))
    tables.show(idle, "idle")
