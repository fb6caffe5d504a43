"""What a job needs to know of one rank: its collectives, and what it did between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from profiler_kit import load_trace
from profiler_kit.analyses.gpu.timeline import is_communication
from profiler_kit.analyses.ranks.of_rank import (
    RANK_ARGUMENTS,
    RANK_GROUPS,
    RANK_PARTS,
    RANK_STEPS,
    RANK_WORK,
    RankParts,
    members_of,
    members_text,
    of_rank,
)
from profiler_kit.trace import Trace
from tests.builders import TraceBuilder

GOLDEN = Path(__file__).parents[1] / "golden" / "ddp" / "ddp_rank0.json.gz"


def parts_of(path: Path) -> tuple[Trace, RankParts]:
    trace = load_trace(path, arguments=RANK_ARGUMENTS)
    return trace, of_rank(trace.columns, trace._attribution, trace.metadata, trace.base_ns)


@pytest.fixture(scope="module")
def golden() -> tuple[Trace, RankParts]:
    return parts_of(GOLDEN)


def test_the_columns_are_those_of_the_schemas(golden: tuple[Trace, RankParts]) -> None:
    _, found = golden
    for schema, columns in (
        (RANK_WORK, found.work),
        (RANK_GROUPS, found.groups),
        (RANK_STEPS, found.steps),
        (RANK_PARTS, found.parts),
    ):
        assert list(schema.check(pd.DataFrame(columns)).columns) == list(columns)


def test_what_was_done_before_and_under_the_collectives_tiles_the_time(golden: tuple[Trace, RankParts]) -> None:
    trace, found = golden
    work = pd.DataFrame(found.work)
    pieces = work.filter(regex="^(before|under)_")
    assert (pieces >= 0).all().all()
    assert int(pieces.sum().sum()) == work["end_ns"].max() - found.start_ns
    events = trace.gpu_events()
    kernels = events[is_communication(events)]
    assert work["event"].tolist() == kernels["event"].tolist()
    assert (work["start_ns"] - trace.base_ns).tolist() == kernels["start_ns"].tolist()
    assert set(work["operation"]) == {"allreduce"} and set(work["group"]) == {0}
    assert found.timeline == trace.summary()["gpu_timeline"]
    parts = pd.DataFrame(found.parts)
    for kind in ("region", "kernel"):
        assert parts.loc[parts["kind"] == kind, "gpu_ns"].sum() == events[~is_communication(events)]["dur_ns"].sum()


@pytest.mark.parametrize("members", [[], [3], [0, 1, 2, 3], [1, 3, 5], [0, 1, 8, 9, 40], [5, 4, 3]])
def test_members_are_written_as_runs(members: list[int]) -> None:
    assert members_of(members_text(tuple(members))).tolist() == members
    assert len(members_text(tuple(range(0, 9_000, 3)))) < 12


def test_a_rank_without_collectives_and_one_without_a_gpu(tmp_path: Path) -> None:
    alone = TraceBuilder()
    alone.kernel(1, 0, 20)
    _, found = parts_of(alone.write(tmp_path / "alone.json"))
    assert (
        found.gpu_events == 1 and len(found.work["event"]) == 0 and found.parts["gpu_ns"].tolist() == [20_000, 20_000]
    )
    host = TraceBuilder()
    host.region("step", 0, 10)
    _, found = parts_of(host.write(tmp_path / "host.json"))
    assert found.gpu_events == 0 and all(len(column) == 0 for column in found.work.values())


def test_a_kernel_held_up_by_the_one_before_it_was_ready_when_what_it_depends_on_was_done(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for correlation, (start, dur, name, stream) in enumerate(
        [
            (0, 20, "gemm", 7),
            (25, 100, "ncclDevKernel_AllReduce", 9),
            (30, 10, "gemm", 7),
            (125.5, 5, "ncclDevKernel_AllGather", 9),
        ]
    ):
        trace.kernel(correlation + 1, start, dur, name=name, stream=stream)
    _, found = parts_of(trace.write(tmp_path / "queued.json"))
    assert np.diff(found.work["arrive_ns"]).tolist() == [15_000]
    assert found.work["operation"] == ["allreduce", "allgather"]
