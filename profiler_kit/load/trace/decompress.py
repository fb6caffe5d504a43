"""Read a file in blocks, unpacked as often as it was packed: gzip, zstd, xz or bz2, told by the bytes, not by the name.

A trace comes as UTF-8. Snapshots are unpacked here too: a pickle has no byte order mark and passes unchanged.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import io
import itertools
import lzma
import re
import time
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

import zstandard
from isal import isal_zlib

from profiler_kit.progress import Report, silent

BLOCK_BYTES: Final = 512 << 10  # a block and the objects made of it stay in the cache: half the time of 4 MB blocks
READ_BYTES: Final = 1 << 20
MOST_LAYERS: Final = 4
TICK_S: Final = 0.05
USUAL_WINDOW: Final = 128 << 20  # what `zstd -d` and xz -9 need at most
_GZIP_WINDOW: Final = 31  # zlib: a gzip member with the largest window
_GZIP_STEP: Final = 64 << 10  # what a block does not need of its step is copied
_ZSTD_STEP: Final = 1 << 10  # it has no bound for its output, and makes at most 128 kB of four bytes
_HIGHEST_RATIO: Final = 1000  # deflate ends there: what unpacks to more and asks for a large window is not a trace
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_UTF32: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)

Source = Callable[[], Iterator[bytes]]  # gives the bytes anew, from the first one, each time it is called


@dataclass(frozen=True)
class Packing:
    """A way of packing. start, start_careful: unpack one member, fast, or so that no byte before an error is lost.

    usual_ratio: bytes of a Kineto trace that one packed byte makes.
    """

    name: str
    magic: re.Pattern[bytes]
    start: Callable[[], Any]
    start_careful: Callable[[], Any]
    errors: tuple[type[Exception], ...]
    usual_ratio: int
    step_bytes: int = READ_BYTES


class _Zstd:
    """A frame of zstd, with the interface of the other unpackers.

    A window beyond the usual one takes as much memory as the frame has made so far.
    """

    def __init__(self) -> None:
        self._frame = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj(write_size=64 << 10)
        self._taken = self._given = 0
        self._long = False

    @property
    def eof(self) -> bool:
        return self._frame.eof

    @property
    def unused_data(self) -> bytes:
        return self._frame.unused_data

    def decompress(self, data: bytes, _limit: int) -> bytes:
        if not self._taken:
            self._long = zstandard.get_frame_parameters(data.ljust(18, b"\0")).window_size > USUAL_WINDOW
        block = self._frame.decompress(data)
        self._taken, self._given = self._taken + len(data), self._given + len(block)
        if self._long and self._given > USUAL_WINDOW + _HIGHEST_RATIO * self._taken:
            raise zstandard.ZstdError("a window too large for what is in it")
        return block


_isal_error: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stubs are wrong here
_xz = partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, USUAL_WINDOW)
_gzip = partial(zlib.decompressobj, _GZIP_WINDOW)  # isal drops the output of the call that fails
PACKINGS: Final = (
    Packing(
        "gzip",
        re.compile(rb"\x1f\x8b"),
        partial(isal_zlib.decompressobj, wbits=_GZIP_WINDOW),
        _gzip,
        (_isal_error, zlib.error, ValueError),
        usual_ratio=14,
        step_bytes=_GZIP_STEP,
    ),
    Packing(
        "zstd",
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # the latter is a frame to skip
        _Zstd,
        _Zstd,
        (zstandard.ZstdError,),
        usual_ratio=18,
        step_bytes=_ZSTD_STEP,
    ),
    Packing("xz", re.compile(rb"\xfd7zXZ\x00"), _xz, _xz, (lzma.LZMAError,), usual_ratio=22),
    Packing(
        "bz2",
        re.compile(rb"BZh[1-9](?:1AY&SY|\x17\x72\x45\x38\x50\x90)"),
        bz2.BZ2Decompressor,
        bz2.BZ2Decompressor,
        (OSError, ValueError),
        usual_ratio=20,
    ),
)
_MAGIC_BYTES: Final = 10


def packing_of(head: bytes) -> Packing | None:
    """How data that begin like this are packed; None when they are not."""
    return next((packing for packing in PACKINGS if packing.magic.match(head)), None)


class Blocks:
    """Blocks of a file, unpacked.

    packing (the names, outermost first) and utf16 are known after the first block. cut_off is set once packed data end
    early or are corrupt; what could be unpacked before that point has been given out by then. Memory stays at one
    block and the window of each packing.
    """

    def __init__(self, path: Path, *, report: Report = silent) -> None:
        self.path = path
        self.packing: tuple[str, ...] = ()
        self.utf16 = self.cut_off = False
        self._report = report
        self._said: tuple[float, float] = (0, 0)
        self._said_at = 0.0

    def __iter__(self) -> Generator[bytes, None, None]:
        total = self.path.stat().st_size
        with self.path.open("rb") as raw:
            head, source = _peeked(partial(_read, raw))
            while (packing := packing_of(head)) and len(self.packing) < MOST_LAYERS:
                self.packing += (packing.name,)
                head, source = _peeked(partial(_of_block_size, partial(self._unpacked, packing, source)))
            self.utf16 = _is_utf16(head)
            for block in as_utf8(source()):
                self._said = raw.tell(), total
                self._report(*self._said)
                if block:
                    yield block

    def tick(self) -> None:
        """Report again, some 20 times a second at most: long work on one block calls it, and can be stopped so."""
        now = time.monotonic()
        if now - self._said_at > TICK_S:
            self._said_at = now
            self._report(*self._said)

    def _unpacked(self, packing: Packing, source: Source) -> Iterator[bytes]:
        """Blocks of what was packed; empty ones say that the work goes on."""
        taken = given = 0
        try:
            for place, block in _members(packing, packing.start, _steps(source(), packing.step_bytes)):
                taken, given = place, given + len(block)
                yield block
        except EOFError:
            self.cut_off = True
        except packing.errors as error:
            if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of bz2
                raise
            self.cut_off = True
            with contextlib.suppress(EOFError, *packing.errors):
                # again up to there, then byte by byte to the very one that breaks it
                steps = _steps(source(), packing.step_bytes, careful_from=taken)
                for _, block in _members(packing, packing.start_careful, steps):
                    yield block[given:]
                    given = max(0, given - len(block))


def _read(raw: BinaryIO) -> Iterator[bytes]:
    raw.seek(0)
    return iter(lambda: raw.read(BLOCK_BYTES), b"")


def _peeked(source: Source) -> tuple[bytes, Source]:
    """How a stream begins, and the source whose first stream is that one, whole: nothing is unpacked twice."""
    blocks, taken, head = source(), [], b""
    for block in blocks:
        taken.append(block)
        head += block
        if len(head) >= _MAGIC_BYTES:
            break
    started = [itertools.chain(taken, blocks)]
    return head, lambda: started.pop() if started else source()


def _of_block_size(source: Source) -> Iterator[bytes]:
    """The same bytes in blocks that are neither large nor very small; empty blocks stay."""
    held = bytearray()
    for block in source():
        if not block or (not held and BLOCK_BYTES // 4 <= len(block) <= BLOCK_BYTES):  # no copy is made of most
            yield block
            continue
        held += block
        if len(held) >= BLOCK_BYTES // 4:
            for at in range(0, len(held), BLOCK_BYTES):
                yield bytes(held[at : at + BLOCK_BYTES])
            held.clear()
    yield bytes(held)


def _steps(chunks: Iterator[bytes], size: int, careful_from: int | None = None) -> Iterator[bytes]:
    """The chunks in pieces of at most `size` bytes, and from that place on in single bytes."""
    place = 0
    for chunk in chunks:
        at = 0
        while at < len(chunk):
            careful = careful_from is not None and place >= careful_from
            # in the rerun pieces end where they ended before, so that `careful_from` is the end of one
            piece = chunk[at : at + (1 if careful else size)]
            at, place = at + len(piece), place + len(piece)
            yield piece


def _members(packing: Packing, start: Callable[[], Any], steps: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Blocks of member after member, each with how many packed bytes the step it came from begins after.

    What follows the last member (padding, junk) is ignored. Raises EOFError when a member is not whole.
    """
    member = None
    packed = b""
    read = before = 0
    for step in itertools.chain(steps, [b""]):
        before, read = read, read + len(step)
        packed += step
        while packed or member is not None:
            if member is None:
                packed = packed.lstrip(b"\0")
                if step and len(packed) < _MAGIC_BYTES:
                    break
                if not packing.magic.match(packed):
                    return
                member = start()
            block = member.decompress(packed, BLOCK_BYTES)
            packed = member.unused_data if member.eof else getattr(member, "unconsumed_tail", b"")
            yield before, block
            if member.eof:
                member = None
            elif not packed and len(block) < BLOCK_BYTES:
                break
    if member is not None:
        raise EOFError


