"""What the dashboard has opened: runs, and what is drawn of them, each kept for its files as they are now.

A run is opened once and its parts are read when a page asks (profiler_kit.run). Its trace is loaded in a thread of its
own (loading.py), which a page may watch and stop. A file that changed is another one, and little is kept of the past.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import gzip
import json
import os
import re
import subprocess
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

import pandas as pd
import streamlit as st
from streamlit.runtime.scriptrunner import RerunException

from app import outside
from app.loading import Job
from profiler_kit.analyses.compare.traces import Comparison
from profiler_kit.analyses.gpu.roofline import ARGUMENTS as ROOFLINE_ARGUMENTS
from profiler_kit.comparing import compared_apart
from profiler_kit.errors import InputError
from profiler_kit.files import temporary_folder
from profiler_kit.finding import Finding
from profiler_kit.findings import doctor, quality
from profiler_kit.formats.ladder_file import ladder_rows
from profiler_kit.formats.ladder_record import LadderRecord, read_ladder
from profiler_kit.formats.run_record import RECORD
from profiler_kit.formats.study_file import StudyRecord, read_study, study_samples, study_totals
from profiler_kit.load.discover.jobs import Job as RankJob
from profiler_kit.load.discover.jobs import rank_snapshots
from profiler_kit.load.discover.listing import recorded_at
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
from profiler_kit.ranks import Ranks, load_ranks
from profiler_kit.render.compare import LETTERS
from profiler_kit.render.overlays import row_overlay
from profiler_kit.render.perfetto.export import export_window
from profiler_kit.run import Layers, Part, Run, compare_runs, open_run
from profiler_kit.snapshot import Snapshot, load_snapshot
from profiler_kit.table import Filled, Table
from profiler_kit.tables import every_table
from profiler_kit.timeline.build import By, group_gpu_work
from profiler_kit.timeline.cached import has_timeline, trace_timeline
from profiler_kit.timeline.counters import Counter, counters_of, memory_counters, with_counters
from profiler_kit.timeline.index import Timeline
from profiler_kit.timeline.requests import with_requests
from profiler_kit.timeline.search import Matches, find_matches
from profiler_kit.timeline.several import MOST as MOST_PARTS
from profiler_kit.timeline.several import Part as TimelinePart
from profiler_kit.timeline.several import Several, side_by_side
from profiler_kit.timeline.tiles import describe
from profiler_kit.trace import Trace, load_trace
from profiler_kit.trend import side_by_side as runs_beside

P = ParamSpec("P")
T = TypeVar("T")
Stamp = tuple[str, int, int]  # path, mtime in ns, size; zeros for a file that is not there
MOST_RUNS = 12
MOST_SNAPSHOT_BYTES = 16 << 20  # of memory read for a lane of the timeline
MOST_EVENTS = 1_200_000  # some 500 MB of traces; one alone may hold more
_SHIFT = re.compile(r"-?[0-9]{1,18}")
_DETAILS = ("grid", "block", "registers_per_thread", "shared_memory", "occupancy", *ROOFLINE_ARGUMENTS)


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


def _shared(most: int, part: str = "trace", ttl_s: float | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Keep what a function makes for all sessions, the last `most` of it; what files are now is asked each time.

    part: the part of a run that the function is about; another version of that file, or of its record, is another run.
    """

    def kept(make: Callable[P, T]) -> Callable[P, T]:
        of: dict[str | type[Any], Callable[[Any], Any]] = {
            type(Path()): stamp,
            RunFolder: lambda folder: (folder.key, stamp(folder.path / RECORD), stamp(getattr(folder, part))),
            RankJob: lambda job: str(
                [(rank, stamp(path)) for rank, path in (*job.ranks, *rank_snapshots(dict(job.ranks)).items())]
            ),
            Table: lambda table: table.name,
        }
        wrap = st.cache_resource(max_entries=most, ttl=ttl_s, show_spinner=False, hash_funcs=of)
        return cast("Callable[P, T]", wrap(make))

    return kept


_runs, _ladders = _shared(2, ttl_s=2)(find_runs), _shared(2, ttl_s=2)(find_ladders)


