"""What is live, what stays, how long things live."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.analyses.memory.live import layer_path
from profiler_kit.load.snapshot.data import Frame
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s

CALL = s.frame("_call_impl", "torch/nn/modules/module.py", 1790)
WRAPPED = s.frame("_wrapped_call_impl", "torch/nn/modules/module.py", 1779)
LINEAR = [s.frame("forward", "torch/nn/modules/linear.py", 134), CALL, WRAPPED]
MLP = [s.frame("forward", "work/mlp.py", 31), CALL, WRAPPED]
MAIN = [s.frame("main", "train.py", 9)]


def load(tmp_path: Path, data: dict[str, Any]) -> Snapshot:
    return load_snapshot(s.write(tmp_path / "m.pickle", data))


def steps(tmp_path: Path, count: int = 5) -> Snapshot:
    """Each step keeps 8 bytes for good (a leak), makes 100 in `forward` and frees them within the step."""
    trace, marks = [], []
    for n in range(count):
        at = 100 * n
        marks += [s.mark("START", f"ProfilerStep#{n}", at), s.mark("START", "forward", at + 1)]
        trace.append(s.alloc(at + 2, 0x10000, 100, frames=LINEAR + MLP + MAIN))
        trace.append(s.alloc(at + 3, 0x20000 + 512 * n, 8, frames=MAIN))
        marks.append(s.mark("END", "forward", at + 10))
        trace += s.free(at + 20, 0x10000, 100)
        marks.append(s.mark("END", f"ProfilerStep#{n}", at + 50))
    blocks = [s.block(0x20000 + 512 * n, 512, 8, frames=MAIN) for n in range(count)]
    return load(tmp_path, s.snapshot(trace, segments=[s.segment(0x10000, 0x20000, *blocks)], marks=marks))


def test_live_at_the_peak_by_region(tmp_path: Path) -> None:
    rows = steps(tmp_path).live_by_region(0)
    assert rows[["path", "count", "size_bytes", "self_bytes"]].to_numpy().tolist() == [
        [("ProfilerStep",), 6, 140, 0],
        [("ProfilerStep", "forward"), 6, 140, 140],
    ]


def test_live_at_the_peak_by_layer(tmp_path: Path) -> None:
    rows = steps(tmp_path).live_by_layer(0)
    assert rows[["path", "count", "size_bytes", "self_bytes"]].to_numpy().tolist() == [
        [("mlp.py at train.py:9",), 1, 100, 0],
        [("mlp.py at train.py:9", "linear.py at mlp.py:31"), 1, 100, 100],
        [("(no layer)",), 5, 40, 40],
    ]
    assert rows["share"].round(3).tolist() == [0.714, 0.714, 0.286]


def test_a_cpu_recording_names_module_instances() -> None:
    frames = [
        Frame("", 0, "aten::empty"),
        Frame("a.py", 3, "nn.Module: Linear_1"),
        Frame("b.py", 4, "nn.Module: Sam_0"),
    ]
    assert layer_path(frames) == ("Sam_0", "Linear_1")
    assert layer_path([Frame("x.py", 1, "forward"), Frame("y.py", 2, "main")]) == ()  # called by hand: no module


def test_what_a_state_held_before_the_recording(tmp_path: Path) -> None:
    data = s.snapshot(s.free(5, 0x1000, 30), segments=[s.segment(0x1000, 1024)])
    found = load(tmp_path, data)
    for rows in (found.live_by_region(0), found.live_by_layer(0)):
        assert rows[["path", "size_bytes"]].to_numpy().tolist() == [[("(before the recording)",), 30]]
    assert len(found.live_by_region(0, state=2)) == 0


def test_a_leak_is_what_every_step_leaves(tmp_path: Path) -> None:
    (row,) = steps(tmp_path).leaks(0).to_dict("records")
    assert row == {
        "device": 0,
        "stack": 2,
        "path": ("ProfilerStep", "forward"),
        "count": 5,
        "size_bytes": 40,
        "instances_left": 5,
        "instances": 5,
        "growing": True,
        "first_us": s.T0 + 3,
        "last_us": s.T0 + 403,
    }
    assert steps(tmp_path, 2).leaks(0)["growing"].tolist() == [False]


def test_what_an_open_region_or_none_holds_is_no_leak(tmp_path: Path) -> None:
    trace = [s.alloc(1, 0x1000, 10), s.alloc(11, 0x2000, 10)]
    found = load(tmp_path, s.snapshot(trace, segments=[], marks=[s.mark("START", "open", 10)]))
    assert len(found.leaks(0)) == 0
    (row,) = load(tmp_path, s.snapshot(trace)).leaks(0).to_dict("records")  # without regions nobody can tell
    assert (row["path"], row["count"], row["size_bytes"], row["growing"]) == (("(no region)",), 2, 20, False)


def test_growth_from_step_to_step(tmp_path: Path) -> None:
    rows = steps(tmp_path).growth(0)
    assert rows[["path", "instances", "first_bytes", "last_bytes"]].to_numpy().tolist() == [
        [("ProfilerStep",), 5, 8, 40],
        [("ProfilerStep", "forward"), 5, 108, 140],
    ]
    assert rows[["median_step_bytes", "growing_steps", "steps"]].to_numpy().tolist() == [[8, 3, 3], [8, 3, 3]]
    assert len(steps(tmp_path, 3).growth(0)) == 0


def test_instances_of_regions(tmp_path: Path) -> None:
    rows = steps(tmp_path, 2).region_instances(0)
    assert rows["path"].tolist() == [("ProfilerStep",), ("ProfilerStep", "forward")] * 2
    assert rows[["before_bytes", "peak_bytes", "after_bytes"]].to_numpy().tolist() == [
        [0, 108, 8],
        [0, 108, 108],
        [8, 116, 16],
        [8, 116, 116],
    ]


def test_lifetimes(tmp_path: Path) -> None:
    first, second = steps(tmp_path).lifetimes().to_dict("records")
    assert (first["stack"], first["count"], first["size_bytes"], first["live_count"]) == (1, 5, 500, 0)
    assert (first["median_us"], first["max_us"]) == (18, 18)
    assert (second["live_count"], second["size_bytes"]) == (5, 40)
    assert math.isnan(second["median_us"])


def test_regions_say_what_they_turn_over_and_their_largest(tmp_path: Path) -> None:
    rows = steps(tmp_path).regions().set_index("path")[["churn_bytes", "largest_bytes", "largest_stack"]]
    assert rows.loc[[("ProfilerStep",)]].to_numpy().tolist() == [[500, 100, 1]]
    assert rows.loc[[("ProfilerStep", "forward")]].to_numpy().tolist() == [[0, 100, 1]]
    assert rows.loc[[("(no region)",)]].to_numpy().tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_trees_add_up_to_the_peak_of_real_captures(path: Path) -> None:
    found = load_snapshot(path)
    for device in found.devices:
        peak = found.replay(device).allocated_bytes.max()
        for rows in (found.live_by_region(device), found.live_by_layer(device)):
            assert rows["self_bytes"].sum() == peak
            assert rows.loc[rows["path"].map(len) == 1, "size_bytes"].sum() == peak
        left = found.allocations().query("device == @device and alloc_event.notna() and free_event.isna()")
        assert found.leaks(device)["count"].sum() <= len(left)
        regions = found.regions().query("device == @device")
        assert (regions["churn_bytes"] <= regions["allocated_bytes"]).all()
        assert (regions["largest_bytes"] <= regions["allocated_bytes"]).all()
