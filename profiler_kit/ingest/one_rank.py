"""Read the traces of ranks and put what a job needs of them into its store: a batch, or one."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from profiler_kit.analyses.ranks.of_rank import RANK_ARGUMENTS, RankParts, of_rank
from profiler_kit.attribute.gpu_work import compiled
from profiler_kit.attribute.regions import Attribution, attribute
from profiler_kit.errors import InputError, KitError
from profiler_kit.files import SETTLED_NS
from profiler_kit.later import later
from profiler_kit.load import cache
from profiler_kit.load.discover.jobs import rank_of
from profiler_kit.load.discover.rank_sources import Source, find_job, is_address, local_copy
from profiler_kit.load.job_folder import STORE_SUFFIX
from profiler_kit.load.rank_store import RANKS, RankStore
from profiler_kit.load.trace.chrome import ChromeTrace, read_chrome_trace
from profiler_kit.settings import communication_names

# Tables of the store: what of RankParts they hold.
PARTS: Final[Mapping[str, str]] = {"collectives": "work", "groups": "groups", "steps": "steps", "totals": "parts"}
FILE: Final = "\0"  # stands for the file in a message, which may have another place when it is shown
MOST_RANKS: Final = 1 << 20
_LATEST_NS: Final = (1 << 63) - 1
_TOO_LARGE: Final = (
    "found more than this machine's memory holds, expected a trace that can be read here. Record fewer steps, or read "
    "it on a larger machine."
)
# the names that tensorboard_trace_handler gives: host, process, time; a worker's name in place of host and process
_HOST: Final = re.compile(r"(?!(?:rank|worker|gpu)_\d+\.)(.+)_\d+\.(?:.*\.)?\d+\.pt\.trace\.json", re.IGNORECASE)
_OF_RANK: Final = re.compile(r"(?:local_?)?(?:rank|gpu|worker|device)[-_. ]?\d+", re.IGNORECASE)
_CODE: Final = (
    *(
        "load/trace/*.py",
        "load/trace/native/*.[ch]",
        "attribute/*.py",
        "analyses/gpu/*.py",
        "analyses/ranks/of_rank.py",
    ),
    *("ingest/one_rank.py", "findings/quality.py"),
)


@dataclass(frozen=True)
class Work:
    """What processes are told: the store, and names of communication beside those that are known."""

    root: str
    code: str
    communication: tuple[str, ...]

    @property
    def store(self) -> RankStore:
        return RankStore(self.root, self.code)


@dataclass(frozen=True)
class RankRow:
    """What one file is: a row of the table `ranks`; the rest is empty or 0 where there is an error."""

    name: str
    stamp: str
    size_bytes: int
    error_kind: str = ""
    error: str = ""
    rank: int = -1
    world_size: int = 0
    host: str = ""
    device: str = ""
    first_ns: int = 0
    last_ns: int = 0
    base_ns: int = 0  # Unix time that its times count from; 0 where it does not say
    events: int = 0
    gpu_events: int = 0
    memory: bool = False  # whether `[memory]` events were recorded
    losses: str = "[]"
    total_ns: int = 0
    busy_ns: int = 0
    idle_ns: int = 0
    computation_ns: int = 0
    communication_ns: int = 0
    exposed_communication_ns: int = 0
    memcpy_ns: int = 0
    exposed_memcpy_ns: int = 0


def code_of_ranks(communication: Sequence[str]) -> str:
    """Of what makes the rows of a store: this package's code, and the names of communication."""
    names = json.dumps(list(communication)).encode()
    return hashlib.sha256(cache.code_of(_CODE).encode() + names).hexdigest()[:16]


def ingest_rank(path: str, out: str, *, communication: Sequence[str] = ()) -> dict[str, Any]:
    """Read one trace into the store `out` of its job (JOB.ranks, or any address fsspec writes to).

    For your own scheduler, such as Ray, Slurm or Spark: call it once for each trace, anywhere, in any order; then
    `load_ranks(JOB)` and `profiler-kit ranks JOB` find everything read. The file is known by its path below JOB.
    Returns what the table `ranks` says of it; a file that cannot be read has its `error` there.

    Raises InputError or OutputError when the store cannot be written.
    """
    names = (*communication_names(), *communication)
    (source,) = find_job([path]).sources
    job = str(out).rstrip("/").removesuffix(STORE_SUFFIX) + "/"
    where = source.where if is_address(source.where) else str(Path(source.where).absolute())
    if not is_address(job):
        job = str(Path(job).absolute()).rstrip("/") + "/"
    name = where.removeprefix(job) if where.startswith(job) else source.name
    rows = ingest_batch(
        Work(str(out).rstrip("/"), code_of_ranks(names), names),
        [Source(source.where, name, source.size_bytes, source.stamp, source.mtime_ns)],
    )
    return vars(rows[0])


def ingest_batch(work: Work, sources: Sequence[Source]) -> list[RankRow]:
    """Read these files and write them as one batch; what cannot be read is a row with its reason."""
    users = compiled(work.communication)
    read = [_read(source, users) for source in sources]
    write_batch(work.store, read)
    return [row for row, _ in read]


