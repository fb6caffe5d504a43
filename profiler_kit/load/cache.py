"""Keep what was loaded in files, so that it comes back at once: the one cache for traces, snapshots, timelines, facts.

A file belongs to one source file and one choice of arguments. It is used only while the source's size, times and inode
and the code that made it are what they were. It is never trusted (checksums prove it) and never needed: where it cannot
be read or written, the source is loaded again. Each Kind says what is kept and how it is packed.

Environment: PROFILER_KIT_CACHE names the folder ($XDG_CACHE_HOME/profiler_kit or ~/.cache/profiler_kit otherwise),
empty switches the cache off. PROFILER_KIT_CACHE_LIMIT is the most it may hold ("5GB", the default; also KB, MB, TB
and plain bytes); the files that were not used for longest go first.

Format: a prefix (MAGIC, length and CRC-32 of the head, CRC-32 of the rest), the head in msgpack (stamp, place of each
array, and the value with a number in the place of each), then the arrays, each from a multiple of 64 bytes on and in
its own dtype. So those of a large file are its pages, which the system has in memory after it was written or read
once: memory of this process is taken only for what is written to. A file is never changed, only replaced by another.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import math
import os
import re
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Generic, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from isal import isal_zlib

from profiler_kit.errors import KitError, OptionError
from profiler_kit.files import SETTLED_NS, whole_file
from profiler_kit.load.integers import narrowest, resized

T = TypeVar("T")
Array = npt.NDArray[Any]

FOLDER_VARIABLE: Final = "PROFILER_KIT_CACHE"
LIMIT_VARIABLE: Final = "PROFILER_KIT_CACHE_LIMIT"
DEFAULT_LIMIT_BYTES: Final = 5 * 10**9
MAGIC: Final = b"profiler_kit 3\n\0"  # raise the number when the meaning of what is written changes

_PREFIX: Final = struct.Struct("<16sQII")
_ALIGN: Final = 64
MAPPED_BYTES: Final = 8 << 20  # smaller files are read: a mapped one holds a file descriptor
_ARRAY: Final = 1  # msgpack's extension type for the number of an array
_ENTRY: Final = re.compile(r"[0-9a-f]{32}\.[a-z]+")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
GRACE_S: Final = 0.5  # that a process which ends waits for a file to be written
_writers: Final[dict[Path, _Writer]] = {}
_ended: Final = threading.Event()
_WRITING: Final = threading.Lock()  # an unfinished file is named after its process, which may have several threads


class NotOurs(Exception):
    """The file is damaged, of another version, or made from another state of its source."""


class Unpackable(Exception):
    """A value of a kind that a cache file cannot hold, or no time is left to write it."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One kind of content.

    name: the suffix of its files. code: the files of the package that make it (as patterns); when one changes, old
    files are ignored. pack gives what is stored, of the type `stored`; unpack makes the value of it, for a source file.
    mapped: the arrays stay in the file until they are touched, and are not checked.
    """

    name: str
    stored: Any
    code: tuple[str, ...]
    pack: Callable[[T], Any]
    unpack: Callable[[Any, Path], T]
    mapped: bool = False


@dataclass(frozen=True)
class Entry(Generic[T]):
    """The cache file of one source, whether it exists or not, and the stamp that must be in it."""

    kind: Kind[T]
    file: Path
    source: Path
    stamp: dict[str, Any]
    found_ns: int = field(compare=False)

    @property
    def settled(self) -> bool:
        """Whether a further change of the source would show in its times."""
        return bool(self.stamp["mtime_ns"] < self.found_ns - SETTLED_NS)


class Pieces:
    """An array that may be larger than memory: `make` gives its pieces, none wider than `stored`, when it is written.

    Not a dataclass, which msgspec would write as a record.
    """

    def __init__(
        self, stored: np.dtype[Any], dtype: npt.DTypeLike, rows: int, make: Callable[[], Iterator[Array]]
    ) -> None:
        self.stored, self.dtype, self.shape, self.make = stored, np.dtype(dtype), (rows,), make


def load(entry: Entry[T] | None, make: Callable[[], T]) -> T:
    """What the cache file holds; without one what `make` gives, which a thread then keeps while the caller goes on.

    Not for kinds that are mapped, whose value comes back from the file. Before anybody else may write to the arrays of
    the value, `seal`.
    A process that ends does not wait for that thread for long: the file is written whole or not at all.
    """
    found = read(entry)
    if found is not None:
        return found
    value = make()
    if entry is not None and entry.settled:
        _end_with_process()
        writer = _Writer(entry, value)
        writer.start()
        _writers[entry.file] = writer
    return value


class _Writer(threading.Thread):
    """Keeps a value. summed: the checksum of its arrays is known, or there will be no file."""

    def __init__(self, entry: Entry[Any], value: object) -> None:
        super().__init__(name="cache", daemon=True)
        self.entry, self.value, self.summed = entry, value, threading.Event()

    def run(self) -> None:
        try:
            keep(self.entry, self.value, self.summed.set)
        finally:
            self.summed.set()


def seal(file: Path | None = None) -> None:
    """Wait until what threads write to files, or to that one, is known by its checksum.

    What is written to the arrays from then on makes a file that does not agree with its checksum, and is never used.
    """
    for writer in [*_writers.values()] if file is None else filter(None, [_writers.get(file)]):
        writer.summed.wait()


def finish(file: Path | None = None, wait_s: float | None = None) -> None:
    """Wait until the threads that keep files have done so, or the one of that file."""
    for key, writer in [*_writers.items()] if file is None else [(file, _writers.get(file))]:
        if writer is not None:
            writer.join(wait_s)
            if not writer.is_alive():
                _writers.pop(key, None)


@functools.cache
def _end_with_process() -> None:
    atexit.register(_give_up)


def _give_up() -> None:
    finish(wait_s=GRACE_S)
    _ended.set()
    finish()


def read(entry: Entry[T] | None) -> T | None:
    """What the cache file holds; None unless it can be used."""
    if entry is not None:
        finish(entry.file)
        with contextlib.suppress(NotOurs, OSError, KitError):
            value = entry.kind.unpack(read_file(entry.file, entry.kind, entry.stamp), entry.source)
            touch(entry.file)
            return value
    return None


def keep(entry: Entry[T] | None, value: T, summed: Callable[[], object] = lambda: None) -> T:
    """Write the cache file, whole or not at all, unless the source changed meanwhile or may still change.

    summed: as of write_file. Returns the value; a mapped one stays in the file, so that its pages are the system's, not
    this process's.
    """
    if entry is None or not entry.settled or find(entry.kind, entry.source, entry.stamp["arguments"]) != entry:
        return value
    try:
        with whole_entry(entry.file) as temporary:
            write_file(temporary, entry.kind, entry.stamp, value, summed)
        make_room(entry.file.parent, limit_bytes(), spare=entry.file if entry.kind.mapped else None)
    except (OSError, KitError, Unpackable):
        return value
    mapped = read(entry) if entry.kind.mapped else None
    return value if mapped is None else mapped


def find(kind: Kind[T], source: Path, arguments: Sequence[str] = ()) -> Entry[T] | None:
    """The cache file of a source, existing or not; None when the cache is off or the source cannot be read.

    Raises OptionError when PROFILER_KIT_CACHE_LIMIT is not a size.
    """
    folder = cache_folder()
    if limit_bytes() == 0 or folder is None:
        return None
    try:
        resolved = source.resolve()
        found = resolved.stat()
    except OSError:
        return None
    path = os.fsencode(resolved)
    stamp = {
        "path": path,
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,  # changes also when a file is copied with its times
        "inode": found.st_ino,
        "arguments": list(arguments),
        "code": code_of(kind.code),
    }
    key = hashlib.sha256(b"\0".join([path, *map(os.fsencode, arguments)])).hexdigest()[:32]
    return Entry(kind, folder / f"{key}.{kind.name}", source, stamp, time.time_ns())


@functools.cache
def code_of(patterns: tuple[str, ...]) -> str:
    """A digest of the code in these files of the package, different for every version."""
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for file in sorted({file for pattern in ("load/*.py", *patterns) for file in package.glob(pattern)}):
        code.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return code.hexdigest()[:16]


def cache_folder() -> Path | None:
    """The folder of cache files; None when the cache is switched off, or there is no home to put it in."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen.strip() else None
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        root = Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return root / "profiler_kit"


