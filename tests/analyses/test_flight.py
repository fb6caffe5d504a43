"""Who is missing in which collective, from dumps of the flight recorder."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from profiler_kit.analyses.ranks.flight import flight, ranks_text
from profiler_kit.errors import InputError
from profiler_kit.load.flight.reader import read_dumps
from tests.cli.run import profiler_kit
from tests.flight_dumps import dump, entry, write


def found(folder: Path, dumps: dict[int, dict[str, Any]], **more: Any) -> pd.DataFrame:
    return flight(read_dumps(write(folder, dumps, **more)))


def hung(rank: int) -> dict[str, Any]:
    """Rank 2 of 4 never comes to collective 3; the others have issued it, and one more."""
    if rank == 2:
        return dump([entry(1), entry(2)])
    return dump([entry(1), entry(2), entry(3, state="started"), entry(4, state="scheduled")])


@pytest.mark.parametrize("as_json", [False, True])
def test_the_rank_that_did_not_come_is_named(tmp_path: Path, as_json: bool) -> None:
    rows = found(tmp_path, {rank: hung(rank) for rank in range(4)}, as_json=as_json)
    assert rows["sequence"].tolist() == [3, 4, 1, 2]
    assert rows["state"].tolist() == ["missing", "missing", "completed", "completed"]
    assert rows["missing"].tolist() == ["2", "2", "", ""] and rows["waiting"].tolist() == ["0-1, 3"] * 2 + [""] * 2
    assert rows["completed"].tolist() == [0, 0, 4, 4] and rows["members"].tolist() == [4] * 4
    assert rows.loc[0, "at"] == "train.py:43 train" and rows.loc[0, "waits_ns"] == 1_000_000
    assert rows.loc[0, "missing_at"] == "nccl:all_reduce (completed) train.py:42 train"


def test_nobody_is_missing_where_all_came_and_the_network_did_not(tmp_path: Path) -> None:
    rows = found(tmp_path, {rank: dump([entry(1), entry(2, state="started")]) for rank in range(4)})
    assert rows["state"].tolist() == ["started", "completed"] and rows["missing"].tolist() == ["", ""]
    assert rows.loc[0, "waiting"] == "0-3"


def test_a_rank_that_issued_something_else_is_said(tmp_path: Path) -> None:
    dumps = {rank: dump([entry(1, state="started")]) for rank in range(4)}
    dumps[1] = dump([entry(1, "broadcast", "started")])
    dumps[3] = dump([entry(1, state="started", size=9)])
    (row,) = found(tmp_path, dumps).to_dict("records")
    assert row["state"] == "differs" and row["operation"] == "nccl:all_reduce"
    assert row["differs"] == 'rank 1: nccl:broadcast; rank 3: nccl:all_reduce of [[[9]], ["Float"], [[9]], ["Float"]]'


def test_what_was_overwritten_is_not_missing(tmp_path: Path) -> None:
    """A rank keeps its last entries only: what is before them, it had issued. Without any its status says so."""
    dumps = {0: dump([entry(5, state="started")]), 1: dump([entry(6, state="started")], last=6), 2: dump([], last=7)}
    dumps[3] = dump([], last=4)
    rows = found(tmp_path, dumps).set_index("sequence")
    assert rows["unknown"].to_dict() == {5: "1-2", 6: "2"} and rows["missing"].to_dict() == {5: "3", 6: "0, 3"}


def test_ranks_without_a_dump_are_not_missing(tmp_path: Path) -> None:
    rows = found(tmp_path, {0: hung(0), 2: hung(2)})
    assert rows["no_dump"].tolist() == ["1, 3"] * 4 and rows["missing"].tolist() == ["2", "2", "", ""]


def test_a_send_without_its_receive(tmp_path: Path) -> None:
    more = {"is_p2p": True, "p2p_seq_id": 1}
    rows = found(
        tmp_path,
        {
            0: dump([entry(0, "send 0->1", "started", **more), entry(0, "send 0->2", "completed", **more)]),
            1: dump([]),
            2: dump([entry(0, "recv 2<-0", "completed", **more)]),
        },
    )
    assert rows[["operation", "state", "missing", "members"]].to_numpy().tolist() == [
        ["send 0->1", "missing", "1", 2],
        ["send 0->2", "completed", "", 2],
    ]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/evil",)


def test_files_that_are_no_dumps_are_said_and_the_rest_is_read(tmp_path: Path) -> None:
    write(tmp_path, {rank: hung(rank) for rank in range(4)})
    (tmp_path / "nccl_trace_rank_7").write_bytes(pickle.dumps({"entries": [Evil()]}))
    (tmp_path / "nccl_trace_rank_8").write_bytes(b"\x80\x05\x95cut")
    (tmp_path / "nccl_trace_rank_9").write_bytes(b'{"a": 1}')
    (tmp_path / "rank1.json").write_bytes((tmp_path / "nccl_trace_rank_1").read_bytes())
    (tmp_path / "nccl_trace_rank_30").write_bytes(b"\x80\x04r\xff\xff\xff\x7f.")  # asks for much memory
    (tmp_path / "notes").write_text("{}")
    dumps = read_dumps(tmp_path)
    assert list(dumps.ranks) == [0, 1, 2, 3]
    said = {line.split(":")[0].rsplit("/", 1)[1]: line for line in dumps.problems}
    assert said.keys() == {f"nccl_trace_rank_{rank}" for rank in (7, 8, 9, 30)} | {"rank1.json", "notes"}
    assert "asks for the global posix.system" in said["nccl_trace_rank_7"]
    assert "says it is rank 1" in said["rank1.json"] and "has no list of entries" in said["nccl_trace_rank_9"]
    with pytest.raises(InputError, match=r"no list of entries .* TORCH_NCCL_TRACE_BUFFER_SIZE"):
        read_dumps([tmp_path / "nccl_trace_rank_9"])


def test_the_command(tmp_path: Path) -> None:
    done = profiler_kit("flight", write(tmp_path / "dumps", {rank: hung(rank) for rank in range(4)}))
    assert done.code == 0 and done.err == ""
    assert "nccl:all_reduce" in done.out and "missing" in done.out and "0-1, 3" in done.out


def test_ranks_are_written_as_runs() -> None:
    assert ranks_text([5, 1, 2, 3, 9, 8]) == "1-3, 5, 8-9" and ranks_text([]) == ""
