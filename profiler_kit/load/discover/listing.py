"""List the runs of a folder with what is known of each without loading it, the newest first, and whether it is whole.

Of a file the beginning and the end are looked at, of a small packed one all of it; a large packed one is not judged.
"""

from __future__ import annotations

import functools
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from profiler_kit.files import version_of
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.load.discover.jobs import Job, find_jobs
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.load.trace.decompress import Blocks
from profiler_kit.schema import Column, Schema
from profiler_kit.units import NS_PER_S

if TYPE_CHECKING:
    import pandas as pd

RUN_LIST: Final = Schema(
    "RUN_LIST",
    "run of the folder, or job of several ranks, the newest first",
    {
        "run": Column("str", "Its folder below the one that is served, or the file where that is all there is."),
        "recorded": Column("str", "Day and time in UTC: of run.json, else when its newest file was written."),
        "model": Column("str", "What ran, as run.json says."),
        "optimizations": Column("str", "In the order they were applied, as run.json says.", "with", "room"),
        "device": Column("str", "Name of the device: of run.json, else of the trace's first one.", unit="text"),
        "holds": Column("str", "What there is of it: trace, memory, layers, requests; of a job how many ranks."),
        "latency_ns": Column("float64", "Median of the timed batches, without the profiler."),
        "rate": Column("float64", "Batch size over that median: images, or what it counts, a second.", "per s"),
        "peak_bytes": Column(
            "Int64", "Highest memory allocated during the timed batches; on a CPU that of the snapshot.", "peak"
        ),
        "health": Column("str", "Whether its files are whole, as far as their beginning and end tell."),
        "key": Column("str", "What the addresses of its pages call it.", show="never"),
    },
)
PARTS: Final = ("trace", "memory", "layers", "requests")
_JOB: Final = "job:"  # no key of a run holds a colon
WHOLE, UNKNOWN = "whole", "not looked at"
_LOOK_BYTES: Final = 2 << 20  # a packed file up to here is unpacked to its end: some 20 ms
_END_BYTES: Final = 64
_STARTS: Final = {"trace": (b"{", b"["), "memory": (b"\x80", b"PK"), "layers": (b"PAR1",), "requests": (b"PAR1",)}
_ENDS: Final = {"trace": (b"}", b"]"), "memory": (b".",), "layers": (b"PAR1",), "requests": (b"PAR1",)}
_DEVICE: Final = re.compile(rb'"deviceProperties"\s*:\s*\[\s*\{[^{}\[\]]{0,200}?"name"\s*:\s*"([^"\\]{1,80})"')


def run_list(runs: Iterable[RunFolder], *, each_rank: bool = False) -> pd.DataFrame:
    """RUN_LIST of these runs: the ranks of a job are one row, with `each_rank` each has one too, below its job's."""
    every = list(runs)
    jobs = find_jobs(every)
    job_of = {trace: job for job in jobs for _, trace in job.ranks}
    held: dict[str, list[RunFolder]] = {job.key: [] for job in jobs}
    rows: list[tuple[datetime, str, list[dict[str, object]]]] = []
    for run in every:
        job = job_of.get(run.trace) if run.trace is not None else None
        if job is not None:
            held[job.key].append(run)
        else:
            rows.append((recorded_at(run), run.label.casefold(), [_row(run)]))
    for job in jobs:
        number = {trace: rank for rank, trace in job.ranks}
        members = sorted(held[job.key], key=lambda run: number[run.trace] if run.trace is not None else 0)
        listed = [_row(run) for run in members]
        newest = max(map(recorded_at, members))
        rows.append((newest, job.name.casefold(), [_job_row(job, newest, listed), *(listed if each_rank else [])]))
    rows.sort(key=lambda row: (-row[0].timestamp(), row[1]))
    return RUN_LIST.of([row for _, _, listed in rows for row in listed])


def job_listed(key: str) -> str | None:
    """The key of the job whose row has that key; None for the row of a run."""
    return key.removeprefix(_JOB) if key.startswith(_JOB) else None


