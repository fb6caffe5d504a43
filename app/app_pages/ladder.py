"""Ladder: named combinations of optimizations measured side by side, and the batching studies beside them."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.parts import ladder_parts as parts
from app.parts import tables, widgets
from profiler_kit.render.figures import ladder as figures_ladder
from profiler_kit.tables import every_table
from profiler_kit.tables.ladder import shown_of

st.title("Ladder")
folder = parts.pick()
if folder is None:
    parts.empty()
    st.stop()
with widgets.one_line_errors():
    if folder.results is not None:
        record, rows = cache.ladder(folder.results)
        parts.heading(record)
        parts.say(record, rows)
        shown = widgets.switch("View", parts.views(folder), "view", meaning=parts.VIEW_HELP)
        if shown == parts.STEPS:
            widgets.figure(figures_ladder.waterfall(rows), "ladder-waterfall")
            for name in shown_of(record):
                tables.show(every_table()[name].of_source(record), f"{name}-table", rows=16)
            parts.facts(record)
        elif shown == parts.TRADE_OFFS:
            left, right = st.columns(2, gap="large")
            with left:
                st.subheader("Speed against agreement", help=parts.PARETO_HELP)
                widgets.figure(figures_ladder.pareto(rows), "ladder-pareto")
            with right:
                st.subheader("Roofline", help=parts.ROOFLINE_HELP)
                parts.roofline(record, rows)
        else:
            parts.overlays(folder, rows)
with widgets.one_line_errors():
    if folder.study is not None:
        parts.studies(*cache.study(folder.study))
