"""What was read of a job's ranks is kept: whole or not at all, for what has not changed, wherever the job is."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from profiler_kit import ingest_rank, load_ranks, ranks
from profiler_kit.analyses.ranks.files import recordings
from profiler_kit.errors import InputError, OptionError, OutputError
from profiler_kit.ingest import engines, one_rank
from profiler_kit.ingest.one_rank import Work
from profiler_kit.load import cache, rank_store
from profiler_kit.load.discover.rank_sources import Source, find_job
from profiler_kit.trend import load_trend
from tests.builders import LONG_AFTER, TraceBuilder

REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL"


def trace_of(rank: int | None, size: int = 4, at_us: float = 0) -> bytes:
    """A kernel, and a collective that ends with those of the other ranks."""
    trace = TraceBuilder()
    trace.kernel(1, at_us, 20)
    trace.kernel(2, at_us + 25 + rank_of(rank), 15 - rank_of(rank), name=REDUCE, stream=9)
    told = b"" if rank is None else b'"distributedInfo": {"rank": %d, "world_size": %d},' % (rank, size)
    return trace.kineto().replace(b"{", b"{" + told, 1)


def rank_of(rank: int | None) -> int:
    return rank or 0


def put(path: Path, data: bytes) -> Path:
    """A file that has not changed for a minute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    before = path.stat().st_mtime_ns - 60 * 10**9
    os.utime(path, ns=(before, before))
    return path


