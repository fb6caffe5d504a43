from __future__ import annotations

import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler_kit.analyses.memory import regions as memory_regions
from profiler_kit.analyses.memory import replay as memory
from profiler_kit.analyses.memory.stack_names import stack_name
from profiler_kit.errors import OptionError
from profiler_kit.load.snapshot.data import Frame
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s

KiB = 1024


def load(tmp_path: Path, data: dict[str, Any]) -> Snapshot:
    return load_snapshot(s.write(tmp_path / "m.pickle", data))


def small(tmp_path: Path) -> Snapshot:
    """100 bytes from before, 1000 in region outer, 500 in outer > inner, both freed; 40 live at the end.

    at    0     10    20     30     40     50    60    70
          |outer-------------------------|
                |inner-------|
    total 100   1100  1600   1100   1600         600  140
    """
    trace = [
        s.event("segment_alloc", 5, 0x10000, 4 * KiB),
        s.alloc(5, 0x10000, 1000),
        s.alloc(15, 0x10400, 500),
        *s.free(25, 0x10400, 500),
        s.alloc(35, 0x10400, 500),
        *s.free(60, 0x10000, 1000),
        *s.free(61, 0x10400, 500),
        s.alloc(70, 0x10000, 40),
        {"action": "oom", "size": 9999, "device_free": 5, "stream": 0, "time_us": s.T0 + 71, "frames": []},
    ]
    marks = [
        s.mark("START", "outer", 0),
        s.mark("START", "inner", 10),
        s.mark("END", "inner", 30),
        s.mark("END", "outer", 50),
    ]
    segments = [
        s.segment(0x8000, 1 * KiB, s.block(0x8000, 512, 100), s.block(0x8200, 512, 0, "inactive")),
        s.segment(0x10000, 4 * KiB, s.block(0x10000, 512, 40), s.block(0x10200, 3584, 0, "inactive")),
    ]
    return load(tmp_path, s.snapshot(trace, segments=segments, marks=marks))


# ---- numbers a person can check ----


def test_summary_of_a_small_history(tmp_path: Path) -> None:
    def region(
        path: list[str], instances: int, peak: int, allocated: int, freed: int, churn: int, largest: int
    ) -> dict[str, object]:
        return {
            "path": path,
            "instances": instances,
            "peak_bound": "" if path == ["outer", "inner"] else "at least",  # it began after the history
            "peak_bytes": peak,
            "allocated_bytes": allocated,
            "freed_bytes": freed,
            "net_bytes": allocated - freed,
            "churn_bytes": churn,
            "largest_bytes": largest,
            "largest_stack": 0,
        }

    assert small(tmp_path).summary() == {
        "devices": [
            {
                "device": 0,
                "device_type": "cuda",
                "events": 12,
                "peak_allocated_bytes": 1600,
                "peak_bound": "at least",  # memory from before, no stacks, and no word of the ring
                "peak_time_us": s.T0 + 15,
                "end_allocated_bytes": 140,
                "reserved_bytes": 5 * KiB,
                "fragmentation": 0.8,
                "history_truncated": False,
                "history_followed": True,
                "unmatched_frees": 0,
                "left_out_blocks": 0,
                "left_out_segments": 0,
                "oom": [{"time_us": s.T0 + 71, "requested_bytes": 9999, "device_free_bytes": 5}],
                "regions": [
                    region(["outer"], 1, 1600, 2000, 500, 500, 1000),
                    region(["outer", "inner"], 1, 1600, 500, 500, 500, 500),
                    region(["(no region)"], 0, 1600, 40, 1500, 0, 40),
                ],
            }
        ]
    }


def test_timeline_has_a_row_per_change(tmp_path: Path) -> None:
    frame = small(tmp_path).timeline()
    assert frame["time_us"].sub(s.T0).tolist() == [5, 5, 15, 25, 35, 60, 61, 70]
    assert frame["allocated_bytes"].tolist() == [100, 1100, 1600, 1100, 1600, 600, 100, 140]
    assert frame["reserved_bytes"].tolist() == [5 * KiB] * 8


def test_allocations_pair_alloc_and_free(tmp_path: Path) -> None:
    frame = small(tmp_path).allocations()
    rows = frame[["size_bytes", "alloc_event", "free_event"]].fillna(-1).to_numpy().tolist()
    assert rows == [[100, -1, -1], [1000, 1, 7], [500, 2, 4], [500, 5, 9], [40, 10, -1]]


def test_live_at_the_peak(tmp_path: Path) -> None:
    live = small(tmp_path).live_at_peak(0)
    assert live[["before", "count", "size_bytes", "share"]].to_numpy().tolist() == [
        [False, 2, 1500, 0.9375],
        [True, 1, 100, 0.0625],
    ]


