"""The native reader: scan.c, compiled when the package is installed and called through ctypes, without Python's lock.

It takes blocks of events that it is sure of; all others go to the decoder, which is the only reader where no library
was compiled, the one there was made of another source, or PROFILER_KIT_READER=python asks for it.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from profiler_kit.errors import OptionError
from profiler_kit.load.integers import MISSING
from profiler_kit.load.trace.categories import ASYNCHRONOUS, DEVICE_ARROWS, OLD_FLOWS
from profiler_kit.load.trace.column_builder import DEVICE, FORWARD, INTEGERS, PLAIN, ColumnBuilder, coded, identity
from profiler_kit.load.trace.decode import COLLECTIVE, OLDER_KEYS, Arguments, Event
from profiler_kit.load.trace.native import build

_fields = msgspec.structs.fields
VARIABLE: Final = "PROFILER_KIT_READER"
# What scan.c calls the same.
_TAKEN, _LEFT, _LARGE = range(3)
_UNKNOWN, _COUNTED, _SPAN, _FLOW, _ASIDE = range(5)
_NULLS, _TEXTS, _ONLY_TEXT, _AS_WRITTEN, _FLAG, _OLDER = 1, 2, 4, 8, 16, 32
_MOST_INTEGERS, _MOST_TEXTS = 16, 48
_NAMES, _CATEGORIES, _THREADS, _TABLES = range(4)
_PHASES: Final = {"X": _SPAN, "s": _FLOW, "f": _FLOW, "M": _ASIDE} | dict.fromkeys({*"iICt", *ASYNCHRONOUS}, _COUNTED)
_KINDS: Final = {FORWARD: 2, DEVICE: 3}  # of arrows
_ARROWS: Final = (  # of each category of flows
    {"ac2g": 1, FORWARD: _KINDS[FORWARD]}
    | {old: 1 if new == "ac2g" else _KINDS[FORWARD] for old, new in OLD_FLOWS.items()}
    | dict.fromkeys(DEVICE_ARROWS, _KINDS[DEVICE])
)
_EVENT_KEYS: Final = frozenset({"ph", "cat", "name", "pid", "tid", "ts", "dur", "id", "args"})
_LEAST_BYTES: Final = 26  # of a complete event: {"ph":"X","ts":0,"dur":0}
_LEAST_ROWS: Final = 1 << 14
_USUAL_BYTES: Final = 256  # of an event, or less; memory that is not written to costs nothing


class _List(ctypes.Structure):
    _fields_ = (("items", ctypes.c_void_p), ("count", ctypes.c_size_t), ("room", ctypes.c_size_t))

    def rows(self, width: int) -> npt.NDArray[np.int64]:
        """A copy of the items, so many integers each."""
        size = self.count * width
        found = (ctypes.c_int64 * size).from_address(self.items) if size else []
        return np.array(found, dtype=np.int64).reshape(-1, width)


class _State(ctypes.Structure):
    """The first members of `struct scanner`."""

    _fields_ = (
        ("columns", ctypes.c_void_p * (len(PLAIN) + _MOST_INTEGERS + _MOST_TEXTS)),
        ("launched", _List),
        ("links", _List),
        ("aside", _List),
        ("rows", ctypes.c_int64),
        ("events", ctypes.c_int64),
        ("filled", ctypes.c_bool * _MOST_INTEGERS),
        ("phases", ctypes.c_uint8 * 256),
    )


def found() -> str:
    """Which reader is in use, for people: "native", or "Python" and why."""
    library, reason = _library()
    return "native" if library is not None else f"Python, because {reason}"


def _library() -> tuple[ctypes.CDLL | None, str]:
    chosen = os.environ.get(VARIABLE, "").strip()
    if chosen not in ("", "native", "python"):
        raise OptionError(f"{VARIABLE}={chosen}: not a reader, expected native or python. Try: {VARIABLE}=python")
    return (None, f"{VARIABLE}=python says so") if chosen == "python" else _opened()


@functools.cache
def _opened() -> tuple[ctypes.CDLL | None, str]:
    """The compiled library, or why there is none that can be used."""
    if not build.LIBRARY.exists():
        return None, "the native one is not compiled"
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    try:
        library = ctypes.CDLL(str(build.LIBRARY))
        library.scan_source.restype = ctypes.c_char_p
        if library.scan_source().decode() != build.source_hash():
            return None, "the native one was compiled from another source"
        for name, result, arguments in (
            ("scan_new", pointer, [ctypes.c_int, ctypes.c_int]),
            ("scan_free", None, [pointer]),
            ("scan_want", ctypes.c_int, [pointer, ctypes.c_char_p, size, ctypes.c_uint, ctypes.c_uint]),
            ("scan_arrow", ctypes.c_int, [pointer, ctypes.c_char_p, size, ctypes.c_uint]),
            ("scan_block", ctypes.c_int, [pointer, pointer, size, ctypes.c_int, ctypes.c_int]),
            ("scan_texts", pointer, [pointer, ctypes.c_int, ctypes.POINTER(size)]),
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
    library, _ = _library()
    if library is None or len(keys) > _MOST_TEXTS or {f.encode_name for f in _fields(Event)} != _EVENT_KEYS:
        return None
    scanner = Scanner(library, extra, text_bytes)
    return scanner if all(scanner.want(*wanted) for wanted in _wanted(keys)) else None


def _wanted(keys: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Each key of `args` that the decoder looks at, what it may be, and its column of the integers or of the texts."""
    for field in _fields(Arguments):
        types = get_args(field.type) or (field.type,)
        kind = (_NULLS if type(None) in types else 0) | (_TEXTS if str in types else 0)
        if field.encode_name in keys:
            continue
        if field.name in INTEGERS:
            yield field.encode_name, kind if int in types else _FLAG, INTEGERS.index(field.name)
        elif field.name == "older_external_id":
            yield field.encode_name, _OLDER, INTEGERS.index("external_id")
        else:
            yield field.encode_name, _ONLY_TEXT, 0
    for number, key in enumerate(keys):
        yield key, _AS_WRITTEN, number
        if key in OLDER_KEYS and OLDER_KEYS[key] not in keys:
            yield OLDER_KEYS[key], _AS_WRITTEN | _OLDER, number


