from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from profiler_kit.analyses.memory.ranges import Ranges, free_requests, reserved_ranges
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s

MiB = 1 << 20


def loaded(tmp_path: Path, trace: list[dict[str, object]], *segments: dict[str, object]) -> Snapshot:
    return load_snapshot(s.write(tmp_path / "m.pickle", s.snapshot(trace, segments=list(segments))))


def listed(found: Ranges) -> list[tuple[int, int, int, int]]:
    columns = (found.address, found.size_bytes, found.reserve_event, found.release_event)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_a_segment_is_one_range_from_its_reservation_to_its_release(tmp_path: Path) -> None:
    trace = [
        s.event("segment_alloc", 1, 100 * MiB, 20 * MiB),
        s.event("segment_alloc", 2, 200 * MiB, 2 * MiB, stream=7),
        s.event("segment_free", 3, 100 * MiB, 20 * MiB),
        s.event("segment_free", 4, 300 * MiB, 4 * MiB),
    ]
    held = s.segment(200 * MiB, 2 * MiB, segment_type="small", segment_pool_id=(1, 0), stream=7)
    before = s.segment(400 * MiB, 8 * MiB)
    snapshot = loaded(tmp_path, trace, held, before)
    found = reserved_ranges(snapshot.events, snapshot.segments, 0)
    assert listed(found) == [
        (300 * MiB, 4 * MiB, -1, 3),
        (400 * MiB, 8 * MiB, -1, -1),
        (100 * MiB, 20 * MiB, 0, 2),
        (200 * MiB, 2 * MiB, 1, -1),
    ]
    assert found.pool == ("", "0,0", "", "1,0")
    assert found.small.tolist() == [False, False, False, True]
    assert found.stream.tolist()[3] == 7
    assert not found.expandable.any()


def test_an_unmapping_cuts_the_ranges_of_an_expandable_segment(tmp_path: Path) -> None:
    trace = [
        s.event("segment_map", 1, 0, 20 * MiB),
        s.event("segment_map", 2, 20 * MiB, 20 * MiB),
        s.event("segment_unmap", 3, 10 * MiB, 20 * MiB),
    ]
    snapshot = loaded(tmp_path, trace, s.segment(0, 10 * MiB), s.segment(30 * MiB, 10 * MiB))
    found = reserved_ranges(snapshot.events, snapshot.segments, 0)
    assert sorted(listed(found)) == [
        (0, 10 * MiB, 0, -1),
        (10 * MiB, 10 * MiB, 0, 2),
        (20 * MiB, 10 * MiB, 1, 2),
        (30 * MiB, 10 * MiB, 1, -1),
    ]
    assert found.expandable.all()


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_ranges_add_up_to_what_was_reserved_on_real_captures(path: Path) -> None:
    snapshot = load_snapshot(path)
    one = snapshot.replay(0)
    found = reserved_ranges(snapshot.events, snapshot.segments, 0)
    change = np.zeros(len(one.rows) + 2, np.int64)
    for size, reserve, release in zip(found.size_bytes, found.reserve_event, found.release_event, strict=True):
        change[0 if reserve < 0 else np.searchsorted(one.rows, reserve) + 1] += size
        change[-1 if release < 0 else np.searchsorted(one.rows, release) + 1] -= size
    assert np.cumsum(change)[:-1].tolist() == one.reserved_bytes.tolist()


def test_a_free_that_waits_is_known_from_its_request(tmp_path: Path) -> None:
    trace = [
        s.event("free_requested", 1, 0x9000, 5),
        s.alloc(2, 0x1000, 10),
        s.alloc(3, 0x2000, 20),
        s.event("free_requested", 4, 0x1000, 10),
        s.event("free_requested", 5, 0x2000, 20),
        s.event("free_completed", 6, 0x1000, 10),
        s.alloc(7, 0x1000, 30),
        s.event("free_completed", 8, 0x9000, 5),
    ]
    held = (s.block(0x1000, 512, 30), s.block(0x2000, 512, 20, "active_pending_free"), s.block(0x5000, 512, 7))
    snapshot = loaded(tmp_path, trace, s.segment(0, MiB, *held))
    allocations = snapshot.allocations()
    found = free_requests(snapshot.events, allocations, 0)
    assert dict(zip(zip(allocations["address"], allocations["size_bytes"], strict=True), found, strict=True)) == {
        (0x1000, 10): 3,
        (0x2000, 20): 4,
        (0x1000, 30): -1,
        (0x9000, 5): 0,
        (0x5000, 7): -1,
    }


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_every_request_of_a_real_capture_belongs_to_an_allocation(path: Path) -> None:
    snapshot = load_snapshot(path)
    found = free_requests(snapshot.events, snapshot.allocations(), 0)
    rows = np.flatnonzero((snapshot.events["action"] == "free_requested") & (snapshot.events["device"] == 0))
    assert np.sort(found[found >= 0]).tolist() == rows.tolist()
