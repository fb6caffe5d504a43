"""Find the files of a job: what may be the trace of a rank, in a folder, below it, or in an object store.

A folder holds traces, run folders, or folders of nodes that hold them. Nothing is opened: what a file is, is told when
it is read. Addresses such as s3://bucket/job are listed through fsspec.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from profiler_kit.errors import InputError, OptionError
from profiler_kit.files import PACKED, temporary_folder
from profiler_kit.formats.run_record import GRAPH_TRACE, MEMORY_TRACE, RECORD, TRACE
from profiler_kit.load.discover.jobs import Paths, head_metadata, no_trace, rank_of
from profiler_kit.load.discover.runs import OWN, TRACE_SUFFIXES, is_own, part_file
from profiler_kit.load.job_folder import DEPTH, STORE_SUFFIX

_ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_LOOKED_AT: Final = 16  # traces whose beginning is read to tell whether they are of a job
_NO_RANKS: Final = (
    *OWN,
    *(part.removesuffix(".gz") + packed for part in (MEMORY_TRACE, GRAPH_TRACE) for packed in ("", *PACKED)),
)
_CHANGES: Final = ("ETag", "etag", "md5Hash", "Content-MD5", "mtime", "LastModified", "Last-Modified", "last_modified",
                   "updated", "created")  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A file that may be the trace of a rank.

    where: its path or address. name: below the job's folder, as UTF-8. stamp: changes when the file does, empty where
    it cannot be had. mtime_ns: 0 where the stamp says all. rank: as the caller says, else None.
    """

    where: str
    name: str
    size_bytes: int
    stamp: str
    mtime_ns: int = 0
    rank: int | None = None


@dataclass(frozen=True)
class Job:
    """The folder of a job, or what the files that were named have in common, and its files by name.

    named: the files were named one by one: none of them may be left out.
    """

    folder: str
    sources: tuple[Source, ...]
    named: bool


def is_address(path: object) -> bool:
    """Whether it is an address such as s3://bucket/job, and not a path of this machine."""
    return bool(_ADDRESS.match(str(path)))


def find_job(paths: Paths) -> Job:
    """The files of a job; paths: {rank: trace}, several traces, one, or a folder (or its address).

    Raises InputError when there is no file, OptionError when an address is of a kind that is not installed.
    """
    if isinstance(paths, str | Path) and is_address(paths):
        job = _of_address(str(paths).rstrip("/"))
    elif isinstance(paths, str | Path) and Path(paths).is_dir():
        folder = Path(paths).resolve()
        shown = Path(paths)  # files are named as the user spells the folder
        found = (shown / path.relative_to(folder) for path in _walk(folder, DEPTH))
        job = Job(str(folder), tuple(_local(path, path.relative_to(shown).as_posix(), None) for path in found), False)
    else:
        job = _named(paths)
    if not job.sources:
        raise no_trace(paths)
    return Job(job.folder, tuple(sorted(job.sources, key=lambda one: (one.rank or 0, one.name))), job.named)


