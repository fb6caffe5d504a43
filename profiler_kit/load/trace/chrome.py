"""Load a chrome trace in bounded memory.

The decompressed bytes are cut at event boundaries (split_events.py), each block is decoded (decode.py), becomes columns
(column_builder.py) and is dropped. Where it could be compiled, the native reader (native/) takes most blocks instead,
while a thread unpacks the next ones (read_ahead.py). Where not, a second process takes part (second_process.py).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from profiler_kit.errors import OptionError, TraceFormatError
from profiler_kit.files import require_file
from profiler_kit.load.file_kinds import ARCHIVES, kind_of
from profiler_kit.load.trace.column_builder import ColumnBuilder
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.load.trace.decode import KEPT_ARGUMENTS, NOT_JSON
from profiler_kit.load.trace.decompress import MOST_LAYERS, Blocks, packing_of, text_bytes_about
from profiler_kit.load.trace.dialect import translated
from profiler_kit.load.trace.native import scanner_for
from profiler_kit.load.trace.read_ahead import BlocksAhead
from profiler_kit.load.trace.repair import Incident
from profiler_kit.load.trace.second_process import SecondProcess, SecondProcessError
from profiler_kit.load.trace.split_events import KINETO_CUT, SALVAGE_BYTES, EventStream
from profiler_kit.progress import Report, silent

HINT: Final = "Record one with profiler_runner, or with torch.profiler's export_chrome_trace."
LOOK_BYTES: Final = 64 << 10  # what does not begin like JSON may have lost its first bytes
SEARCH_BYTES: Final = 64 << 20  # `traceEvents` must start within this many bytes
TWO_PROCESSES_BYTES: Final = 96 << 20
# Once so much has been freed at one time, glibc keeps what is freed of smaller blocks (mallopt(3), M_MMAP_THRESHOLD);
# else it gives each back to the system and gets it again filled with zeros, a tenth of the time of loading.
KEPT_BYTES: Final = 8 << 20
AHEAD_BYTES: Final = 8 << 20  # a thread of its own to unpack pays from here on
# Arguments worth asking for, by the name their column has here (libkineto/src/output_json.cpp, CuptiActivity.cpp).
ARGUMENTS: Final = {
    "input_dims": "Input Dims",
    "input_type": "Input type",
    "input_strides": "Input Strides",
    "concrete_inputs": "Concrete Inputs",
    "collective_name": "Collective name",
    "in_msg_nelems": "In msg nelems",
    "out_msg_nelems": "Out msg nelems",
    "dtype": "dtype",
    "group_size": "Group size",
    "process_group_name": "Process Group Name",
    "process_group_ranks": "Process Group Ranks",
    "python_module_id": "Python module id",
    "graph_node_id": "graph node id",
    "memory_bandwidth": "memory bandwidth (GB/s)",
    "occupancy": "est. achieved occupancy %",
    "grid": "grid",
    "block": "block",
    "registers_per_thread": "registers per thread",
    "shared_memory": "shared memory",
}
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"  # with the byte order mark some editors add
_EVENTS_KEY: Final = re.compile(rb'"traceEvents"\s*:\s*\[')
_LIST: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[")


@dataclass(frozen=True)
class LoadQuality:
    """What the file held and what was lost.

    events counts every entry of `traceEvents`, of any phase. A truncated file lacks the end of `traceEvents`; it is
    loaded up to its last whole event. repaired events were malformed JSON and could be mended; dropped ones could not,
    are not events, have no time or an impossible one, or come after the end of the trace; unmatched_events of these
    are begins of a span without an end, or ends without a begin, useless_events those with no phase or no such time.
    incidents says what happened where, the first few times.
    """

    events: int
    truncated: bool
    repaired_events: int
    dropped_events: int
    unmatched_events: int = 0
    useless_events: int = 0
    incidents: tuple[Incident, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ChromeTrace:
    """The columns of one file, its metadata (every key but `traceEvents`), and its quality."""

    path: Path
    columns: EventColumns
    metadata: dict[str, Any]
    quality: LoadQuality


def read_chrome_trace(path: Path | str, *, arguments: Sequence[str] = (), report: Report = silent) -> ChromeTrace:
    """Load a trace, packed or not: an object or a bare list, sorted or not, metadata before or after the events.

    arguments: what else to keep of each event's `args`, by the names of ARGUMENTS or as the file writes them
    ("Input Dims"); they come as text columns in `columns.extra`.

    Raises InputError when the file is missing or empty and TraceFormatError when it is not a trace, or not
    one whole event of it could be read; OptionError when an argument asked for is a column already.
    """
    file = require_file(path, "a chrome trace", HINT)
    keys = argument_keys(arguments)
    scanner = scanner_for(arguments, keys, text_bytes_about(file))
    if scanner is None and _worth_two_processes(file):
        try:
            with SecondProcess(arguments, keys) as second:
                return read_stream(file, EventStream(arguments, keys), report, second)
        except (SecondProcessError, OSError):
            pass  # malformed somewhere, or no process can be started: event by event, alone
    return read_stream(file, EventStream(arguments, keys, scanner), report)


@functools.cache  # for good
def _keep_what_is_freed() -> None:
    bytes(KEPT_BYTES)  # made and freed


def read_stream(file: Path, events: EventStream, report: Report, second: SecondProcess | None = None) -> ChromeTrace:
    """Read a trace through a stream whose builder may keep more than columns of complete events; raises the same."""
    _keep_what_is_freed()
    ahead = events.scanner is not None and _cores() > 1 and text_bytes_about(file) > AHEAD_BYTES
    blocks = (BlocksAhead if ahead else Blocks)(file, report=report)
    with contextlib.closing(iter(blocks)) as stream:
        head, rest = find_events(file, stream)
        events.head, events.offset, events.tick = head, len(head), blocks.tick
        if second is None:
            events.feed_all(rest)
        else:
            _feed_both(rest, events, second)
    builder = events.builder
    builder.close_spans()
    if not builder.rows:
        raise no_events(file, builder, truncated=not events.closed, behind=events.behind)
    quality = LoadQuality(
        events=builder.total,
        truncated=not events.closed,
        repaired_events=events.repaired,
        dropped_events=builder.dropped + events.dropped,
        unmatched_events=builder.unmatched,
        useless_events=builder.dropped - builder.unmatched,
        incidents=(*events.incidents, *([Incident("corrupt", events.offset, "")] if blocks.cut_off else [])),
    )
    return ChromeTrace(file, translated(builder.columns()), metadata_of(head, events.tail), quality)


def _feed_both(stream: Iterator[bytes], events: EventStream, second: SecondProcess) -> None:
    """Give each block to the second process when it has room for one, else decode it here.

    Cuts are at Kineto's separator, which no string can hold.
    """
    order: list[tuple[bool, int]] = []
    pending = bytearray(b"[")
    for data in stream:
        pending += data
        cut = pending.rfind(KINETO_CUT) + KINETO_CUT.index(b",")
        if cut < len(KINETO_CUT):
            if len(pending) > SALVAGE_BYTES:  # another layout
                raise SecondProcessError
            continue
        pending[cut] = 0x5D  # `,` becomes `]`
        if second.ready():
            second.decode(bytes(memoryview(pending)[: cut + 1]))
            order.append((True, 0))
        else:
            before = events.builder.rows
            with memoryview(pending)[: cut + 1] as block:
                if not events.decode(block):
                    raise SecondProcessError
            order.append((False, events.builder.rows - before))
        del pending[1 : cut + 1]
        events.offset += cut
    events.feed(bytes(memoryview(pending)[1:]))
    events.finish()
    second.finish(events.builder, order)


def _worth_two_processes(file: Path) -> bool:
    """A second process pays from some 100 MB of JSON on, and with a second core."""
    return _cores() > 1 and bool(sys.executable) and os.name == "posix" and text_bytes_about(file) > TWO_PROCESSES_BYTES


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def argument_keys(names: Sequence[str]) -> list[str]:
    """The keys of `args` that these names mean."""
    keys = [ARGUMENTS.get(name, name) for name in names]
    for name, key in zip(names, keys, strict=True):
        if key in KEPT_ARGUMENTS or keys.count(key) > 1:
            raise OptionError(f"arguments: {name!r} is a column already, expected other arguments. Leave it out.")
        if not key.isprintable() or '"' in key or "\\" in key:
            raise OptionError(
                f"arguments: {name!r} cannot be the key of an argument. Try one of {', '.join(ARGUMENTS)}."
            )
    return keys


def no_events(file: Path, builder: ColumnBuilder, *, truncated: bool, behind: int = 0) -> TraceFormatError:
    if builder.total > builder.dropped - builder.unmatched:
        found = f"{builder.total} events but none with a duration (phase X)"
    elif builder.total:
        found = f"a list of {builder.total} values that are not trace events"
    elif truncated:
        found = "a trace that is cut off before its first whole event"
    else:
        found = "a trace without a single event (nothing ran while it was recorded)"
    if behind:
        found += f", and {behind} events of another trace after its end"
    return TraceFormatError(f"{file}: found {found}, expected a chrome trace with events. {HINT}")


def find_events(file: Path, stream: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """Read up to the `[` that opens the events; return the text up to it, and the blocks after it."""
    seen = bytearray()
    for block in stream:
        seen += block
        found = _LIST.match(seen) or _EVENTS_KEY.search(seen)
        if found and _is_archive(seen):
            break
        if found:
            rest = block[len(block) - len(seen) + found.end() :]  # the `[` is in the last one
            return bytes(seen[: found.end()]), itertools.chain([rest], stream)
        may_be_json = bytes(seen[:64]).lstrip(_BLANK)[:1] in (b"{", b"")
        if len(seen) > (SEARCH_BYTES if may_be_json else LOOK_BYTES):
            break
    what, hint = _describe(bytes(seen), file.name)
    raise TraceFormatError(f"{file}: found {what}, expected a chrome trace: {{'traceEvents': [...]}}. {hint}")


def _is_archive(head: bytearray) -> bool:
    """Whether what looks like a trace is one of the files in an archive, of which others would be lost."""
    kind = kind_of(bytes(head[:LOOK_BYTES])) if not head.startswith((b"{", b"[")) else None
    return kind is not None and kind.name in ARCHIVES


def _describe(data: bytes, name: str) -> tuple[str, str]:
    """What a file is that is not a trace, and what to do, for its error message."""
    if not data:
        return "packed data that are empty or cannot be unpacked", HINT
    packing, kind = packing_of(data), kind_of(data, name)
    if packing:
        return f"data packed with {packing.name} more than {MOST_LAYERS} times", "Unpack it first."
    if kind:
        return kind.what, kind.hint
    try:
        value = msgspec.json.decode(data)
    except NOT_JSON:
        start = data[:24].decode("utf-8", "replace")
        return f"text that is not JSON, or cut off before its events (it starts with {start!r})", HINT
    if isinstance(value, dict):
        return f"a JSON object with the keys {sorted(value)[:6]}", HINT
    return f"a JSON {type(value).__name__}", HINT


def metadata_of(head: bytes, tail: bytes) -> dict[str, Any]:
    """Every key but `traceEvents`; {} for a bare list, or when neither end of the object can be parsed."""
    if not head.lstrip(_BLANK).startswith(b"{"):
        return {}
    for end in (tail, b"}"):
        try:
            data = msgspec.json.decode(head + b"]" + end)
        except NOT_JSON:
            continue
        return {key: value for key, value in data.items() if key != "traceEvents"} if isinstance(data, dict) else {}
    return {}
