"""What of a history can be trusted: kinds of events left out, totals that contradict the end, no history at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler_kit.analyses.memory import regions as memory_regions
from profiler_kit.errors import SnapshotFormatError
from profiler_kit.findings import memory as findings
from profiler_kit.findings.out_of_memory import out_of_memory
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s
from tests.cli.run import profiler_kit

CASES = Path(__file__).parents[1] / "cases" / "snapshots"
MiB = 1 << 20
GIB = 1 << 30


def case(name: str) -> Snapshot:
    return load_snapshot(CASES / f"{name}.pickle")


def said(snapshot: Snapshot, name: str) -> str:
    return " ".join(one.sentence for one in snapshot.findings() if one.id.startswith(name))


def steps(*, skip: tuple[str, ...] = (), count: int = 6) -> dict[str, Any]:
    """Weights of 10 MiB that stay, and three temporaries of 4 MiB in each of some steps."""
    events = [
        s.event("segment_alloc", 0, 0, 10 * MiB),
        s.alloc(1, 0, 10 * MiB),
        *(s.event("segment_alloc", 2, (10 + 4 * n) * MiB, 4 * MiB) for n in range(3)),
    ]
    for step in range(count):
        places = [(10 + 4 * n) * MiB for n in range(3)]
        events += [s.alloc(10 * step + 10 + n, place, 4 * MiB) for n, place in enumerate(places)]
        events += [one for n, place in enumerate(places) for one in s.free(10 * step + 15 + n, place, 4 * MiB)]
    events.append(s.event("snapshot", 10 * count + 20))
    segments = [
        s.segment(0, 10 * MiB, s.block(0, 10 * MiB, 10 * MiB)),
        *(s.segment((10 + 4 * n) * MiB, 4 * MiB) for n in range(3)),
    ]
    return s.snapshot([one for one in events if one["action"] not in skip], segments=segments)


def loaded(tmp_path: Path, data: object) -> Snapshot:
    return load_snapshot(s.write(tmp_path / "m.pickle", data))


def test_frees_count_from_their_request_where_nothing_says_that_they_were_done() -> None:
    found = case("skip_free_completed")
    (row,) = found.summary()["devices"]
    assert (row["peak_allocated_bytes"], row["end_allocated_bytes"]) == (1388314624, GIB)
    assert said(found, "frees-by-request").startswith(
        "The history holds no free_completed event: 60 frees count from when they were requested"
    )
    assert found.live_at_peak(0)["size_bytes"].sum() == 1388314624
    assert found.block_replay(0).mismatches == 0


def test_a_history_without_allocations_is_not_followed() -> None:
    found = case("skip_alloc")
    (row,) = found.summary()["devices"]
    assert (row["end_allocated_bytes"], row["reserved_bytes"]) == (GIB, 1388314624)
    assert row["peak_allocated_bytes"] <= row["reserved_bytes"]
    assert not row["history_followed"] and not row["history_truncated"]
    assert "it holds no alloc event" in said(found, "history-contradicts")
    printed = profiler_kit("memory", CASES / "skip_alloc.pickle")
    assert (printed.code, printed.err) == (0, "")
    assert "6.86" not in printed.out and "max_entries" not in printed.out and "peak" not in printed.out


@pytest.mark.parametrize(
    ("skip", "followed"),
    [
        ((), True),
        (("free_requested",), True),
        (("free_completed",), True),
        (("snapshot",), True),
        (("segment_alloc",), True),
        (("snapshot", "free_completed"), True),
        (("alloc",), False),
        (("alloc", "free_requested"), False),
        (("alloc", "free_completed"), False),
        (("free_requested", "free_completed"), False),
        (("alloc", "segment_alloc"), False),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, tuple) else "",
)
def test_whatever_is_left_out_the_totals_are_right_or_not_told(
    tmp_path: Path, skip: tuple[str, ...], followed: bool
) -> None:
    found = loaded(tmp_path, steps(skip=skip))
    (row,) = found.summary()["devices"]
    one = found.replay(0)
    assert (row["history_followed"], row["end_allocated_bytes"]) == (followed, 10 * MiB)
    assert row["peak_allocated_bytes"] == (22 * MiB if followed else 10 * MiB)
    assert (one.allocated_bytes <= one.reserved_bytes).all()
    assert bool(said(found, "history-contradicts")) != followed


def test_a_history_that_lacks_segments_does_not_allocate_more_than_it_reserves(tmp_path: Path) -> None:
    data = steps(skip=("segment_alloc",))
    data["segments"] = data["segments"][:1]  # the others were given back in between
    found = loaded(tmp_path, data)
    one = found.replay(0)
    assert one.reserved_least and (one.allocated_bytes <= one.reserved_bytes).all()
    assert one.reserved_bytes[-1] == 10 * MiB
    assert said(found, "segments-missing").startswith("The history lacks segment events")


def test_a_free_that_is_pending_at_the_end_still_holds_its_memory(tmp_path: Path) -> None:
    events = [
        s.event("segment_alloc", 0, 0, 8 * MiB),
        s.alloc(1, 0, 4 * MiB),
        s.event("free_requested", 2, 0, 4 * MiB),
        s.event("snapshot", 3),
    ]
    held = s.segment(0, 8 * MiB, s.block(0, 4 * MiB, 4 * MiB, "active_pending_free"))
    found = loaded(tmp_path, s.snapshot(events, segments=[held]))
    assert found.contradictions(0).by_request == 0
    assert found.stats(0)["current_bytes"].tolist() == [4 * MiB, 0, 4 * MiB, 8 * MiB, 4 * MiB]
    assert found.replay(0).allocated_bytes.tolist() == [0, 0, 4 * MiB, 4 * MiB, 4 * MiB]


def test_what_was_freed_before_the_history_is_pending_in_it(tmp_path: Path) -> None:
    """The ring dropped the requests to free of two blocks: one is done with in the history, one is still waiting."""
    events = [
        *s.free(0, 0, 512),
        s.event("free_completed", 2, MiB, MiB),
        s.alloc(3, 6 * MiB, 2 * MiB),
    ]
    waiting = s.block(2 * MiB, 4 * MiB, 4 * MiB, "active_pending_free")
    free = (s.block(0, 2 * MiB, 0, "inactive"), waiting, s.block(6 * MiB, 2 * MiB, 2 * MiB))
    found = loaded(tmp_path, s.snapshot(events, segments=[s.segment(0, 8 * MiB, *free)]))
    stats = found.stats(0).set_index("quantity")
    assert stats["peak_bytes"].to_dict() == {
        "requested": 6 * MiB,
        "allocated": 2 * MiB,
        "active": 6 * MiB,
        "reserved": 8 * MiB,
        "pending free": 5 * MiB,
    }
    assert stats["current_bytes"]["pending free"] == 4 * MiB


def bounds(found: Snapshot) -> dict[str, tuple[str, object]]:
    """What is known of the highest of each quantity."""
    rows = found.stats(0).to_dict("records")
    return {row["quantity"]: (row["peak_bound"], row["peak_bytes"]) for row in rows}


def without_requests(tmp_path: Path, *, overflowed: bool) -> Snapshot:
    """Of 8 MiB 4 are done with and 2 allocated then; nothing says when the 4 were freed."""
    events = [s.event("free_completed", 1, 0, 4 * MiB), s.alloc(3, 0, 2 * MiB), s.event("snapshot", 4)]
    blocks = (s.block(0, 2 * MiB, 2 * MiB), s.block(2 * MiB, 6 * MiB, 0, "inactive"))
    data = s.snapshot(events, segments=[s.segment(0, 8 * MiB, *blocks)])
    data["allocator_settings"] |= {"trace_alloc_overflowed": overflowed}
    return loaded(tmp_path, data)


def test_what_is_allocated_is_at_most_what_is_active_where_no_free_is_requested(tmp_path: Path) -> None:
    found = without_requests(tmp_path, overflowed=False)
    assert bounds(found) == {
        "requested": ("", 4 * MiB),
        "allocated": ("at most", 4 * MiB),
        "active": ("", 4 * MiB),
        "reserved": ("", 8 * MiB),
        "pending free": ("at least", 0),
    }
    lines = [" ".join(line.split()) for line in profiler_kit("memory", found.path).out.splitlines()]
    assert "allocated 2.0 MiB at most 4.0 MiB" in lines


def test_a_history_that_lost_its_beginning_knows_least_values(tmp_path: Path) -> None:
    found = without_requests(tmp_path, overflowed=True)
    peaks = bounds(found)
    assert peaks["allocated"] == ("at least", 2 * MiB) and peaks["active"] == ("at least", 4 * MiB)
    assert peaks["pending free"] == ("", None)
    (row,) = found.summary()["devices"]
    assert (row["peak_bound"], row["peak_allocated_bytes"]) == ("at least", 4 * MiB)
    assert found.findings()[0].sentence == "At its peak at least 4.0 MiB were allocated."
    printed = profiler_kit("memory", found.path, "--json")
    assert '"peak_bound": "at least"' in printed.out
    assert "at least" in profiler_kit("memory", found.path).out


def test_frees_that_count_from_their_request_make_a_least_peak() -> None:
    assert {name: bound for name, (bound, _) in bounds(case("skip_free_completed")).items()} == {
        "requested": "at least",
        "allocated": "at least",
        "active": "at least",
        "reserved": "",
        "pending free": "at least",
    }


def test_a_block_whose_free_counts_from_its_request_was_not_pending_before(tmp_path: Path) -> None:
    """The ring dropped the allocation of 4 MiB, and no free_completed is recorded."""
    events = [s.event("free_requested", 1, 0, 4 * MiB), s.alloc(3, 0, 2 * MiB), s.event("snapshot", 4)]
    blocks = (s.block(0, 2 * MiB, 2 * MiB), s.block(2 * MiB, 6 * MiB, 0, "inactive"))
    found = loaded(tmp_path, s.snapshot(events, segments=[s.segment(0, 8 * MiB, *blocks)]))
    assert bounds(found)["allocated"] == ("at least", 4 * MiB)


@pytest.mark.parametrize(
    ("stack", "freed", "untold"), [(True, True, False), (True, False, True), (False, True, True), (False, False, True)]
)
def test_memory_from_before_and_no_word_of_the_ring_leaves_the_peak_a_bound(
    tmp_path: Path, stack: bool, freed: bool, untold: bool
) -> None:
    """Both together show that something was lost; neither in a history without stacks shows nothing."""
    events = [*(s.free(1, 0x1000, 512) if freed else ()), s.alloc(2, 0x3000, 512), s.event("snapshot", 3)]
    held = [s.block(0x2000, 512, 512, frames=[s.frame("step")] if stack else []), s.block(0x3000, 512, 512)]
    found = loaded(tmp_path, s.snapshot(events, segments=[s.segment(0, MiB, *held)]))
    assert found.missing(0).untold is untold
    assert found.summary()["devices"][0]["peak_bound"] == "at least"
    assert bool(said(found, "history-may-be-cut")) is untold
    assert ("max_entries" in profiler_kit("memory", found.path).out) is True


def test_a_ring_may_have_dropped_what_left_no_trace(tmp_path: Path) -> None:
    """Memory that was reserved before the history may have held more, which was freed before it too."""
    events = [s.event("segment_alloc", 0, 0, 4 * MiB), s.alloc(1, 0, 4 * MiB), *s.free(2, 0, 4 * MiB)]
    kept = [s.alloc(3, 0, MiB), *s.free(4, 0, MiB), s.event("snapshot", 5)]
    held = [s.segment(0, 4 * MiB, s.block(0, 4 * MiB, 0, "inactive"))]
    whole, cut = (loaded(tmp_path, s.snapshot(trace, segments=held)) for trace in (events + kept, kept))
    peaks = [
        (row["peak_bound"], row["peak_allocated_bytes"]) for one in (whole, cut) for row in one.summary()["devices"]
    ]
    assert peaks == [("", 4 * MiB), ("at least", MiB)]
    assert said(cut, "history-may-be-cut") and not said(whole, "history-may-be-cut")


def test_a_region_after_the_history_began_has_an_exact_peak(tmp_path: Path) -> None:
    events = [s.alloc(1, 0, 3 * MiB), *s.free(2, 0, 3 * MiB), s.alloc(4, 0, MiB), *s.free(5, 0, MiB)]
    marks = [(0, "first"), (3, "first"), (4, "second"), (6, "second")]
    held = [s.segment(0, 4 * MiB, s.block(0, 4 * MiB, 0, "inactive"))]
    told = [s.mark("END" if number % 2 else "START", name, at) for number, (at, name) in enumerate(marks)]
    for first, peak in ((0, 3 * MiB), (1, 3 * MiB), (3, 0)):  # of what closed before the history nothing is known
        found = loaded(tmp_path, s.snapshot([*events[first:], s.event("snapshot", 7)], segments=held, marks=told))
        regions = found.regions()
        assert regions["path"].tolist() == [("first",), ("second",), ("(no region)",)]
        assert regions["peak_bound"].tolist() == ["at least", "at least" if first == 3 else "", "at least"]
        assert regions["peak_bytes"].tolist()[:2] == [peak, MiB]
    assert case("skip_free_completed").regions()["peak_bound"].tolist() == ["at least", "at least"]


def test_a_region_that_closed_with_the_first_event_has_one_peak_everywhere(tmp_path: Path) -> None:
    marks = [s.mark("START", "first", 0), s.mark("END", "first", 3)]
    held = [s.segment(0, 4 * MiB, s.block(0, 4 * MiB, 0, "inactive"))]
    kept = [*s.free(3, 0, 3 * MiB), s.event("snapshot", 7)]
    found = loaded(tmp_path, s.snapshot(kept, segments=held, marks=marks))
    assert found.regions()[["peak_bound", "peak_bytes"]].to_numpy().tolist()[0] == ["at least", 3 * MiB]
    assert found.region_instances(0)["peak_bytes"].tolist() == [3 * MiB]


def test_regions_that_had_closed_before_a_cut_off_history_hide_no_growth(tmp_path: Path) -> None:
    """Each step leaves 1 MiB; the ring kept the allocations of the last five, and all twenty steps."""
    marks = [s.mark(stage, "step", 10 * n + at) for n in range(20) for stage, at in (("START", 0), ("END", 9))]
    made = [s.alloc(10 * n + 1, n * MiB, MiB) for n in range(20)]
    held = [s.segment(0, 20 * MiB, *(s.block(n * MiB, MiB, MiB) for n in range(20)))]
    found = loaded(tmp_path, s.snapshot([*made[15:], s.event("snapshot", 300)], segments=held, marks=marks))
    growth, leaks = found.growth(0), found.leaks(0)
    assert growth[["instances", "median_step_bytes", "growing_steps", "steps"]].to_numpy().tolist() == [[5, MiB, 3, 3]]
    assert leaks[["instances_left", "instances", "growing"]].to_numpy().tolist() == [[5, 5, True]]
    assert found.region_instances(0)["before_bytes"].tolist() == [n * MiB for n in range(15, 20)]


def test_a_history_from_the_start_or_of_a_recording_of_ours_is_told(tmp_path: Path) -> None:
    assert not loaded(tmp_path, steps()).missing(0).untold
    data = steps()
    data["device_traces"][0] = data["device_traces"][0][2:]
    assert loaded(tmp_path, data).missing(0).untold
    data["profiler_kit"] = {"source": "cuda", "max_entries": 1000}
    assert not loaded(tmp_path, data).missing(0).untold


def test_a_stopped_history_does_not_end_on_what_was_held_later(tmp_path: Path) -> None:
    """10 MiB from before; 4 MiB are allocated in the history and freed when it had stopped."""
    alloc = s.alloc(4, 10 * MiB, 4 * MiB)
    events = [s.event("segment_alloc", 1, 10 * MiB, 4 * MiB), alloc, *s.free(2, 10 * MiB, 4 * MiB), alloc]
    segments = [s.segment(0, 10 * MiB, s.block(0, 10 * MiB, 10 * MiB)), s.segment(10 * MiB, 4 * MiB)]
    found = loaded(tmp_path, s.snapshot(events, segments=segments))
    assert found.replay(0).allocated_bytes.tolist() == [MiB * total for total in (10, 10, 14, 14, 10, 14)]
    assert found.live_at_peak(0)["size_bytes"].sum() == 14 * MiB


def test_a_history_that_begins_in_the_middle_is_followed(tmp_path: Path) -> None:
    data = steps()
    data["device_traces"][0] = data["device_traces"][0][11:]
    found = loaded(tmp_path, data)
    assert found.contradictions(0).followed
    assert found.replay(0).allocated_bytes.max() == 22 * MiB


def test_sizes_that_add_up_beyond_64_bits_are_refused(tmp_path: Path) -> None:
    data = steps()
    data["device_traces"][0][1]["size"] = data["device_traces"][0][5]["size"] = 1 << 62
    with pytest.raises(SnapshotFormatError, match="the sizes add up to more than 64 bits hold"):
        loaded(tmp_path, data)
    data = steps()
    data["device_traces"][0].insert(3, {"action": "oom", "size": 1 << 62, "device_free": 0, "time_us": s.T0 + 3})
    assert loaded(tmp_path, data).replay(0).allocated_bytes.max() == 22 * MiB


def test_a_segment_of_no_bytes_that_goes_is_no_fault(tmp_path: Path) -> None:
    found = loaded(tmp_path, s.snapshot([s.event("segment_free", number, 0, 0) for number in range(3)]))
    assert found.block_replay(0).active_bytes.max() == 0


def test_an_allocation_of_no_bytes_contradicts_nothing(tmp_path: Path) -> None:
    data = steps()
    data["device_traces"][0][2:2] = [s.alloc(1, 0, 0), s.alloc(1, 0, 0)]
    found = loaded(tmp_path, data)
    assert found.contradictions(0).followed and found.replay(0).allocated_bytes.max() == 22 * MiB


def test_devices_are_judged_one_by_one(tmp_path: Path) -> None:
    good, bad = steps(), steps(skip=("alloc",))
    bad_segments = [{**one, "device": 1} for one in bad["segments"]]
    data = s.snapshot(good["device_traces"][0], bad["device_traces"][0], segments=[*good["segments"], *bad_segments])
    found = loaded(tmp_path, data)
    assert [row["history_followed"] for row in found.summary()["devices"]] == [True, False]
    assert found.replay(0).allocated_bytes.max() == 22 * MiB
    assert "on device 1" in said(found, "history-contradicts")
    assert set(found.regions()["device"]) == {0}


def test_a_device_that_held_nothing_has_its_row_without_region(tmp_path: Path) -> None:
    """A machine's other devices: torch writes an empty history for each."""
    data = steps()
    data["device_traces"].append([])
    found = loaded(tmp_path, data)
    told = findings.history(found, 1)
    assert told and told.sentence == "Nothing was allocated on this device, and no event was recorded."
    (row,) = found.summary(1)["devices"][0]["regions"]
    assert (row["path"], row["instances"], row["peak_bytes"]) == (["(no region)"], 0, 0)


