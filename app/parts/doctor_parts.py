"""The parts of the doctor page: which files the run has, and what was found, as cards with the line that mends it."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.parts import widgets
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.doctor import SEVERITY
from profiler_kit.render.tables import printable

WHERE_HELP = "Offsets count the bytes of the uncompressed text."
CATEGORY_HELP = "Events by category and phase (X: a span, i: a moment, M: metadata, s and f: arrows) and their use."
_PARTS = {
    "record": ("run.json", "what ran, and its latency without the profiler"),
    "trace": ("trace.json.gz", "regions, kernels, operators"),
    "memory": ("memory.pickle", "memory over time, live at the peak"),
    "layers": ("layers.parquet", "time per layer and batch size"),
}


def say_parts(run: RunFolder) -> None:
    """Which files are there, and what each of the missing ones would show."""
    there = [name for part, (name, _) in _PARTS.items() if getattr(run, part) is not None]
    gone = [f"{name} ({why})" for part, (name, why) in _PARTS.items() if getattr(run, part) is None]
    said = f"This run has {', '.join(there) or 'none of its files'}."
    st.caption(widgets.plain(said + (f" Not recorded: {'; '.join(gone)}." if gone else "")))


def findings(found: list[dict[str, Any]]) -> None:
    """Each finding: what it is, what it affects, and one line to record it better."""
    for number, finding in enumerate(found):
        with st.container(border=True, key=f"finding-{number}"):
            left, right = st.columns([3, 2], gap="medium", vertical_alignment="center")
            icon, meaning = SEVERITY[finding["severity"]]
            left.markdown(
                f"{icon} **{widgets.plain(_sentence(finding['found']))}**  \n"
                f"{widgets.plain('Affects: ' + finding['affects'])}.",
                help=meaning,
            )
            if finding["next_time"]:
                right.code(finding["next_time"], language="python", wrap_lines=True)


def _sentence(text: str) -> str:
    return printable(text[:1].upper() + text[1:])
