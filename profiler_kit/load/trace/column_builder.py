"""Build columns from decoded events, block by block.

Times become integer nanoseconds here and stay so. Kineto writes microseconds with three decimals; a float holds
those exactly below 2**43 us, above it the decimal text is used.
"""

from __future__ import annotations

import contextlib
import re
from array import array
from collections.abc import Callable, Sequence
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from operator import attrgetter
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Raw

from profiler_kit.load.integers import I64, MISSING, narrowed, of_one_width, resized
from profiler_kit.load.trace.categories import ASYNCHRONOUS_HALVES, DEVICE_ARROWS, HALVES, current, is_gpu_work, is_half
from profiler_kit.load.trace.columns import EventColumns, TextColumn, no_flows
from profiler_kit.load.trace.decode import ABSENT, COLLECTIVE, NOT_JSON, Arguments, Event
from profiler_kit.load.trace.dialect import form_of

FORWARD, DEVICE = "fwdbwd", "device"  # kinds of arrows that are kept, by their categories
_ARROWS: Final = {FORWARD: FORWARD, **dict.fromkeys(DEVICE_ARROWS, DEVICE)}
SHAPES: Final = frozenset({"input_dims", "input_strides", "Input Dims", "Input Strides"})
NEWER: Final = frozenset({"user_annotation", "python_function"})  # these never had the older `external id`
FLOAT_EXACT_US: Final = float(1 << 43)  # above this a float no longer tells three decimals apart
_LAST_NUMBER: Final = re.compile(r"(?:\A-)?\d+\Z")
LAST_NS: Final = 1 << 62  # leaves room for start + duration in 64 bits
AGE_US: Final = 1e12  # days: no duration of GPU work that is believed
# How to take each integer argument of many: written out, since a list comprehension that names its attribute takes half
# the time of attrgetter.
_TAKE: Final[dict[str, Callable[[list[Arguments]], list[Any]]]] = {
    "correlation": lambda arguments: [a.correlation for a in arguments],
    "external_id": lambda arguments: [a.external_id for a in arguments],
    "device": lambda arguments: [a.device for a in arguments],
    "stream": lambda arguments: [a.stream for a in arguments],
    "sequence_number": lambda arguments: [a.sequence_number for a in arguments],
    "forward_thread": lambda arguments: [a.forward_thread for a in arguments],
    "python_id": lambda arguments: [a.python_id for a in arguments],
    "python_parent_id": lambda arguments: [a.python_parent_id for a in arguments],
    "bytes": lambda arguments: [a.bytes for a in arguments],
    "collective": lambda arguments: [1 if a.collective else MISSING for a in arguments],
}
INTEGERS: Final = tuple(_TAKE)
_DIGITS: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]{1,16}")
PLAIN: Final = ("start_ns", "dur_ns", "name", "category", "thread")
NARROWED: Final = ("dur_ns", *INTEGERS)  # kept in fewer bytes until the columns are joined
NARROW_EVERY: Final = 64  # blocks
# The frequent categories, and the integer arguments Kineto writes for them (output_json.cpp): of the others most have
# none, which takes a third of the time to find out that it takes to convert them.
_INTEGERS_OF: Final[dict[str, frozenset[str]]] = {
    "cpu_op": frozenset({"external_id", "sequence_number", "forward_thread", "collective"}),
    "user_annotation": frozenset({"external_id", "sequence_number", "forward_thread"}),
    "python_function": frozenset({"python_id", "python_parent_id"}),
    "kernel": frozenset({"correlation", "external_id", "device", "stream", "collective"}),
    "cuda_runtime": frozenset({"correlation", "external_id", "stream", "bytes"}),  # the last two on ROCm
    "cuda_driver": frozenset({"correlation", "external_id"}),
}


def to_ns(us: npt.NDArray[np.float64]) -> I64:
    """Microseconds with up to three decimals to nanoseconds, without loss for |us| < 2**43."""
    # whole microseconds times 1000 in integers, where nothing is rounded; only the fraction is rounded, to its decimals
    whole = np.floor(us)
    return whole.astype(np.int64) * 1000 + np.rint((us - whole) * 1000).astype(np.int64)


