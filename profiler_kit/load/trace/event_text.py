"""Copy chosen events of a trace exactly as the file has them.

The first pass (`scan`) keeps a few numbers of each event, to choose by; the second (`copy_events`) makes the same cuts
again and gives the original text of the events asked for, so that all of their `args` survive. Events are numbered in
the order of `traceEvents`, those that cannot be read not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from profiler_kit.errors import TraceFormatError
from profiler_kit.files import require_file
from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.trace.categories import (
    DEVICE_ARROWS,
    HALVES,
    OPERATOR,
    REGION,
    current,
    is_gpu_work,
    is_half,
    is_launch,
)
from profiler_kit.load.trace.chrome import HINT, find_events, metadata_of, no_events
from profiler_kit.load.trace.column_builder import (
    FLOAT_EXACT_US,
    LAST_NS,
    Codes,
    ColumnBuilder,
    coded,
    integers_of,
    starts_of,
    text_to_ns,
    to_ns,
)
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.load.trace.decode import Event
from profiler_kit.load.trace.decompress import Blocks
from profiler_kit.load.trace.dialect import translated
from profiler_kit.load.trace.split_events import EventStream
from profiler_kit.progress import Report, silent

METADATA_PHASE: Final = "M"
FLOW_PHASES: Final = ("s", "t", "f")
FLOWS: Final = frozenset({"ac2g", "fwdbwd"}) | DEVICE_ARROWS
_REJECTED: Final = -1
_RAW_EVENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SPAN_COLUMNS: Final = ("number", "last", "start_ns", "dur_ns", "thread", "category", "stream")


@dataclass(frozen=True)
class Spans:
    """Complete events (phase X), one array element each, in file order, then those that are a begin and an end.

    number is the event's place in the file, last that of the event that ends it, the same where it is complete.
    thread and category are indices into Scan.threads and Scan.categories, stream is MISSING where an event has none.
    """

    number: I64
    last: I64
    start_ns: I64
    dur_ns: I64
    thread: npt.NDArray[np.int32]
    category: npt.NDArray[np.int32]
    stream: I64

    @property
    def end_ns(self) -> I64:
        """The end of each."""
        return self.start_ns + self.dur_ns


@dataclass(frozen=True)
class Flows:
    """Starts, steps and ends of arrows: kind and phase are indices into Scan.categories and FLOW_PHASES."""

    number: I64
    kind: I64
    phase: I64
    id: I64
    thread: I64
    time_ns: I64


@dataclass(frozen=True)
class Scan:
    """What the first pass keeps of `total` events.

    columns holds only what attribution needs, in the words of Kineto as categories of spans are (dialect.py);
    columns_span[row] is the row's place in spans.
    moments are events with a time but no duration and no arrow (instants, counters): number and time_ns.
    """

    path: Path
    metadata: dict[str, Any]
    total: int
    spans: Spans
    flows: Flows
    moments: I64
    metadata_events: I64
    threads: list[tuple[int | str, int | str]]
    categories: list[str]
    columns: EventColumns
    columns_span: I64
    outcomes: tuple[int, ...]
    stamp: tuple[int, int]

    @property
    def base_ns(self) -> int:
        """Unix time that start_ns counts from; 0 in files without a base time."""
        base = self.metadata.get("baseTimeNanoseconds")
        return base if isinstance(base, int) else 0

    @property
    def beyond_floats(self) -> bool:
        """Whether readers that keep times as floats lose some: nanoseconds, counted from 1970."""
        start = self.spans.start_ns
        # past 2**43 us a float has no room for three decimals, which matters where some time has them
        return bool(np.abs(start).max() >= FLOAT_EXACT_US * 1000 and (start % 1000).any())

    def of_category(self, wanted: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
        """True for each span whose category is wanted."""
        # ask once for each name, then look the answer up by each span's code
        table = np.array([wanted(name) for name in self.categories] or [False], dtype=bool)
        return np.asarray(table[self.spans.category], dtype=bool)


def scan(path: Path | str, *, report: Report = silent) -> Scan:
    """Read a trace once and keep when everything happened.

    Raises InputError when the file is missing or empty and TraceFormatError when it is not a trace.
    """
    file = require_file(path, "a chrome trace", HINT)
    stamp = _stamp(file)
    blocks = Blocks(file, report=report)
    head, rest = find_events(file, iter(blocks))
    builder = _ScanBuilder()
    events = _Recorder(builder)
    events.head, events.tick = head, blocks.tick
    events.feed_all(rest)
    builder.close_spans()
    if not builder.spans:
        raise no_events(file, builder, truncated=not events.closed)
    return builder.scan(file, metadata_of(head, events.tail), tuple(events.outcomes), stamp)


def copy_events(found: Scan, numbers: I64, *, report: Report = silent) -> Iterator[bytes]:
    """The JSON text of the events with these numbers (ascending), as the file has it; mended where it must be.

    Raises TraceFormatError when the file changed since it was scanned.
    """
    blocks = Blocks(found.path, report=report)
    _, rest = find_events(found.path, iter(blocks))
    events = _Replayer(found.outcomes, numbers)
    events.tick = blocks.tick
    for block in rest:
        yield from events.taken(block)
        if events.complete:
            break
    else:
        yield from events.taken(None)
    if not events.complete or _stamp(found.path) != found.stamp:
        raise TraceFormatError(f"{found.path}: the file changed while it was read. Try again.")


def _stamp(file: Path) -> tuple[int, int]:
    info = file.stat()
    return info.st_mtime_ns, info.st_size


class _Recorder(EventStream):
    """Notes what became of each piece that was tried: how many events it held, or that it was no JSON list."""

    def __init__(self, builder: _ScanBuilder) -> None:
        super().__init__()
        self.builder: ColumnBuilder = builder
        self.outcomes: list[int] = []

    def decode(self, block: bytes | memoryview) -> bool:
        """As EventStream's."""
        before = self.builder.total
        taken = super().decode(block)
        self.outcomes.append(self.builder.total - before if taken else _REJECTED)
        return taken


