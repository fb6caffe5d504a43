from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profiler_kit.analyses.memory import fragmentation as memory_fragmentation
from profiler_kit.analyses.memory.allocator_rules import Rules
from profiler_kit.analyses.memory.blocks import BlockReplay
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s
from tests.allocator import Allocator, Block, busy

KiB, MiB = 1 << 10, 1 << 20
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "expandable": {"expandable": True},
    "max_split": {"max_split": 20 * MiB},
    "roundup": {"divisions": 4},
}


def load(tmp_path: Path, data: dict[str, Any]) -> Snapshot:
    return load_snapshot(s.write(tmp_path / "m.pickle", data))


def state(replay: BlockReplay, number: int) -> set[Block]:
    frame = replay.at(number)
    active = frame["allocation"].notna()
    return set(zip(frame["address"].tolist(), frame["size_bytes"].tolist(), active.tolist(), strict=True))


# ---- numbers a person can check ----


def two_blocks(tmp_path: Path) -> Snapshot:
    """A large segment split in two; the first block goes, then the second."""
    one = Allocator()
    a = one.malloc(3 * MiB - 100)
    b = one.malloc(2 * MiB)
    one.free(a)
    one.free(b)
    return load(tmp_path, one.snapshot())


def test_blocks_split_and_merge(tmp_path: Path) -> None:
    replay = two_blocks(tmp_path).block_replay(0)
    base = 1 << 40
    rows = replay.blocks.sort_values(["from_state", "address"])
    found = [
        (address - base, size / MiB, since, until)
        for address, size, since, until in zip(
            *(rows[name].tolist() for name in ("address", "size_bytes", "from_state", "to_state")), strict=True
        )
    ]
    assert found == [
        (0, 20, 1, 2),
        (0, 3, 2, 5),
        (3 * MiB, 17, 2, 3),
        (3 * MiB, 2, 3, 7),
        (5 * MiB, 15, 3, 7),
        (0, 3, 5, 7),
        (0, 20, 7, 8),
    ]
    assert replay.blocks["allocation"].notna().sum() == 2
    assert replay.event_segment.tolist() == [0] * 7
    assert (replay.active_bytes / MiB).tolist() == [0, 0, 3, 5, 5, 2, 2, 0]
    assert (replay.largest_free_bytes / MiB).tolist() == [0, 20, 17, 15, 15, 15, 15, 20]
    assert (replay.split_bytes / MiB).tolist() == [0, 0, 17, 15, 15, 18, 18, 0]


def test_fragmentation_over_time(tmp_path: Path) -> None:
    frame = two_blocks(tmp_path).fragmentation()
    assert frame["time_us"].sub(s.T0).tolist() == [0, 1, 2, 4, 6]
    assert frame["allocated_bytes"].tolist() == [0, 3 * MiB - 100, 5 * MiB - 100, 2 * MiB, 0]
    assert (
        frame[["active_bytes", "reserved_bytes", "largest_free_bytes", "inactive_split_bytes"]] / MiB
    ).to_numpy().tolist() == [
        [0, 20, 20, 0],
        [3, 20, 17, 17],
        [5, 20, 15, 15],
        [2, 20, 15, 18],
        [0, 20, 20, 0],
    ]


def test_what_an_allocation_would_have_found(tmp_path: Path) -> None:
    found = two_blocks(tmp_path)
    base = 1 << 40
    fit = memory_fragmentation.Fit
    assert found.fit(0, 2 * MiB, state=5) == fit(2 * MiB, 2 * MiB, base, 3 * MiB, 20 * MiB)
    assert found.fit(0, 4 * MiB, state=5) == fit(4 * MiB, 4 * MiB, base + 5 * MiB, 15 * MiB, 20 * MiB)
    assert found.fit(0, 16 * MiB + 1, state=5) == fit(16 * MiB + 1, 16 * MiB + 512, None, 0, 18 * MiB)
    assert found.fit(0, 16 * MiB + 1).found == base
    assert found.fit(0, 4 * MiB, state=5, stream=3).found is None
    assert found.fit(0, 100, state=5) == fit(100, 512, None, 0, 2 * MiB)  # the small pool has no segment
    fits = memory_fragmentation.fits(found.block_replay(0), 16 * MiB)
    assert fits.tolist() == [False, True, True, False, False, False, False, True]