def test_out_of_memory_knows_the_totals(tmp_path: Path) -> None:
    failed = small(tmp_path).failures(0)
    assert failed == [(s.T0 + 71, 9999, 5, 140, 5 * KiB, 0)]


def test_region_spans(tmp_path: Path) -> None:
    spans = small(tmp_path).region_spans()
    assert spans["path"].tolist() == [("outer",), ("outer", "inner")]
    assert spans[["start_us", "end_us"]].sub(s.T0).to_numpy().tolist() == [[0, 50], [10, 30]]


def test_pending_blocks_count_until_the_free_is_complete(tmp_path: Path) -> None:
    trace = [s.alloc(1, 0x1000, 300), s.event("free_requested", 2, 0x1000, 300)]
    segments = [s.segment(0x1000, 2 * KiB, s.block(0x1000, 512, 300, "active_pending_free"))]
    device = load(tmp_path, s.snapshot(trace, segments=segments)).summary()["devices"][0]
    assert device["end_allocated_bytes"] == 300
    assert device["fragmentation"] == 0.75


def test_expandable_segments_change_what_is_reserved(tmp_path: Path) -> None:
    trace = [s.event("segment_map", 1, 0, 4 * KiB), s.event("segment_unmap", 2, 0, 1 * KiB)]
    one = load(tmp_path, s.snapshot(trace, segments=[s.segment(0, 6 * KiB, is_expandable=True)])).replay(0)
    assert one.reserved_bytes.tolist() == [3 * KiB, 7 * KiB, 6 * KiB]


def test_without_segments_the_start_is_what_was_freed_later(tmp_path: Path) -> None:
    trace = [s.alloc(1, 0x1000, 10), *s.free(2, 0x2000, 70)]
    one = load(tmp_path, s.snapshot(trace)).replay(0)
    assert one.allocated_bytes.tolist() == [70, 80, 80, 10]


def test_a_history_with_a_gap_never_goes_negative(tmp_path: Path) -> None:
    trace = [s.alloc(1, 0x1000, 10), s.alloc(2, 0x1000, 20), *s.free(3, 0x1000, 20), *s.free(4, 0x1000, 90)]
    one = load(tmp_path, s.snapshot(trace, segments=[s.segment(0, 2 * KiB)])).replay(0)
    assert one.allocated_bytes.min() >= 0


def test_clock_that_steps_back(tmp_path: Path) -> None:
    trace = [s.alloc(9, 0x1000, 10), s.alloc(4, 0x2000, 20)]
    assert load(tmp_path, s.snapshot(trace)).timeline()["time_us"].sub(s.T0).tolist() == [9, 9]


def test_device_that_is_not_there(tmp_path: Path) -> None:
    found = small(tmp_path)
    with pytest.raises(OptionError) as caught:
        found.summary(3)
    assert str(caught.value) == f"device 3: not in {found.path}, found 0. Choose one of these with --device."


def test_two_devices_are_apart(tmp_path: Path) -> None:
    traces = [[s.alloc(1, 0x1000, 10)], [s.alloc(1, 0x1000, 70), *s.free(3, 0x1000, 70)]]
    marks = [s.mark("START", "a", 0, device=1), s.mark("END", "a", 2, device=1)]
    rows = load(tmp_path, s.snapshot(*traces, marks=marks)).summary()["devices"]
    assert [row["peak_allocated_bytes"] for row in rows] == [10, 70]
    assert [[region["path"] for region in row["regions"]] for row in rows] == [
        [["(no region)"]],
        [["a"], ["(no region)"]],
    ]
    assert rows[1]["regions"][0]["net_bytes"] == 70


# ---- regions ----


def nest(tmp_path: Path, *marks: dict[str, Any]) -> list[tuple[tuple[str, ...], int, int, bool]]:
    trace = [s.alloc(0, 1, 1), s.alloc(100, 2, 1)]
    spans = load(tmp_path, s.snapshot(trace, marks=list(marks))).region_spans()
    rows = spans[["path", "start_us", "end_us", "closed"]].itertuples(index=False, name=None)
    return [(path, start - s.T0, end - s.T0, closed) for path, start, end, closed in rows]


def test_end_closes_the_innermost_start_of_its_name(tmp_path: Path) -> None:
    marks = [s.mark("START", "a", 1), s.mark("START", "b", 2), s.mark("START", "a", 3), s.mark("END", "a", 4)]
    assert nest(tmp_path, *marks, s.mark("END", "b", 5), s.mark("END", "a", 6)) == [
        (("a",), 1, 6, True),
        (("a", "b"), 2, 5, True),
        (("a", "b", "a"), 3, 4, True),
    ]


