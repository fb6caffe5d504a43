"""Requests to a server under load: what the slowest waited for, in stages, and every request in a table."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import tables, widgets
from profiler_kit.findings import serving as findings
from profiler_kit.formats.request_file import RECORD_THEM
from profiler_kit.render.figures import run as figures

HELP = "One bar a request, the slowest on top: from the arrival of its head to the end of its answer."
HINT = RECORD_THEM.partition(": ")[2]

folder = state.run()
st.title("Requests under load")
if folder.requests is None:
    widgets.empty("No requests in this run", "Put profiler-kit sam serve under load, and ask it for a profile:", HINT)
    st.stop()
widgets.opened(folder)
run = cache.run(folder)
run.parts.requests.required()
requests = run.requests
if requests is None or requests.empty:
    widgets.empty("The file of requests is empty", "No request was recorded. Record some:", HINT)
    st.stop()
for one in findings.of_requests(run):
    widgets.say(one)
st.subheader("The slowest requests", help=HELP)
widgets.figure(figures.request_waterfall(requests), "requests-waterfall")
tables.section(folder, "requests", rows=12)
