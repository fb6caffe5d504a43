"""The native reader of snapshots: load/trace/native/unpickle.c, which makes the columns that unpickle_child.py makes.

It reads what torch writes and gives up at anything else; then the child reads, refuses and words the message.
"""

from __future__ import annotations

import ctypes
import json
import struct
from typing import IO, Any, Final

import numpy as np

from profiler_kit.load.snapshot.data import EVENT_TEXTS, Array
from profiler_kit.load.snapshot.unpickle_child import SEGMENT_CODES, plain_settings
from profiler_kit.load.trace.native import List, Table, library

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    code: np.dtype(dtype) for code, dtype in (("b", "i1"), ("i", "<i4"), ("q", "<i8"), ("Q", "<u8"))
}
_COLUMNS: Final = (  # in the order of `struct reader`
    *((f"event.{name}", "i") for name in ("device", "action", "stack", "pool", *EVENT_TEXTS)),
    *(("event.address", "Q"), ("event.size_bytes", "q"), ("event.stream", "q"), ("event.time_us", "q")),
    *SEGMENT_CODES.items(),
    ("block.stack", "i"),
    *(("annotation.end", "b"), ("annotation.device", "q"), ("annotation.name", "i"), ("annotation.time_us", "q")),
)
_NUMBERINGS: Final = ("actions", "states", "names", "strings", *EVENT_TEXTS)
# What unpickle.c calls the same.
_SMALL, _LARGE, _FLOAT, _TEXT, _DICT, _, _, _WORD = range(8)
LEAST_PER_BYTE: Final = 4  # that reading a snapshot of torch takes
_WORDS: Final = (None, False, True)
_ENTRY: Final = np.dtype([("hash", "<u4"), ("length", "<u4"), ("start", "<u8")])  # struct entry of table.h


class _Numbering(ctypes.Structure):
    _fields_ = (("codes", List), ("texts", List))


class _State(ctypes.Structure):
    """The first members of `struct reader`."""

    _fields_ = (
        ("columns", ctypes.c_void_p * len(_COLUMNS)),
        ("events", ctypes.c_int64),
        ("segments", ctypes.c_int64),
        ("blocks", ctypes.c_int64),
        ("annotations", ctypes.c_int64),
        ("odd_annotations", ctypes.c_int64),
        ("devices", ctypes.c_int64),
        ("texts", Table),
        ("frames", Table),
        ("stacks", Table),
        ("pools", Table),
        ("numberings", _Numbering * len(_NUMBERINGS)),
        ("frees", List),
        ("settings", List),
    )


def read_columns(file: IO[bytes], most_bytes: int) -> tuple[str, dict[str, Array]] | None:
    """What the child makes of a pickle, its head and columns, holding at most so many bytes; None: ask the child."""
    compiled, _ = library()
    size = file.seek(0, 2)
    file.seek(0)
    if compiled is None or size > most_bytes // LEAST_PER_BYTE:
        return None
    pickle = file.read()
    file.seek(0)
    handle = compiled.unpickle_new(most_bytes - size)
    if not handle:
        return None
    try:
        state = _State.from_address(handle)
        if not compiled.unpickle_read(handle, pickle, len(pickle)):
            return None
        columns = {}
        for number, (name, code) in enumerate(_COLUMNS):
            columns[name] = np.empty(getattr(state, f"{name.partition('.')[0]}s"), DTYPES[code])
            state.columns[number] = columns[name].ctypes.data
        if not compiled.unpickle_fill(handle):
            return None
        frees = state.frees.rows(2)
        columns |= {"free.row": frees[:, 0].copy(), "free.bytes": frees[:, 1].copy()}
        columns["frames"] = state.frames.arena.copied().view("<i8")
        columns["stack_frames"] = state.stacks.arena.copied().view("<i4")
        columns["stack_ends"] = _places(state.stacks)[:, 1] // 4
        return json.dumps(_head(state)), columns
    finally:
        compiled.unpickle_free(handle)


def _head(state: _State) -> dict[str, Any]:
    texts = state.texts.arena.copied().data
    places = _places(state.texts)

    def text(number: int) -> str:
        first, last = places[number]
        return str(texts[first:last], "utf-8")

    pools, kept = state.pools.arena.copied(), _places(state.pools).tolist()
    plain: dict[str, Any] = {}
    open_dicts: list[Any] = [plain]
    for depth, key, tag, inside in state.settings.rows(4).tolist():
        value = _value(tag, inside) if tag != _TEXT else text(inside)
        open_dicts[depth][text(key)] = value
        open_dicts[depth + 1 :] = [value]
    return {
        **{
            name: [text(number) for number in of.texts.rows(1)[:, 0].tolist()]
            for name, of in zip(_NUMBERINGS, state.numberings, strict=True)
        },
        "pools": ["{},{}".format(*struct.unpack("<qq", pools[a:b])) if b > a else "" for a, b in kept],
        "odd_annotations": state.odd_annotations,
        "devices": state.devices,
        "settings": plain_settings(plain.get("allocator_settings")),
        "kit": plain_settings(plain.get("profiler_kit")),
    }


def _value(tag: int, inside: int) -> Any:
    if tag == _DICT:
        return {}
    if tag == _WORD:
        return _WORDS[inside]
    return struct.unpack("<d" if tag == _FLOAT else "<Q" if tag == _LARGE else "<q", struct.pack("<q", inside))[0]


def _places(table: Table) -> Array:
    """Where each text of a table begins and ends, a row each."""
    entries = table.entries.copied().view(_ENTRY)
    first = entries["start"].astype(np.int64)
    return np.stack([first, first + entries["length"]], axis=1)