def limit_bytes() -> int:
    """The most bytes the cache may hold; raises OptionError when PROFILER_KIT_CACHE_LIMIT is not a size."""
    chosen = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not chosen:
        return DEFAULT_LIMIT_BYTES
    found = _SIZE.fullmatch(chosen)
    if found is None:
        raise OptionError(
            f"{LIMIT_VARIABLE}={chosen}: not a size, expected a number with KB, MB, GB or TB. Try: {LIMIT_VARIABLE}=5GB"
        )
    return int(float(found[1]) * _UNITS[found[2].upper()])


def make_room(folder: Path, limit: int, spare: Path | None = None) -> None:
    """Remove the cache files not used for longest until `limit` bytes are kept.

    Removes only what is named as cache files are (of any version), and never `spare`. Stores of ranks are folders.
    """
    entries = []
    for item in os.scandir(folder):
        with contextlib.suppress(OSError):
            if _ENTRY.fullmatch(item.name):
                found, path = item.stat(follow_symlinks=False), Path(item.path)
                inside = path.rglob("*") if item.is_dir(follow_symlinks=False) else ()
                entries.append((found.st_mtime_ns, found.st_size + sum(one.stat().st_size for one in inside), path))
    held = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if held > limit and path != spare:
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                held -= size


@contextlib.contextmanager
def whole_entry(file: Path) -> Iterator[Path]:
    """As files.whole_file, for a file in the cache folder, which only its owner may read.

    Nobody may write to it: where another process has it mapped, it would read what is written, or end with SIGBUS.
    """
    with _WRITING:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole_file(file) as temporary:
            yield temporary
            temporary.chmod(0o400)


