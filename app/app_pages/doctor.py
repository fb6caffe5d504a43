"""Doctor: what the trace file is, what was lost of it and where, what it lacks, and how to record it better."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import tables, widgets
from profiler_kit.finding import Finding
from profiler_kit.findings import quality
from profiler_kit.findings.doctor import about
from profiler_kit.findings.records import PARTS, not_recorded
from profiler_kit.render import bars

BADGES = {"lost": ":red-badge[lost]", "missing": ":orange-badge[not recorded]", "odd": ":blue-badge[odd]"}


def card(one: Finding) -> None:
    """What was found, what it affects, and one line to record it better."""
    with st.container(border=True, key=f"finding-{one.id}"):
        left, right = st.columns([3, 2], gap="medium", vertical_alignment="center")
        affects = f"  \n{widgets.plain(f'Affects: {one.affects}')}."
        left.markdown(f"{BADGES[one.kind]} **{widgets.sentence(one)}**{affects}", help=quality.SEVERITY[one.kind])
        if one.attempt:
            right.code(one.attempt, language="python", wrap_lines=True)


folder = state.run()
st.title("Doctor")
if folder.problem:
    widgets.problem(folder.problem)
missing = not_recorded([part for part, _, _ in PARTS if getattr(folder, part) is not None])
if missing is not None:
    widgets.note(missing)
if folder.trace is None:
    widgets.empty("No trace in this run", "Record one:", widgets.record_hint(folder))
    st.stop()
with widgets.one_line_errors():
    with st.spinner("Reading the file …", show_time=True):
        found, (verdict, *others) = cache.examination(folder)
    widgets.say(verdict)
    for one in others:
        card(one)
    if found["quality"]["incidents"]:
        tables.section(folder, "incidents", rows=8)
    st.subheader("The file")
    st.html(bars.facts(about(found)))
    tables.section(folder, "event_categories", rows=14)
