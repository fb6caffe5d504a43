"""Jobs are found by what the traces say of their rank, and nothing in a file can break the search."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from profiler_kit.load.discover.jobs import find_jobs, folder_traces, head_metadata, rank_of, rank_snapshots
from profiler_kit.load.discover.rank_sources import find_job
from profiler_kit.load.discover.runs import find_runs
from tests.app.samples import make_job
from tests.builders import TraceBuilder


def test_a_folder_of_named_ranks_is_a_job(tmp_path: Path) -> None:
    make_job(tmp_path)
    TraceBuilder().write(tmp_path / "alone.json")
    (job,) = find_jobs(find_runs(tmp_path))
    assert (job.key, job.name, [rank for rank, _ in job.ranks]) == ("job", "job", [0, 1])


def test_the_rank_of_a_node_or_within_one_is_none_of_the_job(tmp_path: Path) -> None:
    for name in ("node_rank_0_rank_3", "local-rank0.rank4"):
        assert rank_of({}, tmp_path / f"{name}.json") == int(name[-1])
    assert rank_of({}, tmp_path / "local_rank_1.json") == 1
    snapshot = tmp_path / "node_rank0_rank3.pickle"
    snapshot.touch()
    assert rank_snapshots({3: tmp_path / "node_rank0_rank3.json"}) == {3: snapshot}


def test_the_head_of_a_file_says_its_rank(tmp_path: Path) -> None:
    for number, name in enumerate(("host_12.pt.trace.json.gz", "host_13.pt.trace.json.gz")):
        head = f'{{"distributedInfo": {{"backend": "nccl", "rank": {number}, "pg": [{{"x": 1}}]}}, "traceEvents": []}}'
        (tmp_path / name).write_bytes(gzip.compress(head.encode()))
    (job,) = find_jobs(find_runs(tmp_path))
    assert [(rank, path.name[:7]) for rank, path in job.ranks] == [(0, "host_12"), (1, "host_13")]
    assert job.key == "."


def test_of_two_of_one_rank_the_first_by_name_counts(tmp_path: Path) -> None:
    for name in ("rank0.json", "rank1.json", "rank0.json.gz"):
        TraceBuilder().write(tmp_path / name)
    (job,) = find_jobs(find_runs(tmp_path))
    assert job.ranks == ((0, tmp_path / "rank0.json"), (1, tmp_path / "rank1.json"))
    (line,) = job.problems
    assert line.startswith(f"left out: {tmp_path}/rank0.json.gz: says it is rank 0, and so does {tmp_path}/rank0.json,")


def test_what_a_ladder_wrote_is_no_trace(tmp_path: Path) -> None:
    for name in ("results.json", "results.csv", "run.json", "notes.json", "rank0.json"):
        (tmp_path / name).write_text("{}")
    assert folder_traces(tmp_path) == [tmp_path / "rank0.json"]
    assert [one.name for one in find_job(tmp_path).sources] == ["rank0.json"]


def test_two_of_one_rank_alone_are_no_job(tmp_path: Path) -> None:
    for name in ("rank0.json", "rank0.json.gz"):
        TraceBuilder().write(tmp_path / name)
    assert find_jobs(find_runs(tmp_path)) == []


def test_folders_of_nodes_are_one_job(tmp_path: Path) -> None:
    """Not two recordings of the same ranks."""
    for job, nodes in (("four", ((0, 1), (2, 3))), ("each", ((0,), (1,))), ("twice", ((0, 1), (0, 1)))):
        for number, ranks in enumerate(nodes):
            (tmp_path / job / f"node{number}").mkdir(parents=True)
            for rank in ranks:
                size = 2 if job == "each" else 4
                head = f'{{"distributedInfo": {{"rank": {rank}, "world_size": {size}}}, "traceEvents": []}}'
                (tmp_path / job / f"node{number}" / f"rank{rank}.json").write_text(head)
    found = [(job.key, job.name, [rank for rank, _ in job.ranks]) for job in find_jobs(find_runs(tmp_path))]
    assert found == [
        *(("each", "each", [0, 1]), ("four", "four", [0, 1, 2, 3])),
        *(("twice/node0", "twice/node0", [0, 1]), ("twice/node1", "twice/node1", [0, 1])),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1f\x8b",
        b"\x1f\x8bxxxx",
        b'"distributedInfo": {"rank": ',
        b"\xff\xfe\x00",
        b'{"distributedInfo": ' + b'{"a":' * 90_000,
    ],
)
def test_a_head_that_says_nothing_is_no_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.json").write_bytes(data)
    assert head_metadata(tmp_path / "x.json") == {}
    assert head_metadata(tmp_path / "gone.json") == {}
