"""Timeline: all that ran, as wide as the page, and the kernels (or operators) of what is selected in it."""

from __future__ import annotations

import streamlit as st

from app import state
from app.parts import overview_parts, perfetto_parts, region_parts, widgets
from app.parts.timeline import key_of, latest, timeline

run = state.run()
st.title("Timeline", help=region_parts.TIMELINE_HELP)
if run.trace is None:
    widgets.empty("No trace in this run", "A timeline comes from a trace. Record one:", overview_parts.record_hint())
    st.stop()
if not state.timeline_at_hand(run.trace) and overview_parts.load(run) is None:
    st.stop()
key, base_ns = key_of(run.key), state.timeline(run.trace)[0].start_ns
selected, number = state.selected_range(run.key, None, *latest(key, base_ns))
timeline(run.key, key=key, base_ns=base_ns, focus=None, selected=selected, number=number)

trace = overview_parts.load(run)
if trace is None:
    st.stop()
overview_parts.quality(trace)
perfetto_parts.link(run, selected, base_ns)
on_gpu = trace.presence.ran == "gpu"
(region_parts.kernels if on_gpu else region_parts.operators)(trace, None, selected)
