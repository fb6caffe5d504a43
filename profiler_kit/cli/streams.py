"""Standard output and error that can always be written to: closed, full, left by their reader, or of another encoding.

A command runs to its end whatever becomes of what it prints: a file that it writes is written, its exit code is right.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LEFT: Final = (errno.EPIPE, errno.EBADF)  # the reader (head, less) went away: no fault


class _Sink(io.FileIO):
    """A descriptor that swallows what cannot be written; `problem` says why, unless the reader has gone."""

    problem: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write, and from the first failure on to nowhere."""
        try:
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _LEFT:
                self.problem = error
            _lead_nowhere(self.fileno())
            return memoryview(data).nbytes


def _lead_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def open_streams() -> _Sink:
    """Replace sys.stdout and sys.stderr; returns what is below sys.stdout.

    A closed descriptor is opened first, or the next file that is opened would get what is printed. A character that
    the encoding lacks becomes an escape.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _lead_nowhere(descriptor)
    sys.stdout, out = _text(sys.stdout, 1)
    sys.stderr, _ = _text(sys.stderr, 2)
    return out


def _text(stream: TextIO | None, descriptor: int) -> tuple[TextIO, _Sink]:
    sink = _Sink(descriptor, "w", closefd=False)
    encoding = stream.encoding if stream is not None else "utf-8"
    at_once = descriptor == 2 or sink.isatty()
    buffer = io.BufferedWriter(sink)
    return io.TextIOWrapper(buffer, encoding, "backslashreplace", line_buffering=at_once), sink


def flush(out: _Sink) -> str | None:
    """Write out what was printed; a sentence when standard output could not take all of it."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    if out.problem is None:
        return None
    return f"standard output: cannot be written ({out.problem.strerror}). Free some space, or print to another file."