def _is_utf16(head: bytes) -> bool:
    return head.startswith(_UTF16) and not head.startswith(_UTF32)


def as_utf8(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The stream as UTF-8, when a byte order mark says that it is UTF-16 (PowerShell's `>` writes such files)."""
    decoder: codecs.IncrementalDecoder | None = None
    first = True
    for block in blocks:
        if first and block:
            if _is_utf16(block):
                decoder = codecs.getincrementaldecoder("utf-16")("replace")
            first = False
        yield block if decoder is None else decoder.decode(block).encode("utf-8", "replace")


def text_bytes_about(path: Path) -> int:
    """How much JSON a file holds: its size, or what such packed files usually make of so much; raises OSError."""
    with path.open("rb") as handle:
        packing = packing_of(handle.read(_MAGIC_BYTES))
    return path.stat().st_size * (packing.usual_ratio if packing else 1)


def packed_as(path: Path) -> tuple[str, ...]:
    """The names of what packed a file, outermost first."""
    blocks = Blocks(path)
    next(iter(blocks), None)
    return blocks.packing


def first_bytes(path: Path, size: int) -> bytes:
    """The first `size` bytes of the file, unpacked when it is packed; fewer when there are no more."""
    blocks = Blocks(path)
    head = io.BytesIO()
    for block in blocks:
        head.write(block)
        if head.tell() >= size:
            break
    return head.getvalue()[:size]