def touch(file: Path) -> None:
    """Note that a cache file has just been used."""
    with contextlib.suppress(OSError):
        os.utime(file)


class _Place(msgspec.Struct, array_like=True):
    """One array: the dtype it is stored in, the one it had, and where it begins after the head."""

    stored: str
    dtype: str
    shape: tuple[int, ...]
    start: int


class _Head(msgspec.Struct):
    kind: str
    stamp: dict[str, Any]
    arrays: list[_Place]
    size: int
    value: msgspec.Raw


def write_file(
    file: Path, kind: Kind[T], stamp: Mapping[str, Any], value: T, summed: Callable[[], object] = lambda: None
) -> None:
    """Write a value; `stamp` must be given again to read it. Raises Unpackable, and OSError.

    summed: called once the checksum of the arrays is known, before the first of them is written.
    """
    arrays: list[Array | Pieces] = []

    def aside(one: Any) -> Any:
        """Store an array apart and put its number into the value."""
        if isinstance(one, Path):
            return os.fsencode(one)
        if not isinstance(one, Pieces) and not (isinstance(one, np.ndarray) and one.dtype.kind in "biuf"):
            raise TypeError(f"{type(one).__name__} {getattr(one, 'dtype', '')}".strip())
        arrays.append(one)
        return msgspec.msgpack.Ext(_ARRAY, (len(arrays) - 1).to_bytes(4, "little"))

    try:
        tree = msgspec.Raw(msgspec.msgpack.encode(kind.pack(value), enc_hook=aside))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Unpackable(str(error)) from error
    places, end = [], 0
    for one in arrays:
        stored = one.stored if isinstance(one, Pieces) else one.dtype
        if isinstance(one, np.ndarray) and stored.kind == "i" and not any(one.strides) and not kind.mapped:
            stored = narrowest(one)  # one value all along, as where all are missing, is read without memory
        places.append(_Place(stored.str, one.dtype.str, one.shape, end))
        end += _padded(math.prod(one.shape) * stored.itemsize)
    head = msgspec.msgpack.encode(_Head(kind.name, dict(stamp), places, end, tree))
    checksum = 0
    once = any(isinstance(one, Pieces) for one in arrays)  # these are made for the file, and nobody else has them
    if not once:
        for data in _padded_bytes(arrays, places, _PREFIX.size + len(head)):
            checksum = isal_zlib.crc32(data, checksum)
    summed()
    with file.open("wb") as out:
        out.write(bytes(_PREFIX.size) + head)
        for data in _padded_bytes(arrays, places, _PREFIX.size + len(head)):
            if _ended.is_set():
                raise Unpackable("the process ends")
            out.write(data)
            checksum = isal_zlib.crc32(data, checksum) if once else checksum
        out.seek(0)
        out.write(_PREFIX.pack(MAGIC, len(head), isal_zlib.crc32(head), checksum))