def runs() -> list[RunFolder]:
    """What was opened here, and every run below the root, the newest first; looked up again after two seconds."""
    listed = sorted(_runs(root()), key=recorded_at, reverse=True)
    return [*outside.every(), *listed]


def ladders() -> list[LadderFolder]:
    """Every ladder and study below the root, likewise."""
    return _ladders(root())


def find(key: str) -> RunFolder | None:
    """The run with that key, or None when it is not (or no longer) inside the root."""
    if key.startswith(outside.PREFIX):
        return outside.find(key)
    return find_run(root(), key) if key else None


# ---- opened runs


@dataclass(eq=False)
class _Opened:
    """A run, and the loading of its trace once a page asked for it."""

    run: Run
    job: Job[Trace] | None = None
    report: Report = field(default=silent)
    events: int = 0  # of the trace that it holds or loads

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


_opened: OrderedDict[tuple[Stamp, ...], _Opened] = OrderedDict()
_in_use: dict[int, list[_Opened]] = {}  # by the thread that draws a page
_lock = threading.RLock()


@contextlib.contextmanager
def in_use() -> Iterator[None]:
    """What is opened meanwhile by this thread stays to the end: a page that compares runs needs them together.

    Then what no page drew goes where there is too much: a page may be of two runs, and two may have loaded at once.
    """
    _in_use[threading.get_ident()] = []
    try:
        yield
    except RerunException:  # it is drawn anew, and what it did not come to yet may be part of it
        _in_use[threading.get_ident()].clear()
        raise
    finally:
        with _lock:
            drawn = _in_use.pop(threading.get_ident())
            dropped = _make_room(drawn, 0) if drawn else 0
        if dropped:
            gc.collect()  # a run and what loads it know each other


def _open(folder: RunFolder) -> _Opened:
    key = tuple(
        stamp(part)
        for part in (
            *(folder.path, folder.path / RECORD, folder.trace, folder.memory),
            *(folder.layers, folder.memory_trace, folder.requests),
        )
    )
    with _lock:
        found = _opened.pop(key, None)
        if found is None or (found.job is not None and found.job.given_up):
            found = _Opened(Run(folder.label, folder.path))
            opened = open_run(folder.path, trace=partial(_load_trace, found))
            found.run = dataclasses.replace(opened, name=folder.label)
        _opened[key] = found  # used last
        if (drawn := _in_use.get(threading.get_ident())) is not None:
            drawn.append(found)
        _make_room([found])
    return found


def _load_trace(opened: _Opened, path: Path) -> Trace:
    """Arguments of kernels are kept of traces too small for the cache file."""
    arguments = () if _is_large(path) else _DETAILS
    with _lock:
        dropped = _make_room([opened], _events_in(path))
        opened.events = _events_in(path)  # for who loads another one meanwhile
    if dropped:
        gc.collect()
    try:
        loaded = load_trace(path, arguments=arguments, report=opened.report)
    except BaseException:
        opened.events = 0
        raise
    opened.events = len(loaded.columns)
    return loaded


def _is_large(path: Path) -> bool:
    return find_trace(TRACES, path) is not None


def _make_room(newest: Sequence[_Opened], coming: int | None = None) -> int:
    """Drop what was used longest ago; work under way and what is in use stay. coming: events of a trace about to be
    loaded, 0 for none; None: traces are not counted.

    Returns how many were dropped.
    """
    before = len(_opened)
    events = sum(one.events for one in _opened.values()) + (coming or 0)
    used = {id(one) for drawn in (newest, *_in_use.values()) for one in drawn}
    for key, one in list(_opened.items()):
        if id(one) in used or (one.job is not None and not one.job.ended()):
            continue
        is_over = coming is not None and one.events and events > MOST_EVENTS
        if is_over or len(_opened) > MOST_RUNS:
            events -= one.events
            del _opened[key]
    return before - len(_opened)


def _events_in(trace: Path) -> int:
    """About how many events a trace holds, from its size: some 40 bytes each where it is packed, else some 350."""
    _, _, size = stamp(trace)
    return size // (350 if trace.suffix == ".json" else 40)


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
    """The memory snapshot of a run, else what its trace says of allocations; raises the KitError that says why none."""
    if folder.memory is None and folder.trace is not None:
        return _memory_of_trace(folder)
    return _there(run(folder).parts.memory, folder, "memory snapshot")


