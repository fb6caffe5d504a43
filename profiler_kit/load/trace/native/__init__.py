"""The native reader: scan.c, compiled when the package is installed and called through ctypes, without Python's lock.

It takes blocks of events that it is sure of; all others go to the decoder, which is the only reader where no library
was compiled, the one there was made of another source, or PROFILER_KIT_READER=python asks for it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from profiler_kit.errors import OptionError
from profiler_kit.load.integers import MISSING
from profiler_kit.load.trace.categories import (
    ASYNCHRONOUS,
    ASYNCHRONOUS_HALVES,
    DEVICE_ARROWS,
    GPU_WORK,
    OLD_CATEGORIES,
    OLD_FLOWS,
    is_gpu_work,
)
from profiler_kit.load.trace.column_builder import (
    DEVICE,
    FORWARD,
    INTEGERS,
    NEWER,
    PLAIN,
    ColumnBuilder,
    identity,
)
from profiler_kit.load.trace.decode import COLLECTIVE, OLDER_KEYS, Arguments, Event
from profiler_kit.load.trace.native import build
from profiler_kit.load.trace.repair import LOOK_BYTES, MOST_INCIDENTS, Kind

_fields = functools.cache(msgspec.structs.fields)
VARIABLE: Final = "PROFILER_KIT_READER"
# What scan.c calls the same.
_UNKNOWN, _COUNTED, _SPAN, _FLOW, _ASIDE = range(5)
_NULLS, _TEXTS, _ONLY_TEXT, _AS_WRITTEN, _FLAG, _OLDER = 1, 2, 4, 8, 16, 32
_FATES: Final[tuple[Kind, ...]] = ("of no use", "repaired", "dropped", "closed early")
_OF_NO_USE, _REPAIRED, _DROPPED, _CLOSED_EARLY = range(4)
_NO_PHASE, _OTHER_PHASE = "\0", "\1"
_MOST_INTEGERS, _MOST_TEXTS, _MOST_WANTED, _MOST_ARROWS, _LONGEST_KEY = 16, 48, 72, 32, 63
_NAMES, _CATEGORIES, _THREADS, _TABLES = range(4)
_PHASES: Final = (
    {"X": _SPAN, "s": _FLOW, "f": _FLOW}
    | dict.fromkeys({*"iICt", *ASYNCHRONOUS, _OTHER_PHASE}, _COUNTED)
    | dict.fromkeys(("M", "B", "E", *ASYNCHRONOUS_HALVES, _NO_PHASE), _ASIDE)
)
_WORK, _LAUNCH = 1, 2
_KINDS: Final = {FORWARD: 3, DEVICE: 4}  # of arrows
_ARROWS: Final = (  # of each category of flows, and of GPU work
    {"ac2g": _LAUNCH, FORWARD: _KINDS[FORWARD]}
    | {old: _LAUNCH if new == "ac2g" else _KINDS[FORWARD] for old, new in OLD_FLOWS.items()}
    | dict.fromkeys(DEVICE_ARROWS, _KINDS[DEVICE])
    | dict.fromkeys((*GPU_WORK, *(old for old, new in OLD_CATEGORIES.items() if is_gpu_work(new))), _WORK)
)
_EVENT_KEYS: Final = frozenset({"ph", "cat", "name", "pid", "tid", "ts", "dur", "id", "args"})
_OLDER_ID: Final = "older_external_id"
_COLUMNS: Final = (*INTEGERS, _OLDER_ID)  # of integers; the last one is put into external_id at the end
_FIRST_TEXT: Final = len(PLAIN) + _MOST_INTEGERS
_LEAST_BYTES: Final = 26  # of a complete event: {"ph":"X","ts":0,"dur":0}
_LEAST_ROWS: Final = 1 << 14
TOUCHED_ROWS: Final = 1 << 17
_USUAL_BYTES: Final = 256  # of an event, or less; memory that is not written to costs nothing


class Mended(NamedTuple):
    """What became of the beginning of a malformed text, `done` bytes; metadata are events that are the decoder's, and
    where they are.

    notes: what the first of each kind were, their places, and how they begin.
    """

    done: int
    metadata: list[tuple[int, bytes]]
    repaired: int
    dropped: int
    notes: list[tuple[Kind, int, bytes]]


class List(ctypes.Structure):
    _fields_ = (("items", ctypes.c_void_p), ("used", ctypes.c_size_t), ("room", ctypes.c_size_t))

    def rows(self, width: int) -> npt.NDArray[np.int64]:
        """A copy of the items, so many integers each."""
        return self.copied().view(np.int64).reshape(-1, width)

    def copied(self, first: int = 0) -> npt.NDArray[np.uint8]:
        """A copy of the bytes from the first one on; ctypes.string_at takes no more than 2 GB."""
        found = np.empty(self.used - first, np.uint8)
        ctypes.memmove(found.__array_interface__["data"][0], (self.items or 0) + first, len(found))
        return found


class Table(ctypes.Structure):
    _fields_ = (
        ("arena", List),
        ("entries", List),
        ("slots", ctypes.c_void_p),
        ("count", ctypes.c_uint32),
        ("most", ctypes.c_uint32),
    )


class _Wanted(ctypes.Structure):
    _fields_ = (
        ("length", ctypes.c_uint8),
        ("kind", ctypes.c_uint8),
        ("column", ctypes.c_uint8),
        ("key", ctypes.c_uint8 * _LONGEST_KEY),
    )


class _State(ctypes.Structure):
    """The first members of `struct scanner`; columns: the arrays of PLAIN, of integers and of texts."""

    _fields_ = (
        ("columns", ctypes.c_void_p * (_FIRST_TEXT + _MOST_TEXTS)),
        ("filled", ctypes.c_bool * _MOST_INTEGERS),
        ("integers", ctypes.c_int64),
        ("texts", ctypes.c_int64),
        ("wants", ctypes.c_int64),
        ("flows", ctypes.c_int64),
        ("wanted", _Wanted * _MOST_WANTED),
        ("arrows", _Wanted * _MOST_ARROWS),
        ("phases", ctypes.c_uint8 * 256),
        ("launched", List),
        ("links", List),
        ("aside", List),
        ("tables", Table * (_TABLES + _MOST_TEXTS)),
        ("rows", ctypes.c_int64),
        ("events", ctypes.c_int64),
        ("large", ctypes.c_bool),
        ("useless", ctypes.c_int64),
        ("repairs", List),
    )


def found() -> str:
    """Which reader is in use, for people: "native", or "Python" and why."""
    compiled, reason = library()
    return "native" if compiled is not None else f"Python, because {reason}"


def library() -> tuple[ctypes.CDLL | None, str]:
    """The compiled library, or why it is not in use; raises OptionError when PROFILER_KIT_READER names no reader."""
    chosen = os.environ.get(VARIABLE, "").strip()
    if chosen not in ("", "native", "python"):
        raise OptionError(f"{VARIABLE}={chosen}: not a reader, expected native or python. Try: {VARIABLE}=python")
    return (None, f"{VARIABLE}=python says so") if chosen == "python" else _opened()


@functools.cache
def _opened() -> tuple[ctypes.CDLL | None, str]:
    """The compiled library, or why there is none that can be used."""
    if not build.LIBRARY.exists():
        return None, "the native one is not compiled"
    pointer = ctypes.c_void_p
    try:
        library = ctypes.CDLL(str(build.LIBRARY))
        library.scan_source.restype = ctypes.c_char_p
        if library.scan_source().decode() != build.source_hash():
            return None, "the native one was compiled from another source"
        for name, result, arguments in (
            ("scan_new", pointer, []),
            ("scan_free", None, [pointer]),
            ("scan_block", ctypes.c_bool, [pointer, pointer, ctypes.c_size_t, ctypes.c_bool]),
            ("scan_mend", ctypes.c_size_t, [pointer, pointer, ctypes.c_size_t]),
            ("scan_touch", None, [pointer, ctypes.c_int64, ctypes.c_int64]),
            ("unpickle_new", pointer, [ctypes.c_size_t]),
            ("unpickle_free", None, [pointer]),
            ("unpickle_read", ctypes.c_bool, [pointer, ctypes.c_char_p, ctypes.c_size_t]),
            ("unpickle_fill", ctypes.c_bool, [pointer]),
            ("scan_may_end", ctypes.c_bool, [pointer, ctypes.c_size_t]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError, UnicodeDecodeError):
        return None, "the native one does not fit this machine"
    return library, ""


def scanner_for(extra: Sequence[str], keys: Sequence[str], text_bytes: int) -> Scanner | None:
    """A scanner for a file of about so much JSON that keeps these arguments; None where the decoder must do alone.

    Raises OptionError when PROFILER_KIT_READER names no reader.
    """
    compiled, _ = library()
    if compiled is None or len(keys) > _MOST_TEXTS or {f.encode_name for f in _fields(Event)} != _EVENT_KEYS:
        return None
    words = _words(tuple(keys))
    return None if words is None else Scanner(compiled, extra, words, text_bytes)


class _Words(NamedTuple):
    """What scan.c knows of the words in a trace."""

    wanted: ctypes.Array[_Wanted]
    wants: int
    arrows: ctypes.Array[_Wanted]
    phases: ctypes.Array[ctypes.c_uint8]


@functools.lru_cache(8)  # putting it together takes a tenth of the time of a small trace
def _words(keys: tuple[str, ...]) -> _Words | None:
    """The words, with these keys of `args`; None where they are more, or longer, than it takes."""
    wanted = [(msgspec.json.encode(key), kind, column) for key, kind, column in _wanted(keys)]
    if len(wanted) > _MOST_WANTED or max(len(key) for key, _, _ in wanted) > _LONGEST_KEY:
        return None
    words = _Words((_Wanted * _MOST_WANTED)(), len(wanted), (_Wanted * _MOST_ARROWS)(), (ctypes.c_uint8 * 256)())
    for phase, kind in _PHASES.items():
        words.phases[ord(phase)] = kind
    arrows = [(msgspec.json.encode(category), kind, 0) for category, kind in _ARROWS.items()]
    for places, given in ((words.wanted, wanted), (words.arrows, arrows)):
        for at, (key, kind, column) in enumerate(given):
            place = places[at]  # raises IndexError where there is no room
            place.length, place.kind, place.column = len(key), kind, column
            place.key[: len(key)] = key
    return words


def _wanted(keys: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Each key of `args` that the decoder looks at, what it may be, and its column of the integers or of the texts."""
    for field in _fields(Arguments):
        types = get_args(field.type) or (field.type,)
        kind = (_NULLS if type(None) in types else 0) | (_TEXTS if str in types else 0)
        if field.encode_name in keys:
            continue
        if field.name in INTEGERS:
            yield field.encode_name, kind if int in types else _FLAG, INTEGERS.index(field.name)
        elif field.name == _OLDER_ID:
            yield field.encode_name, kind, len(INTEGERS)
        else:
            yield field.encode_name, _ONLY_TEXT, 0
    for number, key in enumerate(keys):
        yield key, _AS_WRITTEN, number
        if key in OLDER_KEYS and OLDER_KEYS[key] not in keys:
            yield OLDER_KEYS[key], _AS_WRITTEN | _OLDER, number


