"""A loaded trace, and every question that can be asked of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.compare.measurements import Side
from profiler_kit.analyses.gpu import grouping
from profiler_kit.analyses.gpu.categories import categories, event_categories, owners
from profiler_kit.analyses.gpu.collectives import ARGUMENTS as COLLECTIVE_ARGUMENTS
from profiler_kit.analyses.gpu.collectives import COLLECTIVES, collectives
from profiler_kit.analyses.gpu.communication import communication_kernels, communication_overlap
from profiler_kit.analyses.gpu.compiled import FILE as COMPILED_FILE
from profiler_kit.analyses.gpu.compiled import compiled_regions, graph_breaks, triton_kernels
from profiler_kit.analyses.gpu.copies import copies, copy_rate, copy_totals
from profiler_kit.analyses.gpu.gpu_presence import Presence, unread_spans, what_ran
from profiler_kit.analyses.gpu.idle import KERNEL_WAIT_BELOW_NS, Scope, idle_gaps, idle_totals
from profiler_kit.analyses.gpu.kernels import By, call_sites, in_group, kernel_groups, kernel_origins, kernel_totals
from profiler_kit.analyses.gpu.launches import (
    DELAYED_FROM_NS,
    FULL_AT,
    SLOW_FROM_NS,
    launch_details,
    launch_totals,
    queue_length,
    queue_totals,
)
from profiler_kit.analyses.gpu.operators import (
    module_work,
    operator_kernels,
    operator_totals,
    operator_work,
    shape_work,
)
from profiler_kit.analyses.gpu.peaks import Peaks, peaks_of, read_peaks
from profiler_kit.analyses.gpu.regions import region_totals
from profiler_kit.analyses.gpu.replay import (
    WHAT_IF,
    Change,
    Replay,
    critical_path,
    critical_totals,
    faster_region,
    replay_of,
    saved_ns,
    what_if,
    what_takes_most,
    while_served,
    without_kernel,
)
from profiler_kit.analyses.gpu.replayed_graphs import replayed_graphs
from profiler_kit.analyses.gpu.roofline import ARGUMENTS as ROOFLINE_ARGUMENTS
from profiler_kit.analyses.gpu.roofline import By as RooflineBy
from profiler_kit.analyses.gpu.roofline import Worked, roofline, roofline_of, roofline_totals, work_of_events
from profiler_kit.analyses.gpu.sequences import kernel_sequences
from profiler_kit.analyses.gpu.short_kernels import SHORT_BELOW_NS, short_kernels
from profiler_kit.analyses.gpu.steps import step_of, steps
from profiler_kit.analyses.gpu.stream_waits import ARGUMENTS as WAIT_ARGUMENTS
from profiler_kit.analyses.gpu.stream_waits import says_waits, waited_for
from profiler_kit.analyses.gpu.timeline import DeviceTimeline, GpuTimeline, devices_by, timelines_of
from profiler_kit.analyses.gpu.trees import call_tree, python_callers, python_tree
from profiler_kit.analyses.gpu.utilization import region_utilization
from profiler_kit.analyses.serving.requests import in_flight, spans
from profiler_kit.attribute import frames
from profiler_kit.attribute.captures import Captures, Host, Source, appended_text, find_captures, host_of, replayed
from profiler_kit.attribute.gpu_work import NOT, compiled
from profiler_kit.attribute.launch_context import (
    NestedSpans,
    find_launch_contexts,
    nest_operators,
    nest_python,
    operator_calls,
)
from profiler_kit.attribute.links import NONE, Links
from profiler_kit.attribute.regions import NO_REGION_PATH, UNLINKED_PATH, Attribution, attribute
from profiler_kit.errors import KitError, OptionError
from profiler_kit.finding import Finding
from profiler_kit.formats.request_file import read_requests
from profiler_kit.formats.run_record import REQUESTS, TRACE
from profiler_kit.kept import kept, kept_for_good
from profiler_kit.later import Shown, later, shown
from profiler_kit.load import cache
from profiler_kit.load.discover.jobs import files_of_captures
from profiler_kit.load.discover.runs import part_file
from profiler_kit.load.integers import MISSING
from profiler_kit.load.trace.cached import load_chrome_trace
from profiler_kit.load.trace.categories import MEMCPY
from profiler_kit.load.trace.chrome import ChromeTrace, read_chrome_trace
from profiler_kit.load.trace.columns import EventColumns, TextColumn
from profiler_kit.load.trace.repair import Incident
from profiler_kit.progress import Report, silent
from profiler_kit.settings import capture_files, communication_names
from profiler_kit.table import Filled, Value


@dataclass(frozen=True)
class Quality:
    """What was lost or could not be told: see LoadQuality; GPU events without a launch, and outside every region; those
    without a time and with an impossible duration, which no total counts; those whose launch is the nearest of several
    that may be it.

    processes: those with launches, operators or GPU events in the file.
    """

    truncated: bool
    repaired_events: int
    dropped_events: int
    unlinked_gpu_events: int
    unattributed_gpu_events: int
    untimed_gpu_events: int
    impossible_durations: int
    processes: int
    likely_launches: int


class Summary(TypedDict):
    """What `profiler-kit summary --json` prints. events counts every entry of `traceEvents`; gpu_events counts those
    whose time cannot be believed too, which gpu_timeline leaves out. quality: the values of Quality by their names.
    """

    trace: str
    events: int
    gpu_events: int
    gpu_timeline: GpuTimeline
    devices: list[DeviceTimeline]
    quality: dict[str, int]


def load_trace(
    path: str | Path,
    *,
    arguments: Sequence[str] = (),
    communication: Sequence[str] = (),
    captures: Sequence[str | Path] = (),
    cache: bool = True,
    report: Report = silent,
) -> Trace:
    """Load a chrome trace as torch.profiler writes it: .json, packed or not, whole or cut off.

    arguments: further `args` of the events to keep as text columns of `events`, by the names of
    `profiler_kit.load.trace.chrome.ARGUMENTS` ("input_dims", "occupancy") or as the file writes them ("cbid").
    communication: names of kernels and operators that communicate, as regular expressions, beside those of the user's
    settings (profiler_kit.settings) and those that are known (profiler_kit.attribute.gpu_work).
    captures: traces, or folders of them, that hold the capture of the CUDA graphs that this one replays, or the same
    kernels launched one by one; beside the file's own and what a run folder keeps in graph_trace.json.gz.
    cache: load a large trace from its cache file, or keep it there (profiler_kit.load.cache says where).

    Raises InputError when the file is missing or empty, TraceFormatError when it is not a trace, OptionError when an
    argument is a column already or a name is not a regular expression.
    """
    users = compiled((*communication_names(), *communication))
    read = load_chrome_trace if cache else read_chrome_trace
    return Trace(read(path, arguments=arguments, report=report), users, (*capture_files(), *map(Path, captures)))


class Trace:
    """One chrome trace. Times are nanoseconds since `base_ns` (Unix time; 0 in files without a base time).

    Frames are computed when first asked for, kept within a bound (profiler_kit.kept) and shared: never change one.
    """

    def __init__(
        self, file: ChromeTrace, users: tuple[re.Pattern[str], ...] = (), captures: tuple[Path, ...] = ()
    ) -> None:
        self._file = file
        self._users = users  # names of communication that the user gave
        self._captures_in = captures  # files and folders

    def __repr__(self) -> str:
        return f"Trace({str(self.path)!r}, {self._file.quality.events} events, {len(self.gpu_events())} on the GPU)"

    def _repr_html_(self) -> str:
        """A summary for a notebook: where the time went, and what is most worth fixing."""
        return shown("trace_card", self)

    def timeline(self) -> Shown:
        """The whole timeline as a picture for a notebook; `profiler-kit serve` has the one to zoom."""
        card: Shown = later("timeline_card")(self)
        return card

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    @property
    def metadata(self) -> dict[str, Any]:
        """Every key of the file but `traceEvents`."""
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

    @property
    def zero_ns(self) -> int:
        """The first start of what a timeline draws: where people read a time, it counts from here."""
        calls = (self.operators(), self.launch_calls(), self.python_calls())
        frames = (self.gpu_events(), self.region_instances(), *calls)
        return min((int(frame["start_ns"].min()) for frame in frames if len(frame)), default=0)

    @property
    @kept_for_good
    def events(self) -> pd.DataFrame:
        """EVENTS: one row per complete event; one more column (category) for each argument asked for when loading."""
        cache.seal()  # what is written to these numbers must not come back from the cache
        return frames.events_frame(self.columns)

    @property
    @kept_for_good
    def threads(self) -> pd.DataFrame:
        """THREADS: one row per thread or stream, with a label to show."""
        return frames.threads_frame(self.columns)

    @property
    @kept
    def quality(self) -> Quality:
        """What was lost while loading, and what could not be attributed."""
        loaded, found = self._file.quality, self._attribution
        path = np.concatenate((found.path, found.left_out.path))
        untimed = int(found.left_out.untimed.sum())
        return Quality(
            truncated=loaded.truncated,
            repaired_events=loaded.repaired_events,
            dropped_events=loaded.dropped_events,
            unlinked_gpu_events=int((path == UNLINKED_PATH).sum()),
            unattributed_gpu_events=int((path == NO_REGION_PATH).sum()),
            untimed_gpu_events=untimed,
            impossible_durations=len(found.left_out.event) - untimed,
            processes=found.links.processes.count,
            likely_launches=int(found.links.likely.sum()),
        )

    @property
    def unmatched_events(self) -> int:
        """Begins of spans without an end and ends without a begin; dropped_events counts them too."""
        return self._file.quality.unmatched_events

    @property
    def useless_events(self) -> int:
        """Events without a phase, without a time or with an impossible one; dropped_events counts them too."""
        return self._file.quality.useless_events

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """Where the file was damaged, and how; the first few times."""
        return self._file.quality.incidents

    @property
    @kept_for_good
    def _attribution(self) -> Attribution:
        return attribute(self.columns, self._users)

    @property
    @kept_for_good
    def _nested_operators(self) -> NestedSpans:
        return nest_operators(self._host.columns)

    @property
    @kept_for_good
    def capture_traces(self) -> list[Trace]:
        """The traces that may hold the capture of replayed graphs: those given, and that of the run folder."""
        if not replayed(self.columns, self._attribution).any():
            return []
        return [Trace(load_chrome_trace(path), self._users) for path in files_of_captures(self.path, self._captures_in)]

    @property
    @kept_for_good
    def captures(self) -> Captures:
        """Where the kernels of replayed CUDA graphs were launched one by one."""

        def source(trace: Trace) -> Source:
            def text(name: str) -> TextColumn:
                return trace._with(name).columns.extra[name]

            return Source(trace.path.name, trace.columns, trace._attribution, text, trace is not self)

        return find_captures(source(self), [source(trace) for trace in self.capture_traces])

    @property
    @kept_for_good
    def _host(self) -> Host:
        """The events of the trace, and after them those of other traces that hold captures of its graphs."""
        found, traces = self.captures, [self, *self.capture_traces]
        return host_of([(trace.columns, trace._attribution) for trace in traces], found)

    def _arguments(self, *names: str) -> dict[str, TextColumn]:
        """These arguments of the events of `_host`."""
        every = [trace._with(*names).columns.extra for trace in (self, *self.capture_traces)][: self._host.traces]
        return every[0] if len(every) == 1 else {name: appended_text([one[name] for one in every]) for name in names}

    @property
    def links(self) -> Links:
        """How each GPU event was joined with the host, and the processes of the file."""
        return self._attribution.links

    @kept_for_good
    def gpu_events(self) -> pd.DataFrame:
        """GPU_EVENTS: one row per kernel, memory copy and memory set, with the region that launched it."""
        return frames.gpu_events_frame(self.columns, self._attribution)

    @kept
    def left_out(self) -> pd.DataFrame:
        """LEFT_OUT: one row per GPU event whose time cannot be believed."""
        return frames.left_out_frame(self.columns, self._attribution)

    @kept_for_good
    def kernel_details(self) -> pd.DataFrame:
        """KERNEL_DETAILS: the rows of gpu_events with operator, nn.Module, launch delay and queue time.

        launch_delay_ns = queue_ns + latency_ns: a stream runs its work in order, so an event first waits until all
        that was launched before it has ended (queue_ns), and what is left is latency. No time is negative: an event
        that began before its launch call returned has waited 0 ns.
        """
        details = self._details()
        if self._host.traces == 1:
            return details
        event = details["operator_event"]
        return details.assign(operator_event=event.mask(event >= len(self.columns)))

    @kept_for_good
    def _details(self) -> pd.DataFrame:
        """KERNEL_DETAILS, where operator_event may be a row of `_host`."""
        host = self._host
        found = find_launch_contexts(host.columns, self._attribution, self._nested_operators, host.captured)
        return frames.kernel_details_frame(
            self.gpu_events(), host.columns, found, host.captured, host.capture_path, host.paths
        )

    @kept_for_good
    def launch_calls(self) -> pd.DataFrame:
        """LAUNCH_CALLS: one row per call of a runtime or driver, those that launch nothing included."""
        return frames.launch_calls_frame(self.columns, self._attribution)

    @kept_for_good
    def region_instances(self) -> pd.DataFrame:
        """REGION_INSTANCES: one row per opened region."""
        return frames.region_instances_frame(self._attribution.instances, self._attribution)

    @kept_for_good
    def region_parts(self) -> pd.DataFrame:
        """REGION_INSTANCES once more, but a region that straddles others has one row for each stretch that it is in.

        Regions straddle where each is open for some time without the other. What a region did while others were around
        it is theirs too, and only that, so each stretch has a path, times and GPU work of its own.
        """
        if self._attribution.parts is self._attribution.instances:
            return self.region_instances()
        return frames.region_instances_frame(self._attribution.parts, self._attribution)

    def in_parts(self, gpu_events: pd.DataFrame) -> pd.DataFrame:
        """All GPU events (GPU_EVENTS or KERNEL_DETAILS) with their row of region_parts as `instance`."""
        part = self._attribution.part
        return gpu_events.assign(instance=frames.masked(part, part != NONE))

    @kept_for_good
    def operators(self) -> pd.DataFrame:
        """OPERATORS: one row per operator call on the host."""
        calls = self._calls()
        return calls if self._host.traces == 1 else calls[calls["thread"] >= 0]

    @kept_for_good
    def _calls(self) -> pd.DataFrame:
        """OPERATORS, and after them those of other traces that hold captures, with thread -1."""
        host = self._host.columns
        calls = operator_calls(host, self._nested_operators)
        return frames.operators_frame(host, self._attribution.regions, calls, len(self.columns))

    @kept
    def python_calls(self) -> pd.DataFrame:
        """PYTHON_CALLS: one row per call of a Python function; there are none unless stacks were recorded."""
        return frames.python_calls_frame(self.columns, self._attribution.regions, nest_python(self.columns))

    def sql(self, query: str) -> pd.DataFrame:
        """The result of one SELECT statement (DuckDB's SQL) over the tables of a trace.

        `profiler-kit query TRACE --tables` lists them: events, launches, gpu_events, regions, kernels and others.

        trace.sql("SELECT name, sum(dur_ns) AS ns FROM gpu_events GROUP BY name ORDER BY ns DESC"). Integers stay
        integers (Int64 where some are missing). A query sees these tables only: no files, no network, no variables.

        Raises OptionError when the query is not a single SELECT, is wrong, or needs more memory than it is given.
        """
        answer: pd.DataFrame = later("select")(query, later("sources")("trace", self))
        return answer

    def table(self, name: str, **options: Value) -> Filled:
        """A declared table (profiler_kit.tables), filled: `trace.table("idle", scope="device")`.

        Raises OptionError for a table or an option that is not known.
        """
        filled: Filled = later("fill")(name, {"trace": self}, **options)
        return filled

    def side(self) -> Side:
        """The trace as one side of a comparison."""
        calls = self.operators().copy(deep=False)  # `assign` would copy every column, 50 MB of 766,000 calls
        part = self._attribution.part_at(calls["thread"].to_numpy(), calls["start_ns"].to_numpy())
        calls["instance"] = frames.masked(part, part != NONE)
        return Side.of(self.in_parts(self.gpu_events()), self.region_parts(), calls, self.event_categories())

    @kept
    def regions(self) -> pd.DataFrame:
        """REGION_TOTALS: one row per region path."""
        return region_totals(self.gpu_events(), self.region_parts())

    @kept
    def kernels(self, *, region: str | None = None) -> pd.DataFrame:
        """KERNEL_TOTALS: one row per GPU event name, stream and device.

        With `region`, only what a region of that name launched (nested regions included); a whole path may be
        given as "outer > inner". Raises OptionError when no region has that name.
        """
        events = self.gpu_events()
        return kernel_totals(events if region is None else events[self._launched_in(region)])

    def _paths_of(self, region: str) -> list[tuple[str, ...]]:
        """The paths of a region's name, or the whole path that was given; raises OptionError when there is none."""
        every = self.regions()["path"]
        wanted = [path for path in every if region in (path[-1], " > ".join(path))]
        if not wanted:
            names = sorted({str(path[-1]) for path in every})
            raise OptionError(
                f"{self.path}: no region {region!r}, found {', '.join(names[:12]) or 'no regions at all'}. "
                "Give one of these names, or mark your code with `with region(name):` before recording."
            )
        return wanted

    def _launched_in(self, region: str) -> npt.NDArray[np.bool_]:
        wanted = self._paths_of(region)
        paths = self.region_instances()["path"].cat.categories
        inside = np.array([any(path[: len(w)] == w for w in wanted) for path in paths], dtype=bool)
        return inside[self.gpu_events()["path"].cat.codes.to_numpy()]

    @property
    def shortened_regions(self) -> int:
        """Regions that overlap in a way that cannot be resolved, and are closed with the region they began in."""
        return self._attribution.regions.shortened

    @property
    @kept
    def presence(self) -> Presence:
        """What the trace holds about the GPU, and what it lacks."""
        quality = self._file.quality
        return what_ran(
            self.gpu_events(),
            self.launch_calls(),
            truncated=quality.truncated,
            metadata=self.metadata,
            unread=unread_spans(self.columns),
            form=self.columns.form,
            arrows=len(self.columns.outgoing),
            left_out=len(self._attribution.left_out.event),
            dropped=quality.dropped_events,
        )

    @kept
    def linked_gpu_events(self) -> pd.DataFrame:
        """The rows of gpu_events whose correlation has both a launch and an `ac2g` flow start in the trace."""
        return self.gpu_events()[self._linked]

    @property
    def _linked(self) -> npt.NDArray[np.bool_]:
        """Of each GPU event, whether its correlation has both a launch and an `ac2g` flow start, in its own process."""
        found, links = self._attribution, self._attribution.links
        ids, thread = self.columns.launched.T
        correlation = self.columns.integers["correlation"][found.event]
        linked: npt.NDArray[np.bool_] = np.isin(correlation, ids) & (found.launch != NONE)
        if links.processes.count > 1:
            # an id as the place of the first row that has it: with the process one number
            ours, theirs = (np.searchsorted(ids, one) * len(links.processes.names) for one in (correlation, ids))
            linked &= np.isin(ours + links.process, theirs + links.processes.on_host[thread])
        return linked

    @kept
    def summary(self, *, linked_only: bool = False) -> Summary:
        """What `profiler-kit summary --json` prints; with linked_only just of the linked GPU events.

        Makes no frame, so that a command that needs no more starts without pandas.
        """
        found = self._attribution
        rows = np.flatnonzero(self._linked) if linked_only else np.arange(len(found.event))
        event, category = found.event[rows], found.category[rows]
        copy = np.array([label == MEMCPY for label in found.categories], dtype=bool)[category]
        links, start, dur = found.links, self.columns.start_ns[event], self.columns.dur_ns[event]
        on = devices_by(links.process[rows], links.processes.names, self.columns.integers["device"][event])
        whole, devices = timelines_of(start, dur, found.communication[rows] != NOT, copy, on)
        return Summary(
            trace=str(self.path),
            events=self._file.quality.events,
            gpu_events=len(event) + (0 if linked_only else len(found.left_out.event)),
            gpu_timeline=whole,
            devices=devices,
            quality=asdict(self.quality),
        )

    @kept
    def operator_totals(self) -> pd.DataFrame:
        """OPERATOR_TOTALS: one row per region path and operator name."""
        return operator_totals(self.operators())

    @kept
    def operator_work(self) -> pd.DataFrame:
        """OPERATOR_WORK: one row per operator name, with host time and the GPU work it launched."""
        return operator_work(self._calls(), self._details())

    @kept
    def operator_kernels(self) -> pd.DataFrame:
        """OPERATOR_KERNELS: one row per operator, GPU event name, stream and device."""
        return operator_kernels(self.kernel_details())

    @kept
    def module_work(self) -> pd.DataFrame:
        """MODULE_WORK: GPU work by path of nn.Modules."""
        return module_work(self.kernel_details())

    @kept
    def shape_work(self) -> pd.DataFrame:
        """SHAPE_WORK: one row per operator name and input shapes; reads the file once more when loaded without them."""
        shapes = frames.text_column(self._arguments("input_dims")["input_dims"])
        return shape_work(self._calls(), self._details(), shapes)

    def _with(self, *arguments: str) -> Trace:
        """The trace with these arguments of the events, read once more when it was loaded without."""
        if not set(arguments) - set(self.columns.extra):
            return self
        return Trace(load_chrome_trace(self.path, arguments=arguments), self._users, self._captures_in)

    @kept
    def categories(self) -> pd.DataFrame:
        """CATEGORY_TOTALS: GPU time by category of work (matrix product, attention, copy, …)."""
        return categories(self._details(), self.event_categories())

    @kept
    def event_categories(self) -> pd.Categorical:
        """The category of work of each GPU event."""
        calls, details = self._calls(), self._details()
        return event_categories(calls, details, owners(calls, details))

    @property
    @kept
    def gpu_names(self) -> list[str]:
        """Names of the devices that GPU events ran on, as the metadata has them; "" where it does not say."""
        listed = self.metadata.get("deviceProperties")
        known = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        named = [one for one in known if isinstance(one.get("id"), int) and isinstance(one.get("name"), str)]
        names = {one["id"]: one["name"] for one in named}
        return sorted({names.get(device, "") for device in self.gpu_events()["device"].dropna().unique().tolist()})

    @kept
    def peaks(self, *, file: str | None = None) -> Peaks | None:
        """What the GPU can do: from a file of peaks, else its data sheet; None if it is not known here, or if the
        GPUs differ.
        """
        if file is not None:
            return read_peaks(file)
        found = [peaks_of(name) for name in self.gpu_names]
        return found[0] if len(found) == 1 else None

    @kept
    def _worked(self) -> Worked:
        details = self._details()
        copied = np.maximum(self.columns.integers["bytes"][details["event"].to_numpy()], -1)
        return work_of_events(self._calls(), details, self._arguments(*ROOFLINE_ARGUMENTS), copied)

    @kept
    def roofline(self, *, peaks: str | None = None) -> pd.DataFrame:
        """ROOFLINE: FLOPs and bytes of each operator and its shapes against what the GPU can do.

        peaks: a file of peaks in place of the data sheet (analyses.gpu.peaks). Reads the file once more when it was
        loaded without the shapes. Raises InputError when the file of peaks is not valid.
        """
        return roofline(self.kernel_details(), self._worked(), self.peaks(file=peaks))

    def roofline_of(self, row: int) -> pd.DataFrame | None:
        """ROOFLINE of the operator call that launched that row of gpu_events; None when loaded without the shapes."""
        if set(ROOFLINE_ARGUMENTS) - set(self.columns.extra):
            return None
        return roofline_of(self.kernel_details(), self._worked(), self.peaks(), row)

    @kept
    def roofline_totals(self, by: RooflineBy, *, peaks: str | None = None) -> pd.DataFrame:
        """ROOFLINE_TOTALS: MFU and MBU by kernel, nn.Module, region or step."""
        return roofline_totals(self.kernel_details(), self._worked(), self.peaks(file=peaks), by, self._steps())

    @kept
    def short_kernels(self, *, below_ns: int = SHORT_BELOW_NS) -> pd.DataFrame:
        """SHORT_KERNELS: kernels shorter than that, by operator, shapes and name."""
        return short_kernels(self._details(), self._arguments("input_dims")["input_dims"], below_ns)

    @kept
    def compiled_regions(self) -> pd.DataFrame:
        """COMPILED_REGIONS: functions that torch.compile compiled, and recompiled."""
        return compiled_regions(self.operator_work(), self.operators(), self.region_instances())

    @kept
    def graph_breaks(self) -> pd.DataFrame:
        """GRAPH_BREAKS: lines at which torch.compile went back to Python."""
        return graph_breaks(self.columns)

    @kept
    def triton_kernels(self) -> pd.DataFrame:
        """TRITON_KERNELS: Triton kernels, the file of their source and where they were launched."""
        details = self._details()
        return triton_kernels(details, self._arguments(COMPILED_FILE)[COMPILED_FILE], self._sites(details))

    def _sites(self, details: pd.DataFrame) -> pd.Series[Any]:
        """The Python function that launched each GPU event; empty where that is not known."""
        linked = details[details["launch"].notna()]
        thread, time = (linked[column].to_numpy(dtype=np.int64) for column in ("launch_thread", "launch_start_ns"))
        site = pd.Series(call_sites(self.columns, thread, time), linked.index, dtype=object)
        return site.reindex(details.index, fill_value="")

    @kept
    def replayed_graphs(self) -> pd.DataFrame:
        """REPLAYED_GRAPHS: the CUDA graphs that are replayed, and where the operators of their kernels are from."""
        names = [trace.path.name for trace in (self, *self.capture_traces)]
        return replayed_graphs(self.kernel_details(), self.captures, names)

    @kept
    def call_tree(self) -> pd.DataFrame:
        """CALL_TREE: GPU time by region, nn.Module, operator and kernel."""
        return call_tree(self._calls(), self._details())

    @kept
    def python_tree(self) -> pd.DataFrame:
        """PYTHON_TREE: host time of Python functions and GPU time launched in them, from the outside in."""
        return python_tree(self.columns, self.kernel_details())

    @kept
    def python_callers(self) -> pd.DataFrame:
        """PYTHON_CALLERS: the same from the inside out."""
        return python_callers(self.columns, self.kernel_details())

    @kept
    def _replay(self) -> Replay:
        if self.quality.processes > 1:
            raise OptionError(
                f"{self.path}: found {self.quality.processes} processes, expected one: what waits for what across "
                "processes is not recorded. Try the trace of each rank by itself."
            )
        details, calls, waits = self.kernel_details(), self.launch_calls(), None
        if says_waits(self.columns):
            waits = waited_for(self.columns, self._with(*WAIT_ARGUMENTS).columns.extra, details, calls)
        return replay_of(details, calls, waits)

    @kept
    def critical_path(self) -> pd.DataFrame:
        """CRITICAL_PATH: what the end of the recording depends on, back to its start."""
        return critical_path(self._replay(), self.kernel_details(), self.launch_calls(), self._in_flight())

    def critical_path_known(self) -> pd.DataFrame | None:
        """CRITICAL_PATH; None where it cannot be told, in a trace of several processes."""
        return None if self.quality.processes > 1 else self.critical_path()

    @kept
    def critical_totals(self) -> pd.DataFrame:
        """CRITICAL_TOTALS: the critical path by kind and name."""
        return critical_totals(self.critical_path())

    @kept
    def what_if(
        self, *, region: str | None = None, factor: int = 2, kernel: str | None = None, gap_ns: int = 10_000
    ) -> pd.DataFrame:
        """WHAT_IF: the recorded span if a region were faster, a kernel gone, or gaps shorter; else what takes most."""
        details = self.kernel_details()
        if details.empty:
            return WHAT_IF.empty()
        instances = self.region_instances()
        if region is not None or kernel is not None:
            paths = [] if region is None else self._paths_of(region)
            changes = [faster_region(details, instances, path, factor) for path in paths]
            changes += [] if kernel is None else [self._without_kernel(kernel)]
        else:
            changes = what_takes_most(details, instances, self.regions(), self.kernels(), factor, gap_ns)
        if (served := self._in_flight()) is not None:
            changes = [while_served(change, served) for change in changes]
        return what_if(self._replay(), changes)

    def _without_kernel(self, text: str) -> Change:
        """The kernels whose names hold the text gone; raises OptionError when there is none."""
        change = without_kernel(self.kernel_details(), text)
        if change.gone is None or not change.gone.any():
            names = self.kernels().groupby("name")["sum_ns"].sum().nlargest(3).index
            raise OptionError(
                f"{self.path}: no kernel whose name holds {text!r}, found {', '.join(name[:60] for name in names)}. "
                "Give a part of such a name: profiler-kit kernels lists them."
            )
        return change

    def would_save(self, change: Change) -> int | None:
        """Nanoseconds of the recorded span that a change saves, replayed; None where that cannot be told."""
        if self.quality.processes > 1:
            return None
        return saved_ns(self._replay(), change)

    @kept
    def steps(self, *, region: str | None = None) -> pd.DataFrame:
        """STEPS: one row per iteration, the outliers marked; region: whose instances are the steps."""
        if region is not None:
            self._paths_of(region)  # says which there are
        return steps(self.in_parts(self.gpu_events()), self.region_parts(), region)

    @kept
    def _steps(self) -> pd.Series[Any]:
        """The step (3 of ProfilerStep#3) in which each GPU event was launched; missing outside every step."""
        return step_of(self.region_parts(), self.in_parts(self.gpu_events())["instance"])

    @kept_for_good
    def _in_flight(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """When the server had a request, of a run of one; None where that is not known."""
        file = part_file(self.path.parent, REQUESTS) if part_file(self.path.parent, TRACE) == self.path else None
        if file is None:
            return None
        try:
            served = read_requests(file)
        except KitError:  # the run says so
            return None
        return in_flight(served, self.base_ns, *spans(self.gpu_events()))

    @kept
    def idle_gaps(self, *, scope: Scope = "stream", kernel_wait_below_ns: int = KERNEL_WAIT_BELOW_NS) -> pd.DataFrame:
        """IDLE_GAPS: one row per stretch in which nothing ran on a stream, on a device, or anywhere, and its cause."""
        return idle_gaps(
            self.kernel_details(),
            self.launch_calls(),
            scope=scope,
            kernel_wait_below_ns=kernel_wait_below_ns,
            in_flight=self._in_flight(),
        )

    @kept
    def idle(self, *, scope: Scope = "stream", kernel_wait_below_ns: int = KERNEL_WAIT_BELOW_NS) -> pd.DataFrame:
        """IDLE_TOTALS: idle time by stream (or device, or of all devices together) and cause."""
        return idle_totals(self.idle_gaps(scope=scope, kernel_wait_below_ns=kernel_wait_below_ns))

    @kept
    def utilization(self, *, kernel_wait_below_ns: int = KERNEL_WAIT_BELOW_NS) -> pd.DataFrame:
        """REGION_UTILIZATION: one row per region path, with the verdict on what bounds it."""
        return region_utilization(
            self.in_parts(self.kernel_details()),
            self.region_parts(),
            self.launch_calls(),
            kernel_wait_below_ns=kernel_wait_below_ns,
            in_flight=self._in_flight(),
        )

    @kept
    def queue_length(self) -> pd.DataFrame:
        """QUEUE_LENGTH: how many launched GPU events had not begun, by stream, over time."""
        return queue_length(self.kernel_details())

    @kept
    def queue(self, *, full_at: int = FULL_AT) -> pd.DataFrame:
        """QUEUE_TOTALS: one row per stream."""
        return queue_totals(self.queue_length(), full_at=full_at)

    @kept
    def launch_details(self) -> pd.DataFrame:
        """LAUNCH_DETAILS: one row per call that launched GPU events."""
        return launch_details(self.launch_calls(), self.kernel_details())

    @kept
    def launches(self, *, slow_from_ns: int = SLOW_FROM_NS, delayed_from_ns: int = DELAYED_FROM_NS) -> pd.DataFrame:
        """LAUNCH_TOTALS: one row per name of a call, with short kernels, slow calls and late starts counted."""
        return launch_totals(self.launch_details(), slow_from_ns=slow_from_ns, delayed_from_ns=delayed_from_ns)

    @kept
    def communication(self) -> pd.DataFrame:
        """COMMUNICATION_KERNELS: one row per kernel that communicates and the rule that says so."""
        return communication_kernels(self.gpu_events())

    @kept
    def collectives(self) -> pd.DataFrame:
        """COLLECTIVES: message size, group and bandwidths; reads the file once more when loaded without arguments."""
        if self.gpu_events()["communication"].isna().all():
            return COLLECTIVES.empty()
        found = self._with(*COLLECTIVE_ARGUMENTS)
        telling = found.columns.integers["collective"] != MISSING
        names = self.gpu_names
        gpu = names[0] if len(names) == 1 else ""
        return collectives(self.operators(), self.kernel_details(), found.columns.extra, telling, gpu)

    @kept
    def communication_overlap(self) -> pd.DataFrame:
        """COMMUNICATION_OVERLAP: one row per device."""
        return communication_overlap(self.gpu_events())

    @kept
    def copies(self) -> pd.DataFrame:
        """COPIES: one row per memory copy and memory set."""
        return copies(self.gpu_events(), pd.Series(frames.nullable(self.columns.integers["bytes"])))

    @kept
    def copy_totals(self) -> pd.DataFrame:
        """COPY_TOTALS: one row per device, kind, source and target."""
        return copy_totals(self.copies())

    @kept
    def copy_rate(self) -> pd.DataFrame:
        """COPY_RATE: bandwidth of each kind of copy over time."""
        return copy_rate(self.copies())

    @kept
    def kernel_sequences(self, *, length: int | None = 3, operator: str | None = None) -> pd.DataFrame:
        """KERNEL_SEQUENCES: which GPU events follow one another under one operator, longest sum first."""
        return kernel_sequences(self.kernel_details(), length=length, operator=operator)

    @kept
    def work_groups(self) -> tuple[grouping.By, pd.DataFrame]:
        """What GPU time adds up by where no region names the parts of the code, and NAME_SUMS of it."""
        return grouping.grouped(self.module_work(), self.operator_work(), self.kernel_groups("kind"))

    @kept
    def kernel_groups(self, by: By = "name") -> pd.DataFrame:
        """KERNEL_GROUPS: durations by name, by kind of work, or by stream."""
        return kernel_groups(self.gpu_events(), by)

    def events_of_group(self, by: By, key: str) -> pd.DataFrame:
        """The rows of gpu_events in one such group; not kept, for it may be most of the trace."""
        events = self.gpu_events()
        return events[in_group(events, by, key)]

    @kept
    def kernel_origins(self, by: By = "name", key: str | None = None) -> pd.DataFrame:
        """KERNEL_ORIGINS: in which regions, operators, modules and Python functions one such group was launched.

        Without a key, all GPU events.
        """
        details = self.kernel_details()
        mine = details if key is None else details[in_group(self.gpu_events(), by, key)].reset_index(drop=True)
        linked = mine[mine["launch"].notna()]
        names, name = self.columns.names, self.columns.name
        call = pd.Series([names[name[row]] for row in linked["launch"].tolist()], linked.index, dtype=object)
        return kernel_origins(mine, call.reindex(mine.index, fill_value=""), self._sites(mine))

    @kept
    def findings(self) -> list[Finding]:
        """What is worth saying about the trace: where the time went, what is most worth fixing, what was lost."""
        found: list[Finding] = later("findings_of_trace")(self)
        return found
