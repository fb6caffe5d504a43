"""The parts of the ranks page: which job, and what to do when there is none."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import cache
from app.parts import widgets
from profiler_kit.findings.numbers import Number
from profiler_kit.load.discover.jobs import Job, find_jobs
from profiler_kit.names import printable
from profiler_kit.text import fmt_ns

BARS_HELP = "From the first GPU event of the rank to its last; overlaps are counted once, in this order."
WAIT_HELP = (
    "A collective ends on all ranks together, so that of its kernels the shortest belongs to the rank that came last; "
    "what another one took longer, it waited. No common clock is needed."
)
COLLECTIVE_HELP = "The longest wait of any rank at each collective; the colour says which rank arrived last."


MOST_LINKS = 16


def step_numbers(steps: pd.DataFrame) -> list[Number]:
    """How long the steps of the job took: the slowest rank of each. Takes STEPS_OF_RANKS."""
    wall = steps.groupby("step")["wall_ns"].max()
    return [
        Number(f"{name} step", fmt_ns(float(wall.quantile(share))), "Of the slowest rank in each step.")
        for name, share in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
    ]


def pick_job() -> Job | None:
    """The job of the chosen run, or the one that is picked; None when no folder holds one."""
    jobs = {job.key: job for job in find_jobs(cache.runs())}
    if not jobs:
        return None
    mine = str(st.session_state.get("run", "")).rpartition("/")[0] or "."
    keys = list(jobs)
    start = keys.index(mine) if mine in jobs else 0
    if len(keys) == 1:
        chosen: str | None = keys[0]
    else:
        chosen = st.selectbox(
            "Job",
            keys,
            index=start,
            key="job",
            format_func=lambda key: jobs[key].name if key in jobs else key,
            help="A folder with one trace per rank.",
            bind="query-params",
        )
    job = jobs[chosen if chosen in jobs else keys[start]]
    named = ", ".join(str(rank) for rank, _ in job.ranks[:MOST_LINKS])
    more = len(job.ranks) - MOST_LINKS
    more_text = f" and {more:,} more" if more > 0 else ""
    st.caption(widgets.plain(f"{printable(job.name)} · ranks {named}{more_text}"))
    return job


def none_found() -> None:
    """How to get a job that can be shown."""
    widgets.empty(
        "No ranks to compare",
        "Put the traces of all ranks of one job into one folder, each with its rank in the name (or with "
        "`distributedInfo`, which torch writes when the process group is initialised before recording). On each rank:",
        'profiler_runner(f"runs/my_job/rank{rank}.json.gz")',
    )


def links(job: Job) -> None:
    """Each rank's own pages."""
    runs = {run.trace: run for run in cache.runs()}
    with st.container(horizontal=True):
        for rank, path in job.ranks[:MOST_LINKS]:
            if path in runs:
                st.page_link(
                    "app_pages/overview.py", label=f"Overview of rank {rank}", query_params={"run": runs[path].key}
                )
