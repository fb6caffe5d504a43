"""Ranks of one job: who arrived last at each collective, also when the recordings do not begin together."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from profiler_kit import load_ranks
from profiler_kit.analyses.gpu.timeline import is_communication
from profiler_kit.analyses.ranks.places import rank_places
from profiler_kit.analyses.ranks.ranks import RANK_COLLECTIVES
from profiler_kit.errors import InputError, TraceFormatError
from profiler_kit.findings.ranks import who_holds_up
from profiler_kit.render.rank_heat import order_of
from tests.builders import SHARED, TraceBuilder
from tests.jobs import SimulatedJob

CASES = Path(__file__).parents[1] / "cases" / "traces"
REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL"


def collectives(folder: Path, *ranks: list[tuple[float, float]], name: str = REDUCE) -> pd.DataFrame:
    """RANK_COLLECTIVES of ranks with kernels of these (start, duration) in us."""
    for rank, listed in enumerate(ranks):
        trace = TraceBuilder()
        for number, (start, dur) in enumerate(listed):
            trace.kernel(number + 1, start, dur, name=name, stream=9)
        trace.write(folder / f"rank{rank}.json")
    return load_ranks(folder).collectives()


def waits(found: pd.DataFrame) -> list[tuple[int, int, int, bool]]:
    return list(found[["collective", "rank", "wait_ns", "last"]].itertuples(index=False, name=None))


def test_the_shortest_kernel_of_a_collective_belongs_to_the_rank_that_came_last(tmp_path: Path) -> None:
    found = collectives(tmp_path, [(100, 50), (200, 15), (300, 5)], [(140, 10), (190, 25), (300, 5)])
    assert waits(found)[:4] == [(0, 0, 40_000, False), (0, 1, 0, True), (1, 0, 0, True), (1, 1, 10_000, False)]


def test_recordings_that_begin_apart_are_shifted_to_the_ends_that_agree(tmp_path: Path) -> None:
    job = SimulatedJob(ranks=2, late=3, arguments=False)
    job.write(tmp_path)
    found = load_ranks(tmp_path).collectives()
    assert found["collective"].nunique() == len(job.truth[1]) == len(job.truth[0]) - 3


def test_one_rank_alone_waits_for_nobody(tmp_path: Path) -> None:
    assert collectives(tmp_path, [(0, 5)]).equals(RANK_COLLECTIVES.empty())


def job(folder: Path, names: tuple[str, str] = ("rank0.json", "rank1.json")) -> Path:
    for rank, name in enumerate(names):
        trace = TraceBuilder()
        trace.kernel(1, 0, 20)
        trace.kernel(2, 25 + 10 * rank, 15 - 10 * rank, name=REDUCE, stream=9)
        trace.write(folder / name)
    return folder


def test_a_folder_of_ranks_reads_as_one_job(tmp_path: Path) -> None:
    totals = load_ranks(job(tmp_path)).totals().set_index("rank")
    assert totals["wait_ns"].to_dict() == {0: 10_000, 1: 0}
    assert totals["held_ns"].to_dict() == {0: 0, 1: 10_000}
    assert totals["arrived_last"].to_dict() == {0: 0, 1: 1}
    assert totals["communication_ns"].to_dict() == {0: 15_000, 1: 5_000}


def test_traces_that_do_not_say_their_rank_are_refused_in_one_line(tmp_path: Path) -> None:
    job(tmp_path, ("a.json", "b.json"))
    with pytest.raises(InputError) as caught:
        load_ranks(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'a.json'}: says no rank (no distributedInfo, no rank in its name), expected one from each of 2 "
        "traces. Name the files rank0.json.gz and so on, or give a dict {rank: path}."
    )
    assert sorted(load_ranks({4: tmp_path / "a.json", 2: tmp_path / "b.json"}).traces) == [2, 4]


def test_two_traces_of_one_rank_are_refused(tmp_path: Path) -> None:
    job(tmp_path, ("rank1.json", "x_rank-1.json"))
    with pytest.raises(InputError, match="says it is rank 1, and so does"):
        load_ranks(tmp_path)


def test_a_folder_is_not_refused_for_what_is_no_rank(tmp_path: Path) -> None:
    folder = job(tmp_path, ("rank0.json", "rank1.json", "rank1b.json", "front_end.json"))
    (folder / "other.json").write_text('{"a": 1}')
    (folder / "rank2.json").write_text("hello")
    found = load_ranks(folder)
    assert list(found.traces) == [0, 1] and found.traces[1].path.name == "rank1.json"
    assert [line.removeprefix(f"left out: {folder}/").partition(", expected")[0] for line in found.problems] == [
        "front_end.json: says no rank (no distributedInfo, no rank in its name)",
        "other.json: found a JSON object with the keys ['a']",
        f"rank1b.json: says it is rank 1, and so does {folder / 'rank1.json'}",
        "rank2.json: found text that is not JSON, or cut off before its events (it starts with 'hello')",
    ]


def test_the_folder_of_a_server_that_runs_two_ranks(tmp_path: Path) -> None:
    """Its front end records a trace too, without a GPU and without a rank."""
    folder = Path(shutil.copytree(CASES / "folder_vllm", tmp_path / "folder_vllm"))
    found = load_ranks(folder)
    assert list(found.traces) == [0, 1] and found.totals()["rank"].tolist() == [0, 1]
    (line,) = found.problems
    assert line.startswith(f"left out: {folder / 'host_1234.async_llm.1733.pt.trace.json'}: says no rank")


def test_ranks_without_a_trace_are_named(tmp_path: Path) -> None:
    for rank in (0, 2):
        trace = TraceBuilder()
        trace.kernel(1, 0, 20)
        info = b'{"distributedInfo": {"rank": %d, "world_size": 4},' % rank
        (tmp_path / f"{rank}.json").write_bytes(trace.kineto().replace(b"{", info, 1))
    assert load_ranks(tmp_path).problems == (
        "2 of 4 ranks have no trace here: 1, 3. What they waited for is not known.",
    )


def test_broken_ranks_can_be_left_out(tmp_path: Path) -> None:
    folder = job(tmp_path)
    (folder / "rank1.json").write_text("hello")
    with pytest.raises(TraceFormatError):
        load_ranks(folder)
    found = load_ranks(folder, skip_broken=True)
    assert list(found.traces) == [0] and found.totals()["rank"].tolist() == [0]
    assert len(found.problems) == 1 and found.problems[0].startswith(f"left out: {folder / 'rank1.json'}: ")
    nothing = load_ranks({3: tmp_path / "missing.json"}, skip_broken=True)
    assert nothing.totals().empty and nothing.collectives().empty and len(nothing.problems) == 1


@pytest.mark.skipif(not (SHARED / "h200" / "ddp_rank1.json.gz").is_file(), reason="the real captures are not here")
def test_real_ranks_account_for_all_their_communication() -> None:
    ranks = load_ranks([SHARED / "h200" / f"ddp_rank{rank}.json.gz" for rank in (0, 1)])
    totals, found = ranks.totals().set_index("rank"), ranks.collectives()
    assert totals["collectives"].to_dict() == {0: 30, 1: 30}
    assert totals["arrived_last"].sum() == 30
    # one all-reduce is in flight at a time, so that kernel times add up to the union; rank 1 recorded one more
    recorded = ranks.traces[1].gpu_events()
    recorded = recorded[is_communication(recorded)]
    alone = recorded[~recorded["event"].isin(found.loc[found["rank"] == 1, "event"])]
    assert len(alone) == 1
    times = found.groupby("rank")["dur_ns"].sum().to_dict()
    times[1] += int(alone["dur_ns"].sum())
    assert times == totals["communication_ns"].to_dict()
    apart = found.groupby("collective")["start_ns"].agg(lambda start: start.max() - start.min())
    assert apart.max() < 20_000_000  # both clocks are of one host
    assert totals.loc[1, "wait_ns"] == totals.loc[0, "held_ns"]


def test_the_straggler_of_a_real_job(tmp_path: Path) -> None:
    ranks = load_ranks(Path(__file__).parents[1] / "golden" / "ddp", store=tmp_path / "store")
    totals = ranks.totals().set_index("rank")
    assert totals["collectives"].tolist() == [14, 14] and totals["arrived_last"].tolist() == [12, 2]
    assert totals["wait_ns"].tolist() == [4_736, 13_108_491]
    assert not ranks.answer.by_steps  # two steps were recorded
    assert "(90 % interval over its parts: " in who_holds_up(ranks).sentence


def test_one_trace_alone_is_said_to_be_alone(tmp_path: Path) -> None:
    trace = Path(__file__).parents[1] / "golden" / "streams_graph.json.gz"
    ranks = load_ranks([trace], store=tmp_path / "store")
    assert who_holds_up(ranks).sentence == "There is only one rank, and none to compare it with."
    two = load_ranks({0: trace, 1: Path(shutil.copy(trace, tmp_path))}, store=tmp_path / "two")
    assert who_holds_up(two).sentence == ("What holds the job up is unknown: no two ranks recorded a collective.")


def test_what_is_beside_a_rank_is_of_its_group_and_on_its_clock(tmp_path: Path) -> None:
    made = SimulatedJob(ranks=8, layout="3d", slow=5, cause="compute", nodes=2)
    ranks = load_ranks(made.write(tmp_path / "job"))
    assert ranks.nearest(5) == [4, 6, 3, 7] and ranks.nearest(5, "tp") == [4] and ranks.nearest(5, "dp") == [7]
    assert ranks.nearest(5, "node", most=2) == [4, 6]
    for other in ranks.nearest(5):
        # what is to be subtracted is how far the other clock is ahead, in ns
        ahead = (made.skew[other] - made.skew[5]) * 1000
        assert ranks.shift_ns(5, other, 10**12) == pytest.approx(ahead, abs=5_000)
    order = order_of(ranks.ranks, ranks.places(), "dp")
    assert [rank for rank, _ in order] == [0, 2, 1, 3, 4, 6, 5, 7]
    assert len({group for _, group in order}) == 4
    assert order_of(ranks.ranks, ranks.places(), "rank") == [(rank, "") for rank in range(8)]


def test_groups_without_a_description_are_told_apart_by_size_and_distance() -> None:
    rows = [("a", "", 2, "0:2:1"), ("b", "undefined", 2, "2:4:1"), ("c", "", 2, "0:4:2"), ("d", "", 2, "1:5:2"),
            ("e", "all", 4, "0:4:1"), ("f", "", 1, "0:1:1")]  # fmt: skip
    groups = pd.DataFrame(rows, columns=["name", "description", "size", "members"])
    places = rank_places(groups, dict.fromkeys(range(4), "")).itertuples(index=False)
    assert [(one.rank, one.kind, one.group) for one in places] == [
        *((0, "groups of 2, 1 apart", "a"), (1, "groups of 2, 1 apart", "a")),
        *((2, "groups of 2, 1 apart", "b"), (3, "groups of 2, 1 apart", "b")),
        *((0, "groups of 2, 2 apart", "c"), (1, "groups of 2, 2 apart", "d")),
        *((2, "groups of 2, 2 apart", "c"), (3, "groups of 2, 2 apart", "d")),
    ]