@_shared(1)
def _memory_of_trace(folder: RunFolder) -> Snapshot:
    assert folder.trace is not None
    return load_snapshot(folder.trace)


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


@_shared(8)
def _with_arguments(file: Path, table: Table) -> Filled:
    filled = table.of_source(load_trace(file, arguments=table.arguments))
    return table.holding(filled.frame)  # the trace is given back


def table(folder: RunFolder, name: str, **options: Any) -> Filled:
    """A declared table of the run; one that needs arguments the trace was loaded without reads the file once more."""
    declared = every_table()[name]
    if declared.of == "file":
        return declared.of_source(examination(folder)[0])
    if declared.of == "trace":
        loaded = trace(folder)
        if set(declared.arguments) - set(loaded.columns.extra):
            return _with_arguments(loaded.path, declared)
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


@_shared(8)
def examination(folder: RunFolder) -> tuple[dict[str, Any], list[Finding]]:
    """What `profiler-kit doctor --json` prints about the run's trace, which must be there, and its findings."""
    assert folder.trace is not None
    loaded, facts = trace(folder), _file_facts(folder.trace)
    found = doctor.examine(folder.trace, folder.record, loaded, facts)
    flaws = doctor.flaws(folder.trace, folder.record, loaded, facts)
    return found, [quality.file_verdict(flaws, found["contents"]["events"]), *map(quality.of_flaw, flaws)]


@_shared(4)
def comparison(a: RunFolder, b: RunFolder) -> Comparison:
    """What changed from run A to run B, which must have traces; raises the KitError that says why one cannot be read.

    Two that are too large together are compared in a process of its own: few views need the trace of B.
    """
    sizes = [_events_in(side.trace) for side in (a, b) if side.trace is not None]
    if sum(sizes) > MOST_EVENTS:
        return compared_apart(a.path, b.path)
    for side in (a, b):
        trace(side)
    found = compare_runs(run(a), run(b))
    assert found is not None
    return found


def timeline(folder: RunFolder, by: By = "stream") -> tuple[Timeline, bytes]:
    """The drawing index of the run's trace with its GPU work in such lanes, and its description as gzipped JSON.

    The last five are kept; of large traces, which the cache's files hold, the last two.
    """
    assert folder.trace is not None
    return (_large_timeline if _is_large(folder.trace) else _small_timeline)(folder, by)


@_shared(2)
def _large_timeline(folder: RunFolder, by: By) -> tuple[Timeline, bytes]:
    return _timeline(folder, by)


@_shared(5)
def _small_timeline(folder: RunFolder, by: By) -> tuple[Timeline, bytes]:
    return _timeline(folder, by)


def _timeline(folder: RunFolder, by: By) -> tuple[Timeline, bytes]:
    if by == "stream":
        assert folder.trace is not None
        built = trace_timeline(folder.trace, lambda: trace(folder))
        requests = None if folder.requests is None else run(folder).requests
        if requests is not None:
            built = with_requests(built, requests)
        if not _is_large(folder.trace):
            built = with_counters(built, _counters(folder))
    else:
        loaded = trace(folder)
        operators = loaded.kernel_details()["outer_operator"] if by == "operator" else None
        work = loaded.event_categories()
        built = group_gpu_work(timeline(folder)[0], loaded.gpu_events(), by, loaded.threads, operators, work)
    return built, _packed(built)


def _packed(timeline: Timeline) -> bytes:
    return gzip.compress(json.dumps(describe(timeline), separators=(",", ":")).encode(), 6, mtime=0)


def _counters(folder: RunFolder) -> Iterator[Counter]:
    loaded = trace(folder)
    yield from counters_of(loaded.queue_length(), loaded.gpu_events(), loaded.columns.extra.get("occupancy"))
    if folder.memory is not None and folder.memory.stat().st_size <= MOST_SNAPSHOT_BYTES:
        found = run(folder).parts.memory.value()
        if found is not None:
            yield from memory_counters(found.timeline(), loaded.base_ns)


