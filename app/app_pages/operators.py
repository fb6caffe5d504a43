"""Operators and modules: host time, the GPU work they launched, shapes, launches, and sequences of kernels."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import tables, widgets
from profiler_kit.findings import work
from profiler_kit.findings.no_rows import is_hollow
from profiler_kit.names import printable
from profiler_kit.table import Filled
from profiler_kit.tables import every_table
from profiler_kit.trace import Trace

VIEWS = {
    "Operators": "operator_work",
    "Modules": "module_work",
    "Shapes": "shape_work",
    "Launches": "launch_totals",
    "Sequences": "kernel_sequences",
}
VIEW_HELP = (
    "Operators: PyTorch's own calls. Modules: nn.Module. Shapes: operators by the sizes of their inputs. Launches: "
    "what launching costs. Sequences: kernels that follow one another, which a fused kernel could replace."
)


def operators(filled: Filled, trace: Trace) -> None:
    """Operators with host and GPU time; of the one picked its kernels."""
    widgets.say(work.longest_operator(trace.operators()))
    names = [printable(str(name)) for name in filled.frame["name"]]
    row = tables.pick_row(filled, f"operators-{folder.key}", rows=12, names=names, param="operator")
    if trace.gpu_events().empty:
        return
    name, kernels = names[row or 0], cache.table(folder, "operator_kernels").frame
    mine = kernels[kernels["operator"].map(printable) == name].reset_index(drop=True)
    st.subheader(
        widgets.plain(f"Kernels of {name}"), help="Launched with this operator as the innermost. Pick a row above."
    )
    if mine.empty:
        widgets.note(work.LAUNCHED_NOTHING)
        return
    tables.show(every_table()["kernels"].holding(mine, trace), "operator-kernels", rows=8)


folder = state.run()
st.title("Operators")
trace = widgets.trace_or_stop(folder, "Operators come from a trace.")
shown = widgets.switch("View", list(VIEWS), "view", meaning=VIEW_HELP)
with widgets.one_line_errors():
    filled = tables.with_options(folder, VIEWS[shown])
    if is_hollow(filled):
        widgets.hollow(filled)
    elif shown == "Operators":
        operators(filled, trace)
    else:
        widgets.say(work.of_table(filled))
        tables.show(filled, filled.table.name, rows=18)
        if shown == "Launches":
            tables.section(folder, "queue")
