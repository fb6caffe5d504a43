"""The ranks of one job, side by side: what was read of each is kept, a whole trace is loaded when it is asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pandas as pd

from profiler_kit import errors
from profiler_kit.analyses.ranks import files as job_files
from profiler_kit.analyses.ranks.causes import JobAnswer, answer
from profiler_kit.analyses.ranks.files import RANK_FILES
from profiler_kit.analyses.ranks.links import bandwidths
from profiler_kit.analyses.ranks.matching import JOB_GROUPS, JOB_WORK
from profiler_kit.analyses.ranks.memory import RANK_MEMORY
from profiler_kit.analyses.ranks.of_rank import RANK_ARGUMENTS
from profiler_kit.analyses.ranks.places import rank_places
from profiler_kit.analyses.ranks.ranks import (
    SLOW_NAMES,
    rank_collectives,
    rank_steps,
    rank_totals,
    slow_names,
    step_times,
)
from profiler_kit.errors import InputError, KitError
from profiler_kit.finding import Finding
from profiler_kit.ingest.engines import ingest
from profiler_kit.ingest.one_rank import FILE, PARTS, Work, code_of_ranks
from profiler_kit.kept import kept, kept_for_good
from profiler_kit.later import later
from profiler_kit.load.discover.jobs import Paths, rank_snapshots, says_no_rank, says_the_same
from profiler_kit.load.discover.rank_sources import Job, Source, find_job, is_address
from profiler_kit.load.job_folder import STORE_SUFFIX
from profiler_kit.load.rank_store import RankStore, ReplacedError, is_store, store_of
from profiler_kit.progress import Report, silent
from profiler_kit.settings import communication_names
from profiler_kit.table import Filled, Value

if TYPE_CHECKING:
    import pyarrow as pa

    from profiler_kit.trace import Trace

Part = Literal["work", "groups", "steps", "parts"]
TIMES: Final = (
    *("total_ns", "busy_ns", "idle_ns", "computation_ns", "communication_ns", "exposed_communication_ns", "memcpy_ns"),
    "exposed_memcpy_ns",
)
_FROM: Final = ("trace", "snapshot")
MOST_TRACES: Final = 4  # that are held in memory
MOST_NAMED: Final = 8


class Traces(Mapping[int, "Trace"]):
    """The whole trace of each rank, lowest rank first, loaded when it is asked for; the last few stay in memory."""

    def __init__(self, paths: Mapping[int, str], communication: Sequence[str]) -> None:
        self._paths, self._communication = dict(paths), tuple(communication)
        self._held: dict[int, Trace] = {}

    def __getitem__(self, rank: int) -> Trace:
        found = self._held.pop(rank, None)
        if found is None:
            from profiler_kit.trace import load_trace

            path = self._paths[rank]
            found = load_trace(path, arguments=RANK_ARGUMENTS, communication=self._communication)
            while len(self._held) >= MOST_TRACES:
                del self._held[next(iter(self._held))]
        self._held[rank] = found
        return found

    def __iter__(self) -> Iterator[int]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


class Ranks:
    """The ranks of one job. Data about all of them comes from the store (profiler_kit.load.rank_store)."""

    def __init__(self, store: RankStore, job: Job, rows: pa.Table, communication: Sequence[str] = ()) -> None:
        self._store, self._job, self._rows = store, job, rows
        self._communication = tuple(communication)

    @property
    def path(self) -> str:
        """The folder of the job."""
        return self._job.folder

    @property
    def store(self) -> str:
        """Where the data read from the ranks is kept."""
        return self._store.root

    @property
    def unchanging(self) -> bool:
        """Whether all that was read stays as it is: no file is read again unless it changes."""
        return all(self._rows["stamp"].to_pylist())

    @kept_for_good
    def files(self) -> pd.DataFrame:
        """RANK_FILES: one row per file of the job, what it is and why it is left out."""
        return _files(self._rows, self._job.sources)

    @property
    @kept_for_good
    def _chosen(self) -> tuple[Any, Any]:
        """The ranks that are looked at, lowest first, and the row of each in the table of files."""
        frame = self.files()
        rows = np.flatnonzero(frame["status"] == job_files.READ)
        rank = frame["rank"].to_numpy(np.int64, na_value=-1)[rows]
        order = np.argsort(rank, kind="stable")
        return rank[order], rows[order]

    @property
    def ranks(self) -> list[int]:
        """The ranks in use, lowest first."""
        return list(map(int, self._chosen[0]))

    @property
    @kept_for_good
    def traces(self) -> Traces:
        """The whole trace of each rank, loaded when it is asked for."""
        where = [source.where for source in self._job.sources]
        paths = {int(rank): where[row] for rank, row in zip(*self._chosen, strict=True)}
        return Traces(paths, self._communication)

    @property
    def world_size(self) -> int:
        """How many ranks the job has, as its traces say; 0 where none does."""
        return int(self.files()["world_size"].max()) if len(self.files()) else 0

    @property
    def missing(self) -> list[int]:
        """The ranks without a trace, where the traces say how many ranks there are."""
        return sorted(set(range(self.world_size)) - set(self.ranks))

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for each file that is left out, and why; and one for the ranks without a trace."""
        frame = self.files()
        lines = [f"left out: {reason}" for reason in frame["reason"] if reason]
        if self.missing:
            names = ", ".join(map(str, self.missing[:MOST_NAMED])) + (
                " and more" if len(self.missing) > MOST_NAMED else ""
            )
            lines.append(
                f"{len(self.missing)} of {self.world_size} ranks have no trace here: {names}. "
                "What they waited for is not known."
            )
        return tuple(lines)

    @property
    def losses(self) -> tuple[str, ...]:
        """A line for each thing that was lost while a trace was read."""
        said, found = self._rows["losses"].to_pylist(), []
        for row in self._chosen[1]:
            where = self._job.sources[row].where
            found += [f"{where}: {line.replace(FILE, where)}" for line in json.loads(said[row])]
        return tuple(found)

    def of(self, part: Part, ranks: Collection[int] | None = None) -> pd.DataFrame:
        """What was read of these ranks, of all unless they are named: RANK_WORK, RANK_GROUPS, RANK_STEPS or RANK_PARTS
        (analyses.ranks.of_rank) behind a column `rank`, lowest first; texts are categorical.
        """
        numbers, rows = self._chosen
        if ranks is not None:
            wanted = np.isin(numbers, list(ranks))
            numbers, rows = numbers[wanted], rows[wanted]
        table = next(name for name, one in PARTS.items() if one == part)
        try:
            found = self._store.read(table, self._rows.take(rows))
        except ReplacedError:
            self._rows = _rows_of(self._job, self._store.ranks())
            found = self._store.read(table, self._rows.take(rows))
        if found is None:
            raise InputError(f"{self.path}: none of these ranks was read, expected one of {self.ranks[:MOST_NAMED]}.")
        place = found["file"].to_numpy()
        order = np.argsort(place, kind="stable")
        frame: pd.DataFrame = found.drop(["file"]).unify_dictionaries().to_pandas(use_threads=False)
        if (order[1:] < order[:-1]).any():
            frame, place = frame.take(order), place[order]
        frame.insert(0, "rank", numbers[place])
        return frame.reset_index(drop=True)

    @kept
    def timelines(self) -> pd.DataFrame:
        """One row per rank: its GPU events, and the eight times of its GPU timeline."""
        numbers, rows = self._chosen
        frame: pd.DataFrame = self._rows.select(["gpu_events", *TIMES]).take(rows).to_pandas(use_threads=False)
        frame.insert(0, "rank", numbers)
        return frame

    def some(self, files: Sequence[int]) -> Ranks:
        """The ranks of these rows of `files` alone."""
        job = Job(self._job.folder, tuple(self._job.sources[row] for row in files), self._job.named)
        return Ranks(self._store, job, self._rows.take(files), self._communication)

    def refuse(self) -> None:
        """Raise the error of the first file that is not a rank, unless a folder holds two ranks or more beside it."""
        frame = self.files()
        wrong = np.flatnonzero(~frame["status"].isin((job_files.READ, job_files.OTHER_RECORDING)))
        if len(wrong) and (self._job.named or len(self.ranks) < 2):
            kind = self._rows["error_kind"].to_pylist()[wrong[0]] or InputError.__name__
            error: type[KitError] = getattr(errors, kind)
            raise error(frame["reason"].iloc[wrong[0]])

    def table(self, name: str, **options: Value) -> Filled:
        """A declared table, filled; see Trace.table."""
        filled: Filled = later("fill")(name, {"job": self}, **options)
        return filled

    # ---- answers

    @property
    @kept_for_good
    def answer(self) -> JobAnswer:
        """Which kernels are one collective, the clocks, who holds the job up and what that would gain."""
        if not self.ranks:
            return answer(JOB_WORK.empty(), JOB_GROUPS.empty())
        return answer(self.of("work"), self.of("groups"), self.nodes)

    @property
    @kept
    def nodes(self) -> dict[int, str]:
        """The machine that each rank ran on, "" where that is not known."""
        return dict(zip(self.ranks, self.files().iloc[self._chosen[1]]["host"].tolist(), strict=True))

    @kept
    def places(self) -> pd.DataFrame:
        """RANK_PLACES: the node of each rank, and its group of each kind."""
        return rank_places(self.answer.groups, self.nodes)

    @kept
    def collectives(self) -> pd.DataFrame:
        """RANK_COLLECTIVES: the kernels of each collective on its ranks, and who waited for whom."""
        return rank_collectives(self.of("work") if self.ranks else JOB_WORK.empty(), self.answer)

    @kept
    def totals(self) -> pd.DataFrame:
        """RANK_TOTALS: one row per rank."""
        return rank_totals(self.timelines(), self.answer.scores)

    @kept
    def steps(self) -> pd.DataFrame:
        """RANK_STEPS_SIDE: one row per rank and step, how long it took and what the rank did of its own."""
        return rank_steps(self.of("steps"), self.answer.steps)

    def nearest(self, rank: int, kind: str = "", most: int = 4) -> list[int]:
        """Ranks to look at beside one: those of its group of that kind (RANK_PLACES), else of all, the nearest numbers
        first, that are on one clock with it.
        """
        clocks = self.answer.clocks.set_index("rank")["component"]
        near = set(clocks.index[clocks == clocks.get(rank)])
        places = self.places()
        group = places[(places["kind"] == kind) & (places["rank"] == rank)]
        if len(group):
            mine = (places["kind"] == kind) & (places["group"] == group["group"].iloc[0])
            near &= set(places["rank"][mine & (places["members"] == group["members"].iloc[0])])
        return sorted(near - {rank}, key=lambda one: (abs(one - rank), one))[:most]

    def shift_ns(self, rank: int, other: int, at_ns: int) -> int:
        """What to subtract from times in another rank's trace to have them as a rank's own trace counts them.

        at_ns: a Unix time there, where it is exact; clocks drift.
        """
        time = np.array([at_ns], dtype=np.int64)
        ahead = int((self.answer.on_one_clock(rank, time) - self.answer.on_one_clock(other, time))[0])
        bases = dict(zip(self.ranks, self._rows["base_ns"].take(self._chosen[1]).to_pylist(), strict=True))
        return ahead + int(bases[rank]) - int(bases[other])

    @kept
    def step_times(self) -> pd.DataFrame:
        """STEP_TIMES: one row per step of the job."""
        return step_times(self.steps())

    @kept
    def bandwidths(self) -> pd.DataFrame:
        """BANDWIDTHS: how fast groups of each kind communicate, by size of message."""
        return bandwidths(self.answer.links)

    @kept
    def memory(self) -> pd.DataFrame:
        """RANK_MEMORY: of the ranks with a memory snapshot, or a trace with `[memory]` events, which are read now."""
        from profiler_kit.snapshot import load_snapshot

        here = {rank: self._job.sources[row].where for rank, row in zip(*self._chosen, strict=True)}
        paths = {int(rank): Path(where) for rank, where in here.items() if not is_address(where)}
        beside, flags = rank_snapshots(paths), self._rows["memory"].to_pylist()
        recorded = {
            int(rank): paths[rank] for rank, row in zip(*self._chosen, strict=True) if rank in paths and flags[row]
        }
        rows: list[tuple[object, ...]] = []
        for rank, path in sorted({**recorded, **beside}.items()):
            try:
                snapshot = load_snapshot(path)
            except KitError as error:
                rows.append((rank, None, None, None, None, None, str(error)))
                continue
            for device in snapshot.devices:
                one = snapshot.replay(device)
                peaks = (int(one.allocated_bytes.max()), None, int(one.reserved_bytes.max()))
                rows.append((rank, device, *peaks, int(one.allocated_bytes[-1]), _FROM[rank in beside]))
        found = RANK_MEMORY.of(rows)
        peak = found["peak_allocated_bytes"].astype("Float64")
        usual = peak.groupby(found["device"]).transform("median")
        found = RANK_MEMORY.cast(found.assign(of_median=peak / usual.where(usual > 0)))
        return found.sort_values("peak_allocated_bytes", ascending=False, kind="stable", ignore_index=True)

    @kept
    def slow_names(self) -> pd.DataFrame:
        """SLOW_NAMES: kernels and regions of the rank that is named, or has most work, against those of its peers."""
        rank = self.answer.looked_at
        if rank is None:
            return SLOW_NAMES.empty()
        return slow_names(self.of("parts", [rank, *self.answer.peers]), rank)

    @kept
    def findings(self) -> list[Finding]:
        """What is worth saying about the job: who holds it up and by what, what was not matched or is missing."""
        found: list[Finding] = later("findings_of_job")(self)
        return found


