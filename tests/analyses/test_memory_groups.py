"""What the file itself says of allocations: metadata, categories, compile contexts, annotations; host memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profiler_kit.load.snapshot.data import HOST
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s
from tests.load.test_snapshot_containers import CASES

MIB = 1 << 20


def load(path: Path, *traces: list[dict[str, Any]], **more: Any) -> Snapshot:
    return load_snapshot(s.write(path / "m.pickle", {**s.snapshot(*traces), **more}))


def groups(found: Snapshot, by: str | None = None, device: int = 0) -> dict[str, tuple[int, int, int]]:
    frame = found.table("memory_groups", device=device, by=by).frame
    numbers = zip(frame["peak_bytes"], frame["end_bytes"], frame["allocated_bytes"], strict=True)
    return dict(zip(frame["group"], numbers, strict=True))


def test_groups_by_category_as_torch_profiler_found_them(tmp_path: Path) -> None:
    trace = [
        {"action": "alloc", "addr": 0x1000 * i, "size": size * MIB, "stream": 0, "frames": [], "category": category}
        for i, (size, category) in enumerate(
            [(8, "parameter"), (4, "gradient"), (16, "optimizer_state"), (2, "activation"), (1, "unknown")], 1
        )
    ]
    trace += s.free(9, 0x4000, 2 * MIB)
    found = load(tmp_path, trace)
    assert found.keys_said(0) == ["category"]
    assert groups(found) == {
        "optimizer state": (16 * MIB, 16 * MIB, 16 * MIB),
        "parameter": (8 * MIB, 8 * MIB, 8 * MIB),
        "gradient": (4 * MIB, 4 * MIB, 4 * MIB),
        "activation": (2 * MIB, 0, 2 * MIB),
        "unknown": (MIB, MIB, MIB),
    }


def test_groups_add_up_whatever_they_are_by(tmp_path: Path) -> None:
    trace = [
        *s.free(0, 0x9000, 3 * MIB),
        s.alloc(1, 0x1000, MIB, user_metadata="a", compile_context="0/0", frames=[s.frame("f")]),
        s.alloc(2, 0x2000, MIB, user_metadata="", compile_context="N/A"),
        s.alloc(3, 0x3000, MIB, user_metadata={"layer": 1}, compile_context="0/1"),
        *s.free(4, 0x2000, MIB),
    ]
    found = load(tmp_path, trace)
    assert groups(found, "metadata") == {
        "(before the recording)": (3 * MIB, 0, 3 * MIB),
        "a": (0, MIB, MIB),
        "layer=1": (0, MIB, MIB),
        "(none)": (0, 0, MIB),
    }
    assert set(groups(found, "compile_context")) == {"(before the recording)", "(none)", "0/0", "0/1"}
    assert "f (train.py:1)" in groups(found, "stack")
    for by in ("stack", "metadata", "category", "compile_context", "annotation"):
        peak, end, every = (sum(part) for part in zip(*groups(found, by).values(), strict=True))
        (row,) = found.summary()["devices"]
        assert (peak, end, every) == (row["peak_allocated_bytes"], row["end_allocated_bytes"], 6 * MIB)


def test_an_annotation_is_of_what_was_live_at_its_address_then(tmp_path: Path) -> None:
    trace = [
        s.event("annotate", 0, 0x1000, user_metadata="nobody"),
        s.alloc(1, 0x1000, MIB, frames=[s.frame("first")]),
        s.event("annotate", 2, 0x1000, user_metadata="kept"),
        s.event("annotate", 3, 0x1000, user_metadata="by the tape"),
        s.event("annotate", 3, 0x1000, user_metadata="kept"),
        *s.free(4, 0x1000, MIB),
        s.event("annotate", 5, 0x1000, user_metadata="too late"),
        s.alloc(6, 0x1000, 2 * MIB, frames=[s.frame("second")]),
        s.event("annotate", 7, 0x2000, user_metadata="elsewhere"),
    ]
    found = load(tmp_path, trace)
    assert groups(found, "annotation") == {"(none)": (2 * MIB, 2 * MIB, 2 * MIB), "kept; by the tape": (0, 0, MIB)}
    notes = found.notes(0)
    assert notes["text"].tolist() == ["nobody", "kept", "by the tape", "kept", "too late", "elsewhere"]
    assert notes["size_bytes"].fillna(0).tolist() == [0, MIB, MIB, MIB, 0, 0]
    assert notes["live"].tolist()[1:4] == [False] * 3
    assert [found.stacks[number][0].name for number in notes["stack"][1:4]] == ["first"] * 3


def test_what_was_allocated_before_the_history_can_be_annotated(tmp_path: Path) -> None:
    held = s.segment(0x1000, 2 * MIB, s.block(0x1000, 2 * MIB, 2 * MIB))
    found = load(tmp_path, [s.event("annotate", 1, 0x1000, user_metadata="weights")], segments=[held])
    assert groups(found) == {"weights": (2 * MIB, 2 * MIB, 2 * MIB)}


def test_the_annotation_of_the_case_shows_with_its_allocation() -> None:
    found = load_snapshot(CASES / "annotate_event.pickle")
    (note,) = found.notes(0).to_dict("records")
    assert (note["text"], note["address"], note["size_bytes"], note["live"]) == (
        "retained by autograd", 139887405694976, 300 * MIB, True,
    )  # fmt: skip
    assert groups(found, "annotation")["retained by autograd"] == (300 * MIB, 300 * MIB, 300 * MIB)
    assert groups(found, "metadata")["kv_cache"] == (300 * MIB, 300 * MIB, 300 * MIB)
    answers, numbers = found.said(0)
    assert answers[numbers[-1]] == [
        ("metadata", "kv_cache"), ("compile_context", "0/2"), ("annotation", "retained by autograd"),
    ]  # fmt: skip


def test_pinned_host_memory_is_a_device_of_its_own() -> None:
    found = load_snapshot(CASES / "host_pinned.pickle")
    assert found.devices == (0, HOST)
    row = found.summary()["devices"][1]
    assert (row["device_type"], row["events"], row["reserved_bytes"]) == ("host", 50, 600 * MIB)
    assert (row["peak_allocated_bytes"], row["end_allocated_bytes"]) == (500 * MIB, 500 * MIB)
    assert found.device_name(HOST) == "pinned host memory"
    assert groups(found, "metadata", HOST)["kv_cache"][0] == 300 * MIB
    assert len(found.table("memory_moments", device=HOST)) == 0
    assert found.table("memory_devices").texts()["device"] == ["0", "host"]


@pytest.mark.parametrize("nested", [False, True])
def test_a_snapshot_of_the_host_alone(tmp_path: Path, nested: bool) -> None:
    trace = [s.alloc(1, 0x1000, MIB), *s.free(2, 0x1000, MIB)]
    held = s.segment(0x1000, MIB, s.block(0x1000, MIB, 0, "inactive"))
    data = {"host_traces": [trace] if nested else trace, "host_segments": [held]}
    (row,) = load_snapshot(s.write(tmp_path / "m.pickle", data)).summary()["devices"]
    assert (row["device"], row["peak_allocated_bytes"], row["reserved_bytes"]) == (HOST, MIB, MIB)
    # what a ring dropped may have held more
    assert row["peak_bound"] == "at least"
    data["allocator_settings"] = {"trace_alloc_max_entries": 100}
    (row,) = load_snapshot(s.write(tmp_path / "m.pickle", data)).summary()["devices"]
    assert row["peak_bound"] == ""


@pytest.mark.parametrize("frames", [False, True])
def test_user_defined_entries_are_regions_and_notes(tmp_path: Path, frames: bool) -> None:
    """In keys of their own, or as the name and file of a frame, as torch 2.4 wrote them."""

    def entry(stage: str, at_us: int) -> dict[str, Any]:
        said = {"frames": [s.frame(stage, "fwd")]} if frames else {"stage": stage, "name": "fwd"}
        return s.event("user_defined", at_us, **said)

    found = load(tmp_path, [entry("START", 0), s.alloc(1, 0x1000, MIB), entry("END", 2)])
    (first, _) = found.regions().to_dict("records")
    assert (first["path"], first["instances"], first["allocated_bytes"]) == (("fwd",), 1, MIB)
    assert found.notes(0)["text"].tolist() == ["START fwd", "END fwd"]


def test_a_user_defined_entry_that_is_no_region_is_shown(tmp_path: Path) -> None:
    found = load(tmp_path, [s.event("user_defined", 0, name="epoch 3"), s.event("user_defined", 1, user_metadata="x")])
    assert found.notes(0)["text"].tolist() == ["epoch 3", "x"]
    assert found.table("memory_notes").texts()["stack"] == ["", ""]


def test_what_host_segments_say_of_their_blocks_is_checked(tmp_path: Path) -> None:
    own = {"allocated_size": MIB, "active_size": MIB, "requested_size": MIB}
    held = [
        s.segment(1 << 30, MIB, s.block(7 << 30, MIB, MIB), **own),  # its blocks lie elsewhere: as torch writes them
        s.segment(2 << 30, 2 * MIB, s.block(8 << 30, 2 * MIB, 2 * MIB), **own),
        s.segment(3 << 30, MIB, **own),
    ]
    found = load_snapshot(s.write(tmp_path / "m.pickle", {"host_traces": [], "host_segments": held}))
    doubts = found.doubts(HOST)
    assert (doubts.unlike, doubts.unlisted, doubts.unlisted_bytes, doubts.blocks) == (1, 1, MIB, 0)
    (row,) = found.summary()["devices"]
    assert (row["end_allocated_bytes"], row["reserved_bytes"]) == (4 * MIB, 4 * MIB)
    (said,) = (one.sentence for one in found.findings() if one.id.startswith("state-doubted"))
    assert said == (
        "The state at the end holds entries that no allocator produces: 1 segment without any block: 1.0 MiB are held "
        "by their own figures, each counted as one allocation; 1 segment with figures of its own that contradict the "
        "blocks: the blocks are used."
    )
    assert not load_snapshot(CASES / "host_pinned.pickle").doubts(HOST).any
