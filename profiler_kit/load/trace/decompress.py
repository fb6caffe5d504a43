"""Read a trace file in blocks of decompressed UTF-8. Its first bytes tell gzip, not its name."""

from __future__ import annotations

import codecs
import contextlib
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from isal import isal_zlib

from profiler_kit.progress import Report, silent

BLOCK_BYTES: Final = 512 << 10  # a block and the objects made of it stay in the cache: half the time of 4 MB blocks
READ_BYTES: Final = 1 << 20
CAREFUL_BYTES: Final = 1 << 10
GZIP_MAGIC: Final = b"\x1f\x8b"
USUAL_RATIO: Final = 14  # of gzip on a Kineto trace
GZIP_WINDOW: Final = 31  # zlib: a gzip member with the largest window
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CorruptData: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stubs are wrong here


class Blocks:
    """Blocks of a plain or gzipped file.

    packed and utf16 are known after the first block. cut_off is set once the compressed data ends early or is corrupt;
    what could be inflated before that point has been given out by then. Memory stays at one block.
    """

    def __init__(self, path: Path, *, report: Report = silent) -> None:
        self.path = path
        self.packed = self.utf16 = self.cut_off = False
        self._report = report

    def __iter__(self) -> Iterator[bytes]:
        total = self.path.stat().st_size
        with self.path.open("rb") as raw:
            self.packed = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            blocks = self._inflated(raw) if self.packed else iter(lambda: raw.read(BLOCK_BYTES), b"")
            first = next(blocks, b"")
            self.utf16 = first.startswith(_UTF16)
            for block in as_utf8(itertools.chain([first] if first else [], blocks)):
                yield block
                self._report(raw.tell(), total)

    def _inflated(self, raw: BinaryIO) -> Iterator[bytes]:
        """Inflate member after member; what follows the last one (zero padding, junk) is ignored."""
        member = None
        packed = b""
        given = 0
        while True:
            packed = packed or raw.read(READ_BYTES)
            if not packed:
                self.cut_off = member is not None
                return
            if member is None:
                if not packed.startswith(GZIP_MAGIC):
                    return
                member = isal_zlib.decompressobj(wbits=GZIP_WINDOW)
            try:
                block = member.decompress(packed, BLOCK_BYTES)
            except (CorruptData, ValueError):
                self.cut_off = True
                raw.seek(0)
                yield from _inflated_up_to_the_error(raw, given)
                return
            if block:
                given += len(block)
                yield block
            packed = member.unused_data if member.eof else member.unconsumed_tail
            if member.eof:
                member = None


def _inflated_up_to_the_error(raw: BinaryIO, skip: int) -> Iterator[bytes]:
    """Inflate a corrupt file again to the very byte that breaks it, without its first `skip` bytes.

    isal drops the output of the call that fails; zlib can be copied before each small step.
    """
    member = zlib.decompressobj(GZIP_WINDOW)
    while packed := raw.read(CAREFUL_BYTES):
        while packed:
            before = member.copy()
            try:
                block = member.decompress(packed)
            except zlib.error:
                block = b""
                with contextlib.suppress(zlib.error):
                    for at in range(len(packed)):
                        block += before.decompress(packed[at : at + 1])
                yield block[skip:]
                return
            packed = member.unused_data
            if member.eof:
                member = zlib.decompressobj(GZIP_WINDOW)
            yield block[skip:]
            skip = max(0, skip - len(block))


def as_utf8(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The stream as UTF-8, when a byte order mark says that it is UTF-16 (PowerShell's `>` writes such files)."""
    decoder: codecs.IncrementalDecoder | None = None
    first = True
    for block in blocks:
        if first and block.startswith(_UTF16):
            decoder = codecs.getincrementaldecoder("utf-16")("replace")
        first = False
        yield block if decoder is None else decoder.decode(block).encode("utf-8", "replace")


def text_bytes_about(path: Path) -> int:
    """How much JSON a file holds: its size, or what gzip usually makes of so much; raises OSError."""
    with path.open("rb") as handle:
        packed = handle.read(2) == GZIP_MAGIC
    return path.stat().st_size * (USUAL_RATIO if packed else 1)


def first_bytes(path: Path, size: int) -> bytes:
    """The first `size` bytes of the file, inflated when it is gzipped; fewer when there are no more."""
    blocks = Blocks(path)
    head = io.BytesIO()
    for block in blocks:
        head.write(block)
        if head.tell() >= size:
            break
    return head.getvalue()[:size]
