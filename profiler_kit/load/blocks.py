"""Read a trace file as decompressed blocks: a path in, bytes out, gzip told by its magic and not by its name."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from isal import igzip, isal_zlib

from profiler_kit.progress import Report, silent

BLOCK_BYTES: Final = 4 << 20
GZIP_MAGIC: Final = b"\x1f\x8b"
_CUT_OFF: Final = (EOFError, zlib.error, isal_zlib.IsalError, igzip.BadGzipFile)


class Blocks:
    """Blocks of a plain or gzipped file.

    `cut_off` is set once the compressed data ends early or is corrupt; what could be inflated before that point
    has been given out by then. Memory stays at one block.
    """

    def __init__(self, path: Path, *, report: Report = silent) -> None:
        self.path = path
        self.cut_off = False
        self._report = report

    def __iter__(self) -> Iterator[bytes]:
        total = self.path.stat().st_size
        with self.path.open("rb") as raw:
            packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            blocks = self._inflated(raw) if packed else iter(lambda: raw.read(BLOCK_BYTES), b"")
            for block in blocks:
                yield block
                self._report(raw.tell(), total)

    def _inflated(self, raw: BinaryIO) -> Iterator[bytes]:
        with igzip.IGzipFile(fileobj=raw) as unpacked:  # type: ignore[no-untyped-call]  # isal has no stubs
            buffer = bytearray(BLOCK_BYTES)
            filled = 0
            while True:
                try:
                    got = unpacked.readinto1(memoryview(buffer)[filled:])  # readinto1 keeps what came before an error
                except _CUT_OFF:  # type: ignore[misc]  # isal has no stubs for its errors
                    self.cut_off = True
                    got = 0
                filled += got
                if filled == BLOCK_BYTES or (not got and filled):
                    yield bytes(memoryview(buffer)[:filled])
                    filled = 0
                if not got:
                    return


def first_bytes(path: Path, size: int) -> bytes:
    """The first `size` bytes of the file, inflated when it is gzipped; fewer when there are no more."""
    blocks = Blocks(path)
    head = io.BytesIO()
    for block in blocks:
        head.write(block)
        if head.tell() >= size:
            break
    return head.getvalue()[:size]
