"""A run as a whole: a path in; its record, trace, memory snapshot and layers, and what of them cannot be read, out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pandas as pd

from profiler_kit.analyses.compare.measurements import Side, measured
from profiler_kit.analyses.compare.traces import LATENCY, Change, Comparison, compare
from profiler_kit.analyses.gpu.batch_load import BatchLoad, batch_load
from profiler_kit.analyses.gpu.gpu_presence import Presence, what_ran
from profiler_kit.analyses.gpu.idle import IDLE_GAPS
from profiler_kit.analyses.layers.totals import explained, forward_spread, layer_totals
from profiler_kit.errors import InputError, KitError, OptionError
from profiler_kit.files import require_file
from profiler_kit.findings.advice import Advice, advise_layers
from profiler_kit.formats.layer_file import read_layers
from profiler_kit.formats.run_record import RECORD, RunRecord
from profiler_kit.kept import kept
from profiler_kit.later import Page, later, shown
from profiler_kit.load.discover.runs import RunFolder, find_run, find_runs
from profiler_kit.progress import Report, silent
from profiler_kit.snapshot import Snapshot, load_snapshot
from profiler_kit.table import Filled, Value
from profiler_kit.trace import Trace, load_trace

_T = TypeVar("_T")
_WANT: Final = "want a run folder, a chrome trace, a memory snapshot or a layers.parquet"
_HINT: Final = "Record one with: profiler-kit capture --out DIR"
_PICKLE: Final = b"\x80"  # how every pickle since protocol 2 begins
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


@dataclass(frozen=True, eq=False)
class Run:
    """One run, loaded. A part is None when it is not there, or cannot be read: then `problems` says so, a line each.

    path: the run folder, or the bare file. files: every file of the run, read or not.
    """

    name: str
    path: Path
    record: RunRecord | None
    trace: Trace | None
    snapshot: Snapshot | None
    layers: Layers | None
    problems: tuple[str, ...]
    files: tuple[Path, ...]

    def __repr__(self) -> str:
        return f"Run({self.name!r}: {', '.join(self.holds) or 'nothing'})"

    def _repr_html_(self) -> str:
        """A summary for a notebook: where the time went, and what is most worth fixing."""
        return shown("run_card", self)

    def report(self, *others: Run) -> Page:
        """The whole report, other runs compared with this one: shows itself in a notebook, and has save(path)."""
        page: Page = later("ReportPage")((self, *others))
        return page

    def compared_with(self, before: Run) -> Compared:
        """What changed from another run to this one.

        Raises OptionError when one of them has no trace.
        """
        found = compare_runs(before, self)
        if found is None:
            without = " and ".join(str(run.path) for run in (before, self) if run.trace is None)
            raise OptionError(f"{without}: no trace to compare, want two runs with one each. {_HINT}")
        return Compared(before, self, found)

    def table(self, name: str, **options: Value) -> Filled:
        """A declared table (profiler_kit.tables) of the run's trace, snapshot or layers, filled.

        Raises OptionError for a table or an option that is not known, and where the run lacks what it is filled from.
        """
        filled: Filled = later("fill")(
            name, {"trace": self.trace, "snapshot": self.snapshot, "layers": self.layers}, **options
        )
        return filled

    @property
    def holds(self) -> tuple[str, ...]:
        """The parts that are there, by name."""
        parts = {"record": self.record, "trace": self.trace, "memory": self.snapshot, "layers": self.layers}
        return tuple(name for name, part in parts.items() if part is not None)

    @property
    @kept
    def presence(self) -> Presence | None:
        """What the trace holds of the GPU; None without a trace."""
        if self.trace is None:
            return None
        calls, quality = self.trace.launch_calls(), self.trace.quality
        return what_ran(self.trace.gpu_events(), calls, truncated=quality.truncated, metadata=self.trace.metadata)

    @property
    @kept
    def load(self) -> BatchLoad | None:
        """How busy the GPU is when nobody records; None where the run does not tell."""
        if self.trace is None or self.record is None:
            return None
        return batch_load(self.trace.regions(), self.record.latency_ns)

    @property
    @kept
    def idle_gaps(self) -> pd.DataFrame:
        """IDLE_GAPS over all devices; empty without a trace."""
        return IDLE_GAPS.empty() if self.trace is None else self.trace.idle_gaps(scope="all")

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
    def advice(self) -> list[Advice]:
        """What is most worth fixing, of trace and layers together, the cause that could give back most first."""
        found = [] if self.trace is None else self.trace.advice(self.load)
        found += [] if self.layers is None else advise_layers(self.layers.totals)
        return sorted(found, key=lambda one: -one.share)

    @property
    @kept
    def side(self) -> Side | None:
        """The trace as one side of a comparison; None without a trace."""
        if self.trace is None:
            return None
        return Side.of(self.trace.gpu_events(), self.trace.region_instances(), self.trace.operators())


def load_run(path: str | os.PathLike[str], *, report: Report = silent) -> Run:
    """Load a run folder, or a bare chrome trace, memory snapshot or layers.parquet, told apart by how it begins.

    A part of a folder that is broken does not stop the others: see Run.problems. A bare file that is broken raises.

    Raises InputError when nothing is there, or when the folder holds no run.
    """
    target = Path(path)
    if os.path.isdir(target):  # noqa: PTH112 - unlike Path.is_dir, says no to a name that is too long
        return _folder(target, report)
    require_file(target, _WANT.removeprefix("want "), _HINT)
    with target.open("rb") as handle:
        head = handle.read(len(_PARQUET))
    name, files = _shown(target), (target,)
    if head.startswith(_PICKLE):
        snapshot = load_snapshot(target, report=report)
        return Run(name, target, None, None, snapshot, None, (), files)
    if head == _PARQUET:
        return Run(name, target, None, None, None, _layers(target), (), files)
    return Run(name, target, None, load_trace(target, report=report), None, None, (), files)


def load_runs(paths: Sequence[str | os.PathLike[str]], *, report: Report = silent) -> list[Run]:
    """Load several, each under a name of its own: where two would share one, with the folder it lies in.

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
    """What changed from A to B, the latency without the profiler first; None when one of them has no trace."""
    if a.side is None or b.side is None:
        return None
    return compare(a.side, b.side, latency_change(a.record, b.record))


