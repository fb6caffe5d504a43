"""Opening a trace on a page: at once when it is there, else how far it is and a button that stops it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import state
from app.parts import widgets
from profiler_kit.trace import Trace

PATIENCE_S = 1.5  # a load shorter than this shows a spinner only
LOOK_EVERY_S = 0.4


def opened(path: Path) -> Trace | None:
    """The trace; None while it loads, when its loading was cancelled, and when it cannot be read, each said here."""
    with widgets.one_line_errors():
        if state.is_cancelled(path):
            st.info(f"Loading {widgets.plain(path.name)} was cancelled.", icon="ℹ️")
            st.button("Load it again", on_click=state.cancel, args=(path, False))
            return None
        job = state.opening(path)
        if not job.ended():
            with st.spinner("Reading the trace …", show_time=True):
                job.ended(PATIENCE_S)
        if job.ended():
            return job.result()
        _watch(path)
    return None


@st.fragment(run_every=LOOK_EVERY_S)
def _watch(path: Path) -> None:
    """How far the loading is, looked up again and again; when it is over the whole page is drawn anew."""
    with widgets.one_line_errors():
        job = state.opening(path)
        if job.ended():
            st.rerun()
        doing = job.note or "reading"
        size = f"{path.stat().st_size / 1e6:,.0f} MB" if path.is_file() else ""
        st.progress(job.share, text=widgets.plain(f"{path.name}, {size}: {doing}, {100 * job.share:.0f} %"))
        if st.button("Cancel", help="Stops reading; the other files of the run stay usable."):
            state.cancel(path, True)
            st.rerun()
