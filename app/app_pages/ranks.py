"""The ranks of one job side by side: who holds it up, what each GPU did, and who waits for whom."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.parts import rank_heat, rank_parts, tables, widgets
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
totals, waits, steps = found["ranks"], found["collective_waits"], found["rank_steps"]
if not len(totals):
    st.stop()
first, *more = (one for one in said if one.kind == "ranks")
widgets.say(first)
for line in first.details:
    st.caption(widgets.plain(line))
for one in more:
    widgets.note(one)
if len(steps):
    st.subheader("Ranks and steps", help=rank_heat.HELP)
    widgets.numbers(rank_parts.step_numbers(steps.frame))
    rank_heat.show(steps.frame, job)
shown = ranks.most_telling(totals.frame)
if len(shown) < len(totals):
    st.caption(f"Of {len(totals):,} ranks the {len(shown)} are drawn that had most own work or waited longest.")
left, right = st.columns(2, gap="large")
with left:
    st.subheader("What each GPU did while recorded", help=rank_parts.BARS_HELP)
    widgets.figure(ranks.rank_bars(shown), "ranks-activity")
with right:
    st.subheader("Communication", help=rank_parts.WAIT_HELP)
    widgets.figure(ranks.wait_bars(shown), "ranks-waits")
tables.show(totals, "ranks", rows=16)
for name in ("rank_what_if", "slow_parts", "slow_names", "links"):
    if len(found[name]):
        st.subheader(found[name].table.heading)
        tables.show(found[name], name, rows=8)
if len(waits):
    st.subheader("Wait at each collective", help=rank_parts.COLLECTIVE_HELP)
    widgets.figure(ranks.wait_points(waits.frame), "ranks-collectives")
    tables.show(waits, "collectives", rows=8)
rank_parts.links(job)