def test_what_stands_elsewhere_or_nowhere_is_counted(tmp_path: Path) -> None:
    """Annotations that start or end nothing, and regions deeper than paths go."""
    data = steps()
    data["external_annotations"] = [
        *(s.mark("MIDDLE", "x", 1), {"stage": ["START"], "name": "q"}, 7),
        *(s.mark("START", f"n{number}", 2) for number in range(102)),
    ]
    found = loaded(tmp_path, data)
    assert said(found, "odd-regions") == (
        "3 annotations left out: no START, END or time; 2 regions stand higher than opened, "
        "as a path holds at most 100 names and all paths together 8.0 MiB."
    )
    assert "left out: no START" in profiler_kit("memory", found.path).out


def test_events_of_no_known_kind_are_counted(tmp_path: Path) -> None:
    data = steps()
    data["device_traces"][0].insert(1, s.event("pool_evict", 2, 0, 99))
    found = loaded(tmp_path, data)
    assert said(found, "odd-regions") == "1 event of unknown kind ('pool_evict'): not counted."


def test_the_limit_of_all_paths_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_regions, "MAX_LETTERS", 200)
    data = steps()
    data["external_annotations"] = [s.mark("START", f"{number}" * 10, 2) for number in range(6)]
    found = loaded(tmp_path, data)
    assert [len(path) for path in found.nested_regions(0).paths] == [1, 2, 3, 1, 1, 1]
    assert said(found, "odd-regions").startswith("3 regions stand higher than opened")


