"""The parts of the kernels page: what to group by, and the numbers of the group that is shown."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import address
from app.parts import widgets
from profiler_kit.analyses.gpu.kernel_groups import By
from profiler_kit.analyses.gpu.timeline import gpu_timeline
from profiler_kit.findings.work import group_name
from profiler_kit.names import printable
from profiler_kit.text import fmt_count, fmt_ns

DETAIL_HELP = "Pick a row above to see another one. Each dot is one execution; its colour is that of its region."
ORIGIN_HELP = "A GPU event belongs to the call that launched it, and the call to all that was open on its thread."
_GROUPINGS: dict[str, By] = {"By name": "name", "By kind of work": "kind", "By stream": "stream"}
_BY_HELP = (
    "Kind of work is told by the name: matrix products, attention, elementwise, … A stream runs its work in order."
)


def pick_grouping() -> By:
    """How to group; another grouping forgets the row that was picked."""
    chosen = _GROUPINGS[widgets.switch("Group kernels", list(_GROUPINGS), "by", meaning=_BY_HELP)]
    if st.session_state.get("kernels-grouped-by", chosen) != chosen:
        address.keep("kernel", "")
    st.session_state["kernels-grouped-by"] = chosen
    return chosen


def heading(key: str, by: By, *, picked: bool) -> str:
    """The name of what is shown below."""
    name = printable(group_name(key, by))
    return widgets.plain(name if picked else f"Longest: {name}")


def facts(events: pd.DataFrame) -> str:
    """One line of numbers."""
    busy = gpu_timeline(events)["busy_ns"]
    middle, last = (float(events["dur_ns"].quantile(share)) for share in (0.5, 0.95))
    return (
        f"{fmt_count(len(events))} times · sum {fmt_ns(int(events['dur_ns'].sum()))} · busy {fmt_ns(busy)} · "
        f"median {fmt_ns(middle)} · 95 % below {fmt_ns(last)} · longest {fmt_ns(int(events['dur_ns'].max()))}"
    )