def _padded_bytes(
    arrays: Sequence[Array | Pieces], places: Sequence[_Place], size: int
) -> Iterator[bytes | memoryview]:
    """Zeros up to where the arrays begin, `size` bytes having been written, then each array and zeros behind it."""
    yield bytes(_padded(size) - size)
    for one, place in zip(arrays, places, strict=True):
        size = 0
        for piece in one.make() if isinstance(one, Pieces) else (one,):
            stored = resized(piece, place.stored) if piece.dtype.kind == "i" else piece
            yield np.ascontiguousarray(stored).reshape(-1).view(np.uint8).data
            size += stored.nbytes
        yield bytes(_padded(size) - size)


def read_file(file: Path, kind: Kind[T], stamp: Mapping[str, Any], *, mapped: bool = False) -> Any:
    """What write_file was given, packed.

    mapped: the arrays stay in the file, and signed integers in the width they are stored in: memory stays small.

    Raises NotOurs when the file is damaged, of another format, or made with another stamp, and OSError when it
    cannot be read at all.
    """
    with file.open("rb") as source:
        try:
            head, size, sum_of_rest = _read_head(source, kind, stamp)
            stays = mapped or kind.mapped
            if stays or head.size >= MAPPED_BYTES:
                mode: Literal["r", "c"] = "r" if stays else "c"  # may be written to, but not in the file
                whole = np.asarray(np.memmap(source, np.uint8, mode))
            else:
                source.seek(0)
                whole = np.fromfile(source, np.uint8)
            if not kind.mapped and isal_zlib.crc32(whole[size:]) != sum_of_rest:
                raise NotOurs("an array is damaged")
            arrays = [_array(whole[_padded(size) :], place, mapped=stays) for place in head.arrays]

            def put_back(_: int, number: memoryview) -> Array:
                return arrays[int.from_bytes(number, "little")]

            return msgspec.msgpack.decode(head.value, type=kind.stored, ext_hook=put_back, dec_hook=_known)
        except (struct.error, msgspec.MsgspecError, ValueError, TypeError, IndexError, RecursionError) as error:
            raise NotOurs(str(error)) from error


def _read_head(source: IO[bytes], kind: Kind[T], stamp: Mapping[str, Any]) -> tuple[_Head, int, int]:
    """The head, where it ends, and the checksum of what follows; raises NotOurs unless everything fits."""
    file_bytes = os.fstat(source.fileno()).st_size
    magic, size, head_sum, sum_of_rest = _PREFIX.unpack(source.read(_PREFIX.size))
    if magic != MAGIC or size > file_bytes:
        raise NotOurs("another format")
    text = source.read(size)
    if isal_zlib.crc32(text) != head_sum:
        raise NotOurs("the head is damaged")
    head = msgspec.msgpack.decode(text, type=_Head)
    start = _padded(_PREFIX.size + size)
    if head.kind != kind.name or head.stamp != stamp or file_bytes != start + head.size:
        raise NotOurs("made from another file, or cut off")
    return head, source.tell(), sum_of_rest


def _array(data: Array, place: _Place, *, mapped: bool) -> Array:
    """One array of those in `data`, a view of its bytes; unless mapped, in the dtype it had."""
    stored = np.dtype(place.stored)
    size = math.prod(place.shape) * stored.itemsize
    view = data[place.start : place.start + size].view(stored).reshape(place.shape)
    return view if mapped else resized(view, place.dtype)


def _known(wanted: type, found: Any) -> Any:
    """msgspec asks for what it does not know: paths, and arrays that have been put back already."""
    return Path(os.fsdecode(found)) if wanted is Path else found


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN
