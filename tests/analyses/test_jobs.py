"""Jobs of known truth: who is named, which kernels are one collective, the clocks, and what a change would gain."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler_kit import load_ranks
from profiler_kit.analyses.ranks.causes import JobAnswer
from profiler_kit.ranks import Ranks
from tests.cli.run import profiler_kit
from tests.jobs import SimulatedJob

GOLDEN = Path(__file__).parents[1] / "golden" / "ranks"
SLOW = {
    "data parallel": {"cause": "compute"},
    "since a step": {"cause": "compute", "ranks": 8, "since": 2},
    "tensor parallel": {"cause": "compute", "layout": "tp", "ranks": 8},
    "3d": {"cause": "compute", "layout": "3d", "ranks": 8, "slow": 5},
    "experts": {"cause": "compute", "layout": "experts"},
    "host": {"cause": "host"},
    "host in 3d": {"cause": "host", "layout": "3d", "ranks": 8, "slow": 6},
    "data": {"cause": "data", "slow": 1},
    "copies": {"cause": "copies", "slow": 3},
    "two ranks": {"cause": "compute", "ranks": 2, "slow": 1},
    "no arguments": {"cause": "compute", "arguments": False},
    "no arguments, late": {"cause": "compute", "arguments": False, "late": 4},
    "no arguments, 3d": {"cause": "compute", "arguments": False, "layout": "3d", "ranks": 8, "slow": 5},
    "no numbers, late, a kernel lost": {"cause": "host", "numbers": False, "late": 3, "dropped": 2},
    "no numbers, late, pairs": {
        "cause": "data", "numbers": False, "layout": "tp", "ranks": 16, "late": 5, "slow": 0, "steps": 8,
        "jitter": 0.01, "skew_us": 1e6, "seed": 706322,
    },
    "late": {"cause": "compute", "late": 5},
    "late in 3d": {"cause": "host", "layout": "3d", "ranks": 8, "late": 4, "slow": 5},
    "a kernel lost": {"cause": "compute", "dropped": 0},
    "drift": {"cause": "compute", "drift_ppm": 80, "steps": 6},
    "clocks off by hours": {"cause": "compute", "ranks": 8, "skew_us": 3.6e9, "since": 2, "steps": 6},
    "clocks off by seconds and drifting, 3d": {
        "cause": "host", "layout": "3d", "ranks": 8, "slow": 6, "skew_us": 5e6, "drift_ppm": 60, "steps": 6,
    },
    "one step alone": {"cause": "compute", "ranks": 8, "steps": 1, "jitter": 0.05},
    "one slow step of the host": {"cause": "host", "only": True, "since": 3, "steps": 6},
    "one slow step of the GPU": {"cause": "compute", "only": True, "since": 3, "steps": 6},
}  # fmt: skip
EVEN = {
    "data parallel": {},
    "two ranks": {"ranks": 2},
    "tensor parallel": {"layout": "tp", "ranks": 8},
    "3d": {"layout": "3d", "ranks": 8},
    "experts": {"layout": "experts"},
    "late": {"late": 5},
}


def made(folder: Path, **options: Any) -> tuple[SimulatedJob, Ranks]:
    job = SimulatedJob(**options)
    job.write(folder / "job")
    return job, load_ranks(folder / "job", workers=1)


def check_matching(job: SimulatedJob, answer: JobAnswer) -> None:
    """All that another rank recorded too is matched, and all rightly."""
    truth = np.concatenate([job.truth[rank] for rank in sorted(job.truth)])
    found = answer.rows["collective"].to_numpy()
    shared = np.bincount(truth)[truth] > 1
    assert ((found >= 0) == shared).all()
    pairs = set(zip(found[shared].tolist(), truth[shared].tolist(), strict=True))
    assert len(pairs) == len(set(found[shared].tolist())) == len(set(truth[shared].tolist()))
    assert answer.matched == shared.sum() and answer.unmatched == (~shared).sum() == sum(answer.why.values())


def check_clocks(job: SimulatedJob, answer: JobAnswer) -> None:
    for _, rows in answer.clocks.groupby("component"):
        truth = np.array([job.skew[rank] for rank in rows["rank"]])
        off = rows["offset_ns"].to_numpy() / 1000 - (truth - truth[0])
        assert np.median(np.abs(off)) < 5 and rows["error_ns"].max() < 2_000


@pytest.mark.parametrize("options", SLOW.values(), ids=SLOW)
def test_the_cause_is_named_and_no_victim(options: dict[str, Any], tmp_path: Path) -> None:
    job, ranks = made(tmp_path, **options)
    answer = ranks.answer
    check_matching(job, answer)
    check_clocks(job, answer)
    verdict = answer.verdict
    assert (verdict.state, verdict.rank, verdict.cause) == ("rank", job.slow, job.cause)
    first = job.since + (0 if job.since else 2) + (2 if job.late else 0)  # nothing to compare before the first one
    assert verdict.since_step is not None and job.since <= verdict.since_step <= first
    assert verdict.gain_share is not None and verdict.gain_low is not None and verdict.gain_high is not None
    assert verdict.gain_low <= verdict.gain_share <= verdict.gain_high
    parts = answer.slow_parts.set_index("part")["more_ns"]
    assert abs(parts["own work"] - parts[1:].sum()) <= len(parts)


@pytest.mark.parametrize("options", EVEN.values(), ids=EVEN)
def test_nobody_is_named_where_nobody_is_slow(options: dict[str, Any], tmp_path: Path) -> None:
    job, ranks = made(tmp_path, **options)
    check_matching(job, ranks.answer)
    assert ranks.answer.verdict.state == "nobody" and ranks.answer.verdict.rank is None


@pytest.mark.parametrize(("layout", "steps", "seed", "rank"), [("3d", 2, 105, 6), ("dp", 1, 102, 1)])
def test_what_may_be_chance_in_so_few_steps_is_not_named(
    layout: str, steps: int, seed: int, rank: int, tmp_path: Path
) -> None:
    _, ranks = made(tmp_path, layout=layout, ranks=8, steps=steps, jitter=0.1, seed=seed)
    verdict = ranks.answer.verdict
    assert (verdict.state, verdict.rank, verdict.ranks) == ("cannot tell", None, (rank,))
    assert ranks.findings()[0].sentence == (
        f"What holds the job up is unknown: rank {rank} has more work than the others, which may be chance over so "
        f"few steps. Record more steps."
    )


def true_gain(job: SimulatedJob) -> float:
    """Of the same job with nobody slow."""
    even = replace(job, cause="", also={}, truth={}, skew={})
    even.run()
    return 1 - even.span_us / job.span_us


@pytest.mark.parametrize("since", [0, 2])
@pytest.mark.parametrize("layout", ["dp", "tp", "3d", "experts"])
@pytest.mark.parametrize("cause", ["compute", "host", "copies"])
def test_the_replay_tells_what_it_gains(layout: str, cause: str, since: int, tmp_path: Path) -> None:
    job, ranks = made(tmp_path, layout=layout, cause=cause, ranks=8, slow=5, since=since, steps=8)
    found = ranks.answer
    assert found.replayed_ns == pytest.approx(found.recorded_ns, rel=0.005)
    assert found.verdict.gain_share == pytest.approx(true_gain(job), rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 2, "ranks": 16, "cause": "data", "slow": 0, "dropped": 3, "seed": 787196},
        {"ranks": 16, "cause": "copies", "slow": 4, "dropped": 6, "layout": "experts", "steps": 3},
        {"ranks": 8, "cause": "data", "slow": 5, "dropped": 2, "steps": 6, "since": 2, "arguments": False},
        {"ranks": 16, "cause": "host", "slow": 9, "dropped": 3, "layout": "tp", "steps": 4},
        {"ranks": 8, "cause": "link", "slow": 6, "dropped": 1, "layout": "3d", "steps": 3, "numbers": False},
    ],
    ids=str,
)
def test_a_lost_kernel_of_another_rank_hides_no_gain(options: dict[str, Any], tmp_path: Path) -> None:
    job, ranks = made(tmp_path, **options)
    assert (ranks.answer.verdict.rank, ranks.answer.verdict.cause) == (job.slow, job.cause)
    assert ranks.answer.verdict.gain_share == pytest.approx(true_gain(job), rel=0.05)


TOGETHER = {
    "4 ranks, one of two": {"ranks": 4, "cause": "compute", "slow": 1, "also": {3: "data"}, "layout": "tp", "steps": 3},
    "a kernel lost": {"ranks": 4, "cause": "host", "slow": 0, "also": {2: "compute"}, "dropped": 3, "steps": 8},
    "3d": {"ranks": 16, "layout": "3d", "cause": "compute", "slow": 13, "also": {6: "data"}, "since": 1, "steps": 6},
    "experts": {"ranks": 8, "layout": "experts", "cause": "copies", "slow": 2, "also": {0: "host"}, "steps": 6},
    "by one cause": {"ranks": 4, "cause": "compute", "slow": 3, "also": {0: "compute"}, "dropped": 2, "steps": 3},
}


@pytest.mark.parametrize("options", TOGETHER.values(), ids=TOGETHER)
def test_two_slow_ranks_are_both_named_with_what_slows_each(options: dict[str, Any], tmp_path: Path) -> None:
    job, ranks = made(tmp_path, **options)
    verdict = ranks.answer.verdict
    causes = {job.slow: job.cause, **job.also}
    assert (verdict.state, verdict.ranks) == ("spread", tuple(sorted(causes)))
    assert {one.rank: one.cause for one in verdict.slow} == causes
    assert verdict.cause == (job.cause if len(set(causes.values())) == 1 else None)
    assert verdict.gain_share == pytest.approx(true_gain(job), rel=0.05)


def test_what_is_said_of_two_causes(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, ranks=8, cause="host", slow=1, also={6: "compute"}, steps=6)
    said = ranks.findings()[0]
    assert said.sentence.startswith(
        "Ranks 1, 6 hold the job up: rank 1 since step 0, its host launches late; rank 6 since step 0, its kernels "
        "take longer. If they were like the others, the job would take "
    )
    assert said.attempt.startswith("Rank 1: look at that region") and "Rank 6: compare clocks" in said.attempt
    done = json.loads(profiler_kit("ranks", tmp_path / "job", "--json").out)
    assert done["slow"] == [
        {"rank": 1, "cause": "host", "since_step": 0, "slow_steps": None},
        {"rank": 6, "cause": "compute", "since_step": 0, "slow_steps": None},
    ]


def test_who_may_hide_behind_sends_that_are_not_matched_is_not_nobody(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, layout="3d", ranks=16, cause="host", slow=13, since=2, steps=8, jitter=0.01, seed=703134,
                    arguments=False)  # fmt: skip
    assert ranks.answer.verdict.state == "cannot tell" and ranks.answer.unmatched == 128


def test_what_only_ends_at_about_one_time_is_no_collective(tmp_path: Path) -> None:
    """Both ranks of a pair of tensor ranks receive within a microsecond: no group says that these are one thing."""
    job, ranks = made(tmp_path, layout="3d", ranks=16, cause="host", slow=2, also={0: "host"}, since=2, drift_ppm=50,
                      arguments=False, seed=904435)  # fmt: skip
    truth = np.concatenate([job.truth[rank] for rank in sorted(job.truth)])
    found = ranks.answer.rows["collective"].to_numpy()
    pairs = set(zip(found[found >= 0].tolist(), truth[found >= 0].tolist(), strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) == len({one for _, one in pairs})
    assert ranks.answer.verdict.state == "cannot tell" and ranks.answer.unmatched == 64


def test_all_to_all_without_arguments_is_no_pipeline(tmp_path: Path) -> None:
    _, ranks = made(
        tmp_path, layout="experts", ranks=8, cause="host", slow=7, late=3, arguments=False, steps=6, since=1
    )
    assert (ranks.answer.verdict.rank, ranks.answer.verdict.cause) == (7, "host")


def test_those_that_began_to_record_later_are_not_compared_at_other_places(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, layout="3d", ranks=16, steps=2, jitter=0.05, seed=331294, late=3, dropped=9)
    assert ranks.answer.verdict.state == "nobody"


@pytest.mark.parametrize(("since", "steps"), [(0, 6), (2, 4)])
def test_a_link_that_became_slow(since: int, steps: int, tmp_path: Path) -> None:
    job, ranks = made(tmp_path, layout="3d", ranks=8, cause="link", slow=3, since=since, steps=steps)
    verdict = ranks.answer.verdict
    assert (verdict.state, verdict.rank, verdict.since_step) == ("link", 3, since)
    assert verdict.gain_share == pytest.approx(true_gain(job), rel=0.05)


def test_a_slow_link_is_no_slow_rank(tmp_path: Path) -> None:
    job, ranks = made(tmp_path, layout="3d", ranks=16, cause="link", slow=3, steps=5)
    assert (ranks.answer.verdict.state, ranks.answer.verdict.rank, ranks.answer.verdict.cause) == ("link", 3, "link")
    even = replace(job, cause="", truth={}, skew={})
    even.run()
    assert ranks.answer.verdict.gain_share == pytest.approx(1 - even.span_us / job.span_us, rel=0.05)
    slow = ranks.answer.links.iloc[0]
    assert slow["of_like"] == pytest.approx(8, rel=0.1)


def test_a_slow_link_is_told_in_few_steps_too(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, layout="3d", ranks=8, cause="link", slow=6, steps=2)
    verdict = ranks.answer.verdict
    assert (verdict.state, verdict.rank, verdict.since_step) == ("link", 6, 0)


def test_a_slow_link_whose_gain_a_lost_kernel_hides_is_not_nobody(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, layout="3d", ranks=8, cause="link", slow=3, steps=3, late=5, dropped=3, jitter=0.01,
                    seed=971830)  # fmt: skip
    assert ranks.answer.verdict.state == "cannot tell" and ranks.answer.links["of_like"].iloc[0] > 5


def test_the_link_of_a_pair(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, layout="tp", ranks=8, cause="link", slow=2)
    verdict = ranks.answer.verdict
    assert (verdict.state, verdict.rank, verdict.ranks) == ("link", None, (2, 3))
    assert ranks.answer.clocks["component"].nunique() == 4


def test_missing_ranks_are_named_and_a_missing_cause_is_not_guessed(tmp_path: Path) -> None:
    job = SimulatedJob(ranks=4, cause="host", slow=2)
    job.write(tmp_path / "job", left_out=[2])
    ranks = load_ranks(tmp_path / "job", workers=1)
    assert ranks.missing == [2] and ranks.answer.verdict.state == "cannot tell"
    found = SimulatedJob(ranks=4, cause="host", slow=1)
    found.write(tmp_path / "other", left_out=[3])
    verdict = load_ranks(tmp_path / "other", workers=1).answer.verdict
    assert (verdict.state, verdict.rank, verdict.cause) == ("rank", 1, "host")


@pytest.mark.parametrize(
    ("name", "rank", "cause", "step", "where"),
    [("host_step", 1, "host", 9, "augment"), ("gpu_step", 0, "compute", 8, "sm80_xmma_gemm_f32f32_f32f32_f32_nn_n")],
)
def test_two_real_gpus_of_which_one_rank_was_slow_in_one_step(
    name: str, rank: int, cause: str, step: int, where: str, tmp_path: Path
) -> None:
    """Recorded by benchmarks/slow_rank.py on two H200."""
    shutil.copytree(GOLDEN / name, tmp_path / name)
    ranks = load_ranks(tmp_path / name, workers=1)
    answer = ranks.answer
    verdict = answer.verdict
    assert (verdict.state, verdict.rank, verdict.cause, verdict.since_step) == ("rank", rank, cause, step)
    assert f"Rank {rank} holds the job up in step {step}: " in ranks.findings()[0].sentence
    times = ranks.step_times().set_index("step")
    assert times["slow_rank"][step] == rank and (times["slow_rank"].isna() == (times["more_ns"] == 0)).all()
    assert (answer.matched, answer.unmatched) == (160, 0) and answer.clocks["error_ns"].max() < 3_000
    assert answer.by_steps
    assert verdict.gain_share is not None and 0.05 < verdict.gain_share < 0.25
    assert ranks.slow_names()["name"].iloc[0].startswith(where)


def test_ranks_below_each_other_on_one_clock(tmp_path: Path) -> None:
    job, _ = made(tmp_path, cause="host", drift_ppm=50)
    out = tmp_path / "three.json"
    done = profiler_kit("export", tmp_path / "job", "-o", out, "--ranks", "0,1,2", "--step", "2", "--json")
    events = [one for one in json.loads(out.read_bytes())["traceEvents"] if one["ph"] == "X"]
    assert json.loads(done.out)["events"] == len(events) > 30
    ends: dict[int, list[float]] = {}
    for one in events:
        if one["name"].startswith("nccl"):
            ends.setdefault(one["pid"], []).append(one["ts"] + one["dur"])
    assert len(ends) == 3 and np.ptp(np.array(list(ends.values())), axis=0).max() < 2
    named = profiler_kit("export", tmp_path / "job", "-o", out, "--ranks", "9")
    assert named.code == 1 and "[9] not among the ranks" in named.err and max(job.skew) == 3


def test_one_rank_alone_cannot_be_compared(tmp_path: Path) -> None:
    SimulatedJob(ranks=4).write(tmp_path / "job", left_out=[0, 2, 3])
    answer = load_ranks(tmp_path / "job", workers=1).answer
    assert answer.verdict.state == "cannot tell" and answer.matched == 0


def test_a_node_is_named_when_all_its_ranks_are_slow(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, ranks=8, nodes=2, cause="host", slow=(4, 5, 6, 7))
    assert set(ranks.files()["host"]) == {"node0", "node1"}
    verdict = ranks.answer.verdict
    assert (verdict.state, verdict.rank, verdict.node, verdict.cause) == ("node", None, "node1", "host")
    assert ranks.findings()[0].sentence.startswith("Node node1 holds the job up since step 0: its host launches late.")


def test_two_slow_ranks_of_four_are_not_their_node(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, ranks=8, nodes=2, cause="compute", slow=7, also={6: "copies"}, layout="experts", steps=3)
    verdict = ranks.answer.verdict
    assert (verdict.state, verdict.node, verdict.ranks) == ("spread", None, (6, 7))


def test_several_slow_ranks_share_it(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, ranks=8, cause="compute", slow=(1, 6))
    verdict = ranks.answer.verdict
    assert (verdict.state, verdict.rank, verdict.ranks, verdict.cause) == ("spread", None, (1, 6), "compute")
    said = ranks.findings()[0]
    assert "Ranks 1, 6 hold the job up since step 0: their kernels take longer." in said.sentence
    assert said.attempt.startswith("for each rank, compare clocks")


@pytest.mark.parametrize(
    ("slow", "nodes", "state"), [((1, 6), 1, "spread"), ((4, 5, 6, 7), 2, "node")], ids=["several ranks", "a node"]
)
def test_what_is_said_of_the_slowest_of_several_is_its_own(
    slow: tuple[int, ...], nodes: int, state: str, tmp_path: Path
) -> None:
    _, ranks = made(tmp_path, ranks=8, nodes=nodes, cause="compute", slow=slow)
    answer = ranks.answer
    most = answer.scores.set_index("rank")["more_ns"].idxmax()
    work, names = answer.slow_parts.iloc[0], ranks.slow_names()
    assert answer.verdict.state == state and most in slow
    assert (work["part"], work["rank"], set(names["rank"])) == ("own work", most, {most})
    assert 0 < work["own_ns"] <= answer.scores.set_index("rank")["own_ns"][most]
    assert f"Rank {most}, the slowest: own work beyond that of its peers" in ranks.findings()[0].details[0]


def test_what_is_printed_says_who_by_what_and_since_when(tmp_path: Path) -> None:
    _, ranks = made(tmp_path, cause="host", since=1, dropped=2)
    matched = ranks.answer.matched
    done = profiler_kit("ranks", tmp_path / "job")
    assert "Rank 2 holds the job up since step 1: its host launches late. If it were like the others," in done.out
    assert "Most in regions: forward " in done.out and "Clocks were " in done.out
    said = json.loads(profiler_kit("ranks", tmp_path / "job", "--json").out)
    verdict = said["verdict"]
    keys = ["state", "rank", "node", "cause", "since_step", "gain_share", "gain_low", "gain_high"]
    assert list(verdict) == keys and [verdict[key] for key in keys[:5]] == ["rank", 2, None, "host", 1]
    assert said["matched"] == matched and said["unmatched"] == 0
    assert said["clocks"]["components"] == 1 and said["clocks"]["worst_error_us"] < 5
    assert said["missing"] == said["left_out"] == [] and [row["rank"] for row in said["ranks"]] == [0, 1, 2, 3]
    for by in ("step", "what-if", "part", "name", "link", "clock"):
        assert len(json.loads(profiler_kit("ranks", tmp_path / "job", "--by", by, "--json").out)) > 0


@pytest.mark.parametrize("options", [{"late": 7, "slow": 5}, {"dropped": 2, "slow": 2, "numbers": False}], ids=str)
def test_the_gain_is_of_what_was_recorded(options: dict[str, Any], tmp_path: Path) -> None:
    """Also of a rank that began later, or lost a kernel, the wait for which is in that of another rank."""
    job, ranks = made(tmp_path, layout="3d", cause="compute", ranks=8, steps=6, **options)
    whole = replace(job, cause="compute", truth={}, skew={}, late=0, dropped=None)
    assert ranks.answer.verdict.rank == job.slow
    expected = load_ranks(whole.write(tmp_path / "whole"), workers=1).answer.verdict.gain_share
    assert ranks.answer.verdict.gain_share == pytest.approx(expected, rel=0.03)


def test_a_rank_of_an_older_version_records_no_arguments(tmp_path: Path) -> None:
    job = SimulatedJob(ranks=6, cause="compute", slow=3, steps=5)
    file = job.write(tmp_path / "job") / "rank1.json"
    trace = json.loads(file.read_text())
    for event in trace["traceEvents"]:
        event["args"] = {
            name: event["args"][name] for name in ("device", "stream", "correlation") if name in event["args"]
        }
    file.write_text(json.dumps(trace))
    answer = load_ranks(tmp_path / "job", workers=1).answer
    check_matching(job, answer)
    assert (answer.verdict.state, answer.verdict.rank, answer.unmatched) == ("rank", 3, 0)


@pytest.mark.parametrize("layout", ["dp", "3d"])
def test_a_slow_rank_whose_collectives_are_lost_is_not_told_from_nobody(layout: str, tmp_path: Path) -> None:
    """Neither from its kernels nor, in 3D, from those of its peers; nobody else is named."""
    job = SimulatedJob(ranks=8, layout=layout, cause="compute", slow=2, steps=5)
    file = job.write(tmp_path / "job") / "rank2.json"
    trace = json.loads(file.read_text())
    trace["traceEvents"] = [event for event in trace["traceEvents"] if "nccl" not in event["name"]]
    file.write_text(json.dumps(trace))
    ranks = load_ranks(tmp_path / "job", workers=1)
    assert ranks.answer.verdict.state == "cannot tell" and not ranks.missing
    assert "it may be waiting for rank 2, of which no collective is recorded." in ranks.findings()[0].sentence


@pytest.mark.parametrize("cause", ["", "host", "data", "copies"])
def test_of_one_step_what_was_before_the_first_collective_is_not_told_from_nobody(cause: str, tmp_path: Path) -> None:
    ranks = load_ranks(SimulatedJob(ranks=4, cause=cause, slow=2, steps=1).write(tmp_path / "job"), workers=1)
    state = ranks.answer.verdict.state
    assert state == ("cannot tell" if cause else "nobody") and ranks.answer.verdict.rank is None
    assert ("it waited for rank 2 in its first collective" in ranks.findings()[0].sentence) == bool(cause)


def test_a_drift_over_long_kernels_is_no_work_of_its_own(tmp_path: Path) -> None:
    job = SimulatedJob(ranks=6, cause="compute", slow=3, steps=6, slower=250)  # some 10 s
    steady = load_ranks(job.write(tmp_path / "steady"), workers=1).answer.verdict
    drifting = replace(job, drift_ppm=30, truth={}, skew={})
    found = load_ranks(drifting.write(tmp_path / "drifting"), workers=1).answer
    assert found.verdict.rank == steady.rank == 3 and found.clocks["error_ns"].max() < 5_000
    assert found.verdict.gain_share == pytest.approx(steady.gain_share, rel=0.01)