class _Replayer(EventStream):
    """Makes the cuts of the first pass again, without decoding what is not wanted."""

    def __init__(self, outcomes: Sequence[int], wanted: I64) -> None:
        super().__init__()
        self._outcomes = iter(outcomes)
        self._wanted = wanted
        self._number = 0
        self._next = 0
        self._texts: list[bytes] = []

    @property
    def complete(self) -> bool:
        """Whether every wanted event has been found."""
        return self._next >= len(self._wanted)

    def taken(self, data: bytes | None) -> list[bytes]:
        """Feed the next bytes (None: no more come); return the wanted events that are whole now."""
        if data is None:
            self.finish()
        else:
            self.feed(data)
        texts, self._texts = self._texts, []
        return texts

    def decode(self, block: bytes | memoryview) -> bool:
        """As EventStream's, by what is known of the first pass."""
        count = next(self._outcomes, _REJECTED)
        if count == _REJECTED:
            return False
        places = self._places(count)
        if places:
            raws = _RAW_EVENTS.decode(bytes(block))
            self._texts.extend(_valid(bytes(raws[place])) for place in places)
        return True

    def _places(self, count: int) -> list[int]:
        """Places of the wanted ones among the next `count` events, which count as seen."""
        # the wanted numbers are sorted: those of this block are the next ones below its end
        stop = int(np.searchsorted(self._wanted, self._number + count, "left"))
        places: list[int] = (self._wanted[self._next : stop] - self._number).tolist()
        self._number, self._next = self._number + count, stop
        return places


def _valid(text: bytes) -> bytes:
    """The text of an event, with the bad UTF-8 replaced that the decoder has skipped over."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("utf-8", "replace").encode()
    return text


def replaced(text: bytes, values: Mapping[str, bytes]) -> bytes:
    """An event's text with other JSON values for some of its keys; every other value stays as it is written."""
    event = _FIELDS.decode(text)
    fields = {key: bytes(value) for key, value in event.items()} | dict(values)
    return b"{" + b", ".join(msgspec.json.encode(key) + b": " + value for key, value in fields.items()) + b"}"


def shifted(text: bytes, ns: int) -> bytes:
    """An event's text with its time stamp that much earlier; as it is when it has none or one before `ns`."""
    stamp = text_to_ns(bytes(_FIELDS.decode(text).get("ts", b"")))
    return text if stamp is None or stamp < ns else replaced(text, {"ts": microseconds(stamp - ns)})


def microseconds(ns: int) -> bytes:
    """Nanoseconds as Kineto writes times: microseconds with three decimals."""
    sign, ns = (b"-" if ns < 0 else b""), abs(ns)
    return sign + b"%d.%03d" % divmod(ns, 1000)


def _matters(event: Event) -> bool:
    """Whether attribution needs the event: regions, operators, launches, GPU work, and what may be one of these."""
    category = current(event.cat)
    return category in (OPERATOR, REGION, "") or is_gpu_work(category) or is_launch(category)


