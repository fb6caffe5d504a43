"""Find the jobs among runs: folders that hold one trace per rank (RunFolder in, ranks and their files out)."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from profiler_kit.load.discover.rank_files import rank_of
from profiler_kit.load.discover.runs import RunFolder

_HEAD_BYTES: Final = 256 << 10  # torch writes distributedInfo before the events; on-demand traces write it after
_INFO: Final = re.compile(r'"distributedInfo"\s*:\s*(\{)')


@dataclass(frozen=True)
class Job:
    """The traces of one folder that each say another rank. name: of the folder, as runs show it."""

    key: str
    name: str
    ranks: tuple[tuple[int, Path], ...]


def find_jobs(runs: Iterable[RunFolder]) -> list[Job]:
    """Every folder in which two traces or more say which rank they are of, no two the same one; by name.

    Only the head of each trace is read, and only where a folder holds several. A trace that says nothing is left out.
    """
    folders: dict[Path, list[RunFolder]] = {}
    for run in runs:
        if run.trace is not None:
            folders.setdefault(run.path.parent, []).append(run)
    jobs = []
    for folder, held in folders.items():
        if len(held) < 2:
            continue
        ranks: dict[int, list[RunFolder]] = {}
        for run in held:
            rank = rank_of(head_metadata(run.trace), run.trace) if run.trace else None
            if rank is not None and run.trace is not None:
                ranks.setdefault(rank, []).append(run)
        if len(ranks) < 2 or any(len(mine) > 1 for mine in ranks.values()):
            continue
        first = ranks[min(ranks)][0]
        name = first.label.rsplit("/", 1)[0] if "/" in first.label else folder.name
        key = first.key.rsplit("/", 1)[0] if "/" in first.key else "."
        traces = tuple((rank, mine[0].trace) for rank, mine in sorted(ranks.items()) if mine[0].trace is not None)
        jobs.append(Job(key, name, traces))
    return sorted(jobs, key=lambda job: job.name)


def head_metadata(path: Path | None) -> dict[str, object]:
    """{"distributedInfo": ...} when the beginning of a trace holds it, else {}; never raises over what is in a file."""
    if path is None:
        return {}
    try:
        with path.open("rb") as handle:
            packed = handle.read(_HEAD_BYTES)
        text = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(packed) if packed[:2] == b"\x1f\x8b" else packed
    except (OSError, zlib.error, gzip.BadGzipFile):
        return {}
    head = text[:_HEAD_BYTES].decode("utf-8", "replace")
    found = _INFO.search(head)
    if found is None:
        return {}
    try:
        info, _ = json.JSONDecoder().raw_decode(head, found.start(1))
    except ValueError:
        return {}
    return {"distributedInfo": info}
