"""The parts of the ranks page: which job, and what to do when there is none."""

from __future__ import annotations

import streamlit as st

from app import cache, query_params
from app.parts import tables, widgets
from profiler_kit.finding import of_kind
from profiler_kit.findings.work import of_table
from profiler_kit.load.discover.jobs import Job, find_jobs
from profiler_kit.names import printable
from profiler_kit.ranks import Ranks
from profiler_kit.render import ranks as figures

BARS_HELP = "From the first GPU event of the rank to its last; overlaps are counted once, in this order."
WAIT_HELP = (
    "A collective ends on all ranks together, so the shortest of its kernels belongs to the rank that came last; "
    "the others waited for the time that theirs took longer. No common clock is needed."
)
AGAINST_HELP = (
    "Step time, exposed communication and verdict of this run and others. In a terminal: profiler-kit ranks JOB "
    "--against OTHER, and profiler-kit trend FOLDER for all runs in a folder."
)
COLLECTIVE_HELP = "The longest wait of any rank at each collective; the colour says which rank arrived last."


MOST_LINKS = 16


def answer(ranks: Ranks) -> None:
    """Who holds the job up, since when, by what and what it would gain; then what else there is to say."""
    first, *more = of_kind(ranks.findings(), "ranks")
    widgets.say(first)
    for line in (*first.details, *((f"Try: {first.attempt}",) if first.attempt else ())):
        st.caption(widgets.plain(line))
    for one in more:
        widgets.note(one)


def section(ranks: Ranks, name: str, *, rows: int = 8) -> None:
    """A table of the job below its title; nothing where it has no rows."""
    filled = ranks.table(name)
    if len(filled):
        st.subheader(filled.table.heading, help=f"One row per {filled.table.schema.row}.")
        tables.show(filled, name, rows=rows)


def against(job: Job) -> None:
    """This run of a job beside others that are served: of several all by time, of one the change since."""
    others = {one.key: one for one in _jobs().values() if one.key != job.key}
    if not others:
        return
    st.subheader("Run against run", help=AGAINST_HELP)
    chosen = st.multiselect(
        "Other runs of this job",
        list(others),
        key="against",
        format_func=lambda key: others[key].name if key in others else key,
        bind="query-params",
    )
    runs = [others[key] for key in chosen if key in others]
    if runs:
        filled = cache.runs_side_by_side((*runs, job))
        said = of_table(filled) if len(runs) == 1 else None
        if said is not None:
            st.markdown(widgets.sentence(said))
        tables.show(filled, "job_runs")
        if len(runs) > 1:
            widgets.figure(figures.run_lines(filled.frame), "ranks-runs")


def _jobs() -> dict[str, Job]:
    return {job.key: job for job in find_jobs(cache.runs())}


def pick_job() -> Job | None:
    """The job of the chosen run, or the one that is picked; None when no folder holds one."""
    jobs = _jobs()
    if not jobs:
        return None
    asked = query_params.asked("job")
    if asked and asked not in jobs:
        widgets.problem(f"{asked}: no job here (moved or deleted?). A different one is shown.")
    run = cache.find(str(st.session_state.get("run", "")))
    keys = list(jobs)
    has_run = (run is not None and run.trace in {path for _, path in job.ranks} for job in jobs.values())
    start = next((number for number, has in enumerate(has_run) if has), 0)
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
    is_other = run is not None and run.trace not in {path for _, path in job.ranks}
    other = f" · the run on the left, {run.label}, is none of them" if run is not None and is_other else ""
    st.caption(widgets.plain(f"{printable(job.name)} · ranks {named}{more_text}{other}"))
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
