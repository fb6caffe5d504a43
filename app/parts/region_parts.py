"""The parts of the regions page: which instance to zoom to, and the totals of what is selected."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import address
from app.parts import widgets
from profiler_kit.analyses.gpu.kernels import kernel_totals
from profiler_kit.analyses.gpu.timeline import gpu_timeline
from profiler_kit.analyses.gpu.window import events_between, events_under, operator_sums
from profiler_kit.render import tables
from profiler_kit.text import fmt_count, fmt_ns, fmt_percent
from profiler_kit.trace import Trace

Range = tuple[int, int]
_DIGITS = 10
TIMELINE_HELP = (
    "Above: regions as the GPU runs their kernels, then each stream. Below: regions and outermost operators on each "
    "host thread. The colour is the region's. Where spans are too short to see, height is the share of busy time."
)


def shown(trace: Trace, *, on_gpu: bool) -> pd.DataFrame:
    """The rows of the tree: on a host run those with host time."""
    regions = trace.regions()
    return regions if on_gpu else regions[regions["host_ns"] > 0].reset_index(drop=True)


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
        text = address.asked("instance")
        start = min(int(text), len(mine)) if text.isdecimal() and len(text) < _DIGITS and int(text) else 1
        asked = st.number_input(
            f"Zoom to which of its {len(mine)} instances", 1, value=start, key=f"instance-{path}", width=260
        )
        address.keep("instance", "" if asked == 1 else str(int(asked)))
        number = min(int(asked), len(mine))
        if number != asked:
            st.caption(f"There are {len(mine)} instances: this is the last one.")
    one = mine.iloc[number - 1]
    if on_gpu:
        return int(one["gpu_start_ns"]), int(one["gpu_end_ns"])
    return int(one["start_ns"]), int(one["end_ns"])


def kernels(trace: Trace, path: tuple[str, ...] | None, selected: Range | None) -> None:
    """Kernels of the region picked, of the selected range, of both when there are both, else all."""
    events = trace.gpu_events() if path is None else events_under(trace.gpu_events(), path)
    if selected is not None:
        events = events_between(events, *selected)
    busy = gpu_timeline(events)["busy_ns"]
    share = "" if selected is None else f" ({fmt_percent(busy / max(1, selected[1] - selected[0]))} of the range)"
    st.subheader(_heading("Kernels", path, selected))
    st.caption(
        f"{fmt_count(len(events))} GPU events · sum {fmt_ns(int(events['dur_ns'].sum()))} · "
        f"busy {fmt_ns(busy)}{share}{_how(path, selected)}"
    )
    widgets.table(tables.kernel_table(kernel_totals(events)), "kernels", rows=12)


def operators(trace: Trace, path: tuple[str, ...] | None, selected: Range | None) -> None:
    """Operators of the region picked, of the selected range, of both when there are both, else all."""
    events = trace.operators() if path is None else events_under(trace.operators(), path)
    if selected is not None:
        start = events["start_ns"]
        events = events[(start >= selected[0]) & (start < selected[1])]  # self time cannot be cut: whole operators
    st.subheader(_heading("Operators", path, selected))
    st.caption(
        f"{fmt_count(len(events))} operators · self time {fmt_ns(int(events['self_ns'].sum()))}"
        + (" · those that start in the range" if selected else "")
        + _how(path, selected)
    )
    widgets.table(tables.operator_table(operator_sums(events)), "operators", rows=12)


def _heading(what: str, path: tuple[str, ...] | None, selected: Range | None) -> str:
    where = "all regions" if path is None else widgets.plain(tables.path_label(path))
    if selected is None:
        return f"{what} of {where}"
    length = fmt_ns(selected[1] - selected[0])
    return f"{what} in the selected {length}" + ("" if path is None else f" of {where}")


def _how(path: tuple[str, ...] | None, selected: Range | None) -> str:
    if selected is None:
        return ""
    other = "" if path is None else ", unticking the row above shows every region"
    return f" · Esc on the timeline clears the selection{other}"