def test_unclosed_region_ends_with_the_history(tmp_path: Path) -> None:
    assert nest(tmp_path, s.mark("START", "a", 7)) == [(("a",), 7, 100, False)]


def test_end_without_a_start_was_open_when_the_recording_began(tmp_path: Path) -> None:
    marks = [s.mark("START", "in", 3), s.mark("END", "in", 4), s.mark("END", "a", 5), s.mark("END", "outer", 6)]
    assert nest(tmp_path, *marks) == [
        (("outer",), 0, 6, True),
        (("outer", "a"), 0, 5, True),
        (("outer", "a", "in"), 3, 4, True),
    ]


def test_history_begins_with_the_region_around_its_first_event(tmp_path: Path) -> None:
    marks = [s.mark("START", "gone", 1), s.mark("END", "gone", 2), s.mark("START", "around", 5)]
    found = load(tmp_path, s.snapshot([s.alloc(9, 1, 1)], [], marks=marks))
    assert found.origin_us(0) == s.T0 + 5
    assert found.origin_us(1) == 0


def test_profiler_steps_are_one_region(tmp_path: Path) -> None:
    marks = [
        s.mark(stage, f"ProfilerStep#{n}", 2 * n + at) for n in range(3) for at, stage in enumerate(("START", "END"))
    ]
    found = load(tmp_path, s.snapshot([s.alloc(0, 1, 1)], marks=marks)).regions()
    assert found["path"].tolist() == [("ProfilerStep",), ("(no region)",)]
    assert found["instances"].tolist() == [3, 0]


def test_endless_nesting_is_bounded(tmp_path: Path) -> None:
    marks = [s.mark("START", f"r{n}", 1) for n in range(3000)]
    paths = load(tmp_path, s.snapshot([s.alloc(2, 1, 1)], marks=marks)).region_spans()["path"]
    assert paths.map(len).max() == memory_regions.MAX_DEPTH


def test_range_max_is_the_maximum_of_each_range() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 1000, 500)
    since = rng.integers(0, 499, 200)
    until = np.minimum(since + rng.integers(1, 300, 200), 500)
    expected = [values[a:b].max() for a, b in zip(since, until, strict=True)]
    assert memory_regions.range_max(values, since, until).tolist() == expected


def random_history(seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    trace, marks, open_names, live = [], [], [], {}
    for at in range(400):
        kind = rng.random()
        if kind < 0.5:
            live[address := rng.randrange(1, 10**6) * 512] = size = rng.randrange(1, 10**6)
            trace.append(s.alloc(at, address, size))
        elif kind < 0.8 and live:
            address = rng.choice(list(live))
            trace += s.free(at, address, live.pop(address))
        elif kind < 0.9:
            open_names.append(name := rng.choice("abc"))
            marks.append(s.mark("START", name, at))
        elif open_names:
            marks.append(s.mark("END", open_names.pop(rng.randrange(len(open_names))), at))
    blocks = [s.block(address, size, size) for address, size in live.items()]
    return s.snapshot(trace, segments=[s.segment(0, 10**10, *blocks)], marks=marks)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_between_regions(tmp_path: Path, seed: int) -> None:
    check_regions(load(tmp_path, random_history(seed)))


def check_regions(found: Snapshot) -> None:
    for device in found.devices:
        one = found.replay(device)
        rows = found.regions()
        top = rows[(rows["device"] == device) & (rows["path"].map(len) == 1)]
        if not one.followed:
            assert top["path"].isin([("(no region)",)]).all() and not top["peak_bytes"].any()
            continue
        assert top["allocated_bytes"].sum() == one.allocated.sum()
        assert top["freed_bytes"].sum() == one.freed.sum()
        assert top["path"].iloc[-1] == ("(no region)",)
        assert top["peak_bytes"].max() == one.allocated_bytes.max()


# ---- the truth: torch's own figures ----


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: path.name)
def test_replay_agrees_with_torch_on_real_captures(path: Path) -> None:
    """The start is not chosen to fit: it is also what the events say was allocated before."""
    plain = pickle.loads(path.read_bytes())
    found = load_snapshot(path)
    for device in found.devices:
        one = found.replay(device)
        segments = [segment for segment in plain["segments"] if segment["device"] == device]
        assert one.allocated_bytes[-1] == sum(segment["requested_size"] for segment in segments)
        assert one.reserved_bytes[-1] == sum(segment["total_size"] for segment in segments)
        assert one.allocated_bytes.min() >= 0
        assert (one.reserved_bytes >= one.allocated_bytes).all()
        before = found.allocations().query("device == @device and alloc_event.isna()")
        assert one.allocated_bytes[0] == before["size_bytes"].sum()
        moments = np.flatnonzero(found.events["action"].to_numpy()[one.rows] == "snapshot")
        for at in moments:  # torch writes its active bytes into the event
            assert one.allocated_bytes[at + 1] == plain["device_traces"][device][at]["size"]
        assert found.live_at_peak(device)["size_bytes"].sum() == one.allocated_bytes.max()
    check_regions(found)