class Scanner:
    """Columns that grow block by block, until `flush` gives them to a builder.

    most_rows: flush when there are so many; None keeps all.
    """

    def __init__(self, library: ctypes.CDLL, extra: Sequence[str], words: _Words, text_bytes: int) -> None:
        self.most_rows: int | None = None
        self._library = library
        self._extra = tuple(extra)
        self._handle = library.scan_new()
        if not self._handle:
            raise MemoryError
        state = self._state = _State.from_address(self._handle)
        state.integers, state.texts = len(_COLUMNS), len(extra)
        state.wanted, state.wants, state.arrows, state.phases = words
        state.flows = len(_ARROWS)
        self._expected_rows = text_bytes // _USUAL_BYTES
        self._arrays: dict[int, npt.NDArray[Any]] = {}
        self._room = self._touched = 0
        # of texts, 0 means that an event has no such argument
        self._codes: list[list[int]] = [[] for _ in range(_TABLES)] + [[0] for _ in extra]
        self._decoded = [0] * (_TABLES + len(extra))  # bytes of each table

    def __del__(self) -> None:
        self._library.scan_free(self._handle)

    @property
    def exact(self) -> bool:
        """Whether a time stamp was too large for a float: from there on they are read as decimal text."""
        return bool(self._state.large)

    @exact.setter
    def exact(self, exact: bool) -> None:
        self._state.large = exact

    def take(self, block: bytes | memoryview) -> list[bytes] | None:
        """Take a block; return its metadata events, which are the decoder's. None: all of it is the decoder's.

        The block ends at its last `]`. Behind it in memory there is more text, or the NUL of bytes and bytearrays.
        """
        if not self._scan(block):
            return None
        if self._expected_rows > TOUCHED_ROWS:
            self._touch_ahead()
        return [text for _, text in self._aside(block)]

    def _touch_ahead(self) -> None:
        """Have the memory of the next rows ready: a thread asks for it, a step ahead."""
        first, last = self._touched, min(self._state.rows + 2 * TOUCHED_ROWS, self._room)
        if first + TOUCHED_ROWS < last:
            self._touched = last
            arguments = (self._handle, first, last)
            threading.Thread(target=self._touch, args=arguments, name="touch", daemon=True).start()

    def _touch(self, *arguments: int) -> None:
        self._library.scan_touch(*arguments)

    def _aside(self, block: bytes | memoryview) -> list[tuple[int, bytes]]:
        places = self._state.aside.rows(2).tolist() if self._state.aside.used else []
        return [(first, bytes(block[first:last])) for first, last in places]

    @property
    def useless(self) -> int:
        """How many spans of the last block have no time, or an impossible one: they give no rows."""
        return int(self._state.useless)

    def mend(self, text: memoryview, *, notes: bool) -> Mended | None:
        """Take events from the beginning of a text that is cut anywhere, as repair.py would; None: they are its own.

        The text is followed by a NUL. notes: whether they are wanted.
        """
        self._make_room(len(text) // _LEAST_BYTES + 2)
        start = ctypes.c_char.from_buffer(text)
        done = self._library.scan_mend(self._handle, ctypes.byref(start), len(text))
        del start
        if not done:
            return None
        repairs = self._state.repairs.rows(4)
        counts = np.bincount(repairs[:, 0], minlength=len(_FATES)).tolist()
        order = (_REPAIRED, _DROPPED, _CLOSED_EARLY, _OF_NO_USE) if notes else ()
        kept = [
            (_FATES[fate], place, ctypes.string_at(at, min(size, LOOK_BYTES)))
            for wanted in order
            for fate, place, at, size in repairs[repairs[:, 0] == wanted][:MOST_INCIDENTS].tolist()
        ]
        repaired = counts[_REPAIRED] + counts[_CLOSED_EARLY]
        return Mended(done, self._aside(text), repaired, counts[_DROPPED], kept)

    def may_end(self, text: bytearray) -> bool:
        """Whether a `]` follows a `}` somewhere in the text."""
        return bool(self._library.scan_may_end(ctypes.byref(ctypes.c_char.from_buffer(text)), len(text)))

    def takes(self, block: bytes) -> bool:
        """Whether it would take the block, which then is a JSON list of events; nothing is kept."""
        return self._scan(block, only_look=True)

    def _scan(self, block: bytes | memoryview, *, only_look: bool = False) -> bool:
        self._make_room(len(block) // _LEAST_BYTES + 2)  # as many rows as such a block may have
        text = block if isinstance(block, bytes) else ctypes.byref(ctypes.c_char.from_buffer(block))
        return bool(self._library.scan_block(self._handle, text, len(block), only_look))

    @property
    def full(self) -> bool:
        """Whether it is time to flush."""
        return self.most_rows is not None and self._state.rows >= self.most_rows

    def _make_room(self, more: int) -> None:
        """Room for so many more rows."""
        rows = self._state.rows
        least = rows + more
        if least <= self._room:
            return
        self._room = max(least, rows + rows // 2, _LEAST_ROWS, 0 if self._arrays else self._expected_rows)
        for number, dtype in self._dtypes():
            array: npt.NDArray[Any] = np.empty(self._room, dtype)
            if rows and self._is_filled(number):
                array[:rows] = self._arrays[number][:rows]
            self._arrays[number] = array
            self._state.columns[number] = array.__array_interface__["data"][0]  # a fifth of the time of .ctypes

    def _dtypes(self) -> Iterator[tuple[int, type]]:
        """Number and dtype of each column: of PLAIN, of integers, and from _FIRST_TEXT on of texts."""
        yield from enumerate([np.int64] * 2 + [np.int32] * 3 + [np.int64] * len(_COLUMNS))
        yield from ((_FIRST_TEXT + number, np.int32) for number in range(len(self._extra)))

    def _is_filled(self, column: int) -> bool:
        return not len(PLAIN) <= column < _FIRST_TEXT or bool(self._state.filled[column - len(PLAIN)])

    def flush(self, builder: ColumnBuilder) -> None:
        """Give everything to the builder, in its codes, and begin again without rows."""
        state = self._state
        if not state.events:
            return
        rows = state.rows
        tables = [
            self._translated(_NAMES, list[str], builder.names),
            self._translated(_CATEGORIES, list[str], builder.categories),
            self._translated(_THREADS, list[tuple[int | str | None, int | str | None]], builder.threads),
            *(
                self._translated(_TABLES + number, list[msgspec.Raw], builder.texts[name])
                for number, name in enumerate(self._extra)
            ),
        ]
        columns: dict[str, npt.NDArray[Any]] = {}
        nothing = np.broadcast_to(np.array(MISSING), rows)
        for (number, _), name in zip(self._dtypes(), [*PLAIN, *_COLUMNS, *self._extra], strict=True):
            filled = self._is_filled(number)
            if filled and rows:
                self._arrays[number].resize(rows, refcheck=False)  # gives the rest of the memory back without copying
            columns[name] = self._arrays[number][:rows] if filled else nothing
        for table, name in zip(tables, [*PLAIN[2:], *self._extra], strict=True):
            if table is not None:
                columns[name] = table[columns[name]]
        older = columns.pop(_OLDER_ID)
        if self._is_filled(len(PLAIN) + len(INTEGERS)):
            may_be = np.array([name not in NEWER for name in builder.categories])[columns["category"]]
            lacking = may_be & (columns["external_id"] == MISSING)
            columns["external_id"] = np.where(lacking, older, columns["external_id"])
        for name in {COLLECTIVE, "collective_name"} & columns.keys():  # asked for as text: the same argument
            columns["collective"] = np.where(columns[name] > 0, 1, MISSING)
        if rows:
            self._arrays, self._room, self._expected_rows = {}, 0, 0
        links, launched = state.links.rows(9), state.launched.rows(2)
        threads = tables[_THREADS]
        if threads is not None:
            links[:, 3], launched[:, 1] = threads[links[:, 3]], threads[launched[:, 1]]
        if len(launched):
            builder.launched.append(launched)
        for (kind, phase), kept in builder.flows.items():
            mine = links[(links[:, 0] == ord(phase)) & (links[:, 1] == _KINDS[kind])]
            if len(mine):
                kept.append(mine[:, 2:5])
        builder.take_rows(columns, rows, int(state.events))
        state.rows = state.events = state.launched.used = state.links.used = 0
        ctypes.memset(state.filled, 0, ctypes.sizeof(state.filled))

    def _translated(self, table: int, kind: Any, codes: Any) -> npt.NDArray[np.int32] | None:
        """The builder's code of each code of a table; None when they are the same."""
        arena = self._state.tables[table].arena
        done, self._decoded[table] = self._decoded[table], arena.used
        if arena.used > done:
            text = b"[%b]" % arena.copied(done)[:-1].data  # without the last comma
            keys = msgspec.json.decode(text, type=kind)
            if table == _THREADS:
                keys = [tuple(MISSING if key is None else identity(key) for key in pair) for pair in keys]
            elif table >= _TABLES:
                keys = list(map(bytes, keys))
            self._codes[table] += map(codes.__getitem__, keys)
        known = self._codes[table]
        return None if known == list(range(len(known))) else np.array(known, dtype=np.int32)
