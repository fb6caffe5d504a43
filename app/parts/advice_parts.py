"""The causes most worth fixing, as cards that lead to the page that shows them."""

from __future__ import annotations

import streamlit as st

from app import answers
from app.parts import widgets
from profiler_kit.finding import Finding, of_kind
from profiler_kit.findings.advice import HELP, NOTHING
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render import bars

_SHOWN = 3
_PAGES = {"regions": "Regions", "kernels": "Kernels", "operators": "Operators", "layers": "Layers", "ranks": "Ranks"}


def show(run: RunFolder) -> None:
    """The first three as cards side by side, the rest folded away."""
    found: list[Finding] = []
    with widgets.one_line_errors():
        found = of_kind(answers.findings(run), "advice")
    st.subheader("Most worth fixing", help=HELP)
    if not found:
        st.caption(NOTHING)
        return
    for column, one in zip(st.columns(_SHOWN, gap="medium"), found[:_SHOWN], strict=False):
        with column:
            _card(one)
    if len(found) > _SHOWN:
        with st.expander(f"{len(found) - _SHOWN} more"):
            for columns in (found[n : n + _SHOWN] for n in range(_SHOWN, len(found), _SHOWN)):
                for column, one in zip(st.columns(_SHOWN, gap="medium"), columns, strict=False):
                    with column:
                        _card(one)


def _card(one: Finding) -> None:
    with st.container(border=True, key=f"hint-{one.id}", height="stretch"):
        st.markdown(f"**{widgets.plain(one.title)}**")
        if one.gain is not None:
            st.html(bars.gain(one.gain))
        st.markdown(widgets.sentence(one))
        st.markdown(f"**Try** {widgets.plain(one.attempt)}")
        widgets.go(one.page, f"Show in {_PAGES[one.page]}", **one.link)