def test_a_history_that_stopped_before_the_snapshot_is_said(tmp_path: Path) -> None:
    data = steps()
    data["device_traces"][0].pop()  # the entry of the snapshot itself
    data["device_traces"][0].append(s.alloc(100, 10 * MiB, 4 * MiB))
    found = loaded(tmp_path, data)
    assert said(found, "history-stopped").startswith(
        "The history ends before the snapshot: 1 allocation without a free"
    )
    assert not said(loaded(tmp_path, steps()), "history-stopped")


def test_without_segments_only_what_was_requested_is_told() -> None:
    assert case("user_defined").stats(0)["quantity"].tolist() == ["requested"]


def test_a_failure_in_a_history_that_is_not_followed_is_told(tmp_path: Path) -> None:
    data = steps(skip=("alloc",))
    failed = {
        "action": "oom",
        "size": 60 * MiB,
        "device_free": 3 * MiB,
        "stream": 0,
        "time_us": s.T0 + 999,
        "frames": [],
    }
    data["device_traces"][0].insert(-1, failed)
    found = loaded(tmp_path, data)
    assert [one["requested_bytes"] for one in found.summary()["devices"][0]["oom"]] == [60 * MiB]
    assert said(found, "out-of-memory").startswith("60.0 MiB were requested; 3.0 MiB were free on the device.")
    printed = profiler_kit("memory", found.path, "--oom")
    assert (printed.code, printed.err) == (0, "")
    assert "60.0 MiB" in printed.out
    assert found.html("m")


