"""Ladder: named combinations of optimizations measured side by side, and what each did to speed, memory and masks."""

from __future__ import annotations

import streamlit as st

from app import state
from app.components import ladder_parts as parts
from app.components import widgets
from profiler_kit.views import figures_ladder

st.title("Ladder")
folder = parts.pick()
if folder is None:
    parts.empty()
    st.stop()
record, rows = state.ladder(folder.results)
parts.heading(record)
parts.say(rows)
parts.problems(record, rows)
widgets.figure(figures_ladder.waterfall(rows), "ladder-waterfall")
parts.table(rows)
left, right = st.columns(2, gap="large")
with left:
    st.subheader("Speed against agreement", help=parts.PARETO_HELP)
    widgets.figure(figures_ladder.pareto(rows), "ladder-pareto")
with right:
    st.subheader("Roofline", help=parts.ROOFLINE_HELP)
    parts.roofline(record, rows)
parts.overlays(folder, rows)
parts.facts(record)
