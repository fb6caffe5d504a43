"""The runs of one job over days, side by side, all in one store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from profiler_kit.analyses.ranks.files import runs_of
from profiler_kit.analyses.ranks.trend import OneRun, trend
from profiler_kit.errors import InputError
from profiler_kit.kept import kept
from profiler_kit.progress import Report, silent
from profiler_kit.ranks import Ranks, read_job


class Trend:
    """The ranks of each run, and of each recording of it, by name and number."""

    def __init__(self, job: Ranks) -> None:
        self._job = job

    @property
    def path(self) -> str:
        """The folder of the job."""
        return self._job.path

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for each file that is of no rank."""
        return tuple(f"left out: {reason}" for reason in self._job.files()["reason"][self._others])

    @property
    def _others(self) -> pd.Series:
        frame = self._job.files()
        used = {row for rows in runs_of(frame).values() for row in rows}
        return pd.Series([row not in used for row in range(len(frame))])

    @kept
    def runs(self) -> dict[tuple[str, int], Ranks]:
        """The ranks of each run and recording."""
        found: dict[tuple[str, int], Ranks] = {}
        for name, rows in runs_of(self._job.files()).items():
            frame = self._job.some(rows).files()
            for number, of_one in frame.groupby("recording"):
                found[name, int(str(number))] = self._job.some([rows[at] for at in of_one.index])
        return found

    @kept
    def table_of_runs(self) -> pd.DataFrame:
        """TREND: one row per run and recording, by time."""
        runs = [_run(name, number, one) for (name, number), one in self.runs().items()]
        return trend(sorted(runs, key=lambda one: (one.first_ns, one.name)))


def side_by_side(runs: Sequence[Ranks]) -> pd.DataFrame:
    """TREND of runs, each compared with the one before it, under a name of its own: two as given, more by time."""
    if len(runs) > 2:
        runs = sorted(runs, key=lambda one: int(one.files()["first_ns"].min()))
    names = [Path(ranks.path).name for ranks in runs]
    if len(set(names)) < len(names):
        names = [ranks.path for ranks in runs]
    return trend(_run(name, 0, ranks) for name, ranks in zip(names, runs, strict=True))


def _run(name: str, number: int, ranks: Ranks) -> OneRun:
    first_ns, missing = int(ranks.files()["first_ns"].min()), len(ranks.missing)
    return OneRun(name, number, first_ns, missing, ranks.step_times(), ranks.totals(), ranks.answer.verdict)


def load_trend(
    folder: str | Path,
    *,
    communication: Sequence[str] = (),
    workers: int | None = None,
    cluster: str | None = None,
    store: str | Path | None = None,
    report: Report = silent,
) -> Trend:
    """Read the runs of a job: a folder with a folder for each run, or with several recordings of the ranks.

    What was read of all of them is kept in one store, FOLDER.ranks/; the arguments are those of load_ranks.
    Raises InputError when no trace says its rank, and what load_ranks raises of a store or a cluster.
    """
    job = read_job(folder, communication=communication, workers=workers, cluster=cluster, store=store, report=report)
    frame = job.files()
    if not frame["rank"].notna().any():
        raise InputError(frame["reason"].iloc[0])
    return Trend(job)
