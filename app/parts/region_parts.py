"""The parts of the regions page: which instance to zoom to, and the totals of what is selected."""

from __future__ import annotations

import streamlit as st

from app import query_params
from app.parts import tables, widgets
from app.query_params import Range
from profiler_kit.analyses.gpu.kernels import kernel_totals
from profiler_kit.analyses.gpu.window import events_between, events_under, operator_sums
from profiler_kit.findings.work import kernel_numbers, operator_numbers
from profiler_kit.names import printable
from profiler_kit.tables import every_table
from profiler_kit.text import fmt_ns, fmt_path
from profiler_kit.trace import Trace

_DIGITS = 10


def focus(trace: Trace, path: tuple[str, ...] | None, *, on_gpu: bool) -> Range | None:
    """The stretch of time to zoom to: one instance of the region picked in the table."""
    if path is None:
        return None
    instances = trace.region_instances()
    mine = instances[instances["path"] == path]
    if on_gpu:
        mine = mine[mine["gpu_start_ns"].notna()]
    if mine.empty:
        return None
    number = 1
    if len(mine) > 1:
        text = query_params.asked("instance")
        start = min(int(text), len(mine)) if text.isdecimal() and len(text) < _DIGITS and int(text) else 1
        asked = st.number_input(
            f"Zoom to which of its {len(mine)} instances", 1, value=start, key=f"instance-{path}", width=260
        )
        query_params.keep("instance", "" if asked == 1 else str(int(asked)))
        number = min(int(asked), len(mine))
        if number != asked:
            st.caption(f"There are {len(mine)} instances: this is the last one.")
    one = mine.iloc[number - 1]
    start_end = ("gpu_start_ns", "gpu_end_ns") if on_gpu else ("start_ns", "end_ns")
    return int(one[start_end[0]]), int(one[start_end[1]])


def work(trace: Trace, path: tuple[str, ...] | None, selected: Range | None, heading: str = "") -> None:
    """Kernels (without a GPU operators) of the region picked, of the selected range, of both when there are both.

    heading: what the range is, where it was not selected on the timeline.
    """
    on_gpu = trace.presence.ran == "gpu"
    every = trace.gpu_events() if on_gpu else trace.operators()
    events = every if path is None else events_under(every, path)
    range_ns = None if selected is None else selected[1] - selected[0]
    if on_gpu:
        events = events if selected is None else events_between(events, *selected)
        said, name, rows = kernel_numbers(events, range_ns), "kernels", kernel_totals(events)
    else:
        if selected is not None:  # self time cannot be cut: whole operators
            events = events[(events["start_ns"] >= selected[0]) & (events["start_ns"] < selected[1])]
        said, name, rows = operator_numbers(events, range_ns), "operator_sums", operator_sums(events)
    what = "Kernels" if on_gpu else "Operators"
    st.subheader(f"{what} in {heading}" if heading else _heading(what, path, selected))
    st.caption(said if heading else said + _how(path, selected))
    tables.show(every_table()[name].holding(rows, trace), "kernels" if on_gpu else "operators", rows=12)


def _heading(what: str, path: tuple[str, ...] | None, selected: Range | None) -> str:
    where = "all regions" if path is None else widgets.plain(printable(fmt_path(path)))
    if selected is None:
        return f"{what} of {where}"
    length = fmt_ns(selected[1] - selected[0])
    return f"{what} in the selected {length}" + ("" if path is None else f" of {where}")


def _how(path: tuple[str, ...] | None, selected: Range | None) -> str:
    if selected is None:
        return ""
    other = "" if path is None else ", unticking the row above shows every region"
    return f" · Esc on the timeline clears the selection{other}"