def load_ranks(
    paths: Paths,
    *,
    skip_broken: bool = False,
    communication: Sequence[str] = (),
    workers: int | None = None,
    cluster: str | None = None,
    store: str | Path | None = None,
    report: Report = silent,
) -> Ranks:
    """Read the traces of several ranks, or what an earlier call has kept of them.

    paths: {rank: trace}, a list of traces, or a folder that holds them, run folders with one each, or folders of nodes;
    addresses such as s3://bucket/job, too. Without a dict each trace says its rank: `distributedInfo`, else "rank3" in
    the name of its file or folder. JOB.ranks, the store of a job, stands for the traces of JOB, or for what the store
    holds if JOB is gone. communication: see load_trace. skip_broken: leave out what is missing or cannot be read, and
    say so in `problems`. In a folder that holds two ranks or more, files that are not a rank's trace are always left
    out: other files, a front end's trace, a rank's second trace. workers, cluster: see
    profiler_kit.ingest.engines.ingest. store: where to keep what was read (a folder or an address); unless given in
    JOB.ranks/ beside the folder, or where that cannot be written in the cache.

    Only what is new or has changed is read. Raises InputError when there is no trace, one is missing, or a rank is
    unknown or given twice; TraceFormatError when one is not a trace; OutputError when the store cannot be written.
    """
    ranks = read_job(paths, communication=communication, workers=workers, cluster=cluster, store=store, report=report)
    if not skip_broken:
        ranks.refuse()
    return ranks


