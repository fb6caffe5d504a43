"""Which rank each of several traces is of (files, a folder or a dict in; rank and file out)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from profiler_kit.errors import InputError
from profiler_kit.formats.run_record import MASKS, RECORD, TRACE
from profiler_kit.load.discover.runs import TRACE_SUFFIXES

Paths = Mapping[int, str | Path] | Sequence[str | Path] | str | Path

_NAMED: Final = re.compile(r"rank[-_. ]?(\d{1,6})(?!\d)", re.IGNORECASE)
_NOT_TRACES: Final = (RECORD, MASKS)


def rank_files(paths: Paths) -> list[tuple[int | None, Path]]:
    """(rank, file) of each trace; the rank is None where the file must say it.

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
        raise InputError(f"{paths}: found no trace, want one file per rank that ends in {' or '.join(TRACE_SUFFIXES)}.")
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
    """The rank to file `path` under, noted in `found`; the only file may say none and is rank 0 then.

    Raises InputError when one of several says no rank, or two say the same one.
    """
    if rank is None:
        if files > 1:
            raise InputError(
                f"{path}: says no rank (no distributedInfo, no rank in its name), want to know it of each of {files} "
                "traces. Name the files rank0.json.gz and so on, or give a dict {rank: path}."
            )
        rank = 0
    if rank in found:
        raise InputError(
            f"{path}: says it is rank {rank}, and so does {found[rank]}, want one trace per rank. "
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