@pytest.fixture
def job(tmp_path: Path) -> Path:
    for rank in range(4):
        put(tmp_path / "job" / f"rank{rank}.json", trace_of(rank))
    return tmp_path / "job"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read from now on."""
    seen: list[str] = []
    real = one_rank._read

    def noting(source: Source, users: Any) -> Any:
        seen.append(source.name)
        return real(source, users)

    monkeypatch.setattr(one_rank, "_read", noting)
    return seen


def batches(store: str) -> list[str]:
    return [path.name for path in Path(store).iterdir()]


def status(found: ranks.Ranks) -> dict[str, str]:
    frame = found.files()
    return dict(zip(frame["file"], frame["status"], strict=True))


def test_only_what_is_new_or_has_changed_is_read(job: Path, read: list[str]) -> None:
    first = load_ranks(job)
    assert first.store == f"{job}.ranks" and sorted(read) == [f"rank{rank}.json" for rank in range(4)]
    read.clear()
    again = load_ranks(job)
    assert read == [] and again.of("work").equals(first.of("work")) and again.files().equals(first.files())
    put(job / "rank2.json", trace_of(2, at_us=100))
    put(job / "rank4.json", trace_of(4, size=5))
    (job / "rank0.json").unlink()
    changed = load_ranks(job)
    assert sorted(read) == ["rank2.json", "rank4.json"]
    assert changed.ranks == [1, 2, 3, 4] and changed.missing == [0]
    assert changed.of("work").set_index("rank")["start_ns"].loc[2] == first.of("work")["start_ns"][2] + 100_000
    assert changed.problems == ("1 of 5 ranks have no trace here: 0. What they waited for is not known.",)


def test_a_file_that_may_still_change_is_read_again(tmp_path: Path, read: list[str]) -> None:
    for rank in (0, 1):
        os.utime(put(tmp_path / "job" / f"{rank}.json", trace_of(rank)), (LONG_AFTER, LONG_AFTER))
    load_ranks(tmp_path / "job")
    load_ranks(tmp_path / "job")
    assert sorted(read) == ["0.json", "0.json", "1.json", "1.json"]


def test_what_could_not_be_opened_is_read_the_next_time(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = one_rank.read_chrome_trace

    def refused(path: Path, **options: Any) -> Any:
        if path.name == "rank2.json":
            raise InputError(f"{path}: cannot be read (Permission denied)") from PermissionError(
                13, "Permission denied"
            )
        return real(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(one_rank, "read_chrome_trace", refused)
        assert load_ranks(job, skip_broken=True).ranks == [0, 1, 3]
    assert load_ranks(job).ranks == [0, 1, 2, 3]


def test_names_of_communication_are_part_of_what_was_read(job: Path, read: list[str]) -> None:
    assert len(load_ranks(job).of("work")) == 4
    assert len(load_ranks(job, communication=["gemm"]).of("work")) == 8 and len(read) == 8
    assert len(load_ranks(job).of("work")) == 4 and len(read) == 8


def test_what_a_killed_ingest_finished_is_not_read_again(
    job: Path, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BATCH_RANKS", 2)
    real = rank_store.RankStore.write
    written: list[object] = []

    def killed(self: rank_store.RankStore, tables: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(real(self, tables))

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rank_store.RankStore, "write", killed)
        load_ranks(job)
    left = Path(f"{job}.ranks") / ".tmp-1-0-half"  # as a process leaves it that was killed while it wrote
    left.mkdir()
    (left / "ranks.parquet").write_bytes(b"PAR1")
    read.clear()
    assert load_ranks(job).ranks == [0, 1, 2, 3] and read == ["rank2.json", "rank3.json"]


def test_batches_that_were_replaced_go(job: Path) -> None:
    for turn in range(3):
        for rank in range(4):
            put(job / f"rank{rank}.json", trace_of(rank, at_us=turn))
        load_ranks(job)
    assert len(batches(f"{job}.ranks")) == 1


def test_a_file_that_is_no_rank_is_a_row_with_its_reason(job: Path) -> None:
    put(job / "rank4.json", b"")
    put(job / "rank5.json.gz", b"\x1f\x8b\x08\x00broken")
    put(job / "settings.json", b'{"a": 1}')
    put(job / "host_7.async_llm.12.pt.trace.json", trace_of(None))
    put(job / "rank1_again.json", trace_of(1))
    (job / "rank6.json").symlink_to(job / "gone.json")
    found = load_ranks(job)
    assert found.ranks == [0, 1, 2, 3] and len(found.problems) == 6
    assert {name: said for name, said in status(found).items() if said != "read"} == {
        "host_7.async_llm.12.pt.trace.json": "no rank",
        "rank1_again.json": "duplicate",
        "rank4.json": "unreadable",
        "rank5.json.gz": "unreadable",
        "rank6.json": "unreadable",
        "settings.json": "unreadable",
    }
    reason = found.files().set_index("file")["reason"]
    assert reason["rank4.json"].startswith(f"{job / 'rank4.json'}: the file is empty (0 bytes)")
    shutil.move(job, job.with_name("moved"))  # its store stays where it was: the reason names the file where it is now
    shutil.move(f"{job}.ranks", job.with_name("moved.ranks"))
    assert load_ranks(job.with_name("moved")).files()["reason"].str.contains("/moved/").sum() == 6


def test_nodes_are_folders_and_say_their_host(tmp_path: Path) -> None:
    for rank in range(4):
        put(tmp_path / "job" / f"node{rank // 2}" / f"gpu_{rank % 2}.json", trace_of(rank))
    put(tmp_path / "job" / "run.txt", b"no trace")
    put(tmp_path / "job" / "settings.json", b"{}")
    put(tmp_path / "job" / "node0" / ".hidden.json", b"{}")
    found = load_ranks(tmp_path / "job")
    assert found.ranks == [0, 1, 2, 3] and found.files()["host"].tolist() == ["node0", "node0", "node1", "node1", ""]
    name = "trainer-7_4711.1700000000123.pt.trace.json"
    assert one_rank._host("node3/rank7/trace.json.gz") == "node3" and one_rank._host("rank7/trace.json") == ""
    assert one_rank._host("node3/worker_0.1700000000123.pt.trace.json.gz") == "node3"
    assert one_rank._host(f"out/{name}") == "trainer-7" and one_rank._host("a/b/rank0.json") == "a/b"


def test_names_that_are_no_utf_8_and_numbers_that_cannot_be(tmp_path: Path) -> None:
    job = tmp_path / "a 'b'[*]\udcff"
    put(job / "rank0\udcff.json", trace_of(0).replace(b"1700000000000000000", b"1" + bytes([48]) * 30))
    put(job / "rank1.json", trace_of(1).replace(b"1700000000000000000", b"-5"))
    put(job / "two.json", trace_of(2).replace(b'"rank": 2', b'"rank": 99999999999999999999'))
    put(job / "three.json", trace_of(3).replace(b'"rank": 3', b'"rank": -1'))
    put(job / "rank4\udcff.json", b"hello")
    for turn in range(2):
        found = load_ranks(job)
        assert found.ranks == [0, 1] and found.of("work")["rank"].tolist() == [0, 1], turn
        assert sorted(status(found).values()) == ["no rank", "no rank", "read", "read", "unreadable"]
        assert found.traces[0].base_ns and f"left out: {job}/rank4\udcff.json: found text" in found.problems[0]


def test_a_batch_that_is_damaged_is_read_again(job: Path, read: list[str]) -> None:
    (batch,) = Path(load_ranks(job).store).iterdir()
    (batch / "ranks.parquet").write_bytes(b"")
    assert load_ranks(job).ranks == [0, 1, 2, 3] and len(read) == 8 and not batch.exists()


def test_another_process_puts_batches_together_meanwhile(job: Path) -> None:
    for path in sorted(job.iterdir()):
        ingest_rank(str(path), f"{job}.ranks")
    found = load_ranks(job)
    store = rank_store.RankStore(found.store, one_rank.code_of_ranks(()))
    rows = store.ranks()
    assert rows is not None and len(store.batches()) == 4
    tables: dict[str, Any] = {name: store.read(name, rows) for name in one_rank.PARTS}
    store.write({**tables, "ranks": rows.drop(["batch"]).set_column(0, "file", pa.array(range(4), pa.int64()))})
    load_ranks(job)
    assert len(store.batches()) == 1
    assert found.of("work").equals(load_ranks(job).of("work"))
    shutil.rmtree(found.store)
    with pytest.raises(InputError, match=r"what was read of it has gone"):
        found.of("steps")


def test_a_job_that_was_recorded_several_times(tmp_path: Path) -> None:
    for cycle, ranks_of in enumerate(((0, 1, 2), (0, 1, 2, 3), (0, 1))):
        for rank in ranks_of:
            put(tmp_path / "job" / f"rank{rank}.{cycle}.json", trace_of(rank, at_us=1e6 * cycle))
    found = load_ranks(tmp_path / "job")
    assert found.ranks == [0, 1, 2, 3] and found.missing == []
    assert [name for name, said in status(found).items() if said == "read"] == [
        f"rank{rank}.1.json" for rank in range(4)
    ]
    assert found.files()["recording"].tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 1]
    assert "rank 0 in recording 1 of 3 of this job" in found.problems[0] and len(found.problems) == 5


def test_recordings_are_told_by_time_where_clocks_can_tell_and_by_their_order_where_not() -> None:
    def of(
        rows: Sequence[tuple[int, int, int]], on_one_clock: bool, folder: Sequence[str] = ()
    ) -> tuple[list[int], list[int]]:
        rank, first, last = zip(*rows, strict=True)
        where = folder or [""] * len(rank)
        number, same = recordings(rank, np.array(first), np.array(last), where, on_one_clock=on_one_clock)
        return number.tolist(), same.tolist()

    # rank 1 missed the first time
    rows = [(0, 0, 10), (0, 50, 60), (1, 51, 59)]
    assert of(rows, True) == ([0, 1, 1], [-1, -1, -1])
    assert of(rows, False) == ([0, 1, 0], [-1, -1, -1])
    # one recording each: however far apart their clocks are, it is one job
    assert of([(0, 0, 10), (1, 10**9, 10**9 + 10)], True) == ([0, 0], [-1, -1])
    # the same time twice: the first by name counts, whichever began first
    assert of([(0, 5, 10), (0, 4, 10), (1, 5, 9)], True) == ([0, 0, 0], [-1, 0, -1])
    # two jobs: that of most ranks, and no rank of the other one
    jobs = [(0, 5, 10), (1, 5, 10), (5, 5, 10), (0, 4, 10), (1, 4, 9), (2, 4, 9), (3, 4, 9)]
    assert of(jobs, True, [*"aaa", *"bbbb"])[1] == [3, 4, 3, -1, -1, -1, -1]
    # one rank that two nodes hold is of one of them
    assert of(jobs[1:], True, [*"aa", *"bbbb"])[1] == [3, -1, -1, -1, -1, -1]


def test_runs_of_a_job_over_days_are_in_one_store(tmp_path: Path, read: list[str]) -> None:
    """On the second day rank 1 came 6 us later, and steps took 30 us in place of 20; a third has two recordings."""
    for day, (at, step) in enumerate(((0, 20), (1e6, 30), (2e6, 30), (3e6, 30))):
        for rank in (0, 1):
            trace = TraceBuilder()
            trace.region("ProfilerStep#3", at, step)
            trace.kernel(1, at, 20)
            trace.kernel(2, at + 30 + 6 * day * rank, 40 - 6 * day * rank, name=REDUCE, stream=9)
            told = b'{"distributedInfo": {"rank": %d, "world_size": 3},' % rank
            name = f"day{min(day, 2)}/node{rank}/{rank}.{day}.json"
            put(tmp_path / "job" / name, trace.kineto().replace(b"{", told, 1))
    put(tmp_path / "job" / "day1" / "settings.json", b"{}")
    found = load_trend(tmp_path / "job")
    rows = found.table_of_runs()
    assert rows["run"].tolist() == ["day0", "day1", "day2", "day2"] and rows["recording"].tolist() == [0, 0, 0, 1]
    assert rows["step_ns"].tolist() == [20_000, 30_000, 30_000, 30_000]
    assert rows["step_change"].fillna(-9).tolist() == [-9, 0.5, 0, 0]
    assert rows["missing"].tolist() == [1] * 4 and rows["ranks"].tolist() == [2] * 4
    assert rows["held_ns"].tolist() == [0, 6_000, 12_000, 18_000] and rows["straggler"].fillna(-1).tolist() == [
        -1,
        1,
        1,
        1,
    ]
    assert rows["exposed_communication_ns"].tolist() == [40_000, 37_000, 34_000, 31_000]
    assert len(found.problems) == 1 and "settings.json" in found.problems[0]
    read.clear()
    assert load_trend(tmp_path / "job").table_of_runs().equals(rows)
    assert load_ranks(tmp_path / "job" / "day1").ranks == [0, 1]
    assert [name for name in read if "day1" in name] == []


def test_files_that_are_named_are_all_needed(job: Path, tmp_path: Path) -> None:
    put(job / "rank9.json", b"hello")
    files = sorted(job.iterdir())
    with pytest.raises(InputError, match="found text that is not JSON"):
        load_ranks(files)
    assert load_ranks(files[:2]).ranks == [0, 1]
    assert load_ranks({7: files[0], 8: files[0]}).of("work")["rank"].tolist() == [7, 8]
    with pytest.raises(InputError, match="no such file"):
        load_ranks([files[0], tmp_path / "gone.json"])


def test_where_the_store_is(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    files = sorted(job.iterdir())
    of_files = load_ranks(files)  # that were named: nothing is put beside the folder
    assert Path(of_files.store).parent == tmp_path / "cache" and not Path(f"{job}.ranks").exists()
    assert load_ranks(job).store == load_ranks(files).store == f"{job}.ranks"
    assert load_ranks(job, store=tmp_path / "there").store == str(tmp_path / "there")
    shutil.rmtree(f"{job}.ranks")
    monkeypatch.setattr(rank_store, "_writable", lambda path: str(path).startswith(str(tmp_path / "cache")))
    assert load_ranks(job).store == of_files.store
    monkeypatch.setenv(cache.FOLDER_VARIABLE, "")
    alone = load_ranks(job)
    assert alone.of("work")["rank"].tolist() == [0, 1, 2, 3] and not alone.store.startswith(str(tmp_path))
    held = Path(alone.store).parent
    assert held.exists()
    del alone
    assert not held.exists()
    put(tmp_path / "file", b"")
    with pytest.raises(OutputError, match="cannot be written"):
        load_ranks(job, store=tmp_path / "file" / "store")


def test_a_store_that_is_damaged_is_said(job: Path) -> None:
    found = load_ranks(job)
    (batch,) = batches(found.store)
    Path(found.store, batch, "collectives.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=rf"collectives.parquet: cannot be read .* Remove {found.store}"):
        load_ranks(job).of("work")


def test_ranks_that_were_ingested_one_by_one_are_put_together(job: Path, read: list[str], monkeypatch: Any) -> None:
    for rank in range(4, 12):
        put(job / f"rank{rank}.json", trace_of(rank))
    put(job / "rank12.json", b"hello")
    said = [ingest_rank(str(path), f"{job}.ranks") for path in sorted(job.iterdir())]
    assert sorted(row["rank"] for row in said) == [-1, *range(12)] and len(batches(f"{job}.ranks")) == 13
    read.clear()
    found = load_ranks(job)
    assert read == [] and found.ranks == [*range(12)] and len(batches(found.store)) == 1
    assert found.of("work")["rank"].tolist() == [*range(12)]
    assert load_ranks(job).of("work").equals(found.of("work")) and status(found)["rank12.json"] == "unreadable"


class Job:
    """Batches for a reader, and what it says it has done."""

    def __init__(self, job: Path) -> None:
        self.work = Work(f"{job}.ranks", one_rank.code_of_ranks(()), ())
        self.done: list[str] = []
        self._waiting: SimpleQueue[list[Source]] = SimpleQueue()

    def read(self, batch: Sequence[Source]) -> dict[str, str]:
        """The errors of the files that have one."""
        reader = engines._Reader(self.work)
        self._waiting.put(list(batch))
        try:
            reader.read_all(self._waiting, lambda read: self.done.extend(one.name for one in read))
        finally:
            reader.end()
        assert reader.problem is None
        rows = self.work.store.ranks()
        assert rows is not None
        errors = dict(zip(rows["name"].to_pylist(), rows["error"].to_pylist(), strict=True))
        return {name: error for name, error in errors.items() if error}


def test_a_file_of_which_its_process_dies_is_said(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when memory is short: the system kills it. With more files in its batch, they are read one by one."""
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    real = subprocess.Popen
    with monkeypatch.context() as patch:
        patch.setattr(engines.subprocess, "Popen", lambda _, **more: real([sys.executable, "-c", code], **more))
        said = Job(job).read(find_job(job).sources[1:2])
    assert said.keys() == {"rank1.json"}
    assert f"the process that read it ended ({signal.SIGKILL.name})" in said["rank1.json"]

    def read(reader: engines._Reader, batch: list[Source]) -> None:
        if any(one.name == "rank2.json" for one in batch):
            raise engines._DiedError("SIGKILL")
        one_rank.ingest_batch(reader._work, batch)

    monkeypatch.setattr(engines._Reader, "_read", read)
    again = Job(job)
    assert again.read(find_job(job).sources).keys() == {"rank2.json"}
    assert sorted(again.done) == [f"rank{rank}.json" for rank in range(4)]
    monkeypatch.undo()
    assert load_ranks(job).ranks == [0, 1, 2, 3]  # it is tried again