def test_rounding() -> None:
    plain, quarters = Rules({}), Rules({"roundup_power2_divisions": {str(1 << i): 4 for i in range(16)}})
    assert [plain.block(size) for size in (0, 1, 512, 513, 5 * MiB + 1)] == [512, 512, 512, 1024, 5 * MiB + 512]
    assert [quarters.block(size) for size in (1200, 2100, 4 * KiB, 5 * MiB, 5 * MiB + 1)] == [
        1536,
        2560,
        4 * KiB,
        5 * MiB,
        6 * MiB,
    ]
    only_large = Rules({"roundup_power2_divisions": {"4": 2}})  # from 4 MiB to 8 MiB
    assert [only_large.block(size) for size in (3 * MiB + 1, 4 * MiB + 1, 8 * MiB + 1)] == [
        3 * MiB + 512,
        6 * MiB,
        8 * MiB + 512,
    ]


def test_settings_of_another_kind_count_as_none() -> None:
    rules = Rules({"expandable_segments": "yes", "max_split_size": "5", "roundup_power2_divisions": {"1": [4]}})
    assert (rules.expandable, rules.max_split, rules.block(1200)) == (False, None, 1536)


# ---- against an allocator ----


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_every_state_is_what_the_allocator_had(tmp_path: Path, settings: str, seed: int) -> None:
    truth = busy(seed, **SETTINGS[settings])
    found = load(tmp_path, truth.snapshot())
    replay = found.block_replay(0)
    assert (replay.mismatches, replay.gaps) == (0, 0)
    for number, blocks in enumerate(truth.states):
        assert state(replay, number) == blocks
        free = [(address, size) for address, size, active in blocks if not active]
        assert replay.largest_free_bytes[number] == max((size for _, size in free), default=0)
        assert replay.active_bytes[number] == sum(size for _, size, active in blocks if active)
        assert replay.active_bytes[number] + sum(size for _, size in free) == found.replay(0).reserved_bytes[number]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_history_that_begins_in_the_middle_ends_right(tmp_path: Path, settings: str) -> None:
    for seed in range(2):
        truth = busy(seed + 50, **SETTINGS[settings])
        for dropped in (40, 120, len(truth.trace)):
            replay = load(tmp_path, truth.snapshot(dropped)).block_replay(0)
            assert (replay.mismatches, replay.gaps) == (0, 0)
            assert state(replay, len(truth.trace) - dropped) == truth.states[-1]


def test_private_pools_at_event_time(tmp_path: Path) -> None:
    """A pool that is gone at the end is known where events say it, one that is still there in any case."""
    trace = [
        s.event("segment_alloc", 1, 0x100000, 2 * MiB, pool_id=(1, 0)),
        s.event("segment_free", 2, 0x100000, 2 * MiB, pool_id=(1, 0)),
        s.event("segment_alloc", 3, 0x100000, 2 * MiB),
        s.event("segment_alloc", 4, 0x900000, 2 * MiB),
        s.event("segment_free", 5, 0x900000, 2 * MiB),
    ]
    kept = s.segment(0x100000, 2 * MiB, s.block(0x100000, 2 * MiB, 0, "inactive"), segment_pool_id=(0, 7))
    replay = load(tmp_path, s.snapshot(trace, segments=[kept])).block_replay(0)
    assert replay.segments["pool"].tolist() == ["1,0", "0,7", ""]
    assert replay.event_segment.tolist() == [0, 0, 1, 2, 2]
    golden = load_snapshot(s.ROOT / "tests" / "golden" / "memory_train_h200.pickle").block_replay(0)
    assert set(golden.segments["pool"]) == {"0,0", "1,0", ""}


