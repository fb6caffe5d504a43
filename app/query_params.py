"""What the address of a page holds beside the run, so that every view is a link that can be sent."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

Range = tuple[int, int]


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
    first, dash, last = str(st.query_params.get("sel", "")).partition("-")
    if not (dash and first.isascii() and last.isascii() and first.isdigit() and last.isdigit()):
        return None
    return (int(first), int(last)) if len(first) < 19 and len(last) < 19 and int(first) < int(last) else None