def test_torch_says_whether_the_ring_overflowed() -> None:
    found = case("ring_overflow_flag_nostacks")
    (row,) = found.summary()["devices"]
    assert row["history_truncated"] is True
    assert "The ring buffer held 150 events." in findings.history(found, 0).details[0]  # type: ignore[union-attr]


@pytest.mark.parametrize(("said_by_torch", "expected"), [(True, True), (False, False), (None, True)])
def test_torchs_word_counts_before_any_evidence(tmp_path: Path, said_by_torch: bool | None, expected: bool) -> None:
    stack = [s.frame("step")]
    events = [*s.free(1, 0x1000, 512), s.event("snapshot", 2)]
    block = s.block(0x2000, 512, 512, frames=stack)  # made while something was recorded, like the one freed
    data = s.snapshot(events, segments=[s.segment(0, MiB, block)])
    if said_by_torch is not None:
        data["allocator_settings"]["trace_alloc_overflowed"] = said_by_torch
    assert loaded(tmp_path, data).summary()["devices"][0]["history_truncated"] is expected


def test_one_of_two_rings_overflowed(tmp_path: Path) -> None:
    traces = [[s.alloc(n, 512 * n, 512) for n in range(1, 6)], [s.alloc(1, 0x100000, 512)]]
    data = s.snapshot(*traces)
    data["allocator_settings"] |= {"trace_alloc_overflowed": True, "trace_alloc_max_entries": 5}
    rows = loaded(tmp_path, data).summary()["devices"]
    assert [row["history_truncated"] for row in rows] == [True, False]


