"""The pieces pages share: pick a run, show an error as one line, tables with explained columns, links to the files."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode

import streamlit as st

from app import cache, routes, state
from profiler_kit.errors import KitError
from profiler_kit.finding import Finding
from profiler_kit.findings.no_rows import no_rows
from profiler_kit.findings.numbers import Number
from profiler_kit.findings.records import in_brief, to_add
from profiler_kit.findings.time import nothing_read
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.figures.style import Figure, standalone
from profiler_kit.run import Run
from profiler_kit.table import Filled
from profiler_kit.trace import Trace

PATIENCE_S = 1.5  # a load shorter than this shows a spinner only
LOOK_EVERY_S = 0.4
PLOT = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Show a KitError as one line where it happened; the rest of the page goes on."""
    try:
        yield
    except KitError as error:
        problem(str(error))


def plain(text: str) -> str:
    """Text that markdown shows as it is."""
    return "".join("\\" + c if c in "\\`*_{}[]()<>#+-.!|~$:^=" else c for c in text)


def sentence(one: Finding) -> str:
    """The sentence of a finding as markdown, its figures in bold."""
    return "".join(f"**{plain(text)}**" if is_bold else plain(text) for text, is_bold in one.pieces)


def say(one: Finding | None) -> None:
    """The sentence that answers what a page asks, large; nothing where there is none."""
    if one is not None:
        with st.container(key=f"verdict-{one.id}"):
            st.markdown(sentence(one))


def note(one: Finding) -> None:
    """A finding by its level: an error or a warning in its box, anything else small; details on hover."""
    text = f"{f'**{plain(one.title)}:** ' if one.title else ''}{sentence(one)}"
    text += f" Try: {plain(one.attempt)}" if one.attempt else ""
    text += "".join(f"  \n{plain(line)}" for line in one.details)
    if one.level == "note":
        st.caption(text)
    else:
        (st.error if one.level == "error" else st.warning)(text, icon="⚠️")


def numbers(shown: Sequence[Number]) -> None:
    """The handful of numbers that sum something up, side by side where there is room."""
    with st.container(key="numbers", horizontal=True, gap="large"):
        for one in shown:
            st.metric(one.name, one.value, help=one.meaning, width="content")


def in_root(name: str) -> str:
    """A path below the folder that is served, as one would type it."""
    return typed(cache.root() / name)


def typed(path: Path) -> str:
    """A path as one would type it here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def pick_run() -> None:
    """The sidebar: which run, with what is known of it."""
    found = {run.key: run for run in cache.runs()}
    state.follow_address(list(found))
    st.sidebar.selectbox(
        "Run",
        list(found),
        key="run_picker",
        format_func=lambda key: in_brief(found[key]) if key in found else key,
        on_change=state.choose_picked,
        help="Run folders, and bare trace or snapshot files, under the folder that is served; the newest first.",
    )
    state.keep_in_address()


def pages(sections: Mapping[str, Mapping[str, str]]) -> None:
    """The sidebar: links to every page, by section, which keep the run."""
    run = {"run": st.session_state["run"]} if "run" in st.session_state else {}
    with st.sidebar.container(key="pages"):
        for section, titles in sections.items():
            if section:
                st.caption(section)
            for name, title in titles.items():
                st.page_link(f"app_pages/{name}.py", label=title, query_params={} if name == "runs" else run)


def files(run: RunFolder) -> None:
    """The sidebar's links to what the run holds."""
    with st.sidebar:
        if run.trace is not None:
            if routes.perfetto_folder() is not None:
                st.link_button(
                    "Open in Perfetto",
                    routes.url("perfetto", run.key),
                    width="stretch",
                    help="Perfetto's own interface, served from here: no network, nothing is uploaded.",
                )
            st.link_button("Download trace", routes.url("trace", run.key), width="stretch")
            st.caption("Elsewhere: drop the file on ui.perfetto.dev, or on chrome://tracing.")
        if run.memory is not None:
            st.link_button("Open memory page", routes.url("memory", run.key), width="stretch")


def is_dark() -> bool:
    """Whether the browser shows the dark theme."""
    return st.context.theme.type == "dark"


def problem(text: str) -> None:
    """One line about a broken file of the run; the rest of the page goes on."""
    st.error(plain(" ".join(text.split())))


def problems(run: Run) -> None:
    """The parts of a run that turned out to be unreadable; of the trace `opened` says so."""
    for one in run.problems:
        if run.parts.trace.error is None or one != " ".join(str(run.parts.trace.error).split()):
            problem(one)


def empty(title: str, how: str, command: str) -> None:
    """Say what is missing and how to record it."""
    st.info(f"**{title}**  \n{how}", icon="ℹ️")
    st.code(command, language="bash", wrap_lines=True)


def hollow(filled: Filled) -> None:
    """Say why a table is empty and how to record what it would show."""
    if (found := no_rows(filled)) is not None:
        st.info(sentence(found), icon="ℹ️")
        if found.attempt:
            st.code(found.attempt, language="bash")