def holds_a_job(path: Path) -> bool:
    """Whether it is a folder, and no run's own, in which two traces say that they are of different ranks."""
    if not os.path.isdir(path) or part_file(path, TRACE) is not None:  # noqa: PTH112 - unlike Path.is_dir, says no to a name that is too long
        return False
    seen = set()
    for file in itertools.islice(_walk(path.resolve(), DEPTH), _LOOKED_AT):
        seen.add(rank_of(head_metadata(file), file))
        if len(seen - {None}) > 1:
            return True
    return False


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    """The traces of a folder and of those below it; of a run folder its trace alone."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # no permission, or gone
        return
    trace = part_file(folder, TRACE)
    if trace is not None and any(entry.name == RECORD for entry in entries):
        yield trace
        return
    for entry in entries:
        if entry.name.startswith(".") or entry.name in _NO_RANKS:
            continue
        if entry.name.endswith(TRACE_SUFFIXES) and not entry.is_dir():
            path = Path(entry.path)
            if not is_own(path):
                yield path
        elif depth and not entry.name.endswith(STORE_SUFFIX) and entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), depth - 1)


def _named(paths: Paths) -> Job:
    if isinstance(paths, Mapping):
        given: list[tuple[int | None, str | Path]] = [*sorted(paths.items())]
    else:
        given = [(None, path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not given:
        return Job("", (), True)
    whole = [str(path) if is_address(path) else os.path.abspath(path) for _, path in given]  # noqa: PTH100 - keeps links
    folder = os.path.commonpath([os.path.dirname(path) for path in whole])  # noqa: PTH120 - of addresses too
    folder = re.sub(r"^([a-z][\w+.-]*):/(?!/)", r"\1://", folder)
    sources = []
    for (rank, path), full in zip(given, whole, strict=True):
        name = full[len(folder) :].lstrip("/")
        sources.append(_remote(full, name, rank) if is_address(full) else _local(Path(path), name, rank))
    return Job(folder, tuple(sources), True)


def _local(path: Path, name: str, rank: int | None) -> Source:
    name = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    try:
        found = path.stat()
    except (OSError, ValueError):  # missing, or no name of a file: reading it says what is wrong
        return Source(str(path), name, 0, "", 0, rank)
    return Source(str(path), name, found.st_size, f"{found.st_size} {found.st_mtime_ns}", found.st_mtime_ns, rank)


# ---- addresses


def file_system(address: str) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it.

    Raises OptionError when its kind is not known or what it needs is not installed.
    """
    import fsspec

    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        kind = address.partition("://")[0]
        raise OptionError(
            f"{address}: {kind}:// cannot be read ({error}), expected a folder or an address that fsspec knows. "
            f"Install what it needs: pip install 'fsspec[{kind}]'"
        ) from error
    return found


def _of_address(address: str) -> Job:
    files, path = file_system(address)
    with reached(address):
        if files.isdir(path) or not path.endswith(TRACE_SUFFIXES):
            listed = files.find(path, maxdepth=DEPTH + 1, withdirs=False, detail=True)
            where = {name: str(files.unstrip_protocol(name)) for name in listed}
            start = len(str(files.unstrip_protocol(path)).rstrip("/")) + 1
            kept = {name: full[start:] for name, full in where.items() if _may_be_trace(full[start:])}
            found = [_of_info(where[name], below, listed[name], files, name) for name, below in kept.items()]
            return Job(address, tuple(found), False)
    return Job(address.rpartition("/")[0], (_remote(address, address.rpartition("/")[2], None),), True)


def _may_be_trace(name: str) -> bool:
    *folders, last = name.split("/")
    hidden = any(part.startswith(".") or part.endswith(STORE_SUFFIX) for part in folders)
    return not hidden and last.endswith(TRACE_SUFFIXES) and last not in _NO_RANKS and last[0] != "."


def _remote(address: str, name: str, rank: int | None) -> Source:
    files, path = file_system(address)
    try:
        with reached(address):
            found = _of_info(address, name, {}, files, path)
    except InputError:  # reading it says so
        return Source(address, name, 0, "", 0, rank)
    return Source(address, name, found.size_bytes, found.stamp, 0, rank)


def _of_info(address: str, name: str, info: Mapping[str, Any], files: Any, path: str) -> Source:
    if info.get("size") is None:  # a listing over HTTP names files and says no more
        info = files.info(path)
    size = info.get("size")
    changed = [str(info[key]) for key in _CHANGES if info.get(key)]
    return Source(address, name, size or 0, " ".join([str(size), *changed]) if changed else "", 0)


@contextlib.contextmanager
def reached(address: str) -> Iterator[None]:
    """Turn what a file system raises into an InputError of one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{address}: cannot be reached ({what[:200]}), expected a folder or a file that can be read. "
            "Check the address, and who may read it."
        ) from error


@contextlib.contextmanager
def local_copy(source: Source) -> Iterator[Path]:
    """The file of a source on this machine: itself, or a copy that is gone afterwards.

    Raises InputError when it cannot be fetched.
    """
    if not is_address(source.where):
        yield Path(source.where)
        return
    files, path = file_system(source.where)
    with temporary_folder() as folder:
        file = folder / source.name.rpartition("/")[2]
        with reached(source.where), files.open(path, "rb") as far, file.open("wb") as near:
            shutil.copyfileobj(far, near, 1 << 20)
        yield file
