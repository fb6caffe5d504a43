"""Scan blocks of a trace in two threads, while the caller cuts the next ones and joins what was made of those before.

Cuts are guessed then: a block that a scanner does not take is the caller's, in its turn, together with all text after
it when that was cut otherwise.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from queue import SimpleQueue
from types import TracebackType
from typing import Final, NamedTuple

from profiler_kit.load.trace.native import Scanner

CHUNK_BYTES: Final = 1 << 20  # scanned by one thread in a millisecond or two
THREADS: Final = 2
MOST_CHUNKS: Final = 3  # scanned and not yet joined


class Cut(NamedTuple):
    """A block of whole events as a JSON list, its place, and what was pending behind it.

    fed: what had come since the cut before.
    """

    block: bytes
    offset: int
    rest: bytes
    fed: list[bytes]


@dataclass
class Chunk:
    """Blocks that follow each other; taken: of each, the events that are the decoder's, and how many are of no use.

    exact: of the scanner when it began.
    """

    cuts: list[Cut] = field(default_factory=list)
    size: int = 0
    exact: bool = False
    scanner: Scanner | None = None
    taken: list[tuple[list[bytes], int]] = field(default_factory=list)
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)


class ScanAhead:
    """Chunks are taken back in the order in which they were given."""

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._spare: list[Scanner] = []
        self._todo: SimpleQueue[Chunk | None] = SimpleQueue()
        self._ended = False
        self._given: deque[Chunk] = deque()
        self._open = Chunk()
        self._threads = [threading.Thread(target=self._scan, name="scan", daemon=True) for _ in range(THREADS)]

    def __enter__(self) -> ScanAhead:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = True
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def give(self, cut: Cut, *, exact: bool) -> Chunk | None:
        """Have a block scanned; return a chunk that is to be joined now, if there are many."""
        self._open.cuts.append(cut)
        self._open.size += len(cut.block)
        if self._open.size < CHUNK_BYTES:
            return None
        self._start(exact=exact)
        return self._next() if len(self._given) == MOST_CHUNKS else None

    def rest(self, *, exact: bool) -> Chunk | None:
        """The next of the chunks that were given, until there are none."""
        if self._open.cuts:
            self._start(exact=exact)
        return self._next() if self._given else None

    def _start(self, *, exact: bool) -> None:
        chunk, self._open = self._open, Chunk()
        chunk.scanner = self._spare.pop() if self._spare else self._scanner.another()
        chunk.scanner.exact = chunk.exact = exact
        self._given.append(chunk)
        self._todo.put(chunk)

    def _next(self) -> Chunk:
        chunk = self._given.popleft()
        chunk.done.wait()
        if chunk.error is not None:
            raise chunk.error
        return chunk

    def join(self, chunk: Chunk, *, exact: bool) -> int:
        """Add the rows of a chunk to those of the caller's scanner; return how many of its blocks were taken."""
        assert chunk.scanner is not None
        if exact and not chunk.exact and chunk.scanner.fine:
            chunk.taken.clear()  # its times are to be read as decimals
            return 0
        self._scanner.join(chunk.scanner)
        self._spare.append(chunk.scanner)
        return len(chunk.taken)

    def _scan(self) -> None:
        while (chunk := self._todo.get()) is not None and not self._ended:
            assert chunk.scanner is not None
            try:
                for cut in chunk.cuts:
                    metadata = chunk.scanner.take(cut.block)
                    if metadata is None or self._ended:
                        break
                    chunk.taken.append((metadata, chunk.scanner.useless))
            except BaseException as error:
                chunk.error = error
            chunk.done.set()
