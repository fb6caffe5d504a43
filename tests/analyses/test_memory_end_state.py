"""What a snapshot says of its end and no allocator leaves: counted, said, and in no total."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.analyses.memory.end_state import Doubts
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s
from tests.cli.run import profiler_kit
from tests.readers import READERS, reader

MiB = 1 << 20
A, B = 0x100000, 0x900000


def two_segments() -> list[dict[str, Any]]:
    """4 MiB with 1 and 2 MiB in use, and 2 MiB with all of it in use."""
    blocks = (s.block(A, MiB, MiB), s.block(A + MiB, 2 * MiB, 2 * MiB - 100), s.block(A + 3 * MiB, MiB, 0, "inactive"))
    return [s.segment(A, 4 * MiB, *blocks), s.segment(B, 2 * MiB, s.block(B, 2 * MiB, 2 * MiB))]


def load(folder: Path, segments: list[dict[str, Any]], *trace: dict[str, Any]) -> Snapshot:
    path = folder / "m.pickle"
    path.write_bytes(pickle.dumps(s.snapshot(list(trace), segments=segments)))
    return load_snapshot(path)


def changed(segment: int, block: int | None = None, **to: Any) -> Any:
    def change(segments: list[dict[str, Any]]) -> None:
        one = segments[segment]
        (one if block is None else one["blocks"][block]).update(to)

    return change


def own(allocated: int, active: int, requested: int | None) -> dict[str, int | None]:
    return {"allocated_size": allocated, "active_size": active, "requested_size": requested}


def again(segments: list[dict[str, Any]]) -> None:
    segments[0]["blocks"].insert(1, segments[0]["blocks"][0])


def segment_again(segments: list[dict[str, Any]]) -> None:
    segments.append(segments[0])


WHOLE = 5 * MiB - 100
CASES = {  # what is changed: doubts, allocated at the end, reserved
    "nothing": (lambda segments: None, Doubts(), WHOLE, 6 * MiB),
    "a block twice": (again, Doubts(blocks=1), WHOLE, 6 * MiB),
    "a segment twice": (segment_again, Doubts(segments=1, blocks=3), WHOLE, 6 * MiB),
    "a block over the next": (
        changed(0, 0, size=2 * MiB), Doubts(blocks=1, unfilled=1, unfilled_bytes=MiB), 3 * MiB, 6 * MiB
    ),
    "a block in no segment": (
        changed(0, 0, address=0x10), Doubts(blocks=1, unfilled=1, unfilled_bytes=MiB), WHOLE - MiB, 6 * MiB
    ),
    "a block past its segment": (
        changed(1, 0, size=3 * MiB), Doubts(blocks=1, unfilled=1, unfilled_bytes=2 * MiB), WHOLE - 2 * MiB, 6 * MiB
    ),
    "a negative block": (
        changed(0, 0, size=-512), Doubts(blocks=1, unfilled=1, unfilled_bytes=MiB), WHOLE - MiB, 6 * MiB
    ),
    "a huge block": (
        changed(0, 0, size=1 << 50), Doubts(blocks=1, unfilled=1, unfilled_bytes=MiB), WHOLE - MiB, 6 * MiB
    ),
    "a request of more": (changed(1, 0, requested_size=1 << 40), Doubts(sizes=1), WHOLE, 6 * MiB),
    "a negative request": (changed(1, 0, requested_size=-1), Doubts(sizes=1), WHOLE, 6 * MiB),
    "a segment of less than its blocks": (
        changed(0, total_size=2 * MiB), Doubts(blocks=2, unfilled=1, unfilled_bytes=MiB), 3 * MiB, 4 * MiB
    ),
    "a segment of more than its blocks": (
        changed(1, total_size=3 * MiB), Doubts(unfilled=1, unfilled_bytes=MiB), WHOLE, 7 * MiB
    ),
    "a segment over the next": (changed(0, total_size=9 * MiB), Doubts(1, 1, 0, 1, 5 * MiB), 3 * MiB - 100, 9 * MiB),
    "a negative segment": (changed(1, total_size=-1), Doubts(segments=1, blocks=1), WHOLE - 2 * MiB, 4 * MiB),
    "a huge segment": (changed(1, total_size=1 << 50), Doubts(segments=1, blocks=1), WHOLE - 2 * MiB, 4 * MiB),
    "figures of its own": (changed(0, **own(3 * MiB, 3 * MiB, 3 * MiB - 100)), Doubts(), WHOLE, 6 * MiB),
    "one that is not said": (changed(0, **own(3 * MiB, 3 * MiB, None)), Doubts(), WHOLE, 6 * MiB),
    "more allocated": (changed(0, **own(4 * MiB, 4 * MiB, 3 * MiB)), Doubts(unlike=1), WHOLE, 6 * MiB),
    "less active": (changed(1, active_size=MiB), Doubts(unlike=1), WHOLE, 6 * MiB),
    "another request": (changed(1, requested_size=5), Doubts(unlike=1), WHOLE, 6 * MiB),
    "a negative figure": (changed(1, allocated_size=-1), Doubts(unlike=1), WHOLE, 6 * MiB),
    "a figure that is none": (changed(1, allocated_size="x"), Doubts(unlike=1), WHOLE, 6 * MiB),
    "a figure of 64 bits": (changed(1, requested_size=1 << 63), Doubts(unlike=1), WHOLE, 6 * MiB),
    "no blocks": (
        changed(0, blocks=[], **own(2 * MiB, 3 * MiB, 3 * MiB - 100)),
        Doubts(unlisted=1, unlisted_bytes=3 * MiB), WHOLE, 6 * MiB,
    ),
    "no blocks, one figure": (
        changed(1, blocks=[], allocated_size=MiB), Doubts(unlisted=1, unlisted_bytes=MiB), WHOLE - MiB, 6 * MiB
    ),
    "no blocks, only frees": (
        changed(1, blocks=[], **own(0, MiB, MiB)), Doubts(unlisted=1, unlisted_bytes=MiB), WHOLE - MiB, 6 * MiB
    ),
    "no blocks, too much": (changed(1, blocks=[], allocated_size=3 * MiB), Doubts(unlike=1), WHOLE - 2 * MiB, 6 * MiB),
    "no blocks, nothing held": (changed(1, blocks=[], **own(0, 0, 0)), Doubts(), WHOLE - 2 * MiB, 6 * MiB),
}  # fmt: skip


@pytest.mark.parametrize("readers", READERS)
@pytest.mark.parametrize("case", CASES)
def test_what_no_allocator_leaves_is_in_no_total(case: str, readers: str, tmp_path: Path) -> None:
    change, doubts, allocated, reserved = CASES[case]
    segments = two_segments()
    change(segments)
    with reader(readers):
        found = load(tmp_path, segments, {"action": "snapshot", "addr": 0, "size": 0, "stream": 0, "time_us": s.T0})
    assert found.doubts(0) == doubts
    (row,) = found.summary()["devices"]
    assert (row["end_allocated_bytes"], row["reserved_bytes"]) == (allocated, reserved)
    assert (row["left_out_blocks"], row["left_out_segments"]) == (doubts.blocks, doubts.segments)
    said = [one.sentence for one in found.findings() if one.id.startswith("state-doubted")]
    assert len(said) == doubts.any
    assert found.html("m")


def test_the_command_says_what_is_left_out(tmp_path: Path) -> None:
    segments = two_segments()
    again(segments)
    load(tmp_path, segments)
    out = " ".join(profiler_kit("memory", tmp_path / "m.pickle").out.split())
    assert "that no allocator produces: 1 block in no total: listed twice, overlapping another," in out


def test_segments_without_blocks_are_told_by_their_own_figures(tmp_path: Path) -> None:
    segments = two_segments()
    for segment, sizes in zip(segments, (own(3 * MiB, 4 * MiB, 3 * MiB), own(MiB, MiB, MiB)), strict=True):
        segment |= {"blocks": [], **sizes}
    found = load(tmp_path, segments)
    assert found.stats(0)["current_bytes"].tolist() == [4 * MiB, 4 * MiB, 5 * MiB, 6 * MiB, MiB]
    assert found.live_at_end(0)["size_bytes"].tolist() == [4 * MiB]
    out = " ".join(profiler_kit("memory", tmp_path / "m.pickle").out.split())
    assert "2 segments without any block: 5.0 MiB are held by their own figures, each counted as one alloc" in out
    assert "0 B" not in out.split("At the end")[0]


AT_END = {"action": "snapshot", "addr": 0, "size": 0, "stream": 0, "time_us": s.T0 + 9}


def test_a_free_has_the_size_of_its_allocation(tmp_path: Path) -> None:
    trace = (s.alloc(1, A, MiB), *s.free(2, A, 1 << 40), s.alloc(4, A, MiB), AT_END)
    found = load(tmp_path, [s.segment(A, MiB, s.block(A, MiB, MiB))], *trace)
    assert found.replay(0).allocated_bytes.tolist() == [0, MiB, MiB, 0, MiB, MiB]
    said = [one.sentence for one in found.findings() if one.id.startswith("frees-resized")]
    assert said == ["1 free with a different size from the allocation at that address: the allocation's size is used."]


def test_a_history_whose_sizes_contradict_the_end_is_not_followed(tmp_path: Path) -> None:
    found = load(tmp_path, [s.segment(A, MiB, s.block(A, MiB, MiB))], s.alloc(1, A, 1 << 40), AT_END)
    assert not found.replay(0).followed
    assert found.summary()["devices"][0]["end_allocated_bytes"] == MiB
    said = [one.sentence for one in found.findings() if one.id.startswith("history-contradicts")]
    assert said == [
        "The history contradicts itself or the state at its end: it holds no free_requested and no "
        "free_completed event; to end at the recorded total, the history would have to begin 1,024.00 GiB below zero. "
        "Only the state at the end is shown."
    ]
