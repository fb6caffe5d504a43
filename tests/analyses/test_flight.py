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


def form(version: str, rank: int, count: int) -> dict[str, Any]:
    """What a rank of two wrote in these versions of torch: it has issued so many collectives."""
    entries = [entry(number, state="started" if number == 2 else "completed") for number in range(1, count + 1)]
    whole: dict[str, Any] = dump(entries, 2)
    for one in entries:
        if version == "2.3":  # "1.5": a number in place of the name, one sequence
            one |= {"seq_id": one["collective_seq_id"]}
            for name in ("process_group", "collective_seq_id", "p2p_seq_id", "is_p2p", "timeout_ms"):
                del one[name]
        if version == "2.11":
            one |= {"thread_id": "140", "thread_name": "pt_main", "duration_ms": 0.5, "is_ghost": False}
    if version == "2.3":
        del whole["pg_config"]
    if version == "2.4":
        whole["version"] = "2.2"
    if version == "2.11":
        status = {"last_enqueued_collective": count, "last_started_collective": -1}
        whole |= {"rank": rank, "host_name": f"host{rank}", "comm_lib_version": "2.27.5", "pg_status": {"0": status}}
        whole["pg_config"]["0"]["ranks"] = [0, 1]
    return whole


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("version", ["2.4", "2.6", "2.11"])
def test_the_forms_of_torch_versions(tmp_path: Path, version: str, as_json: bool) -> None:
    rows = found(tmp_path, {0: form(version, 0, 2), 1: form(version, 1, 1)}, as_json=as_json)
    assert rows[["sequence", "state", "missing", "waiting"]].to_numpy().tolist() == [
        [2, "missing", "1", "0"],
        [1, "completed", "", ""],
    ]


def test_without_members_nobody_is_said_to_be_missing(tmp_path: Path) -> None:
    rows = found(tmp_path, {0: form("2.3", 0, 2), 1: form("2.3", 1, 1)})
    assert rows[["sequence", "state", "missing", "members"]].to_numpy().tolist() == [
        [2, "started", "", 0],
        [1, "completed", "", 0],
    ]


def test_a_group_of_which_all_records_were_overwritten_is_not_accused(tmp_path: Path) -> None:
    """pg_status numbers groups as the process made them: its 1 is not the group that is named "1"."""
    dumps = {}
    for rank in range(3):
        mine = [entry(number, group="0", process_group=("0", "tp"), pg_id=0) for number in range(700, 703)]
        named = {"group": "7", "process_group": ("7", "dp"), "pg_id": 1}
        mine += [] if rank == 2 else [entry(4, state="started", **named)]
        dumps[rank] = dump(mine, 3)
        dumps[rank]["pg_config"]["7"] = {"name": "7", "desc": "dp", "ranks": "[0, 1, 2]"}
        dumps[rank]["pg_status"] = {"7": {"last_enqueued_collective": 1}, "1": {"last_enqueued_collective": 4}}
    rows = found(tmp_path, dumps)
    (row,) = rows[rows["group"] == "7"].to_dict("records")
    assert (row["state"], row["missing"], row["unknown"], row["waiting"]) == ("started", "", "2", "0-1")


def test_hostile_pickles_run_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    write(tmp_path, {0: form("2.6", 0, 2)})
    calls = (
        b"cos\nsystem\n(S'touch %s'\ntR.",
        b"(S'touch %s'\nios\nsystem\n.",
        b"c__builtin__\neval\n(S'open(%r)'\ntR.",
    )
    for number, text in enumerate(calls):
        named = repr(str(marker)).encode() if b"%r" in text else str(marker).encode()
        (tmp_path / f"nccl_trace_rank_{number + 1}").write_bytes(text.replace(b"%s", named).replace(b"%r", named))
    (tmp_path / "nccl_trace_rank_4").write_bytes(b"\x80\x04]" + b"]" * 200_000 + b"a" * 200_000 + b".")  # deep
    (tmp_path / "nccl_trace_rank_5").write_bytes(b"(" + b"lp0\n(" * 10_000 + b".")
    (tmp_path / "nccl_trace_rank_6").write_bytes(b"\x80\x02P1\n.")
    (tmp_path / "nccl_trace_rank_8").write_bytes(b'{"entries": ' + b"[" * 100_000)
    (tmp_path / "nccl_trace_rank_9").write_bytes(pickle.dumps({"entries": [1, None, {"state": {}, "frames": 7}]}))
    dumps = read_dumps(tmp_path)
    assert list(dumps.ranks) == [0] and len(dumps.problems) == 8 and not marker.exists()
    assert all(len(line) < 700 for line in dumps.problems)
    assert len(flight(dumps)) == 2


def test_records_without_numbers_accuse_nobody(tmp_path: Path) -> None:
    """Neither the rank whose dump has none, nor one that is named by more than its last number."""
    write(tmp_path, {0: hung(0), 2: hung(2)})
    unnumbered = [{name: value for name, value in entry(1).items() if name != "collective_seq_id"}]
    (tmp_path / "nccl_trace_rank_1").write_bytes(pickle.dumps(dump(unnumbered)))
    (tmp_path / "rank3_of_node17.pickle").write_bytes(pickle.dumps({**hung(3), "rank": -1}))
    dumps = read_dumps(tmp_path)
    assert list(dumps.ranks) == [0, 2, 3]
    assert "none of its 1 entries has a number (collective_seq_id or seq_id)" in dumps.problems[0]
    rows = flight(dumps)
    assert rows["missing"].tolist() == ["2", "2", "", ""] and set(rows["no_dump"]) == {"1"}
    assert rows.loc[1, "sequence"] == 4 and rows["waits_ns"].isna().tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    ("name", "rank"),
    [
        ("node_rank_0_rank_3", 3),
        ("rank5_local_rank1.pkl", 5),
        ("node_rank_1_12.json", 12),
        ("job7_rank1_20261128.json", 1),
    ],
)
def test_the_rank_in_a_name_is_that_of_the_job(tmp_path: Path, name: str, rank: int) -> None:
    whole = dump([entry(1)])
    whole.pop("rank", None)
    (tmp_path / name).write_bytes(pickle.dumps(whole))
    assert list(read_dumps(tmp_path).ranks) == [rank]
