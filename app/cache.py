"""What the dashboard has opened: runs, and what is drawn of them, each kept for its files as they are now.

A run is opened once and its parts are read when a page asks (profiler_kit.run). Its trace is loaded in a thread of its
own (loading.py), which a page may watch and stop. A file that changed is another one, and little is kept of the past.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import streamlit as st

from app.loading import Job
from profiler_kit.errors import InputError
from profiler_kit.files import temporary_folder
from profiler_kit.finding import Finding
from profiler_kit.findings import doctor, quality
from profiler_kit.formats.ladder_file import ladder_rows
from profiler_kit.formats.ladder_record import RESULTS, LadderRecord, read_ladder
from profiler_kit.formats.study_file import StudyRecord, read_study, study_samples, study_totals
from profiler_kit.load.discover.jobs import Job as RankJob
from profiler_kit.load.discover.runs import (
    LadderFolder,
    RunFolder,
    default_root,
    find_ladders,
    find_run,
    find_runs,
    require_root,
)
from profiler_kit.load.trace.cached import TRACES, find_trace
from profiler_kit.load.trace.file_facts import FileFacts, load_file_facts
from profiler_kit.progress import Report, silent
from profiler_kit.ranks import load_ranks
from profiler_kit.render.overlays import row_overlay
from profiler_kit.render.perfetto.export import export_window
from profiler_kit.run import Layers, Part, Run, open_run
from profiler_kit.snapshot import Snapshot
from profiler_kit.table import Filled, Table
from profiler_kit.tables import every_table, tables_of
from profiler_kit.timeline.build import By, group_gpu_work
from profiler_kit.timeline.cached import has_timeline, trace_timeline
from profiler_kit.timeline.index import Timeline
from profiler_kit.timeline.requests import with_requests
from profiler_kit.timeline.search import Matches, find_matches
from profiler_kit.timeline.tiles import describe
from profiler_kit.trace import Trace, load_trace

T = TypeVar("T")
Stamp = tuple[str, int, int]  # path, mtime in ns, size; zeros for a file that is not there
MOST_RUNS, MOST_TRACES = 12, 3
MOST_EVENTS = 1_200_000  # beside the newest trace: what a 500 MB trace holds
_DETAILS = ("grid", "block", "registers_per_thread", "shared_memory", "occupancy", "input_dims")


def stamp(path: Path | None) -> Stamp:
    """What tells one version of a file from another."""
    try:
        found = path.stat() if path is not None else None
    except OSError:
        found = None
    return (str(path), found.st_mtime_ns, found.st_size) if found is not None else (str(path or ""), 0, 0)


# ---- what there is


def root() -> Path:
    """The folder that is served: PROFILER_KIT_DIR, else the argument of `streamlit run`, else the default."""
    named = os.environ.get("PROFILER_KIT_DIR") or next((a for a in sys.argv[1:] if not a.startswith("-")), "")
    return require_root(named or default_root())


@st.cache_resource(ttl=2, max_entries=2, show_spinner=False)
def _runs(root_path: str) -> list[RunFolder]:
    return find_runs(root_path)


def runs() -> list[RunFolder]:
    """Every run below the root, looked up again after two seconds."""
    found: list[RunFolder] = _runs(str(root()))
    return found


def find(key: str) -> RunFolder | None:
    """The run with that key, or None when it is not (or no longer) inside the root."""
    return find_run(root(), key) if key else None


@st.cache_resource(ttl=2, max_entries=2, show_spinner=False)
def _ladders(root_path: str) -> list[LadderFolder]:
    return find_ladders(root_path)


def ladders() -> list[LadderFolder]:
    """Every ladder and study below the root, looked up again after two seconds."""
    found: list[LadderFolder] = _ladders(str(root()))
    return found


# ---- opened runs


@dataclass(eq=False)
class _Opened:
    """A run, and the loading of its trace once a page asked for it."""

    run: Run
    job: Job[Trace] | None = None
    report: Report = field(default=silent)

    def load(self, report: Report) -> Trace:
        """Load the trace and compute what every page asks for."""
        self.report = report
        trace = self.run.parts.trace.required()
        if trace is None:
            raise InputError(f"{self.run.path}: no trace here.")
        steps = (trace.gpu_events, trace.regions, trace.operators, trace.launch_calls)
        for number, step in enumerate(steps):
            report(number, len(steps), "attributing GPU work to regions and operators")
            step()
        if _is_large(trace.path):
            _look_ahead(stamp(trace.path))
        return trace

    @property
    def events(self) -> int:
        """How many events of a trace it holds."""
        return len(self.job.result().columns) if self.job and self.job.ended() and not self.job.failed else 0


_opened: OrderedDict[tuple[Stamp, ...], _Opened] = OrderedDict()
_lock = threading.RLock()


def _open(folder: RunFolder) -> _Opened:
    key = tuple(
        stamp(part)
        for part in (folder.path, folder.trace, folder.memory, folder.layers, folder.memory_trace, folder.requests)
    )
    with _lock:
        found = _opened.pop(key, None)
        if found is None or (found.job is not None and found.job.cancelled):
            found = _Opened(Run(folder.label, folder.path))
            opened = open_run(folder.path, trace=partial(_load_trace, found))
            found.run = dataclasses.replace(opened, name=folder.label)
        _opened[key] = found  # used last
        _make_room(key)
    return found


def _load_trace(opened: _Opened, path: Path) -> Trace:
    """Arguments of kernels are kept of traces too small for the cache file."""
    arguments = () if _is_large(path) else _DETAILS
    return load_trace(path, arguments=arguments, report=opened.report)


def _is_large(path: Path) -> bool:
    return find_trace(TRACES, path) is not None


def _make_room(newest: tuple[Stamp, ...]) -> None:
    """Drop what was used longest ago; work under way stays."""
    events = sum(one.events for one in _opened.values())
    traces = sum(one.events > 0 for one in _opened.values())
    for key, one in list(_opened.items()):
        if key == newest or (one.job is not None and not one.job.ended()):
            continue
        is_over = one.events and (traces > MOST_TRACES or events > MOST_EVENTS)
        if is_over or len(_opened) > MOST_RUNS:
            events, traces = events - one.events, traces - (one.events > 0)
            del _opened[key]


def run(folder: RunFolder) -> Run:
    """The opened run; its parts are read when asked for."""
    return _open(folder).run


def opening(folder: RunFolder) -> Job[Trace]:
    """The loading of the run's trace: under way, done, or begun now."""
    opened = _open(folder)
    with _lock:
        if opened.job is None:
            opened.job = Job(str(folder.trace), opened.load)
        return opened.job


