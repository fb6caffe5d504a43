"""Load a trace once: a path in, the same ChromeTrace out, from a cache file when the trace has been loaded before.

A cache file belongs to one resolved path and one choice of arguments; it is used only while the trace's size, times
and inode, the loader's own code and the cache's format are what they were. It is never trusted (parquet.py proves
it) and never needed: where it cannot be read or written, the trace is loaded from its JSON.

Environment: PROFILER_KIT_CACHE names the folder ($XDG_CACHE_HOME/profiler_kit or ~/.cache/profiler_kit otherwise),
empty switches the cache off. PROFILER_KIT_CACHE_LIMIT is the most it may hold ("5GB", the default; also KB, MB, TB
and plain bytes); the files not used for longest go first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import re
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from profiler_kit.errors import InputError, KitError, OptionError
from profiler_kit.files import require_file, whole_file
from profiler_kit.load.cache.file_facts import FileFacts, read_file_facts
from profiler_kit.load.cache.parquet import NotOurs, Unpackable, read_trace, read_tree, write_trace
from profiler_kit.load.trace.blocks import GZIP_MAGIC
from profiler_kit.load.trace.chrome import HINT, ChromeTrace, read_chrome_trace
from profiler_kit.load.trace.spill import spill_chrome_trace
from profiler_kit.progress import Report, silent

FOLDER_VARIABLE: Final = "PROFILER_KIT_CACHE"
LIMIT_VARIABLE: Final = "PROFILER_KIT_CACHE_LIMIT"
DEFAULT_LIMIT_BYTES: Final = 5 * 10**9
# Below this much JSON a load takes less time than anybody notices (benchmarks/cache.py), and is not kept.
SMALLEST_JSON_BYTES: Final = 16 << 20
USUAL_RATIO: Final = 12  # of gzip on a Kineto trace
SETTLED_NS: Final = 2 * 10**9  # FAT tells times apart no better; a file younger than this may change unseen
STALE_S: Final = 24 * 3600.0  # an unfinished file this old has no writer any more

# Events, the drawing index of timeline_store.py, and what the file is.
_ENTRY: Final = re.compile(r"[0-9a-f]{32}\.(parquet|timeline|facts)")
_UNFINISHED: Final = re.compile(r"\.tmp-\d+-[0-9a-f]{32}\.(parquet|timeline|facts)")
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
WRITING: Final = threading.Lock()  # unfinished files are named after the process


@dataclass(frozen=True)
class Spilled:
    """A trace whose events lie in a Parquet file: `trace` has everything but the arrays with one element per event."""

    file: Path
    trace: ChromeTrace


@dataclass(frozen=True)
class Entry:
    """Where a trace's cache file is, and what must stand in it."""

    file: Path
    stamp: dict[str, Any]


def load_chrome_trace(path: Path | str, *, arguments: Sequence[str] = (), report: Report = silent) -> ChromeTrace:
    """What read_chrome_trace gives, from the cache when it can; a large trace is kept there afterwards.

    Raises what read_chrome_trace raises, and OptionError when PROFILER_KIT_CACHE_LIMIT is no size.
    """
    file = require_file(path, "a chrome trace", HINT)
    entry = find_entry(file, arguments)
    if entry is None:
        return _read(file, arguments, report)
    with contextlib.suppress(NotOurs, OSError):
        trace = read_trace(entry.file, entry.stamp)
        with contextlib.suppress(OSError):
            os.utime(entry.file)  # used last now
        return dataclasses.replace(trace, path=file)
    began_ns = time.time_ns()
    trace = _read(file, arguments, report)
    if entry.stamp["mtime_ns"] < began_ns - SETTLED_NS and find_entry(file, arguments) == entry:
        keep(entry, trace)
    return trace


def _read(file: Path, arguments: Sequence[str], report: Report) -> ChromeTrace:
    return read_chrome_trace(file, arguments=arguments, report=report)


class _KeptFacts(msgspec.Struct):
    stamp: dict[str, Any]
    facts: FileFacts


def load_file_facts(path: Path | str, *, report: Report = silent) -> FileFacts:
    """What read_file_facts gives, from the cache when it can; those of a large trace are kept there afterwards.

    Raises what read_file_facts raises.
    """
    file = require_file(path, "a chrome trace", HINT)
    entry = find_entry(file)
    if entry is None:
        return read_file_facts(file, report=report)
    place = entry.file.with_suffix(".facts")
    with contextlib.suppress(OSError, ValueError):  # msgspec's errors are ValueErrors
        data = place.read_bytes()
        kept = msgspec.msgpack.decode(data[4:], type=_KeptFacts, dec_hook=_path)
        if kept.stamp == entry.stamp and zlib.crc32(data[4:]) == int.from_bytes(data[:4], "little"):
            os.utime(place)
            return dataclasses.replace(kept.facts, path=file)
    began_ns = time.time_ns()
    facts = read_file_facts(file, report=report)
    if entry.stamp["mtime_ns"] < began_ns - SETTLED_NS and find_entry(file) == entry:
        data = msgspec.msgpack.encode(_KeptFacts(entry.stamp, facts), enc_hook=os.fspath)
        with contextlib.suppress(OSError), WRITING:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with whole_file(place) as temporary:
                temporary.write_bytes(zlib.crc32(data).to_bytes(4, "little") + data)
    return facts