def _job_row(job: Job, newest: datetime, ranks: list[dict[str, object]]) -> dict[str, object]:
    """The row of a job: what all its ranks have alike, and how many of them are not whole."""

    def alike(column: str) -> object:
        values = list(dict.fromkeys(row[column] for row in ranks))
        return values[0] if len(values) == 1 else ""

    wrong = Counter(str(row["health"]) for row in ranks)
    whole = wrong.pop(WHOLE, 0)
    told = "; ".join(f"{count} of {len(ranks)}: {what}" for what, count in wrong.items())
    return {
        "run": job.name,
        "recorded": f"{newest:%Y-%m-%d %H:%M}",
        **{column: alike(column) for column in ("model", "optimizations", "device")},
        "holds": f"{len(ranks)} ranks",
        "latency_ns": float("nan"),
        "rate": float("nan"),
        "peak_bytes": None,
        "health": WHOLE if whole == len(ranks) else UNKNOWN if wrong.get(UNKNOWN) == len(ranks) else told,
        "key": _JOB + job.key,
    }


def recorded_at(run: RunFolder) -> datetime:
    """When a run was recorded: what run.json says, else the time of its newest file."""
    try:
        said = datetime.fromisoformat(run.record.created) if run.record is not None else None
    except ValueError:
        said = None
    if said is None:
        times = [part.stat().st_mtime for part in _files(run).values() if part.is_file()]
        said = datetime.fromtimestamp(max(times, default=0.0), UTC)
    return said.replace(tzinfo=UTC) if said.tzinfo is None else said.astimezone(UTC)


def health(run: RunFolder) -> str:
    """`whole`, or what is wrong with which file."""
    states = {part: _look(part, str(path), *version_of(path))[0] for part, path in _files(run).items()}
    wrong = ["run.json broken"] if run.problem else []
    wrong += [f"{part} {state}" for part, state in states.items() if state not in (WHOLE, UNKNOWN)]
    return "; ".join(wrong) or (UNKNOWN if UNKNOWN in states.values() else WHOLE)


def _row(run: RunFolder) -> dict[str, object]:
    record, when = run.record, recorded_at(run)
    median = statistics.median(record.latency_ns) if record is not None and record.latency_ns else float("nan")
    device = _device(run, record)
    return {
        "run": run.label if run.key != "." else run.path.name,
        "recorded": f"{when:%Y-%m-%d %H:%M}",
        "model": record.model if record is not None else "",
        "optimizations": ", ".join(record.optimizations) if record is not None else "",
        "device": device,
        "holds": ", ".join(_files(run)),
        "latency_ns": median,
        "rate": record.batch_size * NS_PER_S / median if record is not None and median > 0 else float("nan"),
        "peak_bytes": record.peak_bytes if record is not None else None,
        "health": health(run),
        "key": run.key,
    }


def _device(run: RunFolder, record: RunRecord | None) -> str:
    if record is not None:
        return record.device_name
    return "" if run.trace is None else _look("trace", str(run.trace), *version_of(run.trace))[1]


def _files(run: RunFolder) -> dict[str, Path]:
    return {part: path for part in PARTS if (path := getattr(run, part)) is not None}


@functools.lru_cache(4096)
def _look(part: str, name: str, _changed_ns: int, size: int) -> tuple[str, str]:
    """How a version of a file looks, and the device that a trace names; each version is looked at once."""
    if not size:
        return "empty", ""
    try:
        blocks = Blocks(Path(name))
        read = iter(blocks)
        head = next(read, b"")
        device = _DEVICE.search(head)
        named = device[1].decode("utf-8", "replace") if device is not None else ""
        if not head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_STARTS[part]):
            return "broken", named
        if not blocks.packing:
            with Path(name).open("rb") as handle:
                handle.seek(-min(size, _END_BYTES), os.SEEK_END)
                end = handle.read()
        elif size > _LOOK_BYTES:
            return UNKNOWN, named
        else:
            end = head
            for block in read:
                end = block
        # torch.save's zip ends in a directory of any bytes
        whole = not blocks.cut_off and (head.startswith(b"PK") or end.rstrip(b"\r\n\t \0").endswith(_ENDS[part]))
    except (OSError, ValueError):
        return "broken", ""
    return WHOLE if whole else "cut off", named
