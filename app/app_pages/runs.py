"""Runs: what there is below the folder that is served, the newest first; the page on which a visit begins."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.parts import run_parts as parts
from app.parts import tables, widgets

found = cache.runs()
st.title("Runs")
where = widgets.typed(cache.root())
where = "This folder" if where == "." else where
st.caption(widgets.plain(f"{where}, the newest first. Pick a row to open it."))
parts.tour()
if found:
    listed = parts.searched(found)
    if len(listed):
        row = tables.pick_row(listed, "runs", names=listed.frame["key"].tolist(), param="", rows=18)
        if row is not None:
            parts.go_to(str(listed.frame["key"].iloc[row]))
    else:
        st.caption("No run matches the search.")
elif not cache.ladders():
    widgets.empty(
        f"Nothing to show in {widgets.plain(str(cache.root()))}",
        "Record a run there; it appears here when it is complete.",
        f"profiler-kit capture --out {widgets.in_root('first')} --model vit_b --device cpu",
    )
parts.ladders()
parts.open_another()
parts.watch([run.key for run in found])