def test_other_rules_than_the_file_says_are_counted(tmp_path: Path) -> None:
    data = busy(1, expandable=False).snapshot()
    data["allocator_settings"]["roundup_power2_divisions"] = {str(1 << i): 2 for i in range(16)}
    assert load(tmp_path, data).block_replay(0).mismatches > 0


def test_nonsense_does_no_harm(tmp_path: Path) -> None:
    top = (1 << 64) - 4096
    trace = [
        *s.free(1, 0x5000, 10),
        s.alloc(2, 0x9000, 10),
        s.alloc(3, 0x9000, 10),
        s.event("segment_unmap", 4, 0x100, 1 << 40),
        s.event("segment_free", 5, top, 1 << 40),
        s.event("segment_map", 6, top, 1 << 50),
        s.alloc(7, top, 1 << 61),
        s.event("segment_alloc", 8, top, -5),
    ]
    replay = load(tmp_path, s.snapshot(trace)).block_replay(0)
    assert replay.gaps > 0
    assert len(replay.active_bytes) == len(trace) + 1


def test_segments_that_overlap_are_gaps(tmp_path: Path) -> None:
    """Two free blocks then end at one address, and each is taken in turn."""
    trace = [
        s.event("segment_alloc", 1, 0x10000, 4 * MiB),
        s.event("segment_alloc", 2, 0x10000 + 2 * MiB, 2 * MiB),
        s.alloc(3, 0x10000 + 2 * MiB, 2 * MiB),
        s.alloc(4, 0x10000, 4 * MiB),
        s.event("segment_alloc", 5, 0x10000, MiB),
        *s.free(6, 0x10000, 4 * MiB),
        *s.free(7, 0x10000 + 2 * MiB, 2 * MiB),
    ]
    replay = load(tmp_path, s.snapshot(trace)).block_replay(0)
    assert replay.gaps > 0
    assert replay.active_bytes[-1] == 0


def test_what_is_left_of_a_split_block_may_begin_where_another_does(tmp_path: Path) -> None:
    """The end of the block it replaces is forgotten with it: an unmap that reaches there finds none to cut."""
    trace = [
        s.event("segment_map", 1, 0x1000000, 20 * MiB),
        s.event("segment_map", 2, 0x1000000 + 2 * MiB, 8 * MiB),
        s.alloc(3, 0x1000000, 2 * MiB),
        s.alloc(4, 0x1000000 + 2 * MiB, 18 * MiB),
        s.event("segment_unmap", 5, 0x1000000 + 8 * MiB, 2 * MiB),
    ]
    replay = load(tmp_path, s.snapshot(trace)).block_replay(0)
    assert replay.gaps == 2
    assert replay.active_bytes[-1] == 20 * MiB


# ---- the truth: torch's own blocks ----


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_replay_ends_with_torchs_own_blocks_and_foretells_each_allocation(path: Path) -> None:
    """The allocator's choice is not in the replay's input: that it is the predicted one proves the state before it."""
    found = load_snapshot(path)
    for device in found.devices:
        replay, one = found.block_replay(device), found.replay(device)
        assert (replay.mismatches, replay.gaps) == (0, 0)
        held = found.segments[found.segments["device"] == device]
        assert replay.segments.query("to_state > @one.rows.size and not expandable")["size_bytes"].sum() == (
            held.loc[~held["expandable"], "total_bytes"].sum()
        )
        events = found.events.iloc[one.rows].reset_index(drop=True)
        for number, row in events[events["action"] == "alloc"].iloc[::29].iterrows():
            pool = replay.segments["pool"][replay.event_segment[number]]
            fit = memory_fragmentation.find(replay, row["size_bytes"], number, stream=row["stream"], pool=pool)
            assert fit.found == row["address"]
