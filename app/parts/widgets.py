"""The pieces pages share: pick a run, show an error as one line, tables with explained columns, links to the files."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from app import address, routes, state
from app.parts import columns
from profiler_kit.errors import KitError
from profiler_kit.finding import Finding
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.figures.style import Figure, standalone

PLOT = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Show a KitError as one line where it happened; what stands around it goes on."""
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
        with st.container(key="verdict"):
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


def in_root(name: str) -> str:
    """A path below the folder that is served, as one would type it."""
    path = state.root() / name
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def pick_run() -> None:
    """The sidebar: which run, and its files."""
    found = {run.key: run for run in state.runs()}
    if not found:
        st.sidebar.caption("No runs yet")
        return
    state.follow_address(list(found))
    st.sidebar.selectbox(
        "Run",
        list(found),
        key="run_picker",
        format_func=lambda key: found[key].label if key in found else key,
        on_change=state.choose_picked,
        help="Run folders, and bare trace or snapshot files, under the folder that is served.",
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
                st.page_link(f"app_pages/{name}.py", label=title, query_params=run)


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


def empty(title: str, how: str, command: str) -> None:
    """Say what is missing and how to record it."""
    st.info(f"**{title}**  \n{how}", icon="ℹ️")
    st.code(command, language="bash")


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


def table(frame: pd.DataFrame, key: str, *, rows: int = 12) -> None:
    """A table with its columns explained, as tall as its rows up to a limit, and as CSV."""
    st.dataframe(
        frame,
        key=key,
        hide_index=True,
        placeholder="–",
        column_config=columns.explained(frame),
        height=columns.height(len(frame), rows),
    )
    csv(frame, key)


def csv(frame: pd.DataFrame, key: str) -> None:
    """A button that hands out the table, whole and without its colours."""
    kept = frame.drop(columns="colour", errors="ignore")
    with st.container(key=f"keep-{key}", horizontal=True, horizontal_alignment="right"):
        st.download_button(
            "CSV",
            lambda: kept.to_csv(index=False),
            f"{_file_name(key)}.csv",
            "text/csv",
            key=f"csv-{key}",
            help="All rows of this table, with the digits that are not shown.",
            on_click="ignore",
            type="tertiary",
            icon=":material/download:",
        )


def pick_row(
    frame: pd.DataFrame, key: str, *, rows: int = 12, names: Sequence[str] = (), param: str = ""
) -> int | None:
    """The same table with one row to select; returns its number.

    With `param` the row's name (of `names`, one a row) is kept in the address, and a row named there is selected.
    """
    default = address.row_asked(param, list(names)) if param else None
    event = st.dataframe(
        frame,
        key=key,
        hide_index=True,
        placeholder="–",
        column_config=columns.explained(frame),
        height=columns.height(len(frame), rows),
        on_select="rerun",
        selection_mode="single-row",
        selection_default=None if default is None else {"selection": {"rows": [default]}},
    )
    csv(frame, key)
    chosen = event["selection"]["rows"]
    row = int(chosen[0]) if chosen and chosen[0] < len(frame) else None
    if param:
        address.keep(param, "" if row is None else names[row])
    return row


def switch(label: str, options: Sequence[str], param: str, *, meaning: str = "") -> str:
    """One of some views, kept in the address; the first one unless it says otherwise."""
    chosen = st.segmented_control(
        label,
        list(options),
        default=options[0],
        required=True,
        key=param,
        help=meaning or None,
        bind="query-params",
        label_visibility="visible" if meaning else "collapsed",
    )
    return chosen if chosen in options else options[0]


def go(page: str, label: str, **more: str) -> None:
    """A link to another page of this run."""
    wanted = {name: value for name, value in more.items() if value}
    st.page_link(f"app_pages/{page}.py", label=label, query_params={"run": st.session_state.get("run", ""), **wanted})