def read_job(
    paths: Paths,
    *,
    communication: Sequence[str],
    workers: int | None,
    cluster: str | None,
    store: str | Path | None,
    report: Report,
) -> Ranks:
    """As load_ranks, whatever the files are: nothing is refused but that there is none."""
    names = (*communication_names(), *communication)
    code = code_of_ranks(names)
    if isinstance(paths, str | Path) and is_store(paths):
        root = str(paths).rstrip("/")
        folder = root.removesuffix(STORE_SUFFIX)
        if not _is_there(folder):
            return _kept(RankStore(root, code), folder, communication)
        paths, store = folder, root if is_address(root) and store is None else store
    job = find_job(paths)
    found = store_of(job.folder, code, beside=not job.named, chosen=None if store is None else str(store))
    reading = partial(ingest, workers=workers, cluster=cluster, report=report)
    return Ranks(found, job, _read(job, found, Work(found.root, code, names), reading), communication)


def _is_there(folder: str) -> bool:
    """Whether the folder of a job is there, or traces are at its address."""
    if not is_address(folder):
        return Path(folder).is_dir()
    try:
        return bool(find_job(folder).sources)
    except InputError:
        return False


def _kept(store: RankStore, folder: str, communication: Sequence[str]) -> Ranks:
    """What a store holds of a job whose traces are elsewhere."""
    rows = store.ranks()
    if rows is None:
        raise InputError(
            f"{store.root}: holds nothing that this version of profiler-kit read, expected the ranks of a job. Read "
            f"them again where their traces are: profiler-kit ranks JOB --store {store.root}"
        )
    columns = (rows[name].to_pylist() for name in ("name", "size_bytes", "stamp"))
    sources = tuple(Source(f"{folder}/{name}", name, size, stamp) for name, size, stamp in zip(*columns, strict=True))
    return Ranks(
        store, Job(folder if is_address(folder) else str(Path(folder).resolve()), sources, False), rows, communication
    )