def test_snapshot_event_in_mid_history_is_among_the_captures() -> None:
    found = load_snapshot(s.ROOT / "tests" / "golden" / "memory_train_h200.pickle")
    actions = found.events["action"].tolist()
    assert "snapshot" in actions[:-1]
    assert {"oom", "segment_alloc", "free_requested"} <= set(actions)
    assert set(found.segments["pool"]) != {"0,0"}  # the CUDA graph's private pool


@pytest.mark.skipif(not s.CAPTURES.is_dir(), reason="the real captures are not beside the project")
def test_sam_step_by_region() -> None:
    found = load_snapshot(s.CAPTURES / "sam_vit_b_memory.pickle")
    (row,) = found.summary()["devices"]
    assert row["peak_allocated_bytes"] == 5520305576
    assert found.peak_region(0) == ("timed region", "image encoder")
    assert [(r["path"][-1], r["instances"]) for r in row["regions"]] == [
        ("timed region", 1),
        ("image encoder", 1),
        ("prompt encoder", 2),
        ("mask decoder", 2),
        ("postprocess", 2),
        ("(no region)", 0),
    ]
    top = found.live_at_peak(0).iloc[0]
    assert stack_name(found.stacks[int(top["stack"])]) == "add_decomposed_rel_pos (modeling/image_encoder.py:358)"


# ---- what is missing ----


def history(count: int) -> dict[str, Any]:
    """One lasting allocation, then temporaries that overlap; every one has a stack."""
    stack = [s.frame("f")]
    trace = [s.event("segment_alloc", 0, 0x1000, 0x1000 + 512 * count), s.alloc(0, 0x1000, 100, frames=stack)]
    for n in range(count):
        trace.append(s.alloc(n + 1, 0x2000 + 512 * n, 10, frames=stack))
        if n:
            trace += s.free(n + 1, 0x2000 + 512 * (n - 1), 10)
    blocks = [s.block(0x1000, 512, 100, frames=stack), s.block(0x2000 + 512 * (count - 1), 512, 10, frames=stack)]
    return s.snapshot(trace, segments=[s.segment(0x1000, 0x1000 + 512 * count, *blocks)])


def test_truncation_is_seen_by_its_traces(tmp_path: Path) -> None:
    whole = history(20)
    assert load(tmp_path, whole).missing(0) == memory.Missing(0, 0, False)
    whole["device_traces"][0] = whole["device_traces"][0][-9:]  # what a ring of nine keeps
    cut = load(tmp_path, whole)
    assert cut.missing(0) == memory.Missing(1, 1, True)
    assert cut.summary()["devices"][0]["history_truncated"] is True
    assert cut.summary()["devices"][0]["unmatched_frees"] == 1


def test_ring_size_settles_it(tmp_path: Path) -> None:
    data = history(20)
    count = len(data["device_traces"][0])
    for entries, truncated in ((count, True), (count + 1, False)):
        found = load(tmp_path, {**data, "profiler_kit": {"source": "cuda", "max_entries": entries}})
        assert found.missing(0).truncated is truncated


def test_parameters_of_an_earlier_recording_are_no_evidence(tmp_path: Path) -> None:
    stack = [s.frame("load_model")]
    trace = [s.alloc(1, 0x2000, 10), *s.free(2, 0x2000, 10)]
    data = s.snapshot(trace, segments=[s.segment(0x1000, 512, s.block(0x1000, 512, 100, frames=stack))])
    assert load(tmp_path, data).missing(0) == memory.Missing(0, 1, False, untold=True)


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: path.name)
def test_no_real_capture_lost_events(path: Path) -> None:
    found = load_snapshot(path)
    assert [found.missing(device).truncated for device in found.devices] == [False] * len(found.devices)


# ---- words ----


def test_stack_names() -> None:
    inner, own = Frame("torch/nn/functional.py", 5, "linear"), Frame("/home/me/train.py", 12, "step")
    cpp = Frame("CUDACachingAllocator.cpp", 0, "c10::cuda::CUDACachingAllocator::malloc")
    assert stack_name((cpp, inner, own)) == "step (me/train.py:12) › linear"
    assert stack_name((own,)) == "step (me/train.py:12)"
    assert stack_name((cpp, inner)) == "linear (nn/functional.py:5)"
    assert stack_name((Frame("none", 0, "aten::empty"),)) == "aten::empty"
    assert stack_name(()) == "(no Python stack, as on the backward thread)"
    assert stack_name((), before=True) == "(before the recording)"