def test_the_state_alone_is_shown_as_what_it_is() -> None:
    found = case("state_only")
    printed = profiler_kit("memory", found.path)
    assert (printed.code, printed.err) == (0, "")
    assert "peak" not in printed.out.lower() and "before the recording" not in printed.out
    live = found.live_at_end(0)
    names = [found.stacks[stack][0].name for stack in live["stack"]]
    assert dict(zip(names, live["size_bytes"], strict=True)) == {"weights": 700 * MiB, "kv_cache": 500 * MiB}
    assert found.regions().empty and not live["before"].any()
    assert found.findings()[0].sentence == "At the end 1.17 GiB were allocated."


def test_what_stays_is_told_without_regions() -> None:
    found = case("leak_no_annotations")
    (row,) = found.leaks(0).to_dict("records")
    assert (row["path"], row["count"], row["size_bytes"]) == (("(no region)",), 40, 320 * MiB)
    assert said(found, "stays") == (
        "320.0 MiB allocated in the history are live at its end, of them 320.0 MiB in 40 allocations by append_loss "
        "(u/train.py:1). Without regions, a leak cannot be told from memory that is meant to stay."
    )
    printed = profiler_kit("memory", found.path, "--live")
    assert [line.split() for line in printed.out.splitlines() if line.startswith("append_loss")] == [
        ["append_loss", "(u/train.py:1)", "40", "320.0", "MiB", "100.0", "%"]
    ]


