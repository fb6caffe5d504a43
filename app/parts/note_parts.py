"""Notes on what a page shows: kept in the run folder, each with a link to the selection it is about."""

from __future__ import annotations

import streamlit as st

from app import outside
from app.parts import widgets
from profiler_kit.findings.records import about_note
from profiler_kit.formats.notes_file import MOST_LETTERS, add_note, read_notes, remove_note
from profiler_kit.load.discover.runs import RunFolder

NOT_OF_IT = ("run", "token")  # of an address: what is no selection
HELP = "Kept in notes.json of the run folder with the selection of this page; they are in the report too."


def notes(folder: RunFolder, page: str) -> None:
    """The sidebar: the notes of the run, and one more on what this page shows."""
    if not folder.path.is_dir():
        return
    with st.sidebar.container(key="notes"), widgets.one_line_errors():
        found = read_notes(folder.path)
        with st.expander(f"Notes ({len(found)})" if found else "Notes"):
            for number, one in enumerate(found):
                st.markdown(widgets.plain(one.text))
                st.caption(widgets.plain(about_note(one)))
                with st.container(horizontal=True):
                    if one.page:
                        widgets.go(one.page, "Show", **one.at)
                    if outside.allowed():
                        st.button("Remove", key=f"note-{number}", on_click=remove_note, args=(folder.path, one))
            if outside.allowed():
                st.text_area("A note on what this page shows", key="note", max_chars=MOST_LETTERS, help=HELP)
                st.button("Keep it", on_click=_keep, args=(folder, page))
            else:
                st.caption("Notes are written only with the token: this server was started with --no-token.")


def _keep(folder: RunFolder, page: str) -> None:
    text = str(st.session_state.get("note", "")).strip()
    if text:
        at = {name: str(value) for name, value in st.query_params.to_dict().items() if name not in NOT_OF_IT}
        with widgets.one_line_errors():
            add_note(folder.path, text, page, at)
        st.session_state["note"] = ""
