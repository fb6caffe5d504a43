"""`profiler-kit ranks TRACE...`: compare the ranks of one job: what holds it up, since when, why, and what fixing that
would gain; busy time, communication, and who waited for whom in its collectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import pandas as pd

from profiler_kit.analyses.ranks.causes import RANK_SCORES
from profiler_kit.analyses.ranks.clocks import CLOCKS
from profiler_kit.analyses.ranks.files import RANK_FILES
from profiler_kit.analyses.ranks.links import BANDWIDTHS, LINKS
from profiler_kit.analyses.ranks.matching import GROUPS, JOB_WORK, of_job
from profiler_kit.analyses.ranks.memory import RANK_MEMORY
from profiler_kit.analyses.ranks.of_rank import RANK_PARTS
from profiler_kit.analyses.ranks.places import RANK_PLACES
from profiler_kit.analyses.ranks.ranks import (
    COLLECTIVE_WAITS,
    RANK_COLLECTIVES,
    RANK_TOTALS,
    SLOW_NAMES,
    STEP_TIMES,
    STEPS_OF_RANKS,
    collective_waits,
)
from profiler_kit.analyses.ranks.trend import TREND
from profiler_kit.analyses.ranks.verdict import SLOW_PARTS, WHAT_IF
from profiler_kit.schema import Schema
from profiler_kit.table import Option, Table

_OF_VERDICT: Final = ("state", "rank", "node", "cause", "since_step", "gain_share", "gain_low", "gain_high")


def _beside(ranks: Any) -> dict[str, Any]:
    """What is known of the job as a whole."""
    answer, files = ranks.answer, ranks.files()
    verdict = asdict(answer.verdict)
    clocks = answer.clocks
    left = files[files["reason"] != ""]
    worst = clocks["error_ns"].max() / 1000 if len(clocks) else math.nan
    return {
        "verdict": {name: verdict[name] for name in _OF_VERDICT},
        "slow": [one._asdict() for one in answer.verdict.slow],  # each of those that hold it up together
        "matched": answer.matched,
        "unmatched": answer.unmatched,
        "unmatched_why": answer.why,
        "clocks": {
            "worst_error_us": None if math.isnan(worst) else float(worst),
            "components": int(clocks["component"].max()) + 1 if len(clocks) else 0,
        },
        "missing": ranks.missing,
        "left_out": left[["file", "status", "reason"]].to_dict("records"),
        "what_if": answer.what_if.to_dict("records"),
        "slow_parts": answer.slow_parts.to_dict("records"),
    }


def _against(ranks: Any, against: str | None) -> pd.DataFrame:
    """Another run of the job, and this one compared with it; without another this one alone."""
    from profiler_kit.ranks import load_ranks
    from profiler_kit.trend import side_by_side

    return side_by_side([load_ranks(against), ranks] if against else [ranks])


def _by(
    by: str,
    name: str,
    title: str,
    schema: Schema,
    fill: Callable[[Any], pd.DataFrame],
    beside: Any = None,
    order: tuple[str, ...] = (),
) -> Table:
    """A table that `profiler-kit ranks --by` prints."""
    return Table(name, "job", title, schema, fill, command="ranks", by=by, top=30, beside=beside, order=order)


TABLES: Final = (
    _by(
        "rank",
        "ranks",
        "ranks side by side",
        RANK_TOTALS,
        lambda ranks: ranks.totals(),
        beside=_beside,
        order=("rank", "busy_ns", "own_ns", "more_ns", "more_share", "wait_ns", "held_ns", "exposed_communication_ns"),
    ),
    _by(
        "collective",
        "rank_collectives",
        "collectives and who waited for whom",
        RANK_COLLECTIVES,
        lambda ranks: ranks.collectives(),
    ),
    _by("step", "rank_steps", "steps of each rank", STEPS_OF_RANKS, lambda ranks: ranks.steps()),
    _by(
        "outlier",
        "rank_outliers",
        "ranks by own work beyond that of their peers",
        RANK_SCORES,
        lambda ranks: ranks.answer.scores.sort_values("more_ns", ascending=False, kind="stable", ignore_index=True),
    ),
    _by("job-step", "step_times", "steps of the job", STEP_TIMES, lambda ranks: ranks.step_times()),
    _by("what-if", "rank_what_if", "what the job would gain", WHAT_IF, lambda ranks: ranks.answer.what_if),
    _by(
        "part",
        "slow_parts",
        "own work of the slowest against its peers, where it is slow",
        SLOW_PARTS,
        lambda ranks: ranks.answer.slow_parts,
    ),
    _by(
        "name",
        "slow_names",
        "kernels and regions of the slowest against its peers",
        SLOW_NAMES,
        lambda ranks: ranks.slow_names(),
    ),
    _by("link", "links", "bandwidth of each group", LINKS, lambda ranks: ranks.answer.links),
    _by("bandwidth", "bandwidths", "bandwidth by kind of group and size", BANDWIDTHS, lambda ranks: ranks.bandwidths()),
    _by("clock", "rank_clocks", "clocks of the ranks", CLOCKS, lambda ranks: ranks.answer.clocks),
    _by("memory", "rank_memory", "memory peaks by rank", RANK_MEMORY, lambda ranks: ranks.memory()),
    _by("file", "rank_files", "files of the job", RANK_FILES, lambda ranks: ranks.files()),
    Table(
        "job_runs",
        "job",
        "run against run",
        TREND,
        _against,
        (Option("against", None, "Another run of the job, a folder or its address: both side by side.", "file"),),
        command="ranks",
        by="run",
    ),
    Table("rank_places", "job", "node and groups of each rank", RANK_PLACES, lambda ranks: ranks.places()),
    Table("rank_groups", "job", "process groups of the job", GROUPS, lambda ranks: ranks.answer.groups),
    Table("rank_work", "job", "kernels that communicate", JOB_WORK, lambda ranks: ranks.of("work")),
    Table("rank_parts", "job", "regions and kernels of each rank", of_job(RANK_PARTS), lambda ranks: ranks.of("parts")),
    Table(
        "collective_waits",
        "job",
        "wait at each collective",
        COLLECTIVE_WAITS,
        lambda ranks: collective_waits(ranks.collectives()),
    ),
)
