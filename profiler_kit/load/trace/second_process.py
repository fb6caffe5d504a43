"""A second process that decodes every other block of a large trace; its columns are merged with ours in file order.

Python decodes on one core at a time, so a large trace is shared with a child. It is started with subprocess, not
with multiprocessing, whose spawn would run a user's unguarded script again. The child reads blocks from its
standard input, answers one byte a block (OK, or MALFORMED), and at the end hands its columns back.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from profiler_kit.load.integers import of_one_width
from profiler_kit.load.trace.column_builder import INTEGERS, NARROWED, PLAIN, ColumnBuilder, coded
from profiler_kit.load.trace.split_events import EventStream

OK, MALFORMED = b"+", b"-"
LENGTH_BYTES: Final = 8
PIPE_BYTES: Final = 1 << 20  # holds the block that waits; the unprivileged maximum of Linux
MOST_BLOCKS: Final = 2
_SET_PIPE_SIZE: Final = 1031  # F_SETPIPE_SZ of linux/fcntl.h, for Pythons that do not name it


class SecondProcessError(Exception):
    """The second process found a block that it cannot decode, or died: load the file again without it."""


class Keys(msgspec.Struct):
    """What the child's codes mean, and what does not come in columns."""

    names: list[str]
    categories: list[str]
    threads: list[tuple[int | str, int | str]]
    texts: dict[str, list[bytes]]
    thread_names: list[tuple[int | str, int | str, str]]
    process_labels: list[tuple[int | str, str]]
    process_names: list[tuple[int | str, str]]
    total: int
    dropped: int


class SecondProcess:
    """The child, seen from the process that loads the file. Use as a context manager: it ends with the block."""

    def __init__(self, extra: Sequence[str], keys: Sequence[str]) -> None:
        code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
        self._child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._to: IO[bytes] = self._child.stdin
        self._from: IO[bytes] = self._child.stdout
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.fcntl(self._to, getattr(fcntl, "F_SETPIPE_SZ", _SET_PIPE_SIZE), PIPE_BYTES)
        self._waiting = 1  # answers still to come: the first says that the child has started
        self._send(msgspec.msgpack.encode((list(extra), list(keys))))

    def __enter__(self) -> SecondProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self._child.kill()
        for pipe in (self._to, self._from):
            with contextlib.suppress(OSError):
                pipe.close()
        self._child.wait()

    def ready(self) -> bool:
        """True when it has at most one block still to decode; never waits itself.

        The block it is not decoding yet waits in the pipe, so that it never waits while we decode one of ours.
        """
        if self._waiting and select.select([self._from], [], [], 0)[0]:
            self._take_answers()
        return self._waiting < MOST_BLOCKS

    def decode(self, block: bytes) -> None:
        """Hand over a block, a JSON list of events; call only when ready."""
        self._waiting += 1
        self._send(block)

    def finish(self, builder: ColumnBuilder, order: Sequence[tuple[bool, int]]) -> None:
        """Take the child's columns into `builder`, whose own rows and the child's become one file again.

        order: for each block in file order, whether the child decoded it, and the number of its rows when we did.
        """
        while self._waiting:
            self._take_answers()
        self._send(b"")
        keys = msgspec.msgpack.decode(self._receive(), type=Keys)
        counts = self._array(np.int64).tolist()
        theirs_rows = iter(counts)
        runs = [(child, next(theirs_rows) if child else rows) for child, rows in order]
        # our code for each of the child's: an array to look its codes up in
        codes = {
            "name": coded(builder.names, keys.names),
            "category": coded(builder.categories, keys.categories),
            "thread": coded(builder.threads, keys.threads),
            **{column: coded(builder.texts[column], texts) for column, texts in keys.texts.items()},
        }
        rows = sum(counts)
        for column in list(builder.parts):
            theirs = self._array(np.int32 if column in codes else np.int64, rows)
            ours = builder.take(column)
            if column in codes:
                theirs = codes[column][theirs]
            elif column in NARROWED:
                ours, theirs = of_one_width([ours, theirs])
            builder.parts[column] = [_merged(ours, theirs, runs)]
        launched = self._array(np.int64).reshape(-1, 2)
        launched[:, 1] = codes["thread"][launched[:, 1]]  # id, thread: the thread is a code
        builder.launched.append(launched)
        for kept in builder.flows.values():
            links = self._array(np.int64).reshape(-1, 3)
            links[:, 1] = codes["thread"][links[:, 1]]  # id, thread, time
            kept.append(links)
        builder.thread_names.update({(pid, tid): name for pid, tid, name in keys.thread_names})
        builder.process_labels.update(dict(keys.process_labels))
        builder.process_names.update(dict(keys.process_names))
        builder.total += keys.total
        builder.dropped += keys.dropped

    def _send(self, data: bytes) -> None:
        try:
            self._to.write(len(data).to_bytes(LENGTH_BYTES, "little"))
            self._to.write(data)
            self._to.flush()
        except OSError as error:
            raise SecondProcessError from error

    def _take_answers(self) -> None:
        answers = os.read(self._from.fileno(), self._waiting)
        if answers.strip(OK) or not answers:
            raise SecondProcessError
        self._waiting -= len(answers)

    def _receive(self) -> bytes:
        return bytes(_read(self._from, int.from_bytes(_read(self._from, LENGTH_BYTES), "little")))

    def _array(self, dtype: type, rows: int = 0) -> npt.NDArray[Any]:
        """The next array; of so many rows, if that is known, whose integers may be narrower."""
        data = _read(self._from, int.from_bytes(_read(self._from, LENGTH_BYTES), "little"))
        return np.frombuffer(data, f"i{len(data) // rows}" if rows else dtype)


