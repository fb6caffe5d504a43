"""Find the rank of each trace of a job, and which runs form a job: folders that hold one trace per rank."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from profiler_kit.errors import InputError, KitError
from profiler_kit.files import version_of
from profiler_kit.formats.run_record import GRAPH_TRACE, MEMORY, TRACE
from profiler_kit.load.discover.runs import TRACE_SUFFIXES, RunFolder, is_own, part_file
from profiler_kit.load.snapshot.reader import SNAPSHOT_SUFFIXES
from profiler_kit.load.trace.decompress import first_bytes


class _Told(Protocol):
    @property
    def metadata(self) -> Mapping[str, Any]: ...


Loaded = TypeVar("Loaded", bound=_Told)
Paths = Mapping[int, str | Path] | Sequence[str | Path] | str | Path

_NAMED: Final = re.compile(r"(local|node)?[-_. ]?rank[-_. ]?(\d{1,6})(?!\d)", re.IGNORECASE)
_HEAD_BYTES: Final = 256 << 10  # torch writes distributedInfo before the events; on-demand traces write it after
_INFO: Final = re.compile(rb'"distributedInfo"\s*:\s*(\{)')


def rank_files(paths: Paths) -> list[tuple[int | None, Path]]:
    """(rank, file) of each trace; the rank is None where only the file says it.

    paths: {rank: trace}, several traces, one trace, or a folder: its traces, or the run folders right below it.
    Raises InputError when there is no trace.
    """
    if isinstance(paths, Mapping):
        found: list[tuple[int | None, Path]] = [(rank, Path(path)) for rank, path in sorted(paths.items())]
    elif isinstance(paths, str | Path) and Path(paths).is_dir():
        found = [(None, path) for path in folder_traces(Path(paths))]
    else:
        found = [(None, Path(path)) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    if not found:
        raise no_trace(paths)
    return found


def no_trace(paths: object) -> InputError:
    """What is wrong with a job without a trace."""
    return InputError(
        f"{paths}: found no trace, expected one file per rank that ends in {', '.join(TRACE_SUFFIXES)}. "
        'Record one on each rank: profiler_runner(f"job/rank{rank}.json.gz")'
    )


def rank_of(metadata: Mapping[str, Any], path: Path) -> int | None:
    """The rank a trace says it is of: `distributedInfo`, else "rank3" in the name of the file or of its folder."""
    info = metadata.get("distributedInfo")
    rank = info.get("rank") if isinstance(info, dict) else None
    if isinstance(rank, int) and not isinstance(rank, bool) and rank >= 0:
        return rank
    for name in (path.name, path.parent.name):
        if named := ranks_in(name):
            return named[0][1]
    return None


def ranks_in(name: str) -> list[tuple[bool, int]]:
    """The ranks that a file's name says, and whether each is that of a node or within one; these come last."""
    return sorted(((bool(one[1]), int(one[2])) for one in _NAMED.finditer(name)), key=lambda one: one[0])


def says_no_rank(path: Path | str, files: int) -> str:
    """Why a trace that does not say its rank is left out."""
    return (
        f"{path}: says no rank (no distributedInfo, no rank in its name), expected one from each of {files} "
        "traces. Name the files rank0.json.gz and so on, or give a dict {rank: path}."
    )


def says_the_same(path: Path | str, rank: int, other: Path | str) -> str:
    """Why the second trace of a rank is left out."""
    return (
        f"{path}: says it is rank {rank}, and so does {other}, expected one trace per rank. "
        "Leave one out, or give a dict {rank: path}."
    )


def add_rank(found: dict[int, Path], rank: int | None, path: Path, files: int) -> int:
    """Note in `found` which file is of which rank, and return the rank; an only file that says none is rank 0.

    Raises InputError when one of several says no rank, or two say the same one.
    """
    if rank is None:
        if files > 1:
            raise InputError(says_no_rank(path, files))
        rank = 0
    if rank in found:
        raise InputError(says_the_same(path, rank, found[rank]))
    found[rank] = path
    return rank


def load_each(
    paths: Paths, load: Callable[[Path], Loaded], *, skip_broken: bool = False
) -> tuple[dict[int, Loaded], list[KitError]]:
    """What `load` makes of the trace of each rank, lowest first, and why files were left out.

    Left out is what is not a rank of its own in a folder that holds two or more, and with skip_broken what cannot be
    read. Raises InputError when there is none, one is missing, or a rank is not known or not its own, and what `load`
    raises.
    """
    files, seen = rank_files(paths), dict[int, Path]()
    of_folder = isinstance(paths, str | Path) and Path(paths).is_dir()
    found: dict[int, Loaded] = {}
    errors: list[KitError] = []
    for rank, path in files:
        try:
            trace = load(path)
        except KitError as error:
            if not (skip_broken or of_folder):
                raise
            errors.append(error)
            continue
        known = rank_of(trace.metadata, path) if rank is None else rank
        try:
            found[add_rank(seen, known, path, len(files))] = trace
        except InputError as error:
            if not of_folder:
                raise
            errors.append(error)
    if errors and len(found) < 2 and not skip_broken:
        raise errors[0]
    return dict(sorted(found.items())), errors


