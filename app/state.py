"""Caches, the chosen run and the query parameters: all state of the dashboard lives here.

Resources are keyed by (path, mtime, size), so a file that changed is read anew; each cache holds a few entries. Traces
are loaded in a thread of their own (loading.py), which a page may watch and stop.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pandas as pd
import streamlit as st

from app.loading import Job, Shelf
from profiler_kit.analyses.layers.totals import explained, forward_spread, layer_totals
from profiler_kit.errors import InputError
from profiler_kit.formats.ladder_file import ladder_rows
from profiler_kit.formats.ladder_record import RESULTS, LadderRecord, read_ladder
from profiler_kit.formats.layer_file import read_layers
from profiler_kit.formats.study_file import StudyRecord, read_study, study_samples, study_totals
from profiler_kit.joined import JoinedRun, join_run
from profiler_kit.load.discover.runs import (
    LadderFolder,
    RunFolder,
    confined,
    default_root,
    find_ladders,
    find_run,
    find_runs,
    require_root,
)
from profiler_kit.load.trace.cached import TRACES, find_trace
from profiler_kit.load.trace.file_facts import FileFacts, load_file_facts
from profiler_kit.progress import Report
from profiler_kit.render.overlays import row_overlay
from profiler_kit.render.perfetto.export import export_window
from profiler_kit.run import Layers
from profiler_kit.snapshot import Snapshot, load_snapshot
from profiler_kit.timeline.build import By, group_gpu_work
from profiler_kit.timeline.cached import has_timeline, trace_timeline
from profiler_kit.timeline.index import Timeline
from profiler_kit.timeline.search import Matches, find_matches
from profiler_kit.timeline.tiles import describe
from profiler_kit.trace import Trace, load_trace

T = TypeVar("T")
Range = tuple[int, int]


def root() -> Path:
    """The folder that is served: PROFILER_KIT_DIR, else the argument of `streamlit run`, else the default."""
    named = os.environ.get("PROFILER_KIT_DIR") or next((a for a in sys.argv[1:] if not a.startswith("-")), "")
    return require_root(named or default_root())


@st.cache_resource(ttl=2, max_entries=2, show_spinner=False)
def _runs(root_path: str) -> list[RunFolder]:
    return find_runs(root_path)


def runs() -> list[RunFolder]:
    """Every run below the root, looked up again after two seconds."""
    return _runs(str(root()))


def find(key: str) -> RunFolder | None:
    """The run with that key, or None when it is not (or no longer) inside the root."""
    return find_run(root(), key) if key else None


def _fresh(path: Path, load: Callable[[str, int, int], T]) -> T:
    try:
        found = path.stat()
    except OSError as error:
        raise InputError(f"{path}: the file is gone ({error.strerror}). Choose another run.") from error
    return load(str(path), found.st_mtime_ns, found.st_size)


# Three traces at most, and beside the newest no more events than a 500 MB trace holds.
_traces: Shelf[Trace] = Shelf(3, 1_200_000, lambda trace: len(trace.columns))
_DETAILS = ("grid", "block", "registers_per_thread", "shared_memory", "occupancy", "input_dims")


def opening(path: Path) -> Job[Trace]:
    """The loading of that trace: under way, done, or begun now."""
    return _fresh(path, lambda *key: _traces.job(key, lambda report: _load(path, report)))


def _load(path: Path, report: Report) -> Trace:
    """Load, and compute what every page asks for. Arguments of kernels are kept of traces too small for the cache."""
    is_large = find_trace(TRACES, path) is not None
    loaded = load_trace(path, arguments=() if is_large else _DETAILS, report=report)
    steps = (loaded.gpu_events, loaded.regions, loaded.operators, loaded.launch_calls)
    for number, step in enumerate(steps):
        report(number, len(steps), "attributing GPU work to regions and operators")
        step()
    if is_large:
        _fresh(path, _look_ahead)
    return loaded


_looking: dict[tuple[str, int, int], subprocess.Popen[bytes]] = {}


def _look_ahead(*key: str | int) -> None:
    """Have the facts of a large file put into the cache: reading them takes as long as loading it."""
    if key not in _looking:
        command = [sys.executable, "-m", "profiler_kit.load.trace.file_facts", str(key[0])]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        _looking[key] = subprocess.Popen(command, **quiet)


def file_facts(path: Path) -> FileFacts:
    """What the trace file is, as bytes; waits for the process that is reading it already."""
    ahead = _fresh(path, lambda *key: _looking.get(key))
    if ahead is not None:
        ahead.wait()
    return load_file_facts(path)


def cancel(path: Path, stop: bool) -> None:
    """Stop loading that trace and remember it, or forget that it was stopped."""
    cancelled: set[str] = st.session_state.setdefault("cancelled", set())
    if stop:
        opening(path).cancel()
        cancelled.add(str(path))
    else:
        cancelled.discard(str(path))


def is_cancelled(path: Path) -> bool:
    """Whether the reader has stopped the loading of that trace."""
    return str(path) in st.session_state.get("cancelled", ())


def trace(path: Path) -> Trace:
    """The loaded trace of that file."""
    return opening(path).result()


@st.cache_resource(max_entries=3, show_spinner=False)
def _timeline(path: str, mtime_ns: int, size: int) -> tuple[Timeline, bytes]:
    built = trace_timeline(Path(path), lambda: trace(Path(path)))
    return built, _described(built)


@st.cache_resource(max_entries=2, show_spinner=False)
def _grouped(path: str, mtime_ns: int, size: int, by: By) -> tuple[Timeline, bytes]:
    loaded = trace(Path(path))
    operators = loaded.kernel_details()["outer_operator"] if by == "operator" else None
    first = _timeline(path, mtime_ns, size)[0]
    built = group_gpu_work(first, loaded.gpu_events(), by, loaded.threads, operators)
    return built, _described(built)


def _described(timeline: Timeline) -> bytes:
    return gzip.compress(json.dumps(describe(timeline), separators=(",", ":")).encode(), 6, mtime=0)


def timeline(path: Path, by: By = "stream") -> tuple[Timeline, bytes]:
    """The drawing index of a trace with its GPU work in such lanes, and its description as gzipped JSON."""
    return _fresh(path, lambda *key: _timeline(*key) if by == "stream" else _grouped(*key, by))


def timeline_at_hand(path: Path) -> bool:
    """Whether the drawing index of a trace is there without loading the trace."""
    return has_timeline(path)


@dataclass(frozen=True, eq=False)
class Window:
    """A part of a trace as a file, which goes when this is dropped."""

    path: Path
    folder: tempfile.TemporaryDirectory[str]


@st.cache_resource(max_entries=4, show_spinner=False)
def _window(path: str, mtime_ns: int, size: int, first_ns: int, last_ns: int) -> Window:
    file = Path(path)
    folder = tempfile.TemporaryDirectory(prefix="profiler_kit-", ignore_cleanup_errors=True)
    # The timeline counts from its first span, the export from the trace's first event.
    before = timeline(file)[0].start_ns - int(trace(file).columns.start_ns.min())
    out = Path(folder.name) / "window.json.gz"
    export_window(file, out, time_ns=(before + first_ns, before + last_ns))
    return Window(out, folder)


def window(path: Path, first_ns: int, last_ns: int) -> Window:
    """The part of a trace between two times of its timeline; the last four are kept."""
    return _fresh(path, lambda *key: _window(*key, first_ns, last_ns))


@st.cache_resource(max_entries=3, show_spinner=False)
def _matches(path: str, mtime_ns: int, size: int, by: By, text: str) -> Matches:
    return find_matches(timeline(Path(path), by)[0], text)


def matches(path: Path, by: By, text: str) -> Matches:
    """The spans of a timeline whose name holds that text."""
    return _fresh(path, lambda *key: _matches(*key, by, text))


@st.cache_resource(max_entries=2, show_spinner=False)
def _snapshot(path: str, mtime_ns: int, size: int) -> Snapshot:
    return load_snapshot(path)


def snapshot(path: Path) -> Snapshot:
    """The loaded memory snapshot of that file."""
    return _fresh(path, _snapshot)


@st.cache_resource(max_entries=2, show_spinner=False)
def _joined(trace_key: tuple[str, int, int], memory_key: tuple[str, int, int]) -> JoinedRun | None:
    try:
        return join_run(trace(Path(trace_key[0])), _snapshot(*memory_key))
    except InputError:  # recorded at different times, as many runs are
        return None


def joined(run: RunFolder) -> JoinedRun | None:
    """Kernels and memory of the run on one clock; None where it has no trace of the time of its snapshot."""
    kernels, memory = run.memory_trace or run.trace, run.memory
    if kernels is None or memory is None:
        return None
    return _fresh(kernels, lambda *key: _fresh(memory, lambda *other: _joined(key, other)))


@st.cache_resource(max_entries=2, show_spinner=False)
def _memory_html(path: str, mtime_ns: int, size: int, title: str) -> str:
    return _snapshot(path, mtime_ns, size).html(title)


def memory_html(path: Path, title: str) -> str:
    """The memory page of a snapshot file."""
    return _fresh(path, lambda name, mtime_ns, size: _memory_html(name, mtime_ns, size, title))


@st.cache_resource(max_entries=8, show_spinner=False)
def _layers(path: str, mtime_ns: int, size: int) -> Layers:
    found = read_layers(path)
    coverage = explained(found.calls, found.forwards)
    return Layers(layer_totals(found.calls), coverage, forward_spread(found.forwards), found.notes)


def layers(path: Path) -> Layers:
    """What a layers.parquet says."""
    return _fresh(path, _layers)


@st.cache_resource(ttl=2, max_entries=2, show_spinner=False)
def _ladders(root_path: str) -> list[LadderFolder]:
    return find_ladders(root_path)


def ladders() -> list[LadderFolder]:
    """Every ladder below the root, looked up again after two seconds."""
    return _ladders(str(root()))


@st.cache_resource(max_entries=8, show_spinner=False)
def _ladder(path: str, mtime_ns: int, size: int) -> tuple[LadderRecord, pd.DataFrame]:
    record = read_ladder(Path(path))
    return record, ladder_rows(record)


def ladder(path: Path) -> tuple[LadderRecord, pd.DataFrame]:
    """A ladder's results.json, and its LADDER_ROWS."""
    return _fresh(path, _ladder)