def trace(folder: RunFolder) -> Trace:
    """The loaded trace of a run; raises the KitError that says why it cannot be read."""
    return opening(folder).result()


def snapshot(folder: RunFolder) -> Snapshot:
    """The memory snapshot of a run; raises the KitError that says why it cannot be read."""
    return _there(run(folder).parts.memory, folder, "memory snapshot")


def layers(folder: RunFolder) -> Layers:
    """The layer timings of a run; raises the KitError that says why they cannot be read."""
    return _there(run(folder).parts.layers, folder, "layer timings")


def _there(part: Part[T], folder: RunFolder, what: str) -> T:
    found = part.required()
    if found is None:
        raise InputError(f"{folder.path}: no {what} here.")
    return found


def cancel(folder: RunFolder, stop: bool) -> None:
    """Stop loading that trace and remember it, or forget that it was stopped."""
    cancelled: set[str] = st.session_state.setdefault("cancelled", set())
    if stop:
        opening(folder).cancel()
        cancelled.add(folder.key)
    else:
        cancelled.discard(folder.key)


def is_cancelled(folder: RunFolder) -> bool:
    """Whether the reader has stopped the loading of that trace."""
    return folder.key in st.session_state.get("cancelled", ())


# ---- what is made of them


@st.cache_resource(max_entries=8, show_spinner=False)
def _with_arguments(of: Stamp, _table: Table) -> Filled:
    filled = _table.of_source(load_trace(of[0], arguments=_table.arguments))
    return _table.holding(filled.frame)  # the trace is given back