def left_out(error: KitError) -> str:
    """The line on a file that is not among the ranks."""
    return f"left out: {error}"


def folder_traces(folder: Path) -> list[Path]:
    """The traces of a folder by name: those right in it, else those of the run folders right below it."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(TRACE_SUFFIXES) and not is_own(path) and path.name[0] != "." and path.is_file()
    )
    below = (part_file(path, TRACE) for path in sorted(folder.glob("[!.]*")))
    return files or [path for path in below if path is not None]


def rank_snapshots(traces: Mapping[int, Path]) -> dict[int, Path]:
    """The memory snapshot of each rank that has one: in the run folder of its trace, or beside it with its rank in the
    name.
    """
    beside: dict[Path, dict[int, Path]] = {}
    for folder in {path.parent for path in traces.values()}:
        files = (path for path in folder.iterdir() if path.name.endswith(SNAPSHOT_SUFFIXES)) if folder.is_dir() else ()
        named = ((ranks_in(path.name), path) for path in sorted(files))
        beside[folder] = {ranks[0][1]: path for ranks, path in named if ranks}
    found = {
        rank: (part_file(path.parent, MEMORY) if path.name == TRACE else None) or beside[path.parent].get(rank)
        for rank, path in traces.items()
    }
    return {rank: path for rank, path in found.items() if path is not None}


def files_of_captures(trace: Path, given: Iterable[Path]) -> list[Path]:
    """The traces that may hold the captures of a trace's CUDA graphs: those given, and that of its run folder."""
    files = [file for path in given for file in (folder_traces(path) if path.is_dir() else [path])]
    beside = part_file(trace.parent, GRAPH_TRACE) if trace.name == TRACE else None
    return [file for file in dict.fromkeys([*files, *filter(None, [beside])]) if file != trace]


@dataclass(frozen=True)
class Job:
    """The traces of one folder that each say another rank. name: of the folder, as runs show it.

    problems: a line for each trace that says a rank which another one has already.
    """

    key: str
    name: str
    ranks: tuple[tuple[int, Path], ...]
    problems: tuple[str, ...] = ()


def find_jobs(runs: Iterable[RunFolder]) -> list[Job]:
    """Every folder in which two traces or more say which rank they are of, or whose folders are of nodes; by name.

    Only the head of each trace is read, and only where a folder holds several. Traces that say nothing are left out;
    of two that say the same rank the first by name counts.
    """
    folders: dict[Path, list[tuple[RunFolder, Path]]] = {}
    for run in runs:
        if run.trace is not None:
            folders.setdefault(run.path.parent, []).append((run, run.trace))
    beside: dict[Path, list[Path]] = {}
    for folder in folders:
        beside.setdefault(folder.parent, []).append(folder)
    for parent, parts in beside.items():
        if parent not in folders and _are_nodes([[trace for _, trace in folders[part]] for part in parts]):
            folders[parent] = [one for part in parts for one in folders.pop(part)]
    jobs = []
    for folder, held in folders.items():
        ranks: dict[int, Path] = {}
        problems = []
        for _, trace in sorted(held, key=lambda one: one[1]) if len(held) > 1 else ():
            rank, _ = _told_in_head(trace, *version_of(trace))
            try:
                if rank is not None:
                    add_rank(ranks, rank, trace, len(held))
            except InputError as error:
                problems.append(left_out(error))
        if len(ranks) < 2:
            continue
        name, key = (
            posixpath.commonpath(texts) for texts in zip(*((one.label, one.key) for one, _ in held), strict=True)
        )
        jobs.append(Job(key or ".", name or folder.name, tuple(sorted(ranks.items())), tuple(problems)))
    return sorted(jobs, key=lambda job: job.name)


def _are_nodes(folders: Sequence[Sequence[Path]]) -> bool:
    """Whether folders hold different ranks of one job: each says that it has more ranks than are in it."""
    ranks: list[int | None] = []
    sizes = set()
    for traces in folders if len(folders) > 1 else ():
        for trace in traces:
            rank, size = _told_in_head(trace, *version_of(trace))
            if size <= len(traces):
                return False
            ranks.append(rank)
            sizes.add(size)
    return len(sizes) == 1 and None not in ranks and len(set(ranks)) == len(ranks) <= max(sizes)


@lru_cache(1 << 14)
def _told_in_head(path: Path, mtime_ns: int, size_bytes: int) -> tuple[int | None, int]:
    """The rank that the beginning of a file says, and of how many (0 where it does not); as the file is now, since
    pages ask again and again.
    """
    told = head_metadata(path)
    info = told.get("distributedInfo")
    size = info.get("world_size") if isinstance(info, dict) else None
    return rank_of(told, path), size if type(size) is int else 0


def head_metadata(path: Path) -> dict[str, object]:
    """{"distributedInfo": ...} when the beginning of a trace holds it, else {}; raises nothing, whatever the file."""
    try:
        head = first_bytes(path, _HEAD_BYTES)
        found = _INFO.search(head)
        if found is None:
            return {}
        info, _ = json.JSONDecoder().raw_decode(head[found.start(1) :].decode("utf-8", "replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return {"distributedInfo": info}
