"""Find the rank of each trace of a job, and which runs form a job: folders that hold one trace per rank."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from profiler_kit.errors import InputError
from profiler_kit.formats.run_record import MASKS, RECORD, TRACE
from profiler_kit.load.discover.runs import TRACE_SUFFIXES, RunFolder
from profiler_kit.load.trace.decompress import first_bytes

Paths = Mapping[int, str | Path] | Sequence[str | Path] | str | Path

_NAMED: Final = re.compile(r"rank[-_. ]?(\d{1,6})(?!\d)", re.IGNORECASE)
_NOT_TRACES: Final = (RECORD, MASKS)
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
        raise InputError(
            f"{paths}: found no trace, expected one file per rank that ends in {', '.join(TRACE_SUFFIXES)}."
        )
    return found


def rank_of(metadata: Mapping[str, Any], path: Path) -> int | None:
    """The rank a trace says it is of: `distributedInfo`, else "rank3" in the name of the file or of its folder."""
    info = metadata.get("distributedInfo")
    rank = info.get("rank") if isinstance(info, dict) else None
    if isinstance(rank, int) and not isinstance(rank, bool) and rank >= 0:
        return rank
    for name in (path.name, path.parent.name):
        named = _NAMED.search(name)
        if named:
            return int(named[1])
    return None


def add_rank(found: dict[int, Path], rank: int | None, path: Path, files: int) -> int:
    """Note in `found` which file is of which rank, and return the rank; an only file that says none is rank 0.

    Raises InputError when one of several says no rank, or two say the same one.
    """
    if rank is None:
        if files > 1:
            raise InputError(
                f"{path}: says no rank (no distributedInfo, no rank in its name), expected one from each of {files} "
                "traces. Name the files rank0.json.gz and so on, or give a dict {rank: path}."
            )
        rank = 0
    if rank in found:
        raise InputError(
            f"{path}: says it is rank {rank}, and so does {found[rank]}, expected one trace per rank. "
            "Leave one out, or give a dict {rank: path}."
        )
    found[rank] = path
    return rank


def folder_traces(folder: Path) -> list[Path]:
    """The traces of a folder by name: those right in it, else those of the run folders right below it."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.name.endswith(TRACE_SUFFIXES)
        and path.name not in _NOT_TRACES
        and path.name[0] != "."
        and path.is_file()
    )
    return files or sorted(path for path in folder.glob(f"[!.]*/{TRACE}") if path.is_file())


@dataclass(frozen=True)
class Job:
    """The traces of one folder that each say another rank. name: of the folder, as runs show it."""

    key: str
    name: str
    ranks: tuple[tuple[int, Path], ...]


def find_jobs(runs: Iterable[RunFolder]) -> list[Job]:
    """Every folder in which two traces or more say which rank they are of, no two the same one; by name.

    Only the head of each trace is read, and only where a folder holds several. Traces that say nothing are left out.
    """
    folders: dict[Path, list[tuple[RunFolder, Path]]] = {}
    for run in runs:
        if run.trace is not None:
            folders.setdefault(run.path.parent, []).append((run, run.trace))
    jobs = []
    for folder, held in folders.items():
        said = [(rank_of(head_metadata(trace), trace), run, trace) for run, trace in held if len(held) > 1]
        ranks = {rank: (run, trace) for rank, run, trace in said if rank is not None}
        if len(ranks) < 2 or len(ranks) < sum(rank is not None for rank, _, _ in said):
            continue
        first, _ = ranks[min(ranks)]
        name = first.label.rsplit("/", 1)[0] if "/" in first.label else folder.name
        key = first.key.rsplit("/", 1)[0] if "/" in first.key else "."
        jobs.append(Job(key, name, tuple((rank, trace) for rank, (_, trace) in sorted(ranks.items()))))
    return sorted(jobs, key=lambda job: job.name)


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
