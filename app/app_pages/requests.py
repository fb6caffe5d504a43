"""Requests to a server under load: what the slowest waited for, the batch and the kernels behind one, and the queue."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import region_parts, tables, widgets
from profiler_kit.analyses.serving.batches import batch_region
from profiler_kit.findings import serving as findings
from profiler_kit.formats.request_file import RECORD_THEM
from profiler_kit.render.figures import run as figures
from profiler_kit.tables import every_table

HELP = (
    "One bar a request, the slowest on top: from the arrival of its head to the end of its answer. In the model the "
    "parts of its batch, which it shares with others: on the GPU where something ran there, else on the host."
)
HINT = RECORD_THEM.partition(": ")[2]

folder = state.run()
st.title("Requests under load")
if folder.requests is None:
    widgets.empty("No requests in this run", "Put profiler-kit sam serve under load, and ask it for a profile:", HINT)
    st.stop()
widgets.opened(folder)
run = cache.run(folder)
run.parts.requests.required()
served = run.served
if served is None or served.requests.empty:
    widgets.empty("The file of requests is empty", "No request was recorded. Record some:", HINT)
    st.stop()
for one in findings.of_requests(run):
    widgets.say(one)
st.subheader("The slowest requests", help=HELP)
widgets.figure(figures.request_waterfall(served), "requests-waterfall")
st.subheader("Every request", help="One row per request. Pick one to see its batch.")
every = every_table()["requests"].of_source(served)
names = [str(number) for number in every.frame["id"].tolist()]
picked = tables.pick_row(every, f"requests-{folder.key}", names=names, param="request", rows=10) or 0
request = every.frame.iloc[picked]
st.subheader(f"Request {request['id']}: 1 of {request['batch_size']} in batch {request['batch']}")
mine = every_table()["request_parts"].of_source(served).frame.query("id == @request['id']")
tables.show(every_table()["request_parts"].holding(mine.reset_index(drop=True), served), "request-parts")
if run.trace is not None and (of := batch_region(served, int(request["batch"]), run.trace.region_instances())):
    region_parts.work(run.trace, None, of, f"batch {request['batch']}")
if not served.batches.empty:
    st.subheader("Batches", help="How many requests each batch held; below, every batch.")
    most = 0 if run.record is None else run.record.batch_size
    widgets.figure(figures.batch_occupancy(served.batches, most), "requests-batches")
    tables.show(every_table()["batches"].of_source(served), "batches", rows=10)
