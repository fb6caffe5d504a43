"""What the address of a page holds beside the run, so that every view is a link that can be sent."""

from __future__ import annotations

import re
from collections.abc import Sequence

import streamlit as st

Range = tuple[int, int]
_RANGE = re.compile("(-?[0-9]{1,18})-(-?[0-9]{1,18})")


def asked(name: str) -> str:
    """The value of a query parameter; "" without one."""
    return str(st.query_params.get(name, ""))


def keep(name: str, value: str) -> None:
    """Write a query parameter, or take it out of the address when the value is ""."""
    if value and asked(name) != value:
        st.query_params[name] = value
    elif not value and name in st.query_params:
        del st.query_params[name]


def row_asked(name: str, values: Sequence[str]) -> int | None:
    """The row that the address names; None when it names none of these."""
    wanted = asked(name)
    return values.index(wanted) if wanted and wanted in values else None


def keep_all(name: str, values: Sequence[str]) -> None:
    """The same for a parameter that may be given several times."""
    if list(st.query_params.get_all(name)) == list(values):
        return
    if values:
        st.query_params[name] = list(values)
    else:
        del st.query_params[name]


def linked_range() -> Range | None:
    """The range selected in a link, in ns of the timeline (sel=FROM-TO); None without one."""
    found = _RANGE.fullmatch(asked("sel"))
    first, last = (int(found[1]), int(found[2])) if found is not None else (0, 0)
    return (first, last) if first < last else None
