"""The views of the operators page: one function a view, each of a run and its trace."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app import answers
from app.parts import overview_parts, widgets
from profiler_kit.findings import work
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render import tables_work
from profiler_kit.render.tables import printable
from profiler_kit.trace import Trace

VIEW_HELP = (
    "Operators: PyTorch's own calls. Modules: nn.Module. Shapes: operators by the sizes of their inputs. Launches: "
    "what launching costs. Sequences: kernels that follow one another."
)


def operators(run: RunFolder, trace: Trace, gpu: bool) -> None:
    """Operators with host and GPU time; of the one picked its kernels."""
    assert run.trace is not None
    table = tables_work.work_table(answers.operator_work(run.trace), gpu=gpu)
    if table.empty:
        widgets.empty(
            "No operators in this trace",
            "Record the host side as well:",
            "profiler_runner(path, activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])",
        )
        return
    widgets.say(work.longest_operator(trace.operators()))
    names = list(table["operator"])
    row = widgets.pick_row(table, f"operators-{run.key}", rows=12, names=names, param="operator")
    if not gpu:
        return
    name = names[row or 0]
    kernels = answers.operator_kernels(run.trace)
    mine = kernels[kernels["operator"].map(printable) == name].reset_index(drop=True)
    st.subheader(
        widgets.plain(f"Kernels of {name}"), help="Launched with this operator as the innermost. Pick a row above."
    )
    if mine.empty:
        st.caption("It launched nothing itself: what it calls did.")
        return
    widgets.table(tables_work.operator_kernel_table(mine), "operator-kernels", rows=8)


def modules(run: RunFolder, trace: Trace, gpu: bool) -> None:
    """The tree of nn.Modules."""
    assert run.trace is not None
    modules = answers.module_work(run.trace)
    if not modules["path"].map(len).any():
        widgets.empty(
            "No modules in this trace",
            "Names of nn.Modules need stacks. Record with:",
            "profiler_runner(path, with_stack=True, with_modules=True)",
        )
        return
    widgets.table(tables_work.module_table(modules), "modules", rows=18)


def shapes(run: RunFolder, trace: Trace, gpu: bool) -> None:
    """Operators by the shapes of their inputs."""
    assert run.trace is not None
    with st.spinner("Reading the shapes …", show_time=True):
        shapes = answers.shape_work(run.trace)
    if not shapes["input_dims"].ne("").any():
        widgets.empty("No input shapes in this trace", "Record with:", "profiler_runner(path, record_shapes=True)")
        return
    widgets.table(tables_work.shape_table(shapes, gpu=gpu), "shapes", rows=18)


def launches(run: RunFolder, trace: Trace, gpu: bool) -> None:
    """What launching costs the host, and how far ahead of the GPU it is."""
    assert run.trace is not None
    if not gpu:
        widgets.empty("No launches in this trace", "They are there when it ran on a GPU:", overview_parts.record_hint())
        return
    totals = answers.launches(run.trace)
    widgets.say(work.launch_cost(totals))
    widgets.table(tables_work.launch_table(totals), "launches", rows=10)
    st.subheader("How far the host is ahead", help="Launched work that had not begun yet, by stream.")
    widgets.table(tables_work.queue_table(answers.queue(run.trace)), "queue", rows=10)


def sequences(run: RunFolder, trace: Trace, gpu: bool) -> None:
    """Kernels that follow one another under one operator: what a fused kernel could replace."""
    assert run.trace is not None
    length = st.number_input(
        "Kernels in a row", 2, 12, 3, key="length", width=160, bind="query-params", help="Length of a sequence."
    )
    found = answers.sequences(run.trace, int(length))
    if found.empty:
        widgets.empty(
            "No such sequence", "No operator launched so many kernels. Try a shorter one.", "?view=Sequences&length=2"
        )
        return
    st.caption("The most frequent first: what runs often in the same order is what a fused kernel could replace.")
    widgets.table(tables_work.sequence_table(found), "sequences", rows=16)


VIEWS: dict[str, Callable[[RunFolder, Trace, bool], None]] = {
    "Operators": operators,
    "Modules": modules,
    "Shapes": shapes,
    "Launches": launches,
    "Sequences": sequences,
}
