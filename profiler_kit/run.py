"""A run as a whole: its record, trace, memory snapshot and layers, whichever of them can be read."""

from __future__ import annotations

import dataclasses
import os
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Generic, TypeVar

import pandas as pd

from profiler_kit.analyses.compare.measurements import Side, measured
from profiler_kit.analyses.compare.traces import LATENCY, Change, Comparison, compare
from profiler_kit.analyses.gpu.batch_load import BatchLoad, batch_load
from profiler_kit.analyses.gpu.gpu_presence import Presence
from profiler_kit.analyses.layers.totals import explained, forward_spread, layer_totals
from profiler_kit.analyses.serving.batches import Served, batches_of
from profiler_kit.analyses.serving.requests import request_waterfall, spans
from profiler_kit.attribute.frames import GPU_EVENTS, REGION_INSTANCES
from profiler_kit.errors import InputError, KitError, OptionError
from profiler_kit.files import require_file
from profiler_kit.finding import Finding
from profiler_kit.formats.ladder_record import RESULTS
from profiler_kit.formats.layer_file import LayerFile, read_layers
from profiler_kit.formats.request_file import read_requests
from profiler_kit.formats.run_record import RECORD, RunRecord
from profiler_kit.formats.study_file import STUDY
from profiler_kit.joined import JoinedRun, join_run
from profiler_kit.kept import kept, kept_for_good
from profiler_kit.later import Page, later, shown
from profiler_kit.load.discover.runs import RunFolder, find_run, find_runs
from profiler_kit.load.snapshot.reader import is_snapshot
from profiler_kit.progress import Report, silent
from profiler_kit.snapshot import Snapshot, load_snapshot
from profiler_kit.table import Filled, Of, Value
from profiler_kit.trace import Trace, load_trace

T = TypeVar("T")
_WANT: Final = "expected a run folder, a chrome trace, a memory snapshot or a layers.parquet"
_OTHERS: Final = {RESULTS: "ladder", STUDY: "study"}  # what a folder may hold that is no run
_HINT: Final = "Record one with: profiler-kit capture --out DIR"
_PARQUET: Final = b"PAR1"


@dataclass(frozen=True, eq=False)
class Layers:
    """What a layers.parquet says. totals: LAYER_TOTALS. coverage: LAYER_COVERAGE. spread: see forward_spread."""

    totals: pd.DataFrame
    coverage: pd.DataFrame
    spread: float
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        sizes = ", ".join(str(size) for size in sorted(self.totals["batch_size"].unique().tolist()))
        return f"Layers({self.totals['layer'].nunique()} layers at batch sizes {sizes})"

    def _repr_html_(self) -> str:
        return shown("layers_card", self)


@dataclass(frozen=True, eq=False)
class Compared:
    """What changed from run A to run B. changes: see Comparison."""

    a: Run
    b: Run
    changes: Comparison

    def __repr__(self) -> str:
        return f"Compared({self.a.name!r}, {self.b.name!r})"

    def _repr_html_(self) -> str:
        return shown("comparison_card", self.a, self.b, self.changes)

    def markdown(self) -> str:
        """The same to paste into a pull request."""
        text: str = later("comparison_markdown")(self.a, self.b, self.changes)
        return text


class Part(Generic[T]):
    """One part of a run, read when first asked for."""

    def __init__(self, read: Callable[[], T | None] = lambda: None) -> None:
        self._read = read
        self.error: KitError | None = None

    @staticmethod
    def of(file: Path | None, read: Callable[[Path], T]) -> Part[T]:
        """The part in that file, if there is one."""
        return Part() if file is None else Part(partial(read, file))

    @kept_for_good
    def value(self) -> T | None:
        """The part; None when there is none or it cannot be read, which `error` then tells."""
        try:
            return self._read()
        except KitError as error:
            self.error = error
            return None

    def required(self) -> T | None:
        """The part, None when there is none; raises the KitError that says why it cannot be read."""
        value = self.value()
        if value is None and self.error is not None:
            raise self.error.with_traceback(None)
        return value


@dataclass(frozen=True)
class Parts:
    """The parts of a run. memory_trace: of the batch that the memory snapshot is of, where that is another one.
    requests: SERVED.
    """

    trace: Part[Trace] = field(default_factory=Part)
    memory: Part[Snapshot] = field(default_factory=Part)
    layers: Part[Layers] = field(default_factory=Part)
    memory_trace: Part[Trace] = field(default_factory=Part)
    requests: Part[pd.DataFrame] = field(default_factory=Part)


