"""Operators and modules: host time, the GPU work they launched, shapes, launches, and sequences of kernels."""

from __future__ import annotations

import streamlit as st

from app import state
from app.parts import operator_parts as parts
from app.parts import overview_parts, widgets

run = state.run()
st.title("Operators")
trace = overview_parts.load(run)
if trace is None:
    if run.trace is None:
        widgets.empty("No trace in this run", "Operators come from a trace. Record one:", overview_parts.record_hint())
    st.stop()
gpu = not trace.gpu_events().empty
shown = widgets.switch("View", list(parts.VIEWS), "view", meaning=parts.VIEW_HELP)
with widgets.one_line_errors():
    parts.VIEWS[shown](run, trace, gpu)