def test_a_failure_is_explained_by_its_own_pool() -> None:
    found = case("oom_private_pool")
    (report,) = found.oom_reports(0)
    assert (report.pool, report.usable_bytes, report.largest_free_bytes) == ("3,0", 14 * GIB, 5 * GIB)
    assert (report.private_bytes, report.other_stream_bytes) == (0, 0)
    (one,) = out_of_memory(found, 0)
    text = " ".join((one.line, *one.details))
    assert "in pool (3, 0)" in text and "largest free block is 5.00 GiB" in text
    assert "One pool" not in text and "0 B cached" not in text
    assert "expandable_segments is off" in text and "Asked by kv_big (u/train.py:1) ‹ capture (u/train.py:2)." in text
    assert one.line in profiler_kit("memory", found.path).out


def test_other_pools_are_no_use_to_a_private_one(tmp_path: Path) -> None:
    data: dict[str, Any] = s.snapshot(
        [
            {
                "action": "oom", "size": 60 * MiB, "device_free": 0, "stream": 0, "time_us": s.T0 + 9,
                "frames": [], "pool_id": (2, 0),
            }
        ],
        segments=[
            s.segment(0, 100 * MiB, s.block(0, 10 * MiB, 10 * MiB), s.block(10 * MiB, 90 * MiB, 0, "inactive")),
            s.segment(1 << 30, 100 * MiB, s.block(1 << 30, 60 * MiB, 60 * MiB), segment_pool_id=(2, 0)),
            s.segment(2 << 30, 40 * MiB, segment_pool_id=(2, 0), stream=7),
        ],
    )  # fmt: skip
    (report,) = loaded(tmp_path, data).oom_reports(0)
    assert (report.usable_bytes, report.private_bytes, report.other_stream_bytes) == (40 * MiB, 90 * MiB, 40 * MiB)
    assert report.largest_free_bytes == 40 * MiB


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_words_are_those_of_torch(path: Path) -> None:
    found, names = load_snapshot(path), ("requested_size", "allocated_size", "active_size", "total_size")
    segments = pickle.loads(path.read_bytes())["segments"]
    for device in found.devices:
        if found.device_type(device) == "cuda":
            held = found.stats(device)["current_bytes"].tolist()
            mine = [one for one in segments if one["device"] == device]
            assert held[:4] == [sum(one[name] for one in mine) for name in names]
            assert held[4] == held[2] - held[1]


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_real_captures_agree_with_themselves(path: Path) -> None:
    found = load_snapshot(path)
    for device in found.devices:
        judged, one = found.contradictions(device), found.replay(device)
        assert judged.followed and not judged.by_request and not one.reserved_least
        assert not len(one.rows) or np.array_equal(found.history["action"], found.events["action"])