class _ScanBuilder(ColumnBuilder):
    """Takes every event, keeps little of most and whole columns of those that attribution needs."""

    def __init__(self) -> None:
        super().__init__()
        self.spans = 0
        self.all_threads, self.all_categories = Codes(), Codes()
        self._half_numbers: list[int] = []
        self._span_parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in _SPAN_COLUMNS}
        self._flows: list[I64] = [np.zeros((0, 6), np.int64)]
        self._others: dict[str, list[I64]] = {
            "moments": [np.zeros((0, 2), np.int64)],
            "metadata_events": [np.zeros(0, np.int64)],
            "columns_span": [np.zeros(0, np.int64)],
        }

    def add(self, events: Sequence[Event], *, exact: bool) -> bool:
        """As ColumnBuilder's."""
        time, known = starts_of(events, exact=exact)
        if not exact and not known.all():
            return False
        time[~known] = MISSING
        first = self.total
        phases = [event.ph for event in events]
        timed, most = (time != MISSING).tolist(), LAST_NS / 1000
        # places in the block of the spans, and the rows among these of what attribution needs
        spans = [at for at, ph in enumerate(phases) if ph == "X" and timed[at] and 0 <= events[at].dur < most]
        needed = [row for row, at in enumerate(spans) if _matters(events[at])]
        self._others["columns_span"].append(np.array(needed, dtype=np.int64) + self.spans)
        self._add_spans_of([events[at] for at in spans], np.array(spans, dtype=np.int64), time, first)
        others = [at for at, ph in enumerate(phases) if ph != "X"]
        if others:
            self._add_others_of(events, others, time, first)
        wanted = [events[spans[row]] for row in needed]
        halves = [at for at in others if phases[at] in HALVES and is_half(events[at].cat, phases[at])]
        self._half_numbers += [first + at for at in halves if timed[at]]
        aside = [at for at in others if phases[at] == METADATA_PHASE or current(events[at].cat) in FLOWS]
        wanted += [events[at] for at in sorted({*halves, *aside})]
        super().add(wanted, exact=exact)
        self.total = first + len(events)
        return True

    def _add_spans_of(self, events: list[Event], place: I64, time: I64, first: int) -> None:
        self.spans += len(events)
        values: tuple[npt.NDArray[Any], ...] = (
            place + first,
            place + first,
            time[place],
            to_ns(np.fromiter([event.dur for event in events], np.float64, len(events))),
            coded(self.all_threads, [(event.pid, event.tid) for event in events]),
            coded(self.all_categories, [event.cat for event in events]),
            integers_of([event.args.stream for event in events]),
        )
        for name, one in zip(_SPAN_COLUMNS, values, strict=True):
            self._span_parts[name].append(one)

    def _add_others_of(self, events: Sequence[Event], others: list[int], time: I64, first: int) -> None:
        places: dict[str, list[int]] = {"flow": [], "metadata": [], "moment": []}
        for at in others:
            phase = events[at].ph
            kind = "flow" if phase in FLOW_PHASES else "metadata" if phase == METADATA_PHASE else "moment"
            if phase and (time[at] != MISSING or kind == "metadata"):
                places[kind].append(at)
        flows, moments, metadata = (np.array(places[k], dtype=np.int64) for k in ("flow", "moment", "metadata"))
        arrows = [events[at] for at in places["flow"]]
        columns = (
            flows + first,
            coded(self.all_categories, [event.cat for event in arrows]),
            np.array([FLOW_PHASES.index(event.ph) for event in arrows], dtype=np.int64),
            integers_of([event.id for event in arrows]),
            coded(self.all_threads, [(event.pid, event.tid) for event in arrows]),
            time[flows],
        )
        self._flows.append(np.column_stack(columns).astype(np.int64))
        self._others["moments"].append(np.column_stack((moments + first, time[moments])))
        self._others["metadata_events"].append(metadata + first)

    def close_spans(self) -> None:
        """As ColumnBuilder's, and the spans of begins and ends are spans here too."""
        halves = self.halves
        rows = self.rows
        super().close_spans()
        kept = [pair for pair in self.pairs if halves[pair[1]][0] - halves[pair[0]][0] < LAST_NS]
        begins, ends = ([halves[pair[at]] for pair in kept] for at in range(2))
        number = np.array([[self._half_numbers[at] for at in pair] for pair in kept], dtype=np.int64).reshape(-1, 2)
        start = np.array([ns for ns, _ in begins], dtype=np.int64)
        values: tuple[npt.NDArray[Any], ...] = (
            *number.T,
            start,
            np.array([ns for ns, _ in ends], dtype=np.int64) - start,
            coded(self.all_threads, [(event.pid, event.tid) for _, event in begins]),
            coded(self.all_categories, [a.cat or b.cat for (_, a), (_, b) in zip(begins, ends, strict=True)]),
            np.full(len(kept), MISSING, dtype=np.int64),
        )
        for name, one in zip(_SPAN_COLUMNS, values, strict=True):
            self._span_parts[name].append(one)
        self._others["columns_span"].append(self.spans + np.arange(self.rows - rows, dtype=np.int64))
        self.spans += len(kept)

    def scan(self, path: Path, metadata: dict[str, Any], outcomes: tuple[int, ...], stamp: tuple[int, int]) -> Scan:
        """Join the blocks. The builder is spent afterwards."""
        columns = translated(self.columns())
        spans = Spans(**{name: np.concatenate(self._span_parts.pop(name)) for name in _SPAN_COLUMNS})
        others = {name: np.concatenate(parts) for name, parts in self._others.items()}
        rows = others["columns_span"]
        names = [current(name) for name in self.all_categories]
        spans.category[rows] = columns.category + len(names)
        spans.stream[rows] = columns.integers["stream"]
        others["moments"] = others["moments"][~np.isin(others["moments"][:, 0], (spans.number, spans.last))]
        return Scan(
            path=path,
            metadata=metadata,
            total=self.total,
            spans=spans,
            flows=Flows(*np.concatenate(self._flows).T),
            threads=list(self.all_threads),
            categories=[*names, *columns.categories],
            columns=columns,
            outcomes=outcomes,
            stamp=stamp,
            **others,
        )