def _path(_wanted: type, found: str) -> Path:
    return Path(found)


@contextlib.contextmanager
def spilled_trace(path: Path | str, *, arguments: Sequence[str] = (), report: Report = silent) -> Iterator[Spilled]:
    """The events of a trace as a Parquet file, made in bounded memory whatever the size of the trace.

    It is the cache's file where there is one or one can be kept; otherwise a temporary file, gone afterwards.

    Raises what read_chrome_trace raises, and InputError when there is no room for the file.
    """
    file = require_file(path, "a chrome trace", HINT)
    entry = find_entry(file, arguments)
    known: ChromeTrace | None = None
    if entry is not None:
        with contextlib.suppress(NotOurs, OSError):
            known = dataclasses.replace(read_tree(entry.file, entry.stamp), path=file)
            os.utime(entry.file)
    if entry is not None and known is not None:
        yield Spilled(entry.file, known)
        return
    settled = entry is not None and entry.stamp["mtime_ns"] < time.time_ns() - SETTLED_NS
    with tempfile.TemporaryDirectory(prefix="profiler_kit-") as folder:
        target = Path(folder) / "events.parquet"
        with contextlib.suppress(OSError):
            if entry is not None and settled:
                entry.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                target = entry.file
        try:
            with WRITING, whole_file(target) as temporary:
                trace = spill_chrome_trace(
                    file, temporary, entry.stamp if entry else {}, arguments=arguments, report=report
                )
        except OSError as error:
            raise InputError(
                f"{file}: its events do not fit into {target.parent} ({error.strerror}), want room for about a tenth "
                f"of the JSON. Name another folder in {FOLDER_VARIABLE}."
            ) from error
        if entry is not None and target == entry.file:
            make_room(target.parent, limit_bytes(), spare=target)
        yield Spilled(target, trace)


def keep(entry: Entry, trace: ChromeTrace) -> bool:
    """Write the cache file, whole or not at all, and make room for it; False when that could not be done."""
    try:
        with WRITING:
            entry.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with whole_file(entry.file) as temporary:
                write_trace(trace, temporary, entry.stamp)
            make_room(entry.file.parent, limit_bytes())
    except (OSError, KitError, Unpackable):
        return False
    return True


def find_entry(file: Path, arguments: Sequence[str] = (), *, smallest: int | None = None) -> Entry | None:
    """Where the cache file of a trace is, there or not; None when the cache is off or the trace too small for it.

    smallest: another size, in bytes of what is inside the file, below which it is too small.
    """
    folder = cache_folder()
    if folder is None or limit_bytes() == 0:
        return None
    try:
        resolved = file.resolve()
        found = resolved.stat()
        with resolved.open("rb") as handle:
            packed = handle.read(2) == GZIP_MAGIC
    except OSError:
        return None
    if found.st_size * (USUAL_RATIO if packed else 1) < (SMALLEST_JSON_BYTES if smallest is None else smallest):
        return None
    stamp = {
        "path": str(resolved),
        "size": found.st_size,
        "mtime_ns": found.st_mtime_ns,
        "ctime_ns": found.st_ctime_ns,  # a copy that keeps mtime and size changes this one
        "inode": found.st_ino,
        "arguments": list(arguments),
        "loader": loader_code(),
    }
    key = b"\0".join([os.fsencode(resolved), *(os.fsencode(name) for name in arguments)])
    return Entry(folder / f"{hashlib.sha256(key).hexdigest()[:32]}.parquet", stamp)


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
    """The most bytes the cache may hold; raises OptionError when PROFILER_KIT_CACHE_LIMIT is no size."""
    chosen = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not chosen:
        return DEFAULT_LIMIT_BYTES
    found = _SIZE.fullmatch(chosen)
    if found is None:
        raise OptionError(
            f"{LIMIT_VARIABLE}={chosen}: this is no size, want a number with KB, MB, GB or TB. "
            f"Try: {LIMIT_VARIABLE}=5GB"
        )
    return int(float(found[1]) * _UNITS[found[2].upper()])


def make_room(folder: Path, limit: int, spare: Path | None = None) -> None:
    """Remove the cache files not used for longest until `limit` bytes are kept; and what killed writers left.

    Touches nothing that is not named as a cache file is, nor `spare`.
    """
    entries = []
    for item in os.scandir(folder):
        if _ENTRY.fullmatch(item.name) or _UNFINISHED.fullmatch(item.name):
            with contextlib.suppress(OSError):
                found = item.stat(follow_symlinks=False)
                if _ENTRY.fullmatch(item.name):
                    entries.append((found.st_mtime_ns, found.st_size, item.path))
                elif found.st_mtime < time.time() - STALE_S:
                    Path(item.path).unlink(missing_ok=True)
    held = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if held <= limit:
            return
        if spare is not None and Path(path) == spare:
            continue
        with contextlib.suppress(OSError):
            Path(path).unlink(missing_ok=True)
            held -= size


@functools.cache
def loader_code() -> str:
    """Tells the loader's code from that of another version, or of the same one being worked on."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return code.hexdigest()[:16]
