"""Keep a drawing index beside the trace's cache file: a trace file in, its Timeline out, mapped and not read.

A timeline file belongs to one trace file as it is now and to the code that made it (load/store.py keeps the stamp). It
is written when building the index took more than a second; where it cannot be read or written the index is built.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from profiler_kit.files import whole_file
from profiler_kit.load.cache.store import find_entry, limit_bytes, make_room
from profiler_kit.timeline.build import build_timeline
from profiler_kit.timeline.index import Row, Timeline, Track
from profiler_kit.trace import Trace

SLOW_S: Final = 1.0
SUFFIX: Final = ".timeline"
_MAGIC: Final = b"profiler_kit timeline 1\n"
_ALIGN: Final = 64
_ARRAYS: Final = (("start", "<i8"), ("busy", "<i8"), ("code", "<u4"), ("item", "<u4"))


class NotOurs(Exception):
    """The file is damaged, of another version, or of another state of the trace."""


def trace_timeline(path: Path, trace: Callable[[], Trace]) -> Timeline:
    """The timeline of a trace file: from its file where there is one, else built from `trace()` and kept if slow."""
    place = _place(path)
    if place is not None:
        with contextlib.suppress(NotOurs, OSError):
            found = read_timeline(*place)
            os.utime(place[0])  # used last now
            return found
    loaded = trace()
    since = time.perf_counter()
    built = build_timeline(
        loaded.gpu_events(), loaded.region_instances(), loaded.operators(), loaded.launch_calls(), loaded.threads
    )
    if place is not None and time.perf_counter() - since > SLOW_S and _place(path) == place:
        with contextlib.suppress(OSError):
            write_timeline(built, *place)
            make_room(place[0].parent, limit_bytes(), spare=place[0])
            return read_timeline(*place)  # mapped: the pages are the system's, not this process's
    return built


def has_timeline(path: Path) -> bool:
    """Whether the timeline of a trace can be had from its file."""
    place = _place(path)
    if place is not None:
        with contextlib.suppress(NotOurs, OSError):
            read_timeline(*place)
            return True
    return False


def write_timeline(timeline: Timeline, file: Path, stamp: dict[str, Any]) -> None:
    """Write the file, whole or not at all."""
    at = 0
    rows = []
    for row in timeline.rows:
        places = []
        for size in (*(getattr(row, name).size for name, _ in _ARRAYS), *(level.size for level in row.levels)):
            places.append((at, size))
            at += _padded(size * 8)
        rows.append(places)
    head = json.dumps(
        {
            "stamp": stamp,
            "bytes": at,
            "start_ns": timeline.start_ns,
            "end_ns": timeline.end_ns,
            "tracks": [dataclasses.astuple(track) for track in timeline.tracks],
            "labels": timeline.labels,
            "rows": rows,
        }
    ).encode()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole_file(file) as temporary, temporary.open("wb") as out:
        start = _MAGIC + struct.pack("<QI", len(head), zlib.crc32(head)) + head
        out.write(start + b"\0" * (-len(start) % _ALIGN))
        for row in timeline.rows:
            for values in (*(getattr(row, name).astype(kind) for name, kind in _ARRAYS), *row.levels):
                data = np.ascontiguousarray(values).tobytes()
                out.write(data + b"\0" * (_padded(values.size * 8) - len(data)))


def read_timeline(file: Path, stamp: dict[str, Any]) -> Timeline:
    """Map the file; raises NotOurs when it is not what was written for this stamp, OSError when it cannot be read."""
    with file.open("rb") as source:
        fixed = source.read(len(_MAGIC) + 12)
        if not fixed.startswith(_MAGIC) or len(fixed) < len(_MAGIC) + 12:
            raise NotOurs
        size, check = struct.unpack("<QI", fixed[len(_MAGIC) :])
        if size > os.fstat(source.fileno()).st_size:
            raise NotOurs
        text = source.read(size)
    if zlib.crc32(text) != check:
        raise NotOurs
    head = json.loads(text)
    body = -(-(len(fixed) + size) // _ALIGN) * _ALIGN
    if head["stamp"] != stamp or file.stat().st_size != body + head["bytes"]:
        raise NotOurs
    mapped = np.memmap(file, dtype=np.uint8, mode="r", offset=body) if head["bytes"] else np.zeros(0, np.uint8)
    return Timeline(
        head["start_ns"],
        head["end_ns"],
        tuple(Track(*track) for track in head["tracks"]),
        tuple(_row(mapped, places) for places in head["rows"]),
        tuple((kind, name, tuple(path)) for kind, name, path in head["labels"]),
    )


def _row(mapped: npt.NDArray[np.uint8], places: list[tuple[int, int]]) -> Row:
    def array(place: tuple[int, int], kind: str) -> npt.NDArray[Any]:
        at, size = place
        return np.asarray(mapped[at : at + size * np.dtype(kind).itemsize]).view(kind)

    start, busy, code, item = (array(place, kind) for place, (_, kind) in zip(places, _ARRAYS, strict=False))
    levels = tuple(array(place, "<i8") for place in places[len(_ARRAYS) :])
    return Row(start, busy, code, item, levels)


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _place(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """Where the timeline of a trace lies, there or not, and what must stand in it; None without a cache."""
    entry = find_entry(path)
    if entry is None:
        return None
    return entry.file.with_suffix(SUFFIX), {**entry.stamp, "timeline": _code()}


@functools.cache
def _code() -> str:
    """Tells the code that builds timelines from that of another version."""
    package = Path(__file__).parents[1]
    files = [*package.glob("*.py"), *(package / "attribute").glob("*.py"), *(package / "timeline").glob("*.py")]
    code = hashlib.sha256()
    for file in sorted(files):
        code.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return code.hexdigest()[:16]
