"""The ranks of one job side by side: what each GPU did, and who waits for whom."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.parts import rank_parts, tables, widgets
from profiler_kit.render import ranks

st.title("Ranks")
job = rank_parts.pick_job()
if job is None:
    rank_parts.none_found()
    st.stop()
with st.spinner(f"Reading {len(job.ranks)} traces …", show_time=True):
    found, said = cache.ranks(job)
for line in (*job.problems, *(line for one in said if one.kind == "lost" for line in (one.sentence, *one.details))):
    widgets.problem(line)
totals, waits = found["ranks"], found["collective_waits"]
if not len(totals):
    st.stop()
for one in said:
    if one.kind == "ranks":
        widgets.say(one)
left, right = st.columns(2, gap="large")
with left:
    st.subheader("What each GPU did while recorded", help=rank_parts.BARS_HELP)
    widgets.figure(ranks.rank_bars(totals.frame), "ranks-activity")
with right:
    st.subheader("Communication", help=rank_parts.WAIT_HELP)
    widgets.figure(ranks.wait_bars(totals.frame), "ranks-waits")
tables.show(totals, "ranks", rows=16)
if len(waits):
    st.subheader("Wait at each collective", help=rank_parts.COLLECTIVE_HELP)
    widgets.figure(ranks.wait_points(waits.frame), "ranks-collectives")
    tables.show(waits, "collectives", rows=8)
rank_parts.links(job)
