"""The ranks of one job side by side: who holds it up, what each GPU did, and who waits for whom."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.parts import rank_heat, rank_parts, tables, widgets
from profiler_kit.finding import of_kind
from profiler_kit.findings.ranks import numbers_of_job
from profiler_kit.render import ranks as figures

st.title("Ranks")
job = rank_parts.pick_job()
if job is None:
    rank_parts.none_found()
    st.stop()
with st.spinner(f"Reading {len(job.ranks)} traces …", show_time=True):
    ranks = cache.ranks(job)
lost = (line for one in of_kind(ranks.findings(), "lost") for line in (one.sentence, *one.details))
for line in (*job.problems, *lost):
    widgets.problem(line)
if not ranks.ranks:
    st.stop()
rank_parts.answer(ranks)
widgets.numbers(numbers_of_job(ranks))
rank_heat.show(ranks, job)
for name in ("rank_what_if", "slow_parts", "slow_names", "rank_outliers"):
    rank_parts.section(ranks, name)
totals, waits = ranks.table("ranks"), ranks.table("collective_waits")
shown = figures.most_telling(totals.frame)
if len(shown) < len(totals):
    st.caption(f"Of {len(totals):,} ranks the {len(shown)} are drawn that had most own work or waited longest.")
left, right = st.columns(2, gap="large")
with left:
    st.subheader("What each GPU did while recorded", help=rank_parts.BARS_HELP)
    widgets.figure(figures.rank_bars(shown), "ranks-activity")
with right:
    st.subheader("Communication", help=rank_parts.WAIT_HELP)
    widgets.figure(figures.wait_bars(shown), "ranks-waits")
tables.show(totals, "ranks", rows=8)
for name in ("step_times", "bandwidths", "links", "rank_memory"):
    rank_parts.section(ranks, name)
if len(waits):
    st.subheader("Wait at each collective", help=rank_parts.COLLECTIVE_HELP)
    widgets.figure(figures.wait_points(waits.frame), "ranks-collectives")
    tables.show(waits, "collectives", rows=8)
rank_parts.against(job)
rank_parts.links(job)
