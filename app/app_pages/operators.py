"""Operators and modules: host time, the GPU work they launched, shapes, launches, and sequences of kernels."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import tables, widgets
from profiler_kit.findings import work
from profiler_kit.names import printable
from profiler_kit.table import Filled
from profiler_kit.tables import every_table
from profiler_kit.trace import Trace

# View -> its table, the column that says whether there is anything; if not: a title, how to record it, and the line.
VIEWS = {
    "Operators": ("operator_work", "name", "No operators in this trace", "Record the host side as well:",
                  "profiler_runner(path, activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])"),
    "Modules": ("module_work", "path", "No modules in this trace", "Names of nn.Modules need stacks. Record with:",
                "profiler_runner(path, with_stack=True, with_modules=True)"),
    "Shapes": ("shape_work", "input_dims", "No input shapes in this trace", "Record with:",
               "profiler_runner(path, record_shapes=True)"),
    "Launches": ("launch_totals", "name", "No launches in this trace", "They are there when it ran on a GPU:", ""),
    "Sequences": ("kernel_sequences", "kernels", "No such sequence",
                  "No operator launched so many kernels in a row. Choose fewer above, or record on a GPU:", ""),
}  # fmt: skip
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
name, column, title, how, command = VIEWS[shown]
with widgets.one_line_errors():
    filled = tables.with_options(folder, name)
    if not filled.frame[column].map(len).any():
        widgets.empty(title, how, command or widgets.record_hint(folder, on_gpu=True))
    elif shown == "Operators":
        operators(filled, trace)
    else:
        widgets.say(work.of_table(filled))
        tables.show(filled, name, rows=18)
        if shown == "Launches":
            tables.section(folder, "queue")
