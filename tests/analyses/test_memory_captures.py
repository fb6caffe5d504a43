"""What the captures of private pools and of expandable segments hold is read as it was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler_kit import Snapshot, join_run, load_snapshot, load_trace

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"


def gap_of(snapshot: Snapshot) -> int:
    """Bytes by which the replay forwards from the first state misses torch's own figure at the end."""
    one = snapshot.replay(0)
    before = snapshot.allocations()
    start = int(before[before["alloc_event"].isna()]["size_bytes"].sum())
    return start + int(one.allocated.sum() - one.freed.sum()) - int(one.allocated_bytes[-1])


def test_private_pools_of_graphs() -> None:
    """Two graphs share a pool and keep it; the third has one of its own, given back with the graph."""
    snapshot = load_snapshot(GOLDEN / "memory_pools_h200.pickle")
    assert gap_of(snapshot) == 0
    held = snapshot.segments.groupby("pool")["total_bytes"].sum().to_dict()
    assert held == {"0,0": 96 << 20, "1,0": 56 << 20}
    actions = snapshot.events["action"].value_counts()
    assert (actions["segment_alloc"], actions["segment_free"]) == (14, 3)
    regions = snapshot.regions().set_index("path")
    assert regions.at[("capture",), "allocated_bytes"] == 62_914_576  # 60 MiB and 16 bytes
    assert regions.at[("replay",), "allocated_bytes"] == 0  # a graph allocates when it is captured
    assert regions.at[("give one pool back",), "net_bytes"] == -(1 << 20)


def test_expandable_segments_until_there_is_no_more() -> None:
    snapshot = load_snapshot(GOLDEN / "memory_expandable_h200.pickle")
    assert gap_of(snapshot) == 0
    assert snapshot.segments["expandable"].all()
    actions = set(snapshot.events["action"].unique())
    assert {"segment_map", "segment_unmap", "oom"} <= actions and "segment_alloc" not in actions
    (failed,) = snapshot.failures(0)
    assert failed.requested_bytes == 256 << 20
    assert failed.device_free_bytes is not None and failed.device_free_bytes > 100 << 30  # the limit was the process's
    assert failed.reserved_bytes <= 3 << 29 < failed.reserved_bytes + failed.requested_bytes  # 1.5 GiB


@pytest.mark.parametrize(
    ("name", "kernels", "busy_ms", "peak_gib"),
    [("h200-vit_b-eager-fp32", 970, 76.721, 5.14), ("h200-vit_b-bf16-compile", 852, 18.185, 1.37)],
)
def test_the_samples_hold_kernels_and_memory_of_one_batch(
    name: str, kernels: int, busy_ms: float, peak_gib: float
) -> None:
    run = ROOT / "traces" / name
    joined = join_run(load_trace(run / "memory_trace.json.gz", cache=False), load_snapshot(run / "memory.pickle"))
    step = joined.region_totals().iloc[0]
    assert step["path"] == ("ProfilerStep",) and step["gpu_events"] == kernels
    assert step["busy_ns"] / 1e6 == pytest.approx(busy_ms, abs=0.001)
    assert step["peak_bytes"] / (1 << 30) == pytest.approx(peak_gib, abs=0.005)
    assert joined.clock.median_us < 5 and joined.clock.max_us < 50