def text_to_ns(text: bytes) -> int | None:
    """Decimal text in microseconds (quoted or not) to nanoseconds; None unless it is a finite number in range."""
    try:
        whole, _, part = text.partition(b".")
        if len(part) == 3 and whole.isdigit() and part.isdigit():  # as Kineto writes it: a third of Decimal's time
            ns = int(whole + part)
        else:
            value = Decimal(text.strip(b'" ').decode("ascii"))
            if not value.is_finite() or value.adjusted() > 18:  # beyond LAST_NS, and 1e999999 is costly as an integer
                return None
            ns = int((value * 1000).to_integral_value(rounding=ROUND_HALF_EVEN))
    except (InvalidOperation, ValueError, OverflowError, UnicodeDecodeError):
        return None
    return ns if -LAST_NS < ns < LAST_NS else None


class Codes(dict[Any, int]):
    """Hands out 0, 1, 2, ... to keys in the order they are first asked for."""

    __slots__ = ()

    def __missing__(self, key: Any) -> int:
        code = self[key] = len(self)
        return code


class ColumnBuilder:
    """Takes blocks of events, keeps their columns; the events themselves can be dropped after each `add`.

    extra: names of the arguments that `extra_0`, `extra_1`, ... of the events hold, in that order.
    """

    def __init__(self, extra: Sequence[str] = ()) -> None:
        self.total = 0  # entries seen, of any phase
        self.dropped = 0
        self.rows = 0  # complete events kept
        self.names, self.categories, self.threads = Codes(), Codes(), Codes()
        self.texts = {name: Codes({b"": 0}) for name in extra}
        self.thread_names: dict[tuple[int | str, int | str], str] = {}
        self.process_labels: dict[int | str, str] = {}
        self.parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (*PLAIN, *INTEGERS, *extra)}
        self._wide = 0  # blocks since the last narrowing
        self.process_names: dict[int | str, str] = {}
        self.launched: list[I64] = []
        self.flows: dict[tuple[str, str], list[I64]] = {(of, phase): [] for of in (FORWARD, DEVICE) for phase in "sf"}
        self.halves: list[tuple[int, Event]] = []  # begins and ends of spans with their time, in file order
        self.pairs: list[tuple[int, int]] = []  # which two of them are a span
        self.unmatched = 0

    def add(self, events: Sequence[Event], *, exact: bool) -> bool:
        """Add one block. With `exact` the events' `ts` is decimal text instead of a float.

        Returns False, having added nothing, when a float time stamp is too large to hold its decimals: decode the
        block again with `ts` as text.
        """
        spans = [e for e in events if e.ph == "X"]
        start, start_ok = starts_of(spans, exact=exact)
        others = [e for e in events if e.ph != "X"] if len(spans) < len(events) else []
        if not exact and not (start_ok.all() and all(not abs(e.ts) >= FLOAT_EXACT_US for e in others)):
            return False
        self.total += len(events)
        if spans:
            self._add_spans(spans, start, start_ok)
        if others:
            self._add_others(others, exact=exact)
        return True

    def take_rows(self, columns: dict[str, npt.NDArray[Any]], rows: int, events: int) -> None:
        """Add what the native reader made of `events` events, in our codes; times and integers in 64 bits."""
        self.total += events
        if not rows:
            return
        self.rows += rows
        self._fill_streams(columns)
        for column, values in columns.items():
            self.parts[column].append(values)
        self._wide += 1
        if self._wide == NARROW_EVERY:
            self._narrow()

    def _add_spans(self, events: list[Event], start: I64, start_ok: npt.NDArray[np.bool_]) -> None:
        dur_us = np.fromiter([e.dur for e in events], np.float64, len(events))
        ok = start_ok & (dur_us >= 0) & (dur_us < LAST_NS / 1000)  # NaN fails both
        if not ok.all():
            # GPU work is kept: without a time as CUPTI itself writes that, with 0 for both; too long a one as an age
            work = ~ok & [is_gpu_work(current(event.cat)) for event in events]
            long = work & start_ok & (dur_us > 0)
            start, dur_us = np.where(work & ~long, 0, start), np.where(work, np.where(long, AGE_US, 0.0), dur_us)
            ok |= work
            # leave out what else has no time, or an impossible one, and count it
            self.dropped += int((~ok).sum())
            events = [event for event, good in zip(events, ok.tolist(), strict=True) if good]
            start, dur_us = start[ok], dur_us[ok]
        if not events:
            return
        self.rows += len(events)
        parts = self.parts
        category = coded(self.categories, [e.cat for e in events])
        parts["start_ns"].append(start)
        parts["dur_ns"].append(to_ns(dur_us))
        parts["name"].append(coded(self.names, [e.name for e in events]))
        parts["category"].append(category)
        arguments = [e.args for e in events]
        thread = self._threads_of(events)
        parts["thread"].append(thread)
        integers: dict[str, npt.NDArray[Any]] = {**self._integers_of(category, arguments)}
        integers |= {"category": category, "thread": thread}
        self._fill_streams(integers)
        for column in INTEGERS:
            parts[column].append(integers[column])
        for number, (column, codes) in enumerate(self.texts.items()):
            texts = list(map(attrgetter(f"extra_{number}"), arguments))
            if hasattr(arguments[0], f"older_{number}"):
                older = map(attrgetter(f"older_{number}"), arguments)
                texts = [old if text is ABSENT else text for text, old in zip(texts, older, strict=True)]
            parts[column].append(_texts(codes, texts))
            if column in (COLLECTIVE, "collective_name"):  # asked for as text: the same argument
                parts["collective"][-1] = np.where(parts[column][-1] > 0, 1, MISSING)
        self._wide += 1
        if self._wide == NARROW_EVERY:
            self._narrow()

    def _narrow(self) -> None:
        """Most numbers are small or absent: 24 of the 80 bytes of a row are enough until the end."""
        for column in NARROWED:
            parts = self.parts[column]
            # the parts added since the last time become one
            parts[-self._wide :] = [narrowed(np.concatenate(parts[-self._wide :]))]
        self._wide = 0

    def _integers_of(self, category: npt.NDArray[np.int32], arguments: list[Arguments]) -> dict[str, I64]:
        """The integer arguments, category by category, since most categories have few of them."""
        found = {column: np.full(len(arguments), MISSING, dtype=np.int64) for column in INTEGERS}
        names = list(self.categories)
        for code in np.flatnonzero(np.bincount(category)).tolist():  # each category that occurs in the block
            rows = np.flatnonzero(category == code)
            mine = [arguments[row] for row in rows.tolist()]
            usual = _INTEGERS_OF.get(names[code], INTEGERS)
            for column, take in _TAKE.items():
                values = take(mine)
                if column in usual or values.count(MISSING) < len(values):
                    found[column][rows] = integers_of(values)
            external = found["external_id"][rows]
            lacking = np.flatnonzero(external == MISSING)
            if len(lacking) and names[code] not in NEWER:
                external[lacking] = integers_of([mine[at].older_external_id for at in lacking.tolist()])
                found["external_id"][rows] = external
        return found

    def _fill_streams(self, columns: dict[str, npt.NDArray[Any]]) -> None:
        """GPU work that names no stream (XPU's has a queue) is on the queue of its tid, where its pid is the device.

        A device or stream of -1 is none.
        """
        gpu = np.array([is_gpu_work(current(name)) for name in self.categories] or [False], dtype=bool)
        work = gpu[columns["category"]]
        for column in ("device", "stream"):
            none = work & (columns[column] == -1)
            if none.any():
                columns[column] = np.where(none, MISSING, columns[column])
        rows = np.flatnonzero(work & (columns["stream"] == MISSING))
        if not len(rows):
            return
        threads, device, stream = list(self.threads), columns["device"][rows], columns["stream"].copy()
        for code in np.flatnonzero(np.bincount(columns["thread"][rows])).tolist():
            pid, tid = threads[code]
            mine = (columns["thread"][rows] == code) & (device != MISSING)
            number = _LAST_NUMBER.search(str(pid))  # behind the mark of a merge
            mine &= device == (_integer(number[0]) if number else MISSING)
            stream[rows[mine]] = _integer(tid)
        columns["stream"] = stream

    def _add_others(self, events: list[Event], *, exact: bool) -> None:
        launches = [e for e in events if e.ph == "s" and current(e.cat) == "ac2g"]
        if launches:
            thread = self._threads_of(launches)
            self.launched.append(np.column_stack((integers_of([e.id for e in launches]), thread.astype(np.int64))))
        for (of, phase), kept in self.flows.items():
            links = [e for e in events if e.ph == phase and _ARROWS.get(current(e.cat)) == of]
            if links:
                start, _ = starts_of(links, exact=exact)
                thread = self._threads_of(links).astype(np.int64)
                kept.append(np.column_stack((integers_of([e.id for e in links]), thread, start)))
        for event in [e for e in events if e.ph == "M" or not e.ph]:
            if event.name == "thread_name" and event.args.name:
                self.thread_names[identity(event.pid), identity(event.tid)] = event.args.name
            elif event.name == "process_name" and event.args.name:
                self.process_names[identity(event.pid)] = event.args.name
            elif event.name == "process_labels" and event.args.labels:
                self.process_labels[identity(event.pid)] = event.args.labels
            self.dropped += not event.ph  # an object that is not a trace event
        halves = [e for e in events if e.ph in HALVES and is_half(e.cat, e.ph)]
        if halves:
            start, known = starts_of(halves, exact=exact)
            self.dropped += int((~known).sum())
            self.halves += [
                pair for pair, ok in zip(zip(start.tolist(), halves, strict=True), known, strict=True) if ok
            ]

    def close_spans(self) -> None:
        """Make spans of the begins and ends, in the file's order of begins: all of the file have come.

        An end closes the last open begin of its thread (of its id, where it is asynchronous) that has its name, or the
        last one if it has no name; the others are counted, as what they would be has no beginning, or no end.
        """
        opened: dict[tuple[Any, ...], list[tuple[int, int, Event]]] = {}
        closed: set[int] = set()
        spans: list[tuple[int, int, int, Event]] = []  # begin, end, start and event
        for number in sorted(range(len(self.halves)), key=lambda at: self.halves[at][0]):
            ns, event = self.halves[number]
            thread: tuple[Any, ...] = (identity(event.pid), identity(event.tid), "")
            if event.ph in ASYNCHRONOUS_HALVES:
                if event.id == MISSING:  # as with an `id2`: what it belongs to is unknown
                    continue
                thread = (thread[0], _asynchronous_id(event.id), event.cat)
            if event.ph in ("B", "b"):
                for key in (thread, (*thread, event.name)):
                    opened.setdefault(key, []).append((number, ns, event))
                continue
            waiting = opened.get((*thread, event.name) if event.name else thread, [])
            while waiting and waiting[-1][0] in closed:
                waiting.pop()
            if waiting:
                first, start, begin = waiting.pop()
                closed.add(first)
                spans.append((first, number, start, _joined(begin, event, ns - start)))
        self.unmatched = len(self.halves) - 2 * len(spans)
        self.dropped += self.unmatched
        self.halves = []
        # the inner one of two that begin and end together has ended first, and begun last
        spans.sort(key=lambda span: span[0])
        self.pairs = [(first, number) for first, number, _, _ in spans]
        if spans:
            start_ns = np.array([start for _, _, start, _ in spans], dtype=np.int64)
            self._add_spans([span for _, _, _, span in spans], start_ns, np.ones(len(spans), dtype=bool))

    def _threads_of(self, events: list[Event]) -> npt.NDArray[np.int32]:
        """Code of (pid, tid) of each event; consecutive events mostly share it, so runs are coded once."""
        keys: tuple[list[Any], list[Any]] = [e.pid for e in events], [e.tid for e in events]
        try:
            pids, tids = (np.asarray(array("q", one)) for one in keys)  # which takes no text, not even "7"
        except (TypeError, OverflowError):  # "Spans", "stream 7", ""
            return coded(self.threads, [(identity(e.pid), identity(e.tid)) for e in events])
        # a run begins where pid or tid differs from the event before; code the first of each run, repeat by its length
        changes = np.flatnonzero((pids[1:] != pids[:-1]) | (tids[1:] != tids[:-1])) + 1
        first = np.concatenate(([0], changes))
        pairs = zip(pids[first].tolist(), tids[first].tolist(), strict=True)
        codes = coded(self.threads, list(pairs))
        return np.repeat(codes, np.diff(np.append(first, len(events))))

    def columns(self) -> EventColumns:
        """Join the blocks. The builder is spent afterwards."""
        return EventColumns(
            **{name: resized(self.take(name), np.int64) for name in ("start_ns", "dur_ns")},
            **{name: self.take(name) for name in ("name", "category", "thread")},
            integers={name: resized(self.take(name), np.int64) for name in INTEGERS},
            names=list(self.names),
            categories=[current(category) for category in self.categories],
            threads=list(self.threads),
            launched=distinct_rows(self.launched),
            **{
                name: np.concatenate([no_flows(), *self.flows[key]])
                for name, key in zip(
                    ("forward_flows", "backward_flows", "outgoing", "incoming"), self.flows, strict=True
                )
            },
            thread_names=self.thread_names,
            process_labels=self.process_labels,
            extra={
                name: TextColumn(self.take(name), [_compact(text, name in SHAPES) for text in codes])
                for name, codes in self.texts.items()
            },
            process_names=self.process_names,
            form=form_of(self.categories, (pid for pid, _ in self.threads), self.process_names.values()),
        )

    def take(self, column: str) -> npt.NDArray[Any]:
        """All of a column in file order, removed from here: codes, or numbers as `narrowed` keeps them."""
        if self._wide > 1:
            self._narrow()
        parts = self.parts.pop(column)
        if len(parts) == 1:
            return parts[0]
        if column in NARROWED:
            parts = of_one_width(parts)
        return np.concatenate(parts) if parts else np.zeros(0, np.int64 if column == "start_ns" else np.int32)