def _read(pipe: IO[bytes], size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    filled = 0
    while filled < size:
        got = os.readv(pipe.fileno(), [view[filled:]])
        if not got:
            raise SecondProcessError
        filled += got
    return data


def _merged(ours: npt.NDArray[Any], theirs: npt.NDArray[Any], runs: Sequence[tuple[bool, int]]) -> npt.NDArray[Any]:
    """The rows of both in file order; what we decoded after the last run comes last.

    runs: of each block, whether the child decoded it, and its number of rows.
    """
    taken = {True: 0, False: 0}
    parts = []
    for child, rows in runs:
        at = taken[child]
        parts.append((theirs if child else ours)[at : at + rows])
        taken[child] += rows
    return np.concatenate([*parts, ours[taken[False] :]])


def main() -> None:
    """The child: decode blocks from standard input until an empty one, then write the columns."""
    source, target = sys.stdin.buffer, sys.stdout.buffer

    def receive() -> bytearray:
        return _read(source, int.from_bytes(_read(source, LENGTH_BYTES), "little"))

    def send(data: bytes | memoryview) -> None:
        target.write(len(data).to_bytes(LENGTH_BYTES, "little"))
        target.write(data)

    with contextlib.suppress(SecondProcessError, BrokenPipeError):
        extra, keys = msgspec.msgpack.decode(bytes(receive()))
        stream = EventStream(extra, keys)
        counts: list[int] = []
        os.write(target.fileno(), OK)  # past the buffer
        while block := receive():
            before = stream.builder.rows
            # begins and ends are matched by one process
            if not stream.decode(memoryview(block)) or stream.builder.halves:
                os.write(target.fileno(), MALFORMED)
                return
            counts.append(stream.builder.rows - before)
            os.write(target.fileno(), OK)
        for part in _result(stream.builder, counts):
            send(part)
        target.flush()


def _result(builder: ColumnBuilder, counts: list[int]) -> Any:
    """Everything the parent takes in `finish`, in that order, one column at a time."""
    yield msgspec.msgpack.encode(
        Keys(
            names=list(builder.names),
            categories=list(builder.categories),
            threads=list(builder.threads),
            texts={column: list(codes) for column, codes in builder.texts.items()},
            thread_names=[(pid, tid, name) for (pid, tid), name in builder.thread_names.items()],
            process_labels=list(builder.process_labels.items()),
            process_names=list(builder.process_names.items()),
            total=builder.total,
            dropped=builder.dropped,
        )
    )
    yield _bytes(np.array(counts, dtype=np.int64))
    for column in [*PLAIN, *INTEGERS, *builder.texts]:
        yield _bytes(builder.take(column))
    yield _bytes(np.concatenate([np.zeros((0, 2), np.int64), *builder.launched]))
    for kept in builder.flows.values():
        yield _bytes(np.concatenate([np.zeros((0, 3), np.int64), *kept]))


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
