"""Find the pickle inside the file that is given as a snapshot, and name what is none.

People pack snapshots (gzip, zstd, xz, bz2), zip them, and save them with torch.save, whose zip archive holds the pickle
as data.pkl. Everything is unpacked in blocks into a file without a name, up to a bound.
"""

from __future__ import annotations

import codecs
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple

from profiler_kit.errors import SnapshotFormatError
from profiler_kit.load.file_kinds import LOOK_BYTES, kind_of
from profiler_kit.load.snapshot.data import HINT, WANTED
from profiler_kit.load.trace.decompress import BLOCK_BYTES, Blocks, first_bytes, packing_of

ZIP_MAGIC: Final = b"PK\x03\x04"
TEXT: Final = f"this is a text file, expected {WANTED} (a pickle). {HINT}"
_TRACE: Final = "For a trace use: profiler-kit summary, regions or kernels."
_JSON: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\[\s*(?:[{\]]|$)|\{\s*(?:[\"}]|$))")
_OLD_TORCH_SAVE: Final = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of a number; others follow
_MEMBERS: Final = ("data.pkl", ".pickle", ".pkl")  # of a zip archive, the first that there is
_CONTROL: Final = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


class Pickle(NamedTuple):
    """An open file that holds a pickle and nothing else. text: whether it reads as text, as old pickles do too."""

    handle: IO[bytes]
    size: int
    text: bool
    torch_save: bool


@contextmanager
def open_pickle(path: Path, most_bytes: int) -> Iterator[Pickle]:
    """The pickle in a file; raises SnapshotFormatError for one that holds none, or more than `most_bytes` unpacked."""
    head = first_bytes(path, LOOK_BYTES)
    with path.open("rb") as plain:
        handle: IO[bytes] = plain
        packing = packing_of(plain.read(LOOK_BYTES))
        packed = f" packed with {packing.name}" if packing else ""
        text = is_text(head)
        _refuse_other_kinds(path, head, packed=packed, text=text and not _may_be_a_pickle(plain, head))
        with tempfile.TemporaryFile() as unpacked, tempfile.TemporaryFile() as member:
            if packed:
                blocks = Blocks(path)
                _fill(unpacked, blocks, path, most_bytes)
                if blocks.cut_off:
                    raise SnapshotFormatError(
                        f"{path}: the packed data end early or are damaged, expected a whole snapshot. Copy it again."
                    )
                handle = unpacked
            torch_save = head.startswith(_OLD_TORCH_SAVE)
            if head.startswith(ZIP_MAGIC):
                torch_save = _unzip(handle, member, path, most_bytes)
                handle = member
            handle.seek(0, 2)
            size = handle.tell()
            handle.seek(0)
            yield Pickle(handle, size, text, torch_save)


def begins_as_json(head: bytes) -> bool:
    """Whether a file begins with an object of JSON, or with a list of them."""
    return _JSON.match(head) is not None


def is_text(head: bytes) -> bool:
    """Whether bytes read as text, without a control character; a letter cut in two at the end does no harm."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(head) and not _CONTROL.intersection(head)


def _may_be_a_pickle(plain: IO[bytes], head: bytes) -> bool:
    """Whether text may be a pickle of the oldest protocol: a dict or a list, or at least a full stop at its end."""
    plain.seek(-1, 2)
    return head.startswith((b"(d", b"(l", b"}", b"]")) or plain.read(1) == b"."


def _refuse_other_kinds(path: Path, head: bytes, *, packed: str, text: bool) -> None:
    kind = kind_of(head)
    if not head:
        found, hint = "nothing when it is unpacked", HINT
    elif begins_as_json(head):
        is_trace = b'"traceEvents"' in head or b'"ph"' in head
        found, hint = f"{'a chrome trace (JSON' if is_trace else 'a text file (JSON'}{packed})", _TRACE
    elif kind is not None and kind.name not in ("pickle", "torch_save", "zip"):
        found, hint = kind.what, HINT if kind.name == "html" else kind.hint
    elif text:
        raise SnapshotFormatError(f"{path}: {TEXT}")
    else:
        return
    raise SnapshotFormatError(f"{path}: this is {found}, expected {WANTED} (a pickle). {hint}")


def _fill(out: IO[bytes], blocks: Iterable[bytes], path: Path, most_bytes: int) -> None:
    left = most_bytes
    for block in blocks:
        left -= len(block)
        if left < 0:
            raise SnapshotFormatError(
                f"{path}: it unpacks to more than {most_bytes >> 20} MiB, expected {WANTED}. "
                "If you trust it, raise the limit with --memory-limit."
            )
        out.write(block)
    out.flush()


def _unzip(handle: IO[bytes], out: IO[bytes], path: Path, most_bytes: int) -> bool:
    """Write the pickle in a zip archive to `out`; whether torch.save made the archive."""
    try:
        with zipfile.ZipFile(handle) as archive:
            members = [one for one in archive.infolist() if not one.flag_bits & 1 and one.compress_type in (0, 8)]
            for ending in _MEMBERS:
                found = [one for one in members if one.filename.endswith(ending)]
                if len(found) == 1:
                    with archive.open(found[0]) as stream:
                        _fill(out, iter(lambda: stream.read(BLOCK_BYTES), b""), path, most_bytes)
                    return ending == _MEMBERS[0]
            names = ", ".join(sorted(one.filename for one in members)[:3]) or "nothing that can be read"
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise SnapshotFormatError(
            f"{path}: this is a damaged zip archive ({error}), expected {WANTED}. Copy it again."
        ) from error
    raise SnapshotFormatError(f"{path}: this is a zip archive without one pickle ({names}), expected {WANTED}. {HINT}")
