"""Idle time: why no kernel ran, in which region, the longest gaps on the timeline, and what closing them would give."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import tables, timeline_parts, widgets
from profiler_kit.analyses.gpu.idle import MEANING, NO_REQUEST
from profiler_kit.findings.time import missing_gpu, why_idle
from profiler_kit.render.figures.run import idle_by_region
from profiler_kit.tables import every_table

GAPS_HELP = (
    "The longest stretches in which nothing ran on any GPU; of a server, while it had a request. Pick one to see it on "
    "the timeline."
)

folder = state.run()
st.title("Idle time", help=MEANING)
trace = widgets.trace_or_stop(folder, "Idle time comes from a trace.")
if trace.presence.ran != "gpu":
    widgets.empty(
        "No GPU in this trace", missing_gpu(trace.presence).sentence, widgets.record_hint(folder, on_gpu=True)
    )
    st.stop()
widgets.say(why_idle(cache.run(folder)))
utilization = trace.utilization()
if utilization["idle_ns"].any():
    st.subheader("By region and cause", help=MEANING)
    widgets.figure(idle_by_region(utilization), "idle-regions")
gaps = cache.table(folder, "idle_gaps", scope="all")
found = gaps.frame[gaps.frame["cause"] != NO_REQUEST]
longest = found.nlargest(50, "dur_ns").reset_index(drop=True)
if len(longest):
    st.subheader("The longest gaps", help=GAPS_HELP)
    names = [str(start) for start in longest["start_ns"]]
    shown = every_table()["idle_gaps"].holding(longest, trace)
    row = tables.pick_row(shown, f"gaps-{folder.key}", names=names, param="gap", rows=7) or 0
    start, dur = int(longest["start_ns"].iloc[row]), int(longest["dur_ns"].iloc[row])
    timeline_parts.show(folder, None, (start - dur // 2, start + dur + dur // 2))
tables.section(folder, "idle", scope="all")
tables.section(folder, "whatif")