def identity(value: int | str) -> int | str:
    """A process or thread; torch 1.8 writes the same one as 7 and as "7"."""
    return int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value


def _asynchronous_id(value: int | str) -> int | str:
    """The id of an asynchronous span: 16, "16" and "0x10" are one."""
    return int(value, 16) if isinstance(value, str) and _HEXADECIMAL.fullmatch(value) else identity(value)


def coded(codes: Codes, keys: Sequence[Any]) -> npt.NDArray[np.int32]:
    """The code of each key; new keys get the next ones."""
    return np.fromiter(map(codes.__getitem__, keys), np.int32, len(keys))


def _texts(codes: Codes, values: list[Raw]) -> npt.NDArray[np.int32]:
    """The code of each text; most events do not have the argument, and get code 0."""
    found = np.zeros(len(values), dtype=np.int32)
    rows = [row for row, value in enumerate(values) if value is not ABSENT]
    if rows:
        found[rows] = coded(codes, list(map(bytes, map(values.__getitem__, rows))))
    return found


def _compact(text: bytes, shapes: bool) -> str:
    """JSON text on one line without blanks, if it is a list or an object; shapes may be a list in quotes as well."""
    if text[:1] in (b'"', b"[", b"{"):
        with contextlib.suppress(*NOT_JSON):
            inside = msgspec.json.decode(text) if shapes and text[:1] == b'"' else ""
            listed = inside.encode() if inside[:1] == "[" else text
            if listed[:1] != b'"':
                text = msgspec.json.format(listed, indent=-1)
    return text.decode("utf-8", "replace")