def test_regions_count_on_every_device_of_the_process() -> None:
    found = case("annotations_other_device")
    rows = {path: count for path, count in found.regions()[["path", "instances"]].itertuples(index=False)}
    assert rows == {("step",): 4, ("(no region)",): 0}
    assert found.live_by_region(1)["path"].tolist() == [("step",)]
    assert said(found, "regions-of-thread").startswith(
        "The regions on this device were opened while device 0 was current"
    )


def two_devices(tmp_path: Path, marks: list[dict[str, Any]]) -> list[list[tuple[str, ...]]]:
    trace = [s.alloc(1, 0x1000, 512), s.alloc(99, 0x2000, 512)]
    found = loaded(tmp_path, s.snapshot(trace, trace, marks=marks))
    return [found.nested_regions(device).paths for device in (0, 1)]


def test_one_thread_that_changes_its_device_has_one_stack_of_regions(tmp_path: Path) -> None:
    marks = [s.mark("START", "step", 0), s.mark("START", "part", 5, 1), s.mark("END", "part", 8, 1)]
    marks.append(s.mark("END", "step", 20))
    assert two_devices(tmp_path, marks) == [[("step",)], [("step",), ("step", "part")]]


def test_threads_with_a_device_each_keep_their_regions(tmp_path: Path) -> None:
    marks = [s.mark("START", "replica", 0), s.mark("START", "replica", 1, 1), s.mark("START", "a", 2)]
    marks += [s.mark("END", "a", 3), s.mark("END", "replica", 8), s.mark("END", "replica", 9, 1)]
    assert two_devices(tmp_path, marks) == [[("replica",), ("replica", "a")], [("replica",)]]


