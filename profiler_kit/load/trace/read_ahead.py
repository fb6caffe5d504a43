"""Unpack the next blocks of a file in a thread, while the caller works on those before; unpacking holds no lock."""

from __future__ import annotations

import threading
from collections.abc import Generator
from queue import Empty, SimpleQueue
from typing import Final

from profiler_kit.load.trace.decompress import Blocks

MOST_BLOCKS: Final = 6  # unpacked and not yet taken
WAIT_S: Final = 0.1  # a report, which may end the work, is never later than that


class _EndedError(Exception):
    """Nobody wants more blocks."""


class BlocksAhead(Blocks):
    """As Blocks; what its report raises still ends the work of both threads. Close the iterator, or use it up."""

    def __iter__(self) -> Generator[bytes, None, None]:
        blocks: SimpleQueue[bytes | BaseException | None] = SimpleQueue()
        places: SimpleQueue[None] = SimpleQueue()
        ended = threading.Event()

        def note_progress(done: float, total: float, note: str = "") -> None:
            if ended.is_set():
                raise _EndedError
            self._said = done, total

        inner = Blocks(self.path, report=note_progress)

        def unpack() -> None:
            try:
                for block in inner:
                    places.get()
                    blocks.put(block)
                blocks.put(None)
            except BaseException as error:
                blocks.put(error)

        thread = threading.Thread(target=unpack, name="unpack", daemon=True)
        thread.start()
        try:
            for _ in range(MOST_BLOCKS):
                places.put(None)
            while True:
                try:
                    block = blocks.get(timeout=WAIT_S)
                except Empty:
                    self._report(*self._said)
                    continue
                self.packing, self.utf16, self.cut_off = inner.packing, inner.utf16, inner.cut_off
                if isinstance(block, BaseException):
                    raise block
                self._report(*self._said)
                if block is None:
                    return
                yield block
                places.put(None)
        finally:
            ended.set()
            places.put(None)
            thread.join()