def table(folder: RunFolder, name: str, **options: Any) -> Filled:
    """A declared table of the run; one that needs arguments the trace was loaded without reads the file once more."""
    declared = every_table()[name]
    if declared.of == "file":
        return declared.of_source(examination(folder)[0])
    if declared.of == "trace":
        loaded = trace(folder)
        if set(declared.arguments) - set(loaded.columns.extra):
            filled: Filled = _with_arguments(stamp(folder.trace), declared)
            return filled
    return run(folder).table(name, **options)


_looking: dict[Stamp, subprocess.Popen[bytes]] = {}


def _look_ahead(key: Stamp) -> None:
    """Have the facts of a large file put into the cache: reading them takes as long as loading it."""
    if key not in _looking:
        command = [sys.executable, "-m", "profiler_kit.load.trace.file_facts", key[0]]
        none = subprocess.DEVNULL
        _looking[key] = subprocess.Popen(command, stdin=none, stdout=none, stderr=none)


def _file_facts(path: Path) -> FileFacts:
    ahead = _looking.get(stamp(path))
    if ahead is not None:
        ahead.wait()
    return load_file_facts(path)


@st.cache_resource(max_entries=8, show_spinner=False)
def _examination(of: Stamp, _folder: RunFolder) -> tuple[dict[str, Any], list[Finding]]:
    assert _folder.trace is not None
    loaded, facts = trace(_folder), _file_facts(_folder.trace)
    found = doctor.examine(_folder.trace, _folder.record, loaded, facts)
    flaws = doctor.flaws(_folder.trace, _folder.record, loaded, facts)
    return found, [quality.file_verdict(flaws, found["contents"]["events"]), *map(quality.of_flaw, flaws)]


def examination(folder: RunFolder) -> tuple[dict[str, Any], list[Finding]]:
    """What `profiler-kit doctor --json` prints about the run's trace, which must be there, and its findings."""
    found: tuple[dict[str, Any], list[Finding]] = _examination(stamp(folder.trace), folder)
    return found


@st.cache_resource(max_entries=3, show_spinner=False)
def _timeline(of: Stamp, _folder: RunFolder) -> tuple[Timeline, bytes]:
    built = trace_timeline(Path(of[0]), lambda: trace(_folder))
    requests = None if _folder.requests is None else run(_folder).requests
    if requests is not None:
        built = with_requests(built, requests)
    return built, _described(built)


@st.cache_resource(max_entries=2, show_spinner=False)
def _grouped(of: Stamp, by: By, _folder: RunFolder) -> tuple[Timeline, bytes]:
    loaded = trace(_folder)
    operators = loaded.kernel_details()["outer_operator"] if by == "operator" else None
    built = group_gpu_work(_timeline(of, _folder)[0], loaded.gpu_events(), by, loaded.threads, operators)
    return built, _described(built)


def _described(timeline: Timeline) -> bytes:
    return gzip.compress(json.dumps(describe(timeline), separators=(",", ":")).encode(), 6, mtime=0)


def timeline(folder: RunFolder, by: By = "stream") -> tuple[Timeline, bytes]:
    """The drawing index of the run's trace with its GPU work in such lanes, and its description as gzipped JSON."""
    of = stamp(folder.trace)
    found: tuple[Timeline, bytes] = _timeline(of, folder) if by == "stream" else _grouped(of, by, folder)
    return found


def timeline_at_hand(folder: RunFolder) -> bool:
    """Whether the drawing index is there without loading the trace."""
    return folder.trace is not None and has_timeline(folder.trace)


