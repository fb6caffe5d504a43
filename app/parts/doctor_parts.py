"""The parts of the doctor page: what was found, as cards with the line that mends it, and the tables of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app.parts import widgets
from profiler_kit.finding import Finding
from profiler_kit.findings.quality import INCIDENTS, SEVERITY
from profiler_kit.findings.records import PARTS, not_recorded
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.names import printable

WHERE_HELP = "Offsets count the bytes of the uncompressed text."
CATEGORY_HELP = "Events by category and phase (X: a span, i: a moment, M: metadata, s and f: arrows) and their use."
_BADGES = {"lost": ":red-badge[lost]", "missing": ":orange-badge[not recorded]", "odd": ":blue-badge[odd]"}


def say_parts(run: RunFolder) -> None:
    """Which files are not there, and what each of them would show."""
    missing = not_recorded([part for part, _, _ in PARTS if getattr(run, part) is not None])
    if missing is not None:
        widgets.note(missing)


def findings(found: Sequence[Finding]) -> None:
    """Each finding: what it is, what it affects, and one line to record it better."""
    for number, one in enumerate(found):
        with st.container(border=True, key=f"finding-{number}"):
            left, right = st.columns([3, 2], gap="medium", vertical_alignment="center")
            left.markdown(
                f"{_BADGES[one.kind]} **{widgets.plain(one.sentence)}**  \n{widgets.plain(f'Affects: {one.affects}')}.",
                help=SEVERITY[one.kind],
            )
            if one.attempt:
                right.code(one.attempt, language="python", wrap_lines=True)


def incident_table(incidents: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Where the file was damaged, one row a place."""
    return pd.DataFrame(
        {
            "offset": [int(one["offset"]) for one in incidents],
            "incident": [INCIDENTS[one["kind"]] for one in incidents],
            "event_text": [printable(str(one["text"])) for one in incidents],
        }
    )


def category_table(categories: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Events by category and phase, with what they are used for."""
    return pd.DataFrame(
        {
            "event_category": [printable(str(row["category"]) or "(none)") for row in categories],
            "phase": [str(row["phase"]) for row in categories],
            "count": [int(row["events"]) for row in categories],
            "used_as": [f"ignored: {row['why']}" if row["role"] == "ignored" else row["role"] for row in categories],
        }
    )
