"""A loaded trace: a path in, the frames of every analysis out, each computed once when first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.kernels import kernel_totals
from profiler_kit.analyses.gpu.operators import operator_totals
from profiler_kit.analyses.gpu.regions import region_totals
from profiler_kit.analyses.gpu.timeline import GpuTimeline, gpu_timeline
from profiler_kit.attribute.frames import EVENTS, GPU_EVENTS, KERNEL_DETAILS, LAUNCH_CALLS, OPERATORS, REGION_INSTANCES
from profiler_kit.attribute.launch_context import MODULE_PREFIX, Nested, find_origins, nest_operators, operator_calls
from profiler_kit.attribute.regions import NO_REGION, UNLINKED, Attribution, attribute
from profiler_kit.errors import OptionError
from profiler_kit.load.cache.store import load_chrome_trace
from profiler_kit.load.trace.categories import is_launch
from profiler_kit.load.trace.chrome import ChromeTrace, read_chrome_trace
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.load.trace.events import MISSING
from profiler_kit.load.trace.repair import Incident
from profiler_kit.progress import Report, silent
from profiler_kit.trace_analyses import TraceAnalyses

if TYPE_CHECKING:
    from profiler_kit.render.notebook_cards import Card

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Quality:
    """What was lost or could not be told: see LoadQuality; GPU events without a launch, and outside every region."""

    truncated: bool
    repaired_events: int
    dropped_events: int
    unlinked_gpu_events: int
    unattributed_gpu_events: int


class QualityCounts(TypedDict):
    """The `quality` of a summary."""

    truncated: bool
    repaired_events: int
    dropped_events: int
    unlinked_gpu_events: int
    unattributed_gpu_events: int


class Summary(TypedDict):
    """What `profiler-kit summary --json` prints. events counts every entry of `traceEvents`."""

    trace: str
    events: int
    gpu_events: int
    gpu_timeline: GpuTimeline
    quality: QualityCounts


def load_trace(
    path: str | Path, *, arguments: Sequence[str] = (), cache: bool = True, report: Report = silent
) -> Trace:
    """Load a chrome trace as torch.profiler writes it: .json or .json.gz, whole or cut off.

    arguments: further `args` of the events to keep as text columns of `events`, by the names of
    `profiler_kit.load.trace.chrome.ARGUMENTS` ("input_dims", "occupancy") or as the file writes them ("cbid").
    cache: load a large trace from its cache file, or keep it there (profiler_kit.load.cache.store says where).

    Raises InputError when the file is missing or empty, TraceFormatError when it is no trace, OptionError when an
    argument is a column already.
    """
    read = load_chrome_trace if cache else read_chrome_trace
    return Trace(read(path, arguments=arguments, report=report))


class Trace(TraceAnalyses):
    """One chrome trace. Times are nanoseconds since `base_ns` (Unix time; 0 in files without a base time).

    Frames are computed when first asked for and kept; treat them as read-only.
    """

    def __init__(self, file: ChromeTrace) -> None:
        self._file = file

    def __repr__(self) -> str:
        return f"Trace({str(self.path)!r}, {self._file.quality.events} events, {len(self.gpu_events())} on the GPU)"

    def _repr_html_(self) -> str:
        """A summary for a notebook: where the time went, and what is most worth fixing."""
        from profiler_kit.render.notebook_cards import trace_card

        return trace_card(self)._repr_html_()

    def timeline(self) -> Card:
        """The whole timeline as a picture for a notebook; `profiler-kit serve` has the one to zoom."""
        from profiler_kit.render.notebook_cards import timeline_card

        return timeline_card(self)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def metadata(self) -> dict[str, Any]:
        """Every key of the file beside `traceEvents`."""
        return self._file.metadata

    @property
    def columns(self) -> EventColumns:
        """The events as numpy arrays, for code that cannot afford a frame."""
        return self._file.columns

    @property
    def base_ns(self) -> int:
        """Unix time that start_ns counts from."""
        base = self.metadata.get("baseTimeNanoseconds")
        return base if isinstance(base, int) else 0

    @cached_property
    def events(self) -> pd.DataFrame:
        """EVENTS: one row per complete event; one more column (category) for each argument asked for when loading."""
        columns = self.columns
        data: dict[str, Any] = {
            "name": _categorical(columns.name, columns.names),
            "category": _categorical(columns.category, columns.categories),
            "thread": columns.thread,
            "start_ns": columns.start_ns,
            "dur_ns": columns.dur_ns,
            **{name: _nullable(values) for name, values in columns.integers.items()},
        }
        events = EVENTS.check(pd.DataFrame(data))
        extra = {name: _categorical(text.codes, text.values) for name, text in columns.extra.items()}
        return events.assign(**extra) if extra else events

    @cached_property
    def threads(self) -> pd.DataFrame:
        """One row per thread or stream: pid and tid as text, as the file writes them, and a label to show."""
        columns = self.columns
        rows = []
        for pid, tid in columns.threads:
            name = columns.thread_names.get((pid, tid), "")
            process = columns.process_labels.get(pid, "")
            rows.append((_text(pid), _text(tid), name or f"thread {_text(tid)}", process))
        return pd.DataFrame(rows, columns=["pid", "tid", "label", "process"], dtype=object)

    @cached_property
    def quality(self) -> Quality:
        """What was lost while loading, and what could not be attributed."""
        paths = self.gpu_events()["path"]
        loaded = self._file.quality
        return Quality(
            truncated=loaded.truncated,
            repaired_events=loaded.repaired_events,
            dropped_events=loaded.dropped_events,
            unlinked_gpu_events=_count(paths, UNLINKED),
            unattributed_gpu_events=_count(paths, NO_REGION),
        )

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """Where the file was damaged, and how; the first few times."""
        return self._file.quality.incidents

    def gpu_events(self) -> pd.DataFrame:
        """GPU_EVENTS: one row per kernel, memory copy and memory set, with the region that launched it."""
        return self._gpu_events

    def kernel_details(self) -> pd.DataFrame:
        """KERNEL_DETAILS: the rows of gpu_events with operator, nn.Module, launch delay and queue time.

        launch_delay_ns = queue_ns + latency_ns: a stream runs its work in order, so an event first waits until all
        that was launched before it has ended (queue_ns), and what is left is latency. No time is negative: an event
        that began before its launch call returned has waited 0 ns.
        """
        return self._kernel_details

    def launch_calls(self) -> pd.DataFrame:
        """LAUNCH_CALLS: one row per call of a runtime or driver, those that launch nothing included."""
        return self._launch_calls

    def sql(self, query: str) -> pd.DataFrame:
        """The result of one SELECT statement (DuckDB's SQL) over events, launches, gpu_events, regions,
        region_instances, operators and threads; help(profiler_kit.sql_tables) lists their columns.

        trace.sql("SELECT name, sum(dur_ns) AS ns FROM gpu_events GROUP BY name ORDER BY ns DESC"). Integers stay
        integers (Int64 where some are missing). A query sees these tables only: no files, no network, no variables.

        Raises OptionError when the query is no single SELECT, is wrong, or needs more memory than it is given.
        """
        from profiler_kit.sql import select
        from profiler_kit.sql_tables import trace_sources

        return select(query, trace_sources(self))

    def region_instances(self) -> pd.DataFrame:
        """REGION_INSTANCES: one row per opened region."""
        return self._region_instances

    def operators(self) -> pd.DataFrame:
        """OPERATORS: one row per operator call on the host."""
        return self._operators

    def regions(self) -> pd.DataFrame:
        """REGION_TOTALS: one row per region path."""
        return self._regions

    def kernels(self, *, region: str | None = None) -> pd.DataFrame:
        """KERNEL_TOTALS: one row per GPU event name, stream and device.

        With `region`, only what a region of that name launched (nested regions included); a whole path may be
        given as "outer > inner". Raises OptionError when no region has that name.
        """
        events = self.gpu_events()
        return kernel_totals(events if region is None else events[self._launched_in(region)])

    def _launched_in(self, region: str) -> npt.NDArray[np.bool_]:
        paths = [*self.region_instances()["path"].cat.categories]
        wanted = [path for path in self.regions()["path"] if region in (path[-1], " > ".join(path))]
        if not wanted:
            names = sorted({str(path[-1]) for path in self.regions()["path"]})
            raise OptionError(
                f"{self.path}: no region {region!r}, found {', '.join(names[:12]) or 'no regions at all'}. "
                "Give one of these names, or mark your code with `with region(name):` before recording."
            )
        inside = np.array([any(path[: len(w)] == w for w in wanted) for path in paths], dtype=bool)
        return inside[self.gpu_events()["path"].cat.codes.to_numpy()]

    def losses(self) -> list[str]:
        """What of the file was lost, one line each; empty when nothing was."""
        lost, lines = self._file.quality, []
        if lost.truncated:
            lines.append(f"{self.path}: the file is cut off; loaded up to its last whole event ({lost.events} events)")
        if lost.repaired_events:
            lines.append(f"{self.path}: {lost.repaired_events} events were malformed JSON and could be mended")
        if lost.dropped_events:
            lines.append(f"{self.path}: {lost.dropped_events} events could not be read and are left out")
        if self._attribution.regions.shortened:
            lines.append(
                f"{self.path}: {self._attribution.regions.shortened} regions overlap beyond what can be told apart and "
                "are closed with the region they began in"
            )
        return lines

    def operator_totals(self) -> pd.DataFrame:
        """OPERATOR_TOTALS: one row per region path and operator name."""
        return operator_totals(self.operators())

    def linked_gpu_events(self) -> pd.DataFrame:
        """The rows of gpu_events whose correlation has both a launch and an `ac2g` flow start in the trace."""
        events = self.gpu_events()
        correlation = self.columns.integers["correlation"][events["event"].to_numpy()]
        return events[events["launch"].notna().to_numpy() & np.isin(correlation, self.columns.launched)]

    def summary(self, *, linked_only: bool = False) -> Summary:
        """What `profiler-kit summary --json` prints; with linked_only just of the linked GPU events."""
        events = self.linked_gpu_events() if linked_only else self.gpu_events()
        quality = self.quality
        return Summary(
            trace=str(self.path),
            events=self._file.quality.events,
            gpu_events=len(events),
            gpu_timeline=gpu_timeline(events),
            quality=QualityCounts(
                truncated=quality.truncated,
                repaired_events=quality.repaired_events,
                dropped_events=quality.dropped_events,
                unlinked_gpu_events=quality.unlinked_gpu_events,
                unattributed_gpu_events=quality.unattributed_gpu_events,
            ),
        )

    @cached_property
    def _attribution(self) -> Attribution:
        return attribute(self.columns)

    @cached_property
    def _gpu_events(self) -> pd.DataFrame:
        found, columns = self._attribution, self.columns
        linked = found.launch >= 0
        launch = np.where(linked, found.launch, 0)
        data: dict[str, Any] = {
            "event": found.event,
            "name": _categorical(columns.name[found.event], columns.names),
            "category": _categorical(columns.category[found.event], columns.categories),
            "device": _nullable(columns.integers["device"][found.event]),
            "stream": _nullable(columns.integers["stream"][found.event]),
            "start_ns": columns.start_ns[found.event],
            "dur_ns": columns.dur_ns[found.event],
            "launch": _masked(found.launch, linked),
            "launch_start_ns": _masked(columns.start_ns[launch], linked),
            "launch_thread": _masked(columns.thread[launch], linked),
            "instance": _masked(found.instance, found.instance >= 0),
            "path": _paths(found.path, found.paths),
            "forward_path": _paths(found.forward_path, found.paths),
        }
        return GPU_EVENTS.check(pd.DataFrame(data))

    @cached_property
    def _nested_operators(self) -> Nested:
        return nest_operators(self.columns)

    @cached_property
    def _kernel_details(self) -> pd.DataFrame:
        columns, found = self.columns, find_origins(self.columns, self._attribution, self._nested_operators)
        modules = [name.removeprefix(MODULE_PREFIX) for name in columns.names]
        times = {
            name: _nullable(getattr(found, name))
            for name in KERNEL_DETAILS.columns
            if name not in GPU_EVENTS.columns and name.endswith("_ns")
        }
        extra: dict[str, Any] = {
            "operator_event": _masked(found.operator, found.operator >= 0),
            "operator": _named(found.operator, columns.name, columns.names),
            "outer_operator_event": _masked(found.outer_operator, found.outer_operator >= 0),
            "outer_operator": _named(found.outer_operator, columns.name, columns.names),
            "module": _named(found.module, columns.name, modules),
            "modules": _paths(found.modules, found.module_paths),
            **times,
        }
        return KERNEL_DETAILS.check(self.gpu_events().assign(**extra))

    @cached_property
    def _launch_calls(self) -> pd.DataFrame:
        columns, found = self.columns, self._attribution
        event = np.flatnonzero(columns.of_category(is_launch))
        event = event[np.argsort(columns.start_ns[event], kind="stable")]
        linked = found.launch >= 0
        count, total = np.zeros(len(columns), dtype=np.int64), np.zeros(len(columns), dtype=np.int64)
        np.add.at(count, found.launch[linked], 1)
        np.add.at(total, found.launch[linked], columns.dur_ns[found.event[linked]])
        node = found.regions.open_at(columns.thread[event], columns.start_ns[event])
        data: dict[str, Any] = {
            "event": event,
            "name": _categorical(columns.name[event], columns.names),
            "category": _categorical(columns.category[event], columns.categories),
            "thread": columns.thread[event],
            "start_ns": columns.start_ns[event],
            "dur_ns": columns.dur_ns[event],
            "correlation": _nullable(columns.integers["correlation"][event]),
            "gpu_events": count[event],
            "gpu_ns": total[event],
            "path": _paths(found.regions.path[node], found.paths),
        }
        return LAUNCH_CALLS.check(pd.DataFrame(data))

    @cached_property
    def _region_instances(self) -> pd.DataFrame:
        found = self._attribution.instances
        data: dict[str, Any] = {
            "event": found.event,
            "name": pd.Series(found.name, dtype=object),
            "step": _nullable(found.step),
            "path": _paths(found.path, self._attribution.paths),
            "parent": _masked(found.parent, found.parent >= 0),
            "thread": found.thread.astype(np.int32),
            "start_ns": found.start_ns,
            "end_ns": found.end_ns,
            "gpu_start_ns": _nullable(found.gpu_start_ns),
            "gpu_end_ns": _nullable(found.gpu_end_ns),
        }
        return REGION_INSTANCES.check(pd.DataFrame(data))

    @cached_property
    def _regions(self) -> pd.DataFrame:
        return region_totals(self.gpu_events(), self.region_instances())

    @cached_property
    def _operators(self) -> pd.DataFrame:
        columns = self.columns
        calls = operator_calls(columns, self._nested_operators)
        regions = self._attribution.regions
        node = regions.open_at(columns.thread[calls.event], columns.start_ns[calls.event])
        data: dict[str, Any] = {
            "event": calls.event,
            "name": _categorical(columns.name[calls.event], columns.names),
            "thread": columns.thread[calls.event],
            "start_ns": columns.start_ns[calls.event],
            "dur_ns": columns.dur_ns[calls.event],
            "self_ns": calls.self_ns,
            "depth": calls.depth.astype(np.int32),
            "parent": _masked(calls.parent, calls.parent >= 0),
            "path": _paths(regions.path[node], regions.paths),
        }
        return OPERATORS.check(pd.DataFrame(data))


def _nullable(values: I64) -> pd.arrays.IntegerArray:
    return _masked(values, values != MISSING)


def _masked(values: npt.NDArray[np.integer[Any]], known: npt.NDArray[np.bool_]) -> pd.arrays.IntegerArray:
    return pd.arrays.IntegerArray(np.where(known, values, 0).astype(values.dtype), ~known)


def _categorical(codes: npt.NDArray[np.integer[Any]], labels: Sequence[str]) -> pd.Categorical:
    """A categorical, also where two codes share a label (a file that writes Kernel and kernel)."""
    distinct: dict[str, int] = {}
    table = np.array([distinct.setdefault(label, len(distinct)) for label in labels], dtype=np.int32)
    return _from_codes(table[codes], pd.Index(list(distinct), dtype=object))


def _named(event: I64, name: npt.NDArray[np.int32], labels: Sequence[str]) -> pd.Categorical:
    """The name of each event as a categorical of the names that occur; missing where there is no event."""
    known = event >= 0
    used, where = np.unique(name[event[known]], return_inverse=True)
    found = _categorical(where, [labels[code] for code in used.tolist()])
    codes = np.full(len(event), -1, dtype=np.int64)
    codes[known] = found.codes
    return _from_codes(codes, found.categories)


def _paths(codes: I64, paths: Sequence[tuple[str, ...]]) -> pd.Categorical:
    return _from_codes(codes, pd.Index(paths, tupleize_cols=False))


def _from_codes(codes: npt.NDArray[np.integer[Any]], categories: pd.Index[Any]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories)  # type: ignore[arg-type]  # the stubs know lists only


def _count(paths: pd.Series[Any], wanted: tuple[str, ...]) -> int:
    code = list(paths.cat.categories).index(wanted)
    return int((paths.cat.codes == code).sum())


def _text(key: int | str) -> str:
    return "" if key == MISSING else str(key)
