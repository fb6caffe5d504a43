"""What the analyses say about a run, kept per file: a run in, an answer out.

Keyed by (path, mtime, size) like everything in app.state; answers are small beside the trace they come from.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from app import state
from profiler_kit.analyses.compare.measurements import Side
from profiler_kit.analyses.compare.traces import Comparison, compare
from profiler_kit.analyses.gpu.kernel_groups import By, in_group
from profiler_kit.analyses.ranks.ranks import RANK_COLLECTIVES, RANK_TOTALS
from profiler_kit.errors import KitError
from profiler_kit.finding import Finding
from profiler_kit.findings import doctor, quality
from profiler_kit.load.discover.jobs import Job
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.ranks import Ranks, load_ranks
from profiler_kit.run import Run, latency_change
from profiler_kit.trace import Trace, load_trace


def stamp(path: Path | None) -> tuple[str, int, int]:
    """What tells one version of a file from another; the same for every file that is not there."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        found = None
    return (str(path), found.st_mtime_ns, found.st_size) if found is not None else ("", 0, 0)


def loaded(run: RunFolder) -> Run:
    """The run with its trace and layers; layers that cannot be read are left out."""
    timed = None
    if run.layers is not None:
        with contextlib.suppress(KitError):
            timed = state.layers(run.layers)
    trace = state.trace(run.trace) if run.trace is not None else None
    return dataclasses.replace(Run.holding(run.path, trace, layers=timed), name=run.label, record=run.record)


def findings(run: RunFolder) -> list[Finding]:
    """What is worth saying about the trace and the layers of a run."""
    found: list[Finding] = _findings(stamp(run.trace), stamp(run.layers), str(run.record), run)
    return found


@st.cache_resource(max_entries=16, show_spinner=False)
def _findings(trace: tuple[str, int, int], layers: tuple[str, int, int], record: str, _run: RunFolder) -> list[Finding]:
    return loaded(_run).findings


def _asked(path: Path, question: str, *how: str | int) -> pd.DataFrame:
    """A frame that a trace answers a question with, computed once."""
    frame: pd.DataFrame = _frame(stamp(path), question, how, path)
    return frame


@st.cache_resource(max_entries=48, show_spinner=False)
def _frame(file: tuple[str, int, int], question: str, how: tuple[str | int, ...], _path: Path) -> pd.DataFrame:
    trace = state.trace(_path)
    return _QUESTIONS[question](trace, *how)


_QUESTIONS: dict[str, Callable[..., pd.DataFrame]] = {
    "kernel groups": Trace.kernel_groups,
    "kernel origins": Trace.kernel_origins,
    "operator work": Trace.operator_work,
    "operator kernels": Trace.operator_kernels,
    "module work": Trace.module_work,
    "launches": Trace.launches,
    "queue": Trace.queue,
    "sequences": lambda trace, length: trace.kernel_sequences(length=length),
    "utilization": Trace.utilization,
    "shape work": lambda trace: load_trace(trace.path, arguments=["input_dims"]).shape_work(),
}


def kernel_groups(path: Path, by: By) -> pd.DataFrame:
    """KERNEL_GROUPS of a trace."""
    return _asked(path, "kernel groups", by)


def kernel_origins(path: Path, by: By, key: str) -> pd.DataFrame:
    """KERNEL_ORIGINS of one group of a trace."""
    return _asked(path, "kernel origins", by, key)


def kernels_of(path: Path, by: By, key: str) -> pd.DataFrame:
    """GPU_EVENTS of one group of a trace; not kept, for it may be most of the trace."""
    events = state.trace(path).gpu_events()
    mine: pd.DataFrame = events[in_group(events, by, key)]
    return mine


def operator_work(path: Path) -> pd.DataFrame:
    """OPERATOR_WORK of a trace."""
    return _asked(path, "operator work")


def operator_kernels(path: Path) -> pd.DataFrame:
    """OPERATOR_KERNELS of a trace."""
    return _asked(path, "operator kernels")


def module_work(path: Path) -> pd.DataFrame:
    """MODULE_WORK of a trace."""
    return _asked(path, "module work")


def shape_work(path: Path) -> pd.DataFrame:
    """SHAPE_WORK of a trace; reads the file once more, for its shapes."""
    return _asked(path, "shape work")


def launches(path: Path) -> pd.DataFrame:
    """LAUNCH_TOTALS of a trace."""
    return _asked(path, "launches")


def queue(path: Path) -> pd.DataFrame:
    """QUEUE_TOTALS of a trace."""
    return _asked(path, "queue")


def sequences(path: Path, length: int) -> pd.DataFrame:
    """KERNEL_SEQUENCES of a trace."""
    return _asked(path, "sequences", length)


def utilization(path: Path) -> pd.DataFrame:
    """REGION_UTILIZATION of a trace."""
    return _asked(path, "utilization")


def ranks(job: Job) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """RANK_TOTALS and RANK_COLLECTIVES of a job, and a line for each rank that cannot be read."""
    return _ranks(tuple((rank, *stamp(path)) for rank, path in job.ranks))


@st.cache_resource(max_entries=8, show_spinner=False)
def _ranks(files: tuple[tuple[int, str, int, int], ...]) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    traces: dict[int, Trace] = {}
    problems = []
    for rank, path, _, _ in files:
        try:
            traces |= load_ranks({rank: path}).traces
        except KitError as error:
            problems.append(str(error))
    found = Ranks(traces, str(Path(files[0][1]).parent))
    empty = RANK_COLLECTIVES.empty()
    return found.totals() if traces else RANK_TOTALS.empty(), found.collectives() if traces else empty, problems


def examination(run: RunFolder) -> tuple[dict[str, Any], list[Finding]]:
    """What `profiler-kit doctor --json` prints about the run's trace, which must be there, and its findings."""
    found: tuple[dict[str, Any], list[Finding]] = _examination(stamp(run.trace), run)
    return found


@st.cache_resource(max_entries=8, show_spinner=False)
def _examination(file: tuple[str, int, int], _run: RunFolder) -> tuple[dict[str, Any], list[Finding]]:
    assert _run.trace is not None
    trace, facts = state.trace(_run.trace), state.file_facts(_run.trace)
    found = doctor.examine(_run.trace, _run.record, trace, facts)
    flaws = doctor.flaws(_run.trace, _run.record, trace, facts)
    return found, [quality.file_verdict(flaws, found["contents"]["events"]), *map(quality.of_flaw, flaws)]


def comparison(a: RunFolder, b: RunFolder) -> Comparison:
    """What changed from run A to run B, both with a trace; the latency without the profiler first."""
    samples = tuple(one.record.latency_ns if one.record is not None else () for one in (a, b))
    found: Comparison = _comparison(stamp(a.trace), stamp(b.trace), samples, a, b)
    return found


@st.cache_resource(max_entries=16, show_spinner=False)
def _comparison(
    first: tuple[str, int, int],
    second: tuple[str, int, int],
    samples: tuple[tuple[int, ...], ...],
    _a: RunFolder,
    _b: RunFolder,
) -> Comparison:
    sides = []
    for run in (_a, _b):
        assert run.trace is not None
        trace = state.trace(run.trace)
        sides.append(Side.of(trace.gpu_events(), trace.region_instances(), trace.operators()))
    return compare(sides[0], sides[1], latency_change(_a.record, _b.record))
