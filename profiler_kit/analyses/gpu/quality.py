"""What a trace lacks or lost, from its columns and frames; findings.quality puts it into words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.gpu_presence import unread_spans
from profiler_kit.attribute.frames import DURATION, GPU_EVENTS, LEFT_OUT, NO_TIME, REGION_INSTANCES
from profiler_kit.attribute.launch_context import codes_of, stream_codes
from profiler_kit.attribute.links import Links
from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.trace.categories import MEMORY, OPERATOR, STACK, is_launch, role_of, role_of_events
from profiler_kit.load.trace.columns import EventColumns

Counts = Mapping[tuple[str, str], int]

Severity = Literal["lost", "missing", "odd"]
Key = Literal[
    "truncated",
    "dropped",
    "repaired",
    "corrupt gzip",
    "overlapping regions",
    "interleaved regions",
    "unknown categories",
    "no category",
    "of no use",
    "unmatched",
    "no GPU activity",
    "GPU work without events",
    "no host activity",
    "unlinked",
    "launch not clear",
    "launch not certain",
    "launch not recorded",
    "no launches",
    "by External id",
    "several processes",
    "no regions",
    "steps only",
    "outside regions",
    "no steps",
    "steps missing",
    "no shapes",
    "no stacks",
    "no modules",
    "no memory",
    "no rank",
    "no base time",
    "no time",
    "impossible durations",
    "endless",
    "early starts",
    "stream overlap",
]
STEP: Final = "ProfilerStep"
_CLOCK_NS: Final = 1_000  # times in whole microseconds may end a region that much after the one around it
_LOST: Final = (
    *("truncated", "dropped", "of no use", "repaired", "unmatched"),
    *("corrupt gzip", "unknown categories", "no category"),
)
_ODD: Final = (
    *("overlapping regions", "interleaved regions"),
    *("no time", "impossible durations", "endless", "launch not clear", "launch not certain"),
    *("several processes", "early starts", "stream overlap"),
)


@dataclass(frozen=True)
class Flaw:
    """One thing that a trace lacks or lost. count: how many, of how many (0 when that means nothing).

    names: categories, steps or regions concerned, the first few. largest_ns: the worst of them, 0 when that means
    nothing.
    """

    key: Key
    count: int
    of: int = 0
    names: tuple[str, ...] = ()
    largest_ns: int = 0

    @property
    def severity(self) -> Severity:
        """lost: events are gone or damaged. missing: not recorded. odd: there, but not to be trusted blindly."""
        return "lost" if self.key in _LOST else "odd" if self.key in _ODD else "missing"


@dataclass(frozen=True)
class Recorded:
    """What was lost while loading, what the events hold, and what the metadata says."""

    truncated: bool
    repaired_events: int
    dropped_events: int
    damaged_compression: bool
    counts: Counts
    has_shapes: bool
    has_stacks: bool
    metadata: Mapping[str, Any]
    unmatched_events: int = 0
    useless_events: int = 0

    def flag(self, name: str) -> bool:
        """Whether the recording option is on, as Kineto writes it into the metadata."""
        return self.metadata.get(name) in (1, True, "1", "true")

    def of_category(self, category: str) -> int:
        """Events of that category, of every phase."""
        return sum(count for (found, _), count in self.counts.items() if found == category)


def find_flaws(
    recorded: Recorded,
    columns: EventColumns,
    links: Links,
    gpu_events: pd.DataFrame,
    instances: pd.DataFrame,
    left_out: pd.DataFrame,
) -> list[Flaw]:
    """Every flaw of a trace: first what is lost, then what is missing, then what is odd.

    Takes GPU_EVENTS, REGION_INSTANCES and LEFT_OUT. Raises SchemaError when a column is missing or has another dtype.
    """
    gpu_events, instances = GPU_EVENTS.check(gpu_events), REGION_INSTANCES.check(instances)
    return [
        *lost(recorded, columns),
        *missing_activity(columns, gpu_events, len(left_out)),
        # without a host side, "no host activity" says it
        *(flaw for flaw in not_linked(links) if flaw.key != "no launches" or links.processes.hosts),
        *missing_regions(gpu_events, instances),
        *missing_options(recorded, columns, gpu_events),
        *interleaved(instances),
        *unbelievable(LEFT_OUT.check(left_out), len(gpu_events)),
        *odd_times(gpu_events),
    ]


def lost(recorded: Recorded, columns: EventColumns) -> list[Flaw]:
    """Parts of the file that did not become events."""
    found = []
    if recorded.truncated:
        found.append(Flaw("truncated", 1))
    unmatched, useless = recorded.unmatched_events, recorded.useless_events
    if recorded.dropped_events > unmatched + useless:
        found.append(Flaw("dropped", recorded.dropped_events - unmatched - useless, sum(recorded.counts.values())))
    if useless:
        found.append(Flaw("of no use", useless, sum(recorded.counts.values())))
    if unmatched:
        found.append(Flaw("unmatched", unmatched, sum(recorded.counts.values())))
    if recorded.damaged_compression:
        found.append(Flaw("corrupt gzip", 1))
    if recorded.repaired_events:
        found.append(Flaw("repaired", recorded.repaired_events, sum(recorded.counts.values())))
    unknown = {name for name, phase in recorded.counts if role_of_events(name, phase)[0] == "unknown"}
    if unknown:
        names = sorted(unknown, key=recorded.of_category, reverse=True)
        found.append(Flaw("unknown categories", sum(map(recorded.of_category, names)), 0, tuple(names[:8])))
    bare, processes = unread_spans(columns, ("",))
    if bare:
        found.append(Flaw("no category", bare, len(columns), processes))
    return found


def unread_work(columns: EventColumns) -> Flaw:
    """Spans of unknown categories on a stream: work of a device that no sum has."""
    unknown = columns.of_category(lambda category: category != "" and role_of(category) == "unknown")
    on_stream = unknown & (columns.integers["stream"] != MISSING)
    names, counts = np.unique(columns.category[on_stream], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:8]
    return Flaw("unknown categories", int(on_stream.sum()), 0, tuple(columns.categories[at] for at in names[order]))


def missing_activity(columns: EventColumns, gpu_events: pd.DataFrame, left_out: int) -> list[Flaw]:
    """Whole sides of the recording that are not there, and GPU events without the launch."""
    launches = int(columns.of_category(is_launch).sum())
    operators = int(columns.of_category(lambda category: category == OPERATOR).sum())
    found = []
    if not len(gpu_events) + left_out:
        found.append(Flaw("GPU work without events", launches) if launches else Flaw("no GPU activity", 0))
    if not operators and not launches:
        found.append(Flaw("no host activity", 0, len(gpu_events)))
    return found


def not_linked(links: Links) -> list[Flaw]:
    """GPU events without a launch, by the reason; and several processes in one file."""
    events = len(links.launch)
    before = links.unlinked - int((links.undecided | links.inside).sum())
    found = [
        Flaw("by External id", links.by_external_id, events),
        Flaw("unlinked" if links.calls else "no launches", before, events),
        Flaw("launch not recorded", int(links.inside.sum()), events),
        Flaw("launch not clear", int(links.undecided.sum()), events),
        Flaw("launch not certain", int(links.likely.sum()), events),
    ]
    found = [flaw for flaw in found if flaw.count]
    if links.processes.count > 1:
        found.append(Flaw("several processes", links.processes.count, 0, tuple(links.processes.names[1:9])))
    return found


def missing_regions(gpu_events: pd.DataFrame, instances: pd.DataFrame) -> list[Flaw]:
    """Regions and steps: none at all, kernels outside them, steps that were left out."""
    is_step = (instances["name"] == STEP).to_numpy()
    found = []
    if not len(instances):
        found.append(Flaw("no regions", 0))
    elif is_step.all():
        found.append(Flaw("steps only", int(is_step.sum())))
    outside = int((gpu_events["launch_thread"].notna() & gpu_events["instance"].isna()).sum())
    if outside and len(instances):
        found.append(Flaw("outside regions", outside, len(gpu_events)))
    if not is_step.any():
        return [*found, Flaw("no steps", 0)]
    steps = np.unique(instances.loc[is_step, "step"].dropna().to_numpy(np.int64))
    if len(steps) and int(steps[-1]) - int(steps[0]) + 1 > len(steps):
        # the steps after which the next number is missing
        after = steps[:-1][np.diff(steps) > 1]
        gaps = int(steps[-1]) - int(steps[0]) + 1 - len(steps)
        found.append(Flaw("steps missing", gaps, len(steps), tuple(str(step + 1) for step in after[:8].tolist())))
    return found


def interleaved(instances: pd.DataFrame) -> list[Flaw]:
    """Regions that begin inside another one of their thread and end after it, as those of asyncio's tasks do.

    Not those of steps, which end wherever step() is called.
    """
    inner = instances[instances["parent"].notna() & (instances["name"] != STEP)]
    outer = instances.iloc[inner["parent"].to_numpy(np.int64)]
    over = inner["end_ns"].to_numpy() - outer["end_ns"].to_numpy()
    same = (inner["thread"].to_numpy() == outer["thread"].to_numpy()) & (outer["name"] != STEP).to_numpy()
    found = np.flatnonzero(same & (over > _CLOCK_NS))
    if not len(found):
        return []
    pairs = zip(outer["name"].to_numpy()[found].tolist(), inner["name"].to_numpy()[found].tolist(), strict=True)
    names = tuple(dict.fromkeys(f"{first!r} and {second!r}" for first, second in pairs))
    return [Flaw("interleaved regions", len(found), len(instances), names[:8], int(over[found].max()))]


def missing_options(recorded: Recorded, columns: EventColumns, gpu_events: pd.DataFrame) -> list[Flaw]:
    """What the recording options left out."""
    operators = recorded.of_category(OPERATOR)
    found = []
    if operators and not recorded.has_shapes:
        found.append(Flaw("no shapes", 0, operators))
    python = recorded.of_category(STACK)
    if not python and not recorded.has_stacks:
        found.append(Flaw("no stacks", 0))
    if not recorded.flag("with_modules") and not any(name.startswith("nn.Module: ") for name in columns.names):
        found.append(Flaw("no modules", 0))
    if not recorded.of_category(MEMORY):
        found.append(Flaw("no memory", 0))
    communicates = gpu_events.loc[gpu_events["communication"].notna(), "name"].nunique()
    if communicates and "distributedInfo" not in recorded.metadata:
        found.append(Flaw("no rank", communicates))
    if not isinstance(recorded.metadata.get("baseTimeNanoseconds"), int):
        found.append(Flaw("no base time", 0))
    return found


def unbelievable(left_out: pd.DataFrame, believed: int) -> list[Flaw]:
    """GPU events without a time, and with an impossible duration: takes LEFT_OUT, and how many events are not in it."""
    of = believed + len(left_out)
    found = []
    untimed = int((left_out["why"] == NO_TIME).sum())
    if untimed:
        found.append(Flaw("no time", untimed, of))
    wrong = left_out[left_out["why"] == DURATION]
    over = wrong["overrun_ns"].notna()
    if over.any():
        found.append(Flaw("impossible durations", int(over.sum()), of, (), int(wrong["overrun_ns"].max())))
    if not over.all():  # no next event to reach past
        found.append(Flaw("endless", int((~over).sum()), of, (), int(wrong.loc[~over, "dur_ns"].max())))
    return found


def odd_times(gpu_events: pd.DataFrame) -> list[Flaw]:
    """Clocks that disagree: work that starts before its launch, and work that overlaps on one stream."""
    found = []
    linked = gpu_events[gpu_events["launch"].notna()]
    early = linked["launch_start_ns"].to_numpy(np.int64) - linked["start_ns"].to_numpy()
    if (early > 0).any():
        found.append(Flaw("early starts", int((early > 0).sum()), len(linked), (), int(early.max())))
    known = gpu_events[gpu_events["stream"].notna()]
    stream = known["stream"].to_numpy(np.int64)
    overlap = overlaps_on_streams(
        stream_codes(codes_of(known["process"]), known["device"].fillna(-1).to_numpy(np.int64), stream),
        stream,
        known["start_ns"].to_numpy(),
        (known["start_ns"] + known["dur_ns"]).to_numpy(),
    )
    if (overlap > 0).any():
        found.append(Flaw("stream overlap", int((overlap > 0).sum()), len(known), (), int(overlap.max())))
    return found


def overlaps_on_streams(device: I64, stream: I64, start: I64, end: I64) -> I64:
    """For each event, in the order given, how many ns before the end of all earlier ones of its stream it begins."""
    overlap = np.zeros(len(start), dtype=np.int64)
    order = np.lexsort((end, start, stream, device))
    device, stream, start, end = device[order], stream[order], start[order], end[order]
    # where a new stream begins among the sorted events; within one, compare with the latest end before each event
    cuts = np.flatnonzero((device[1:] != device[:-1]) | (stream[1:] != stream[:-1])) + 1
    for low, high in itertools.pairwise((0, *cuts.tolist(), len(start))):
        reach = np.maximum.accumulate(end[low:high])[:-1]
        overlap[order[low + 1 : high]] = np.maximum(reach - start[low + 1 : high], 0)
    return overlap