def _joined(begin: Event, end: Event, ns: int) -> Event:
    """The span of a begin and an end; what only one of them has counts, and of arguments of both that of the end."""
    kind, fields = type(begin.args), begin.args.__struct_fields__
    given = {
        name: getattr(args, name)
        for args in (begin.args, end.args)
        for name, default in zip(fields, kind.__struct_defaults__, strict=True)
        if getattr(args, name) is not default
    }
    return Event(
        ph="X",
        cat=begin.cat or end.cat,
        name=begin.name or end.name,
        pid=begin.pid,
        tid=begin.tid,
        dur=ns / 1000,
        args=kind(**given),
    )


def starts_of(events: Sequence[Event], *, exact: bool) -> tuple[I64, npt.NDArray[np.bool_]]:
    """start_ns of each event, and whether it is right: not when a float is too large, or a text not a number."""
    if not exact:
        us = np.fromiter([e.ts for e in events], np.float64, len(events))
        # a float this large no longer has three decimals: 0 for now, until it is decoded again as text
        ok = np.abs(us) < FLOAT_EXACT_US
        return to_ns(np.where(ok, us, 0.0)), ok
    found = [text_to_ns(bytes(e.ts)) for e in events]
    ok = np.array([ns is not None for ns in found], dtype=bool)
    return np.array([ns or 0 for ns in found], dtype=np.int64), ok


def integers_of(values: list[Any]) -> I64:
    """The values as integers, MISSING where one is not; they are looked at one by one only if a type is odd."""
    try:
        return np.fromiter(values, np.int64, len(values))
    except (TypeError, ValueError, OverflowError):
        return np.array([_integer(value) for value in values], dtype=np.int64)


def _integer(value: Any) -> int:
    """An integer, also one written as text (ROCm's stream is "0x0"); MISSING when it is not one."""
    try:
        number = int(value, 0) if isinstance(value, str) else int(value)
    except (TypeError, ValueError, OverflowError):
        return MISSING
    return number if -(1 << 63) <= number < (1 << 63) else MISSING


def distinct_rows(parts: Sequence[I64]) -> I64:
    """Pairs in order, each once; np.unique would import numpy.ma, as long as loading a small trace takes."""
    rows = np.concatenate([np.zeros((0, 2), np.int64), *parts])
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    # those that differ from the one before
    return np.asarray(rows[np.append(True, (rows[1:] != rows[:-1]).any(axis=1))[: len(rows)]])
