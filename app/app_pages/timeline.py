"""Timeline: all that ran, as wide as the page, and the kernels (or operators) of what is selected in it."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import overview_parts, region_parts, timeline_parts, widgets

SHOWS = "A timeline comes from a trace."

folder = state.run()
st.title("Timeline", help=timeline_parts.HELP)
if folder.trace is None or not cache.timeline_at_hand(folder):
    widgets.trace_or_stop(folder, SHOWS)
with widgets.one_line_errors():
    selected = timeline_parts.show(folder, headed=False)
    trace = widgets.trace_or_stop(folder, SHOWS)
    overview_parts.quality(trace)
    region_parts.work(trace, None, selected)
