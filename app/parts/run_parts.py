"""The parts of the page of runs: what is searched for, opening a file from elsewhere, and looking for new ones."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import streamlit as st

from app import cache, outside, query_params
from app.parts import tables, widgets
from profiler_kit.errors import InputError
from profiler_kit.load.discover.jobs import find_jobs
from profiler_kit.load.discover.listing import job_listed
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.table import Filled
from profiler_kit.tables import every_table

LOOK_EVERY_S = 3.0


def searched(found: Sequence[RunFolder]) -> Filled:
    """The table of runs whose row holds every word that is searched for, in any column."""
    table = every_table()["runs"]
    filled = table.of_source(found, **(tables.options(table) if find_jobs(found) else {}))
    text = st.text_input(
        "Search runs", query_params.asked("q"), placeholder="Search: model, device, name, …", key="runs-search",
        label_visibility="collapsed",
    )  # fmt: skip
    query_params.keep("q", text)
    lines = [" ".join(map(str, row)).casefold() for row in filled.frame.itertuples(index=False)]
    hits = [all(word in line for word in text.casefold().split()) for line in lines]
    return filled.table.holding(filled.frame[hits].reset_index(drop=True)) if text else filled


def go_to(key: str) -> None:
    """Show the run of a row, or the ranks of the job."""
    job = next((job for job in find_jobs(cache.runs()) if job.key == job_listed(key)), None)
    if job is None:
        st.session_state["run"] = key
        st.switch_page("app_pages/overview.py", query_params={"run": key})
    first = next(run.key for run in cache.runs() if run.trace == job.ranks[0][1])
    st.session_state["run"] = first
    st.switch_page("app_pages/ranks.py", query_params={"run": first, "job": job.key})


TOUR = (
    ("Pick a run", "Click its row below. The row says what it holds and whether its files are complete."),
    (
        "Read its Overview",
        "Where the time went, and what is most worth fixing. Cards and bars link to the rows behind them.",
    ),
    ("Look closer", "Timeline, Regions, Kernels and Memory show the same selection; Compare says what is noise."),
)
_toured = threading.Event()  # for as long as the server runs


def tour() -> None:
    """Three steps for the first visit, until they are taken away."""
    if _toured.is_set():
        return
    with st.container(border=True, key="tour"):
        for number, (column, (title, text)) in enumerate(zip(st.columns(3), TOUR, strict=True), 1):
            column.markdown(f"**{number}. {title}**  \n{text}")
        st.button("Got it", on_click=_toured.set, type="tertiary")


def ladders() -> None:
    """Links to the ladders and studies of the folder, which are of no one run."""
    found = cache.ladders()
    if found:
        st.subheader("Ladders and studies", help="Optimizations measured side by side, and batching studies.")
        with st.container(horizontal=True):
            for one in found:
                label, query = widgets.plain(one.key), {"ladder": one.key}
                st.page_link("app_pages/ladder.py", label=label, query_params=query)


def open_another() -> None:
    """Open a file that is not in the folder: dropped here, or by its path."""
    st.subheader("Open a file from elsewhere", help="A trace, a memory snapshot, a layers.parquet or a run folder.")
    if not outside.allowed():
        st.caption("Only with the token: this server was started with --no-token.")
        return
    left, right = st.columns(2, gap="large")
    number = st.session_state.setdefault("drops", 0)
    with left, widgets.one_line_errors():
        file = st.file_uploader(
            f"Drop it here, up to {outside.DROP_MB} MB; it is kept while the server runs",
            key=f"drop-{number}",
            max_upload_size=outside.DROP_MB,
        )
        if file is not None:
            st.session_state["drops"] = number + 1  # another uploader: Streamlit forgets the copy of this one
            go_to(outside.drop(file.name, file.getbuffer()))
    with right, widgets.one_line_errors():
        path = st.text_input("Or the path of a file or folder on the server's machine", key="open-path")
        if path:
            try:
                key = outside.by_path(path)
            except OSError as error:
                raise InputError(f"{path}: {error.strerror}, expected a file that can be read.") from error
            go_to(key)


@st.fragment(run_every=LOOK_EVERY_S)
def watch(keys: Sequence[str]) -> None:
    """Draw the page anew when there is another run than those, or one is gone."""
    if [run.key for run in cache.runs()] != list(keys):
        st.rerun()