@st.cache_resource(max_entries=8, show_spinner=False)
def _study(path: str, mtime_ns: int, size: int) -> tuple[StudyRecord, pd.DataFrame, pd.DataFrame]:
    record = read_study(Path(path))
    samples = study_samples(record)
    return record, samples, study_totals(samples)


def study(path: Path) -> tuple[StudyRecord, pd.DataFrame, pd.DataFrame]:
    """A study.json, its STUDY_SAMPLES and its STUDY_TOTALS."""
    return _fresh(path, _study)


@st.cache_resource(max_entries=16, show_spinner=False)
def _overlay(path: str, mtime_ns: int, size: int, technique: str, number: int) -> bytes:
    return row_overlay(Path(path).parent, technique, number)


def ladder_overlay(folder: Path, technique: str, number: int) -> bytes:
    """Masks of a row beside the baseline's, as PNG."""
    return _fresh(folder / RESULTS, lambda path, mtime_ns, size: _overlay(path, mtime_ns, size, technique, number))


# ---- the chosen run: the query parameter says it, the session keeps it from page to page


def follow_address(keys: list[str]) -> None:
    """Set the picker to the run in the address; without one keep the choice, or take the first."""
    asked = st.query_params.get("run")
    if asked is not None:
        st.session_state["run"] = asked
        st.session_state["run_picker"] = asked if asked in keys else None
    elif st.session_state.get("run") is None:
        st.session_state["run"] = st.session_state["run_picker"] = keys[0]