def figure(chart: Figure, key: str) -> None:
    """A plotly figure as wide as the page, with a way to keep it: HTML below, PNG by the camera on it."""
    name = _file_name(key)
    picture = {"format": "png", "filename": name, "scale": 2}
    st.plotly_chart(chart, key=key, config={**PLOT, "toImageButtonOptions": picture})
    with st.container(key=f"keep-{key}", horizontal=True, horizontal_alignment="right"):
        st.download_button(
            "HTML",
            lambda: standalone(chart, name),
            f"{name}.html",
            "text/html",
            key=f"html-{key}",
            help="This figure as one HTML file that works offline (4.8 MB). PNG: the camera on the figure.",
            on_click="ignore",
            type="tertiary",
            icon=":material/download:",
        )


def _file_name(key: str) -> str:
    """Run and figure as a file name of plain letters."""
    text = f"{st.session_state.get('run', '')}-{key}"
    return "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in text).strip("._-")


def csv(filled: Filled, key: str) -> None:
    """A button that hands out the table, whole.

    A session keeps what a button would hand out until it is forgotten, minutes after its page is closed: the rows of
    the table, and not the trace that they are of.
    """
    rows = filled.table.holding(filled.frame)
    with st.container(key=f"keep-{key}", horizontal=True, horizontal_alignment="right"):
        st.download_button(
            "CSV",
            rows.csv,
            f"{_file_name(key)}.csv",
            "text/csv",
            key=f"csv-{key}",
            help="All rows of this table, with the digits that are not shown.",
            on_click="ignore",
            type="tertiary",
            icon=":material/download:",
        )


def record_hint(folder: RunFolder, part: str = "trace", *, on_gpu: bool = False) -> str:
    """What records a run like this one, with that part, into the folder that is served."""
    out = in_root(f"{folder.path.name.partition('.')[0]}-more")
    return to_add(folder.record, [part], out, on_gpu=on_gpu)


def opened(folder: RunFolder) -> Trace | None:
    """The run's trace; None without one, while it loads, or when it cannot be read, each said here."""
    if folder.trace is None:
        return None
    with one_line_errors():
        if cache.is_cancelled(folder):
            st.info(f"Loading {plain(folder.trace.name)} was cancelled.", icon="ℹ️")
            st.button("Load it again", on_click=cache.cancel, args=(folder, False))
            return None
        job = cache.opening(folder)
        if not job.ended():
            with st.spinner("Reading the trace …", show_time=True):
                job.ended(PATIENCE_S)
        if job.ended():
            return job.result()
        _watch(folder)
    return None


def trace_or_stop(folder: RunFolder, comes: str) -> Trace:
    """The run's trace; without one the page ends here and says why. comes: what it would show."""
    found = opened(folder)
    if found is None:
        if folder.trace is None:
            empty("No trace in this run", f"{comes} Record one:", record_hint(folder))
        st.stop()
    if (nothing := nothing_read(found)) is not None:
        note(nothing)
        st.stop()
    return found


@st.fragment(run_every=LOOK_EVERY_S)
def _watch(folder: RunFolder) -> None:
    """How far the loading is, looked up again and again; when it is over the whole page is drawn anew."""
    assert folder.trace is not None
    with one_line_errors():
        job = cache.opening(folder)
        if job.ended():
            st.rerun()
        doing = job.note or "reading"
        size = f"{folder.trace.stat().st_size / 1e6:,.0f} MB" if folder.trace.is_file() else ""
        st.progress(job.share, text=plain(f"{folder.trace.name}, {size}: {doing}, {100 * job.share:.0f} %"))
        if st.button("Cancel", help="Stops reading; the other files of the run stay usable."):
            cache.cancel(folder, True)
            st.rerun()


def switch(label: str, options: Sequence[str], param: str, *, meaning: str = "", first: str = "") -> str:
    """One of some views, kept in the address; unless that says otherwise `first`, or the first of them."""
    first = first if first in options else options[0]
    chosen = st.segmented_control(
        label,
        list(options),
        default=first,
        required=True,
        key=param,
        help=meaning or None,
        bind="query-params",
        label_visibility="visible" if meaning else "collapsed",
    )
    return chosen if chosen in options else first


def address(page: str, param: str) -> Callable[[str], str]:
    """The address of what a key names on a page of this run."""
    run = str(st.session_state.get("run", ""))
    return lambda key: f"{page}?{urlencode({'run': run, param: key})}"


def go(page: str, label: str, *, icon: str | None = None, **more: str | list[str]) -> None:
    """A link to another page of this run."""
    run = str(st.session_state.get("run", ""))
    query: dict[str, str | list[str]] = {"run": run, **{name: value for name, value in more.items() if value}}
    st.page_link(f"app_pages/{page}.py", label=label, icon=icon, query_params=query)