def latency_change(first: RunRecord | None, second: RunRecord | None) -> list[Change]:
    """Timed batches without the profiler; per image when the batches differ in size. Empty where a run has none."""
    if first is None or second is None or not (first.latency_ns and second.latency_ns):
        return []
    same = first.batch_size == second.batch_size
    sides = [measured(record.latency_ns, 1 if same else max(record.batch_size, 1)) for record in (first, second)]
    return [Change("total", (LATENCY,), "wall", sides[0], sides[1])]


def _folder(folder: Path, report: Report) -> Run:
    found = find_run(folder, ".")
    if found is None:
        raise InputError(f"{folder}: found {_content(find_runs(folder))}, {_WANT}. {_HINT}")
    problems = [found.problem] if found.problem else []
    trace = _part(found.trace, lambda file: load_trace(file, report=report), problems)
    snapshot = _part(found.memory, lambda file: load_snapshot(file, report=report), problems)
    layers = _part(found.layers, _layers, problems)
    known = (folder / RECORD, found.trace, found.memory, found.layers, found.masks)
    files = tuple(file for file in known if file is not None and file.is_file())
    return Run(_shown(folder), folder, found.record, trace, snapshot, layers, tuple(problems), files)


def _content(runs: Sequence[RunFolder]) -> str:
    if not runs:
        return "no run in this folder"
    names = ", ".join(run.label for run in runs[:4]) + (", …" if len(runs) > 4 else "")
    return f"{len(runs)} run{'s' * (len(runs) > 1)} below this folder ({names}): name one of them"


def _part(file: Path | None, read: Callable[[Path], _T], problems: list[str]) -> _T | None:
    if file is None:
        return None
    try:
        return read(file)
    except KitError as error:
        problems.append(" ".join(str(error).split()))
        return None


def _layers(file: Path) -> Layers:
    found = read_layers(file)
    coverage = explained(found.calls, found.forwards)
    return Layers(layer_totals(found.calls), coverage, forward_spread(found.forwards), found.notes)


def _shown(path: Path) -> str:
    return _printable(path.resolve().name)


def _printable(name: str) -> str:
    """The name of a file or folder as text; what cannot be printed is shown as �."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "�" for c in text)