@st.cache_resource(max_entries=3, show_spinner=False)
def _matches(of: Stamp, by: By, text: str, _folder: RunFolder) -> Matches:
    return find_matches(timeline(_folder, by)[0], text)


def matches(folder: RunFolder, by: By, text: str) -> Matches:
    """The spans of a timeline whose name holds that text."""
    found: Matches = _matches(stamp(folder.trace), by, text, folder)
    return found


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a trace as a file, which goes when this is dropped."""

    path: Path


@st.cache_resource(max_entries=4, show_spinner=False)
def _window(of: Stamp, first_ns: int, last_ns: int, _folder: RunFolder) -> Window:
    held = contextlib.ExitStack()
    out = held.enter_context(temporary_folder()) / "window.json.gz"
    # The timeline counts from its first span, the export from the trace's first event.
    before = timeline(_folder)[0].start_ns - int(trace(_folder).columns.start_ns.min())
    export_window(
        Path(of[0]), out, time_ns=(before + first_ns, before + last_ns), served=run(_folder).parts.requests.value()
    )
    found = Window(out)
    weakref.finalize(found, held.close)
    return found


def window(folder: RunFolder, first_ns: int, last_ns: int) -> Window:
    """The part of a trace between two times of its timeline; the last four are kept."""
    found: Window = _window(stamp(folder.trace), first_ns, last_ns, folder)
    return found


@st.cache_resource(max_entries=2, show_spinner=False)
def _memory_html(of: Stamp, _folder: RunFolder) -> str:
    return snapshot(_folder).html(_folder.label)


def memory_html(folder: RunFolder) -> str:
    """The memory page of the run's snapshot; raises the KitError that says why it cannot be read."""
    page: str = _memory_html(stamp(folder.memory), folder)
    return page


# ---- ranks, ladders, studies


@st.cache_resource(max_entries=8, show_spinner=False)
def _ranks(of: tuple[tuple[int, Stamp], ...]) -> tuple[dict[str, Filled], list[str]]:
    found = load_ranks({rank: path for rank, (path, _, _) in of}, skip_broken=True)
    filled = {table.name: table.holding(table.of_source(found).frame) for table in tables_of("job")}
    return filled, list(found.problems)  # the tables are small beside the traces, which are given back


def ranks(job: RankJob) -> tuple[dict[str, Filled], list[str]]:
    """The tables of a job, and a line for each rank that cannot be read."""
    found: tuple[dict[str, Filled], list[str]] = _ranks(tuple((rank, stamp(path)) for rank, path in job.ranks))
    return found


@st.cache_resource(max_entries=8, show_spinner=False)
def _ladder(of: Stamp) -> tuple[LadderRecord, pd.DataFrame]:
    record = read_ladder(Path(of[0]))
    return record, ladder_rows(record)


def ladder(path: Path) -> tuple[LadderRecord, pd.DataFrame]:
    """A ladder's results.json, and its LADDER_ROWS."""
    found: tuple[LadderRecord, pd.DataFrame] = _ladder(stamp(path))
    return found


@st.cache_resource(max_entries=8, show_spinner=False)
def _study(of: Stamp) -> tuple[StudyRecord, pd.DataFrame, pd.DataFrame]:
    record = read_study(Path(of[0]))
    samples = study_samples(record)
    return record, samples, study_totals(samples)


def study(path: Path) -> tuple[StudyRecord, pd.DataFrame, pd.DataFrame]:
    """A study.json, its STUDY_SAMPLES and its STUDY_TOTALS."""
    found: tuple[StudyRecord, pd.DataFrame, pd.DataFrame] = _study(stamp(path))
    return found


@st.cache_resource(max_entries=16, show_spinner=False)
def _overlay(of: Stamp, technique: str, number: int) -> bytes:
    return row_overlay(Path(of[0]).parent, technique, number)


def ladder_overlay(folder: Path, technique: str, number: int) -> bytes:
    """Masks of a row beside the baseline's, as PNG."""
    picture: bytes = _overlay(stamp(folder / RESULTS), technique, number)
    return picture
