"""How a job changed from run to run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import pandas as pd

from profiler_kit.analyses.ranks.ranks import RANK_TOTALS, STEP_TIMES
from profiler_kit.analyses.ranks.verdict import Verdict
from profiler_kit.schema import Column, Schema

TREND: Final = Schema(
    "TREND",
    "run of the job, or recording of a run, by time",
    {
        "run": Column("str", "Its folder below that of the job."),
        "recording": Column("int64", "Which of several recordings of the run.", show="varied"),
        "time_us": Column("int64", "When its GPU work began, in Unix microseconds.", "began", show="room"),
        "ranks": Column("int64", "Ranks that were read."),
        "missing": Column(
            "int64", "Ranks without a trace, as far as the traces say how many there are.", show="varied"
        ),
        "steps": Column("int64", "Steps that any rank recorded."),
        "step_ns": Column(
            "Int64", "Median of its steps, each of which takes as long as on its slowest rank; missing without.", "step"
        ),
        "step_p95_ns": Column("Int64", "The time that 5 % of the steps exceed.", "95 %", show="room"),
        "step_p99_ns": Column("Int64", "The time that 1 % of the steps exceed.", "99 %", show="room"),
        "step_change": Column("Float64", "Against the run before.", "change"),
        "total_ns": Column("int64", "From the first to the last GPU event of a rank, the mean of the ranks.", "total"),
        "communication_ns": Column("int64", "Mean of the ranks.", "communication", of="total_ns"),
        "exposed_communication_ns": Column(
            "int64", "Communication not covered by computation.", "exposed", of="total_ns"
        ),
        "verdict": Column("str", "What holds the job up: rank, node, link, spread (over ranks), nobody, cannot tell."),
        "slow_rank": Column("Int64", "The rank that the verdict names.", unit="id"),
        "cause": Column("str", "By what: compute, host, data, copies, link."),
        "gain_share": Column("Float64", "What the job would gain if that matched its peers.", "gain", unit="share"),
        "straggler": Column("Int64", "The rank that others waited for longest, slow or not.", show="room", unit="id"),
        "held_ns": Column("int64", "How long they did: its straggler score.", "held others", of="total_ns"),
    },
)


@dataclass(frozen=True)
class OneRun:
    """What is compared of a run: STEP_TIMES, RANK_TOTALS of its ranks, and who holds it up."""

    name: str
    recording: int
    first_ns: int
    missing: int
    steps: pd.DataFrame
    totals: pd.DataFrame
    verdict: Verdict


def trend(runs: Iterable[OneRun]) -> pd.DataFrame:
    """Runs, each to be compared with the one before -> TREND."""
    rows = TREND.of([_row(one) for one in runs])
    before = rows["step_ns"].shift()
    return rows.assign(step_change=(rows["step_ns"] / before.where(before > 0) - 1).astype("Float64"))


def _row(one: OneRun) -> dict[str, int | float | str | None]:
    steps = STEP_TIMES.check(one.steps)["wall_ns"]
    totals = RANK_TOTALS.check(one.totals)
    held = totals["held_ns"]
    last = int(held.argmax()) if len(held) and held.max() > 0 else None
    return {
        "run": one.name,
        "recording": one.recording,
        "time_us": one.first_ns // 1000,
        "ranks": len(totals),
        "missing": one.missing,
        "steps": len(steps),
        "step_ns": int(steps.median()) if len(steps) else None,
        "step_p95_ns": int(steps.quantile(0.95)) if len(steps) else None,
        "step_p99_ns": int(steps.quantile(0.99)) if len(steps) else None,
        "step_change": None,
        **{name: round(totals[name].mean()) for name in ("total_ns", "communication_ns", "exposed_communication_ns")},
        "verdict": one.verdict.state,
        "slow_rank": one.verdict.rank,
        "cause": one.verdict.cause or "",
        "gain_share": one.verdict.gain_share,
        "straggler": None if last is None else int(totals["rank"].iloc[last]),
        "held_ns": 0 if last is None else int(held.iloc[last]),
    }