@dataclass(frozen=True, eq=False)
class Run:
    """One run. A part is None if it is missing or cannot be read; `problems` then says why, one line each.

    path: the run folder, or the bare file. files: every file of the run, read or not. What is derived is computed
    when first asked for, kept and shared: never change a frame.
    """

    name: str
    path: Path
    record: RunRecord | None = None
    files: tuple[Path, ...] = ()
    parts: Parts = field(default_factory=Parts, repr=False)
    broken_record: str | None = None

    def __repr__(self) -> str:
        return f"Run({self.name!r}: {', '.join(self.holds) or 'nothing'})"

    def _repr_html_(self) -> str:
        """A summary for a notebook: where the time went, and what is most worth fixing."""
        return shown("run_card", self)

    def report(self, *others: Run) -> Page:
        """The whole report, other runs compared with this one: shows itself in a notebook, and has save(path)."""
        page: Page = later("ReportPage")((self, *others))
        return page

    @staticmethod
    def holding(
        path: Path, trace: Trace | None = None, snapshot: Snapshot | None = None, layers: Layers | None = None
    ) -> Run:
        """A run of parts that are loaded already."""
        return Run(path.name, path, parts=Parts(Part(lambda: trace), Part(lambda: snapshot), Part(lambda: layers)))

    @property
    def trace(self) -> Trace | None:
        """The trace."""
        return self.parts.trace.value()

    @property
    def snapshot(self) -> Snapshot | None:
        """The memory snapshot."""
        return self.parts.memory.value()

    @property
    def layers(self) -> Layers | None:
        """What layers.parquet says."""
        return self.parts.layers.value()

    @property
    def problems(self) -> tuple[str, ...]:
        """The parts that cannot be read, one line each; parts not asked for yet are not known to be broken."""
        errors = (part.error for part in vars(self.parts).values())
        lines = [self.broken_record, *(error and " ".join(str(error).split()) for error in errors)]
        return tuple(line for line in lines if line)

    @property
    def holds(self) -> tuple[str, ...]:
        """The parts that are there and can be read, by name; reads them all."""
        parts = {"record": self.record, "trace": self.trace, "memory": self.snapshot, "layers": self.layers}
        return tuple(name for name, part in parts.items() if part is not None)

    @property
    @kept_for_good
    def served(self) -> Served | None:
        """Requests to a server and their batches, on the clock of the trace; None where none were recorded."""
        found = self.parts.requests.value()
        if found is None:
            return None
        trace = self.trace
        gpu, regions, base = GPU_EVENTS.empty(), REGION_INSTANCES.empty(), 0
        if trace is not None:
            gpu, regions, base = trace.gpu_events(), trace.region_instances(), trace.base_ns
        return batches_of(request_waterfall(found, base, *spans(gpu)), regions, gpu)

    @property
    def requests(self) -> pd.DataFrame | None:
        """REQUESTS: one row per request to a server; None where none were recorded."""
        return None if self.served is None else self.served.requests

    @property
    @kept_for_good
    def joined(self) -> JoinedRun | None:
        """Kernels and memory on one clock; None unless the trace was recorded at the time of the snapshot."""
        trace, snapshot = self.parts.memory_trace.value() or self.trace, self.snapshot
        if trace is None or snapshot is None:
            return None
        try:
            return join_run(trace, snapshot)
        except InputError:  # recorded at different times, as many runs are
            return None

    def compared_with(self, before: Run) -> Compared:
        """What changed from another run to this one.

        Raises OptionError when one of them has no trace.
        """
        found = compare_runs(before, self)
        if found is None:
            without = " and ".join(str(run.path) for run in (before, self) if run.trace is None)
            raise OptionError(f"{without}: no trace to compare, expected two runs with one each. {_HINT}")
        return Compared(before, self, found)

    @kept
    def _changes_since(self, before: weakref.ref[Run]) -> Comparison | None:
        """By a weak reference, so that a run keeps what it was compared with no longer than others do."""
        other = before()
        if other is None or other.side is None or self.side is None:
            return None
        return compare(other.side, self.side, latency_change(other.record, self.record))

    def table(self, name: str, **options: Value) -> Filled:
        """A declared table (profiler_kit.tables) of the run's trace, snapshot, both joined, layers or requests, filled.

        Raises OptionError for a table or an option that is not known, and where the run lacks what it is filled from.
        """
        trace, memory, layers = self.parts.trace, self.parts.memory, self.parts.layers
        parts: dict[Of, Callable[[], object]] = {
            "trace": trace.value,
            "snapshot": memory.value,
            "layers": layers.value,
            "joined": lambda: self.joined,
            "requests": lambda: self.served,
        }
        filled: Filled = later("fill")(name, parts, **options)
        return filled

    @property
    def presence(self) -> Presence | None:
        """What the trace holds about the GPU; None without a trace."""
        return None if self.trace is None else self.trace.presence

    @property
    @kept
    def load(self) -> BatchLoad | None:
        """How busy the GPU is without the profiler; None where the run does not tell."""
        if self.trace is None or self.record is None:
            return None
        return batch_load(self.trace.regions(), self.record.latency_ns)

    @property
    @kept
    def bounds(self) -> dict[tuple[str, ...], str]:
        """What bounds each region path: the verdicts of REGION_UTILIZATION; empty without a trace."""
        if self.trace is None:
            return {}
        found = self.trace.utilization()
        return dict(zip(found["path"], found["verdict"], strict=True))

    @property
    @kept
    def findings(self) -> list[Finding]:
        """What is worth saying about the run, the most important first; see profiler_kit.findings."""
        found: list[Finding] = later("findings_of")(self)
        return found

    @property
    @kept
    def side(self) -> Side | None:
        """The trace as one side of a comparison; None without a trace."""
        return None if self.trace is None else self.trace.side()


