"""Doctor: what the trace file is, what was lost of it and where, what it lacks, and how to record it better."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import answers, state
from app.parts import doctor_parts as parts
from app.parts import overview_parts, widgets
from profiler_kit.findings.doctor import about
from profiler_kit.render import bars

run = state.run()
st.title("Doctor")
if run.problem:
    widgets.problem(run.problem)
parts.say_parts(run)
if run.trace is None:
    widgets.empty("No trace in this run", "Record one:", overview_parts.record_hint())
    st.stop()
with widgets.one_line_errors():
    with st.spinner("Looking at the file …", show_time=True):
        found, (verdict, *others) = answers.examination(run)
    widgets.say(verdict)
    parts.findings(others)
    if found["quality"]["incidents"]:
        st.subheader("Where it was damaged", help=parts.WHERE_HELP)
        widgets.table(parts.incident_table(found["quality"]["incidents"]), "incidents", rows=8)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader("The file")
        st.html(bars.facts(pd.DataFrame(about(found), columns=["fact", "value"])))
    with right:
        st.subheader("What is in it", help=parts.CATEGORY_HELP)
        widgets.table(parts.category_table(found["categories"]), "categories", rows=14)