def test_processes_read_beside_this_one(job: Path) -> None:
    done = Job(job)
    assert done.read(find_job(job).sources) == {} and done.work.store.read("steps", done.work.store.ranks()) is not None


def test_workers_of_a_dask_cluster(job: Path, read: list[str]) -> None:
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0"
    )
    try:
        found = load_ranks(job, cluster=cluster.scheduler_address)
    finally:
        cluster.close()
    assert cluster.scheduler_address.startswith("tcp://")
    assert found.ranks == [0, 1, 2, 3] and sorted(read) == [f"rank{rank}.json" for rank in range(4)]
    assert load_ranks(job).of("work").equals(found.of("work"))


def test_a_cluster_that_is_not_there(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "CONNECT_S", 0.2)
    with pytest.raises(OptionError, match=r"no Dask scheduler answers there .* Start one: dask scheduler"):
        load_ranks(job, cluster="tcp://127.0.0.1:9")


def test_a_job_and_its_store_in_memory(job: Path) -> None:
    far = fsspec.filesystem("memory")
    far.store.clear()
    for path in sorted(job.iterdir()):
        far.pipe_file(f"/jobs/a/node0/{path.name}", path.read_bytes())
    far.pipe_file("/jobs/a/rank4.json", b"hello")
    found = load_ranks("memory://jobs/a", store="memory://jobs/a.ranks")
    assert found.ranks == [0, 1, 2, 3] and found.files()["host"].tolist() == ["node0"] * 4 + [""]
    assert found.problems[0].startswith("left out: memory:///jobs/a/rank4.json: found text that is not JSON")
    again = load_ranks("memory://jobs/a", store="memory://jobs/a.ranks")
    assert again.of("work").equals(found.of("work"))
    assert len(far.find("/jobs/a.ranks")) == 5
    assert load_ranks(["memory://jobs/a/node0/rank0.json", "memory://jobs/a/node0/rank1.json"]).ranks == [0, 1]
    assert load_ranks("memory://jobs/a.ranks").store == "memory://jobs/a.ranks"
    far.rm("/jobs/a", recursive=True)
    assert load_ranks("memory://jobs/a.ranks").of("work").equals(found.of("work"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(job: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=job.parent)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_a_job_behind_a_web_server(server: str, tmp_path: Path, read: list[str]) -> None:
    pytest.importorskip("aiohttp")
    found = load_ranks(f"{server}/job", store=tmp_path / "store")
    assert found.ranks == [0, 1, 2, 3] and len(read) == 4
    assert load_ranks(f"{server}/job", store=tmp_path / "store").of("work").equals(found.of("work"))
    assert len(read) == 4
    with pytest.raises(InputError, match=r"cannot be reached|found no trace"):
        load_ranks(f"{server}/gone")


def test_an_address_of_an_unknown_kind() -> None:
    with pytest.raises(OptionError, match=r"nowhere:// cannot be read .* pip install 'fsspec\[nowhere\]'"):
        load_ranks("nowhere://bucket/job")