def choose_picked() -> None:
    """The picker changed: that is the run now, and what else the address says was of the other one."""
    if st.session_state["run_picker"] is not None:
        st.session_state["run"] = st.session_state["run_picker"]
        st.query_params.from_dict({"run": st.session_state["run"]})


def keep_in_address() -> None:
    """Write the run into the address, so that the page is a link that can be sent."""
    if st.query_params.get("run") != st.session_state["run"]:
        st.query_params["run"] = st.session_state["run"]


def run() -> RunFolder:
    """The chosen run; raises InputError when it is not there."""
    key = str(st.session_state.get("run", ""))
    found = find(key)
    if found is None and key and confined(root(), key) is not None:
        raise InputError(
            f"{root() / key}: found a file or folder whose name is not that of a run, want a run folder, *.json, "
            "*.json.gz or *.pickle. Rename it, or choose another one on the left."
        )
    if found is None:
        raise InputError(f"{root() / key}: no run here (moved or deleted?). Choose another one on the left.")
    return found


def linked_range() -> Range | None:
    """The range selected in a link, in ns of the timeline (sel=FROM-TO); None without one."""
    first, dash, last = str(st.query_params.get("sel", "")).partition("-")
    if not (dash and first.isascii() and last.isascii() and first.isdigit() and last.isdigit()):
        return None
    return (int(first), int(last)) if len(first) < 19 and len(last) < 19 and int(first) < int(last) else None


def selected_range(
    run_key: str, region: tuple[str, ...] | None, drawn: Range | None, number: int
) -> tuple[Range | None, int]:
    """The range that counts, and the number of the selection it answers.

    Takes the latest selection of the timeline. Picking a region in the table drops it, because the view moves to that
    region; unpicking one does not.
    """
    held = st.session_state
    if held.get("range_of", (run_key, None)) != (run_key, region) and region is not None:
        held["range_dropped"] = (run_key, number)
    held["range_of"] = (run_key, region)
    of_run, dropped = held.get("range_dropped", (run_key, 0))
    dropped = dropped if of_run == run_key else 0
    return (drawn if number > dropped else None), max(number, dropped)
