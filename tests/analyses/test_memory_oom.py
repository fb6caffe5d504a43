from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from profiler_kit.analyses.memory.oom import OomReport
from profiler_kit.finding import Finding
from profiler_kit.findings.out_of_memory import advice_text, out_of_memory
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s
from tests.allocator import Allocator

MiB = 1 << 20


def snapshot(tmp_path: Path, one: Allocator, requested: int, free: int | None, **more: Any) -> Snapshot:
    data = one.snapshot()
    event = {"action": "oom", "size": requested, "stream": 0, "time_us": s.T0 + len(one.trace), "frames": []}
    data["device_traces"][0] = [*data["device_traces"][0], event | ({} if free is None else {"device_free": free})]
    data["allocator_settings"] |= more
    return load_snapshot(s.write(tmp_path / "m.pickle", data))


def fail(tmp_path: Path, one: Allocator, requested: int, free: int | None, **more: Any) -> OomReport:
    (report,) = snapshot(tmp_path, one, requested, free, **more).oom_reports(0)
    return report


def explained(tmp_path: Path, one: Allocator, requested: int, free: int | None) -> Finding:
    (finding,) = out_of_memory(snapshot(tmp_path, one, requested, free), 0)
    return finding


def hollow(**settings: Any) -> Allocator:
    """A segment of 100 MiB whose middle is held by 2 MiB, and another of 60 MiB in use."""
    one = Allocator(**settings)
    whole = one.malloc(100 * MiB)
    one.malloc(60 * MiB)
    one.free(whole)
    first = one.malloc(40 * MiB)
    one.malloc(2 * MiB)
    one.free(first)
    return one


def test_split_memory_that_would_do_in_one_piece(tmp_path: Path) -> None:
    report = fail(tmp_path, hollow(), 90 * MiB, 10 * MiB)
    assert (report.reserved_bytes, report.cached_bytes, report.split_bytes) == (160 * MiB, 98 * MiB, 98 * MiB)
    assert report.largest_free_bytes == 58 * MiB
    said = explained(tmp_path, hollow(), 90 * MiB, 10 * MiB)
    assert said.sentence == (
        "At 10.00 µs, 90.0 MiB were requested; 10.0 MiB free on the device and 98.0 MiB cached would have been enough, "
        "but not in one piece: the largest free block is 58.0 MiB."
    )
    assert said.attempt == (
        "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True; or PYTORCH_CUDA_ALLOC_CONF=max_split_size_mb:89; or a batch "
        "21.1 % smaller."
    )
    assert list(said.details) == [
        "This process had reserved 160.0 MiB, of which 62.0 MiB were allocated and 98.0 MiB were in no active block "
        "(98.0 MiB beside blocks in use); its largest free block was 58.0 MiB.",
        "expandable_segments:True would have helped: 10.0 MiB free on the device and 98.0 MiB cached make 108.0 MiB, "
        "enough for 90.0 MiB, which then need not be one piece.",
        "max_split_size_mb:89 would have helped: a segment of 100.0 MiB holds only 2.0 MiB, in blocks of at most "
        "2.0 MiB, and would have stayed whole.",
        "A batch 21.1 % smaller would have fitted, if what was allocated since the recording began (152.0 MiB, the "
        "failed allocation included) grows with it.",
        "garbage_collection_threshold would not have helped: it returns whole cached segments earlier, which the "
        "allocator does anyway before it fails (0 B of them were left).",
        "As recorded: expandable_segments is off, max_split_size_mb is not set, garbage_collection_threshold is not "
        "set.",
    ]


