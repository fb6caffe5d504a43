"""Remove from a chrome trace that Kineto has just written what was not asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from profiler_kit.capture.sharing import Window

# Kineto's layout: one key or the arguments on a line of its own. Strings hold no raw newline, so these lines are
# structure. The last event of a file has no category and always stays, and with it the commas are right.
_OPEN: Final = b"  {\n"
_CLOSE: Final = (b"  },\n", b"  }\n")
_BASE: Final = b'    "baseTimeNanoseconds": '
_TIME: Final = b'    "ts": '
_CATEGORY: Final = b'    "cat": "'
_MEMORY: Final = b'    "name": "[memory]"'
_KEPT: Final = b"Trace"  # the profiler's own span


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which events go: Python calls, changes of memory, and what did not start in the window."""

    python: bool = False
    memory: bool = False
    window: Window | None = None

    def __bool__(self) -> bool:
        return self.python or self.memory or self.window is not None


def cut_trace(source: Path, target: Path, cut: Cut) -> None:
    """Copy the trace without what `cut` names. A file of another layout is copied as it is."""
    base_ns = 0
    with source.open("rb") as lines, target.open("wb") as out:
        for line in lines:
            if line == _OPEN:
                event = [line, *_rest(lines)]
                if not _goes(event, base_ns, cut):
                    out.writelines(event)
                continue
            if line.startswith(_BASE):
                base_ns = int(line[len(_BASE) :].rstrip(b",\n"))
            out.write(line)


def _rest(lines: IO[bytes]) -> Iterator[bytes]:
    """The lines of an event, to its end."""
    for line in lines:
        yield line
        if line in _CLOSE:
            return


def _goes(event: list[bytes], base_ns: int, cut: Cut) -> bool:
    category = time = b""
    memory = False
    for line in event:
        if line.startswith(_CATEGORY):
            category = line[len(_CATEGORY) :].rstrip(b'",\n')
        elif line.startswith(_TIME):
            time = line[len(_TIME) :].rstrip(b",\n")
        elif line.startswith(_MEMORY):
            memory = True
    if category in (b"", _KEPT):
        return False
    if (cut.python and category == b"python_function") or (cut.memory and memory):
        return True
    return cut.window is not None and not cut.window[0] <= base_ns + _nanoseconds(time) <= cut.window[1]


def _nanoseconds(microseconds: bytes) -> int:
    whole, _, part = microseconds.partition(b".")
    return int(whole) * 1000 + int(part[:3].ljust(3, b"0"))