def test_a_snapshot_without_times_has_none() -> None:
    found = case("no_time_us")
    (row,) = found.summary()["devices"]
    assert (row["peak_time_us"], row["peak_allocated_bytes"]) == (None, 100 * MiB)
    assert "have no times" in said(found, "no-times")
    filled = found.table("memory_devices").frame
    assert filled["span_us"].isna().all() and filled["peak_after_us"].isna().all()
    assert found.lifetimes()["median_us"].isna().all()
    assert found.table("memory_moments").frame["after_us"].isna().all()


def test_a_first_event_without_a_time_has_that_of_the_next(tmp_path: Path) -> None:
    trace = [{**s.alloc(1, 0x1000, 512), "time_us": 0}, s.alloc(5, 0x2000, 512), s.alloc(7, 0x3000, 512)]
    found = loaded(tmp_path, s.snapshot(trace))
    assert (found.replay(0).times_us - s.T0).tolist() == [5, 5, 7]
    assert found.origin_us(0) == s.T0 + 5


@pytest.mark.parametrize("odd", [None, 0, -1, -(1 << 63), 1 << 62, "x"])
def test_a_time_that_cannot_be_true_moves_no_other(tmp_path: Path, odd: object) -> None:
    """Of an annotation, which is counted as odd, and of an event, which has that of the one before it."""
    data = steps()
    whole = loaded(tmp_path, data).table("memory_devices").frame
    data["external_annotations"].insert(0, {"stage": "START", "name": "x", "device": 0, "time_us": odd})
    data["device_traces"][0][1]["time_us"] = odd
    found = loaded(tmp_path, data)
    assert found.table("memory_devices").frame.equals(whole)
    assert found.data.odd_annotations == 1


def test_a_comparison_says_what_a_history_lacks_and_needs_one_for_a_threshold() -> None:
    cut, state = CASES / "ring_overflow_flag_nostacks.pickle", CASES / "state_only.pickle"
    printed = profiler_kit("memory", cut, CASES / "skip_free_completed.pickle")
    assert printed.code == 0
    assert (
        "A: The history lost its beginning" in printed.out and "B: The history holds no free_completed" in printed.out
    )
    printed = profiler_kit("memory", state, cut)
    assert printed.code == 0 and "A: No history of this device" in printed.out
    for pair in ((state, cut), (cut, CASES / "skip_alloc.pickle")):
        failed = profiler_kit("memory", *pair, "--fail-above", "5%")
        bad = next(path for path in pair if path != cut)
        assert (failed.code, failed.out) == (1, "")
        assert failed.err == (
            f"profiler-kit: {bad}: no history to follow, so that its peak is not known, expected one for "
            "--fail-above 5%. Record it with profiler_kit.memory_runner.\n"
        )