def test_more_than_there_is(tmp_path: Path) -> None:
    report = fail(tmp_path, hollow(), 130 * MiB, 10 * MiB)
    assert [(one.setting, one.helps) for one in report.advice] == [
        ("batch", True),
        ("expandable_segments", False),
        ("garbage_collection_threshold", False),
    ]
    assert report.advice[0].numbers["missing"] == 22 * MiB
    said = explained(tmp_path, hollow(), 130 * MiB, 10 * MiB)
    assert said.sentence == (
        "At 10.00 µs, 130.0 MiB were requested; 10.0 MiB free on the device and 98.0 MiB cached fall short by 22.0 MiB."
    )
    assert said.attempt == "A batch 11.5 % smaller."
    assert advice_text(report.advice[1]) == (
        "expandable_segments:True would not have helped: 10.0 MiB free on the device and 98.0 MiB cached make "
        "108.0 MiB, less than 130.0 MiB."
    )


def test_no_batch_is_small_enough(tmp_path: Path) -> None:
    report = fail(tmp_path, hollow(), 10_000 * MiB, 10 * MiB)
    assert not any(one.helps for one in report.advice)
    assert advice_text(next(one for one in report.advice if one.setting == "batch")).startswith(
        "A smaller batch would not have helped: 9.66 GiB were missing"
    )


def test_a_limit_of_the_process(tmp_path: Path) -> None:
    report = fail(tmp_path, hollow(), 90 * MiB, 500 * MiB)
    assert [one.setting for one in report.advice] == ["limit"]
    said = explained(tmp_path, hollow(), 90 * MiB, 500 * MiB)
    assert said.sentence == (
        "At 10.00 µs, 90.0 MiB were requested while 500.0 MiB were free on the device: a limit of this process refused "
        "the allocation."
    )
    assert said.attempt == "Raise the limit (torch.cuda.set_per_process_memory_fraction)."


def test_memory_of_graphs_and_other_streams(tmp_path: Path) -> None:
    one = Allocator()
    for stream in (3, 4):
        one.free(one.malloc(50 * MiB, stream))
    data = one.snapshot()
    data["segments"][0]["segment_pool_id"] = (1, 0)
    event = {"action": "oom", "size": 60 * MiB, "device_free": 0, "stream": 0, "time_us": s.T0 + 99}
    data["device_traces"][0] = [*data["device_traces"][0], event]
    (report,) = load_snapshot(s.write(tmp_path / "m.pickle", data)).oom_reports(0)
    assert (report.private_bytes, report.other_stream_bytes) == (50 * MiB, 50 * MiB)
    assert advice_text(report.advice[0]) == (
        "One pool for all CUDA graphs, or fewer streams, would have helped: 50.0 MiB are free in pools that it may "
        "not use and 50.0 MiB on other streams."
    )


def test_expandable_segments_are_not_advised_twice(tmp_path: Path) -> None:
    report = fail(tmp_path, hollow(expandable=True), 90 * MiB, 10 * MiB)
    assert "expandable_segments" not in [one.setting for one in report.advice]


def test_a_split_limit_that_is_set_already(tmp_path: Path) -> None:
    report = fail(tmp_path, hollow(), 90 * MiB, 10 * MiB, max_split_size=200 * MiB)
    (text,) = [advice_text(one) for one in report.advice if one.setting == "max_split_size_mb"]
    assert text.startswith("max_split_size_mb is set already, and still a segment of 100.0 MiB holds only 2.0 MiB")


def test_a_recorder_that_says_nothing_of_the_device(tmp_path: Path) -> None:
    report = fail(tmp_path, hollow(), 90 * MiB, None)
    assert report.advice == ()
    said = explained(tmp_path, hollow(), 90 * MiB, None)
    assert said.sentence == "At 10.00 µs, 90.0 MiB were requested; how much was free on the device was not recorded."
    assert said.attempt == "" and len(said.details) == 2


@pytest.mark.parametrize("path", s.captures(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_reports_of_real_captures_hold_what_the_event_says(path: Path) -> None:
    found = load_snapshot(path)
    for device in found.devices:
        reports = found.oom_reports(device)
        assert [(r.time_us, r.requested_bytes, r.device_free_bytes, r.allocated_bytes) for r in reports] == [
            (f.time_us, f.requested_bytes, f.device_free_bytes, f.allocated_bytes) for f in found.failures(device)
        ]
        assert all(report.split_bytes <= report.cached_bytes for report in reports)
