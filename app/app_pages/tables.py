"""Tables: every table of the run, each with its options; whatever is analysed is here."""

from __future__ import annotations

import streamlit as st

from app import state
from app.parts import tables as parts
from app.parts import widgets
from profiler_kit.tables import every_table

run = state.run()
st.title("Tables")
sources = state.sources(run)
found = {name: table for name, table in every_table().items() if table.of in sources}
if not found:
    widgets.empty("Nothing to tabulate in this run", "Record a trace:", "profiler-kit capture --out runs/mine")
    st.stop()
name = st.selectbox(
    "Table",
    list(found),
    format_func=lambda name: f"{name}: {found[name].title}",
    key="table",
    bind="query-params",
    help="The same names are tables in SQL (profiler-kit query) and in trace.table(name).",
)
table = found[name]
st.caption(widgets.plain(f"One row per {table.schema.row}."))
with widgets.one_line_errors():
    parts.show(table.of_source(sources[table.of](), **parts.options(table)), f"table-{name}", rows=18)