class Scanner:
    """Columns that grow block by block, until `flush` gives them to a builder.

    exact: time stamps as decimal text, not as floats; becomes true, as it does for the decoder, with the first that a
    float has no room for. most_rows: flush when there are so many; None keeps all.
    """

    def __init__(self, library: ctypes.CDLL, extra: Sequence[str], text_bytes: int) -> None:
        self.exact = False
        self.most_rows: int | None = None
        self._library = library
        self._extra = tuple(extra)
        self._handle = library.scan_new(len(INTEGERS), len(extra))
        if not self._handle:
            raise MemoryError
        self._state = _State.from_address(self._handle)
        for phase, kind in _PHASES.items():
            self._state.phases[ord(phase)] = kind
        for category, arrow in _ARROWS.items():
            text = msgspec.json.encode(category)
            library.scan_arrow(self._handle, text, len(text), arrow)
        self._expected_rows = text_bytes // _USUAL_BYTES
        self._arrays: list[npt.NDArray[Any]] = []
        self._room = 0
        self._codes: list[npt.NDArray[np.int32]] = [np.zeros(0, np.int32) for _ in range(_TABLES + len(extra))]
        self._decoded = [0] * (_TABLES + len(extra))  # bytes of each table

    def __del__(self) -> None:
        self._library.scan_free(self._handle)

    def want(self, key: str, kind: int, column: int) -> bool:
        """Look for a key of `args`; False when that is one too many, or too long."""
        text = msgspec.json.encode(key)
        return bool(self._library.scan_want(self._handle, text, len(text), kind, column) == _TAKEN)

    def take(self, block: bytes | memoryview) -> list[bytes] | None:
        """Take a block; return its metadata events, which are the decoder's. None: all of it is the decoder's.

        The block ends at its last `]`. Behind it in memory there is more text, or the NUL of bytes and bytearrays.
        """
        verdict = self._scan(block, exact=self.exact)
        if verdict == _LARGE:
            verdict = self._scan(block, exact=True)
            self.exact = verdict == _TAKEN
        if verdict != _TAKEN:
            return None
        places = self._state.aside.rows(2).tolist() if self._state.aside.count else []
        return [bytes(block[first:last]) for first, last in places]

    def takes(self, block: bytes) -> bool:
        """Whether it would take the block, which then is a JSON list of events; nothing is kept."""
        return self._scan(block, exact=True, only_look=True) == _TAKEN

    def _scan(self, block: bytes | memoryview, *, exact: bool, only_look: bool = False) -> int:
        self._make_room(len(block))
        text = block if isinstance(block, bytes) else ctypes.byref(ctypes.c_char.from_buffer(block))
        return int(self._library.scan_block(self._handle, text, len(block), exact, only_look))

    @property
    def full(self) -> bool:
        """Whether it is time to flush."""
        return self.most_rows is not None and self._state.rows >= self.most_rows

    def _make_room(self, size: int) -> None:
        """Room for as many rows as a block of this size may have."""
        rows = self._state.rows
        least = rows + size // _LEAST_BYTES + 2
        if least <= self._room:
            return
        self._room = max(least, rows + rows // 2, _LEAST_ROWS, 0 if self._arrays else self._expected_rows)
        integers = len(INTEGERS)
        dtypes = [np.int64] * 2 + [np.int32] * 3 + [np.int64] * integers + [np.int32] * len(self._extra)
        kept = [True] * len(PLAIN) + self._state.filled[:integers] + [True] * len(self._extra)
        for number, dtype in enumerate(dtypes):
            array = np.empty(self._room, dtype)
            if rows and kept[number]:
                array[:rows] = self._arrays[number][:rows]
            self._arrays[number : number + 1] = [array]
            self._state.columns[number] = array.ctypes.data

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
        for number, name in enumerate([*PLAIN, *INTEGERS, *self._extra] if rows else []):
            integer = number - len(PLAIN)
            if 0 <= integer < len(INTEGERS) and not state.filled[integer]:
                columns[name] = np.broadcast_to(np.array(MISSING), rows)
                continue
            array = self._arrays[number]
            array.resize(rows, refcheck=False)  # gives the rest of the memory back without copying
            columns[name] = array
        for table, name in zip(tables, [*PLAIN[2:], *self._extra], strict=True):
            if rows and table is not None:
                columns[name] = table[columns[name]]
        for name in {COLLECTIVE, "collective_name"} & columns.keys():  # asked for as text: the same argument
            columns["collective"] = np.where(columns[name] > 0, 1, MISSING)
        if rows:
            self._arrays, self._room, self._expected_rows = [], 0, 0
        links = state.links.rows(9)
        threads = tables[_THREADS]
        if threads is not None and len(links):
            links[:, 3] = threads[links[:, 3]]
        if state.launched.count:
            builder.launched.append(state.launched.rows(1)[:, 0])
        for (kind, phase), kept in builder.flows.items():
            mine = links[(links[:, 0] == ord(phase)) & (links[:, 1] == _KINDS[kind])]
            if len(mine):
                kept.append(mine[:, 2:5])
        builder.take_rows(columns, rows, int(state.events))
        state.rows = state.events = state.launched.count = state.links.count = 0
        ctypes.memset(state.filled, 0, ctypes.sizeof(state.filled))

    def _translated(self, table: int, kind: Any, codes: Any) -> npt.NDArray[np.int32] | None:
        """The builder's code of each code of a table; None when they are the same."""
        size = ctypes.c_size_t()
        start = self._library.scan_texts(self._handle, table, size)
        done, self._decoded[table] = self._decoded[table], size.value
        if size.value > done:
            text = b"[%b]" % ctypes.string_at(start + done, size.value - done - 1)
            keys = msgspec.json.decode(text, type=kind)
            if table == _THREADS:
                keys = [tuple(MISSING if key is None else identity(key) for key in pair) for pair in keys]
            elif table >= _TABLES:
                keys = list(map(bytes, keys))
            self._codes[table] = np.concatenate([self._codes[table], coded(codes, keys)])
        known = self._codes[table]
        if table >= _TABLES:  # there 0 means that an event has no such argument
            known = np.concatenate([[np.int32(0)], known])
        return None if np.array_equal(known, np.arange(len(known))) else known