def load_run(path: str | os.PathLike[str], *, report: Report = silent) -> Run:
    """Load a run folder, or a bare chrome trace, memory snapshot or layers.parquet, told apart by how it begins.

    A part of a folder that is broken does not stop the others: see Run.problems. A bare file that is broken raises.

    Raises InputError when nothing is there, or when the folder holds no run.
    """
    run = open_run(path, trace=partial(load_trace, report=report), memory=partial(load_snapshot, report=report))
    parts = (run.parts.trace, run.parts.memory, run.parts.layers, run.parts.requests)
    for part in parts:
        part.value()
    error = next((part.error for part in parts if part.error is not None), None)
    if error is not None and run.files == (run.path,):
        raise error
    return run


def open_run(
    path: str | os.PathLike[str],
    *,
    trace: Callable[[Path], Trace] = load_trace,
    memory: Callable[[Path], Snapshot] = load_snapshot,
) -> Run:
    """What load_run gives, each part read when first asked for; `problems` then tells of one that is broken.

    trace, memory: how to load such a file, for those who load in the background or share what they loaded.

    A folder that is no run holds one where there is but one below it.

    Raises InputError when nothing is there, or when the folder holds no run, or several.
    """
    target = Path(path)
    if os.path.isdir(target):  # noqa: PTH112 - unlike Path.is_dir, says no to a name that is too long
        found = find_run(target, ".")
        if found is None:
            below = find_runs(target)
            if len(below) != 1:
                kind = next((kind for name, kind in _OTHERS.items() if (target / name).is_file()), "")
                hint = f"Show it with: profiler-kit {kind} {target}" if kind else _HINT
                raise InputError(f"{target}: found {f'a {kind}' if kind else _content(below)}, {_WANT}. {hint}")
            return open_run(below[0].path, trace=trace, memory=memory)
        parts = Parts(
            Part.of(found.trace, trace),
            Part.of(found.memory, memory),
            Part.of(found.layers, load_layers),
            Part.of(found.memory_trace, trace),
            Part.of(found.requests, read_requests),
        )
        known = (target / RECORD, found.trace, found.memory, found.layers, found.masks, found.requests)
        files = tuple(file for file in known if file is not None and file.is_file())
        return Run(_shown(target), target, found.record, files, parts, found.problem)
    require_file(target, _WANT.removeprefix("expected "), _HINT)
    with target.open("rb") as handle:
        head = handle.read(len(_PARQUET))
    if head == _PARQUET:
        parts = Parts(layers=Part.of(target, load_layers))
    elif is_snapshot(target):
        parts = Parts(memory=Part.of(target, memory))
    else:
        parts = Parts(trace=Part.of(target, trace))
    return Run(_shown(target), target, files=(target,), parts=parts)


def load_runs(paths: Sequence[str | os.PathLike[str]], *, report: Report = silent) -> list[Run]:
    """Load several, each under a name of its own: where two would share one, with its folder in front.

    Raises as load_run does.
    """
    runs = [load_run(path, report=report) for path in paths]
    names = [run.name for run in runs]
    for depth in (1, 2, 3):
        twice = {name for name in names if names.count(name) > 1}
        longer = [_with_folders(run.path, depth) for run in runs]
        names = [more if name in twice else name for name, more in zip(names, longer, strict=True)]
    return [dataclasses.replace(run, name=name) for run, name in zip(runs, names, strict=True)]


def _with_folders(path: Path, depth: int) -> str:
    return "/".join(_printable(part) for part in path.resolve().parts[-1 - depth :])


def compare_runs(a: Run, b: Run) -> Comparison | None:
    """What changed from A to B, the latency without the profiler first; None when one of them has no trace.

    Computed once for the two.
    """
    return b._changes_since(weakref.ref(a))


def latency_change(first: RunRecord | None, second: RunRecord | None) -> list[Change]:
    """Timed batches without the profiler; per image when the batches differ in size. Empty where a run has none."""
    if first is None or second is None or not (first.latency_ns and second.latency_ns):
        return []
    same = first.batch_size == second.batch_size
    sides = [measured(record.latency_ns, 1 if same else max(record.batch_size, 1)) for record in (first, second)]
    return [Change("total", (LATENCY,), "wall", sides[0], sides[1])]


def _content(runs: Sequence[RunFolder]) -> str:
    if not runs:
        return "no run in this folder"
    names = ", ".join(run.label for run in runs[:4]) + (", …" if len(runs) > 4 else "")
    return f"{len(runs)} runs below this folder ({names}): name one of them"


def load_layers(file: Path) -> Layers:
    """What a layers.parquet says; raises LayerFormatError when it is none."""
    return layers_of(read_layers(file))


def layers_of(found: LayerFile) -> Layers:
    """The layer timings of a file, summed up."""
    coverage = explained(found.calls, found.forwards)
    return Layers(layer_totals(found.calls), coverage, forward_spread(found.forwards), found.notes)


def _shown(path: Path) -> str:
    return _printable(path.resolve().name)


def _printable(name: str) -> str:
    """The name of a file or folder as text; what cannot be printed is shown as �."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "�" for c in text)