def timeline_at_hand(folder: RunFolder) -> bool:
    """Whether the drawing index is there without loading the trace."""
    return folder.trace is not None and has_timeline(folder.trace)


Beside = tuple[tuple[RunFolder, int], ...]


def beside(texts: Iterable[str]) -> Beside:
    """Other runs to draw beside one, as an address names them: `SHIFT:KEY`, in ns; what is not there is left out."""
    found = []
    for text in list(texts)[: MOST_PARTS - 1]:
        shift, _, key = text.partition(":")
        run = find(key) if _SHIFT.fullmatch(shift) else None
        if run is not None and run.trace is not None:
            found.append((run, int(shift)))
    return tuple(found)


@_shared(2)
def several(folder: RunFolder, by: By, others: Beside) -> tuple[Several, bytes]:
    """The timelines of a run and of others as one, and its description likewise."""
    sides = zip(LETTERS, [(folder, 0), *others], strict=False)
    drawn = side_by_side([TimelinePart(letter, timeline(one, by)[0], shift) for letter, (one, shift) in sides])
    return drawn, _packed(drawn.timeline)


def drawing(folder: RunFolder, by: By, others: Beside = ()) -> tuple[Timeline, bytes]:
    """The timeline of a run, with others beside it if there are any."""
    if not others:
        return timeline(folder, by)
    drawn, packed = several(folder, by, others)
    return drawn.timeline, packed


@_shared(3)
def matches(folder: RunFolder, by: By, text: str, others: Beside = ()) -> Matches:
    """The spans of a timeline whose name holds that text."""
    return find_matches(drawing(folder, by, others)[0], text)


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a trace, or all of it, as a file, which goes when this is dropped; its times are so much earlier."""

    path: Path
    earlier_ns: int


@_shared(4)
def window(folder: RunFolder, times_ns: tuple[int, int] | None = None) -> Window:
    """The part of a trace between two times of its timeline, or all of it, with the tracks that an export can add.

    The last four are kept.
    """
    held = contextlib.ExitStack()
    out = held.enter_context(temporary_folder()) / "window.json.gz"
    loaded, parts = trace(folder), run(folder).parts
    if times_ns is not None:
        # The timeline counts from its first span, the export from the trace's first event.
        before = timeline(folder)[0].start_ns - int(loaded.columns.start_ns.min())
        times_ns = (before + times_ns[0], before + times_ns[1])
    written = export_window(
        loaded.path,
        out,
        time_ns=times_ns,
        counters=True,
        snapshot=parts.memory.value(),
        served=parts.requests.value(),
        critical=loaded.critical_path_known(),
    )
    found = Window(out, written.earlier_ns)
    weakref.finalize(found, held.close)
    return found


@_shared(2, "memory")
def memory_html(folder: RunFolder) -> str:
    """The memory page of the run's snapshot; raises the KitError that says why it cannot be read."""
    return snapshot(folder).html(folder.label)


# ---- ranks, ladders, studies


@_shared(8)
def ranks(job: RankJob) -> Ranks:
    """The ranks of a job, and what is worth saying about it."""
    found = load_ranks(dict(job.ranks), skip_broken=True)
    found.findings()
    return found


@_shared(8)
def runs_side_by_side(jobs: tuple[RankJob, ...]) -> Filled:
    """Runs of a job, each compared with the one before it."""
    return every_table()["job_runs"].holding(runs_beside([ranks(job) for job in jobs]))


@_shared(8)
def ladder(path: Path) -> tuple[LadderRecord, pd.DataFrame]:
    """A ladder's results.json, and its LADDER_ROWS."""
    record = read_ladder(path)
    return record, ladder_rows(record)


@_shared(8)
def study(path: Path) -> tuple[StudyRecord, pd.DataFrame, pd.DataFrame]:
    """A study.json, its STUDY_SAMPLES and its STUDY_TOTALS."""
    record = read_study(path)
    samples = study_samples(record)
    return record, samples, study_totals(samples)


@_shared(16)
def overlay(results: Path, technique: str, number: int) -> bytes:
    """Masks of a row of the ladder with these results beside the baseline's, as PNG."""
    return row_overlay(results.parent, technique, number)
