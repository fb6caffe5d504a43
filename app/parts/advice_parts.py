"""The causes most worth fixing, as cards that lead to the page that shows them."""

from __future__ import annotations

import streamlit as st

from app import answers
from app.parts import overview_parts, widgets
from profiler_kit.findings.advice import Advice
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render import advice, bars

_SHOWN = 3
_PAGES = {"regions": "Regions", "kernels": "Kernels", "operators": "Operators", "layers": "Layers", "ranks": "Ranks"}


def show(run: RunFolder) -> None:
    """The first three as cards side by side, the rest folded away."""
    found: list[Advice] = []
    with widgets.one_line_errors():
        found = answers.advice(run)
    st.subheader("Most worth fixing", help=advice.HELP)
    if not found:
        st.caption(advice.NOTHING)
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


def _card(one: Advice) -> None:
    said = advice.hint(one)
    with st.container(border=True, key=f"hint-{one.kind.replace(' ', '-')}", height="stretch"):
        st.markdown(f"**{widgets.plain(overview_parts.tables.printable(said.title))}**")
        st.html(bars.gain(said.gain, said.share, one.share))
        st.markdown(widgets.plain(overview_parts.tables.printable(said.evidence)))
        st.markdown(f"**Try** {widgets.plain(said.attempt)}")
        widgets.go(
            said.page,
            f"Show in {_PAGES[said.page]}",
            region=said.region,
            kernel=said.kernel,
            operator=said.operator,
        )
