"""Tables: every table of the run with its options; whatever is analysed is here."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import tables, widgets
from profiler_kit.tables import every_table

HELP = "The same names are tables in SQL (profiler-kit query) and in load_run(path).table(name)."

folder = state.run()
st.title("Tables")
trace = widgets.opened(folder)
with widgets.one_line_errors():
    run = cache.run(folder)
    parts = {"trace": trace, "file": trace, "snapshot": run.snapshot, "layers": run.layers, "joined": run.joined}
    for problem in run.problems:
        if folder.trace is None or trace is not None or str(folder.trace) not in problem:
            widgets.problem(problem)
    found = {name: table for name, table in every_table().items() if parts.get(table.of) is not None}
    if found:
        name = st.selectbox(
            "Table",
            list(found),
            format_func=lambda name: f"{found[name].title[:1].upper()}{found[name].title[1:]} ({name})",
            key="table",
            bind="query-params",
            help=HELP,
        )
        tables.section(folder, name, rows=18)
    elif folder.trace is None:
        widgets.empty("No trace, memory snapshot or layer timings in this run", "Record one:", widgets.record_hint())
