"""Timeline: all that ran, as wide as the page, and the kernels (or operators) of what is selected in it."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import compare_parts, overview_parts, region_parts, timeline_parts, widgets
from profiler_kit.render.compare import LETTERS

SHOWS = "A timeline comes from a trace."

folder = state.run()
st.title("Timeline", help=timeline_parts.HELP)
if folder.trace is None or not cache.timeline_at_hand(folder):
    widgets.trace_or_stop(folder, SHOWS)
with widgets.one_line_errors():
    beside = cache.beside(st.query_params.get_all("beside"))
    if beside:
        compare_parts.legend(dict(zip(LETTERS, [folder, *(run for run, _ in beside)], strict=False)), "")
    selected = timeline_parts.show(folder, headed=False, beside=beside)
    trace = widgets.trace_or_stop(folder, SHOWS)
    overview_parts.quality(trace)
    part = "all" if selected is None else "the selected part"
    region_parts.work(trace, None, selected, f"{part} of A" if beside else "")