def _read(job: Job, store: RankStore, work: Work, ingest: Any) -> pa.Table:
    """The row of each file of the job, in their order; those that are new or have changed are read."""
    rows = store.ranks()
    known = {} if rows is None else dict(zip(rows["name"].to_pylist(), rows["stamp"].to_pylist(), strict=True))
    new = [one for one in job.sources if not one.stamp or known.get(one.name) != one.stamp]
    if new:
        ingest(work, new)
        rows = store.ranks()
    if rows is not None and store.compact(rows, PARTS):
        rows = store.ranks()
    return _rows_of(job, rows)


def _rows_of(job: Job, rows: pa.Table | None) -> pa.Table:
    """The rows of the files of a job, in their order."""
    places = {} if rows is None else {name: row for row, name in enumerate(rows["name"].to_pylist())}
    if rows is None or not all(one.name in places for one in job.sources):
        raise InputError(f"{job.folder}: what was read of it has gone, expected its ranks. Load them again.")
    return rows.take([places[one.name] for one in job.sources])


def _files(rows: pa.Table, sources: Sequence[Source]) -> pd.DataFrame:
    """RANK_FILES of the rows of the store and the files that they are of."""
    columns = {name: rows[name].to_pylist() for name in ("rank", "error")}
    where = [one.where for one in sources]
    status = [job_files.UNREADABLE if error else job_files.READ for error in columns["error"]]
    reason = [error.replace(FILE, path) for error, path in zip(columns["error"], where, strict=True)]
    rank = [told if one.rank is None else one.rank for told, one in zip(columns["rank"], sources, strict=True)]
    if len(rank) == 1 and rank[0] < 0 and status == [job_files.READ]:
        rank = [0]  # an only file that says none
    for row, said in enumerate(status):
        if said == job_files.READ and rank[row] < 0:
            status[row] = job_files.NO_RANK
            reason[row] = says_no_rank(where[row], len(rank))
    used = np.array([row for row, said in enumerate(status) if said == job_files.READ], dtype=np.int64)
    first, last = (rows[name].to_numpy()[used] for name in ("first_ns", "last_ns"))
    number, same = job_files.recordings(
        [rank[row] for row in used],
        first,
        last,
        [sources[row].name.rpartition("/")[0] for row in used],
        on_one_clock=all(rows["base_ns"].take(used).to_pylist()),
    )
    looked_at = job_files.most_ranks(number, same)
    for row, cycle, twin in zip(used.tolist(), number.tolist(), same.tolist(), strict=True):
        if twin >= 0:
            status[row] = job_files.DUPLICATE
            said = rank[row] == rank[used[twin]]
            tell = says_the_same if said else job_files.says_of_another_job
            reason[row] = tell(where[row], rank[row], where[int(used[twin])])
        elif cycle != looked_at:
            status[row] = job_files.OTHER_RECORDING
            reason[row] = job_files.of_another_time(where[row], rank[row], cycle, looked_at, int(number.max()) + 1)
    recording = pd.array([pd.NA] * len(rank), dtype="Int64")
    recording[used] = number
    plain = ("size_bytes", "host", "device", "world_size", "first_ns", "last_ns", "events", "gpu_events")
    return RANK_FILES.cast(
        pd.DataFrame(
            {
                "file": [one.name for one in sources],
                "rank": pd.array([one if one >= 0 else pd.NA for one in rank], dtype="Int64"),
                "status": status,
                "reason": reason,
                "recording": recording,
                **{name: rows[name].to_pylist() for name in plain},
            }
        )
    )