def write_batch(store: RankStore, read: Sequence[tuple[RankRow, RankParts | None]]) -> None:
    """Write what was read of files as one batch."""
    tables = {}
    found = [(number, parts) for number, (_, parts) in enumerate(read) if parts is not None]
    for name, part in PARTS.items():
        columns = [(number, getattr(parts, part)) for number, parts in found]
        if columns:
            tables[name] = _joined(columns)
    rows = [vars(row) for row, _ in read]
    names = list(rows[0])
    table = pa.table({name: pa.array([row[name] for row in rows]) for name in names})
    store.write({**tables, RANKS: table.add_column(0, "file", pa.array(range(len(rows)), pa.int64()))})


def _joined(columns: Sequence[tuple[int, Mapping[str, Any]]]) -> pa.Table:
    """The columns of several files, one below the other, behind the number of the file; texts are dictionary-coded."""
    first = columns[0][1]
    sizes = [len(next(iter(one.values()))) for _, one in columns]
    made = {"file": pa.array(np.repeat([number for number, _ in columns], sizes).astype(np.int64))}
    for name, values in first.items():
        if isinstance(values, np.ndarray):
            made[name] = pa.array(np.concatenate([one[name] for _, one in columns]))
        else:
            texts = pa.array([text for _, one in columns for text in one[name]], pa.string())
            made[name] = texts.dictionary_encode()
    return pa.table(made)


def _read(source: Source, users: Any) -> tuple[RankRow, RankParts | None]:
    settled = source.mtime_ns < time.time_ns() - SETTLED_NS
    blank = RankRow(source.name, source.stamp if settled else "", source.size_bytes)
    here = source.where
    try:
        with local_copy(source) as path:
            here = str(path)
            trace = read_chrome_trace(path, arguments=RANK_ARGUMENTS)
            found = attribute(trace.columns, users)
            parts = of_rank(trace.columns, found, trace.metadata, _base_ns(trace.metadata))
            return _row(blank, source, trace, found, parts, users), parts
    except (KitError, MemoryError) as error:
        kind = type(error).__name__ if isinstance(error, KitError) else InputError.__name__
        said = str(error) if isinstance(error, KitError) else f"{here}: {_TOO_LARGE}"
        text = said.replace(here, FILE).replace(source.where, FILE).encode("utf-8", "backslashreplace").decode()
        # what the machine refused it may allow the next time, and the file's stamp is the same then
        refused = isinstance(error, MemoryError) or isinstance(error.__cause__, OSError)
        return RankRow(blank.name, "" if refused else blank.stamp, blank.size_bytes, kind, text), None


def _row(
    blank: RankRow, source: Source, trace: ChromeTrace, found: Attribution, parts: RankParts, users: Any
) -> RankRow:
    info = trace.metadata.get("distributedInfo")
    size = info.get("world_size") if isinstance(info, dict) else None
    rank = rank_of(trace.metadata, Path(source.where))
    base, start = _base_ns(trace.metadata), trace.columns.start_ns
    low, high = int(start.min()) + base, int((start + np.maximum(trace.columns.dur_ns, 0)).max()) + base
    lost = _losses(trace, found, users)
    return RankRow(
        blank.name,
        blank.stamp,
        blank.size_bytes,
        rank=-1 if rank is None or rank > MOST_RANKS else rank,
        world_size=size if type(size) is int and 0 < size <= MOST_RANKS else 0,
        host=_host(source.name),
        device=_device(trace.metadata),
        first_ns=min(parts.start_ns or low, _LATEST_NS),
        last_ns=min(parts.end_ns or high, _LATEST_NS),
        base_ns=base,
        events=trace.quality.events,
        gpu_events=parts.gpu_events,
        memory=bool(trace.metadata.get("profile_memory")),
        losses=json.dumps([line.replace(str(trace.path), FILE) for line in lost]),
        **parts.timeline,
    )


def _base_ns(metadata: Mapping[str, Any]) -> int:
    """Unix time that the times of a trace count from; 0 where it does not say, or one that cannot be."""
    base = metadata.get("baseTimeNanoseconds")
    return base if type(base) is int and 0 <= base < _LATEST_NS // 2 else 0


def _host(name: str) -> str:
    """The machine, as the names of tensorboard_trace_handler say it, else the folder of the file within its job, but
    for one of its rank.
    """
    *folders, last = name.split("/")
    found = _HOST.match(last)
    while folders and _OF_RANK.fullmatch(folders[-1]):
        del folders[-1]
    return found[1] if found else "/".join(folders)


def _device(metadata: Mapping[str, Any]) -> str:
    listed = metadata.get("deviceProperties")
    names = [one.get("name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return ", ".join(dict.fromkeys(name for name in names if isinstance(name, str)))


def _losses(trace: ChromeTrace, found: Attribution, users: Any) -> list[str]:
    """What was lost while loading, a line each; findings are made only where there is something to say."""
    quality, links = trace.quality, found.links
    counts = (
        *(quality.truncated, quality.repaired_events, quality.dropped_events, len(found.left_out.event)),
        *(found.regions.shortened, links.by_external_id, links.processes.count > 1, not links.calls and links.unlinked),
        *(one.any() for one in (links.undecided, links.likely, links.inside)),
    )
    if not any(counts):
        return []
    from profiler_kit.trace import Trace

    lost = later("losses")(Trace(trace, users))
    # that some GPU events have no launch is no loss: they are in the tables as (unlinked)
    return [" ".join((one.sentence, *one.details)) for one in lost if one.id != "unlinked"]
