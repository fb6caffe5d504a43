"""Tables: every table of the run with its options; whatever is analysed is here."""

from __future__ import annotations

import streamlit as st

from app import cache, query_params, state
from app.parts import tables, widgets
from profiler_kit.table import Of
from profiler_kit.tables import every_table

HELP = "The same names are tables in SQL (profiler-kit query) and in load_run(path).table(name)."

folder = state.run()
st.title("Tables")
trace = widgets.opened(folder)
with widgets.one_line_errors():
    run = cache.run(folder)
    parts: dict[Of, object] = {
        **{"trace": trace, "file": trace, "snapshot": run.snapshot, "layers": run.layers, "joined": run.joined},
        "requests": run.served,
    }
    widgets.problems(run)
    of = [of for of, part in parts.items() if part is not None]
    known = list(every_table().values())
    # those of the trace first, and of each part what a command prints before what is behind it
    ranks = [(of.index(one.of), not one.command, at) for at, one in enumerate(known) if one.of in of]
    # no function of this page as format_func: a session keeps it, and it would keep all that is named here
    titles = {known[at].name: f"{known[at].heading} ({known[at].name})" for _, _, at in sorted(ranks)}
    if titles:
        names, asked = list(titles), query_params.asked("table")
        name = st.selectbox(
            "Table",
            names,
            index=names.index(asked) if asked in names else 0,
            format_func=titles.__getitem__,
            key=f"table-{folder.key}",
            help=HELP,
        )
        query_params.keep("table", name)
        tables.section(folder, name, rows=18)
    elif folder.trace is None:
        widgets.empty(
            "No trace, memory snapshot or layer timings in this run", "Record one:", widgets.record_hint(folder)
        )
