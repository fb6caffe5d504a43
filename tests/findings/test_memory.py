"""What a snapshot says of itself: lost history, failures, leaks, and a peak that differs from that of run.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from profiler_kit.finding import Finding
from profiler_kit.findings.memory import measured_peak, of_device
from profiler_kit.findings.out_of_memory import FAILURES
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s
from tests.app.samples import record

MiB = 1 << 20


def loaded(tmp_path: Path, data: dict[str, Any]) -> Snapshot:
    return load_snapshot(s.write(tmp_path / "m.pickle", data))


def of_id(found: list[Finding], name: str) -> Finding:
    return next(one for one in found if one.id == name)


def test_what_a_history_lost(tmp_path: Path) -> None:
    trace = [*s.free(10, 0x9000, 5), s.alloc(20, 0x1000, 10)]
    held = [s.block(0x1000, 512, 10), s.block(0x2000, 512, 7, frames=[s.frame("f")])]
    data = s.snapshot(trace, segments=[s.segment(0, MiB, *held)])
    data["profiler_kit"] = {"source": "cuda", "max_entries": 3}
    lost = of_id(loaded(tmp_path, data).findings(), "history-cut-off")
    assert (lost.kind, lost.level) == ("lost", "warning")
    assert lost.sentence == (
        "The history lost its beginning: at least 2 recorded allocations are missing, and an earlier, higher peak "
        "may be missing too."
    )
    assert lost.details == ("1 of them were freed later, 1 were live to the end. The ring buffer held 3 events.",)
    assert lost.attempt == "Record with a larger max_entries."


def test_every_failure_is_counted_and_the_first_few_explained(tmp_path: Path) -> None:
    oom = [
        {"action": "oom", "size": 60 * MiB, "device_free": 3 * MiB, "stream": 0, "time_us": s.T0 + n, "frames": []}
        for n in range(10, 10 + FAILURES + 2)
    ]
    held = [s.segment(0x1000, MiB, s.block(0x1000, MiB, MiB))]
    data = s.snapshot([s.event("segment_alloc", 0, 0x1000, MiB), s.alloc(1, 0x1000, MiB), *oom], segments=held)
    found = of_device(loaded(tmp_path, data), 0)
    assert [one.id for one in found] == [
        "peak-memory", "out-of-memory", "out-of-memory-2", "out-of-memory-3", "out-of-memory-more",
    ]  # fmt: skip
    assert found[-1].sentence == "2 more allocations failed."


def test_a_cpu_says_what_its_lines_mean_and_a_measured_peak_why_it_differs(tmp_path: Path) -> None:
    data = s.snapshot([s.alloc(1, 0x1000, MiB)], segments=[s.segment(0, MiB, s.block(0x1000, MiB, MiB))])
    data["profiler_kit"] = {"source": "torch.profiler"}
    snapshot = loaded(tmp_path, data)
    assert of_id(snapshot.findings(), "cpu-lines").sentence.startswith(
        "On a CPU, a line may be the first line of its function"
    )
    (row,) = snapshot.summary()["devices"]
    differs = measured_peak(row, record("a"))
    assert differs is not None and differs.sentence == (
        "run.json says 3.00 GiB: torch.cuda.max_memory_allocated of the timed iterations, which counts blocks as the "
        "allocator rounds them up. 1.0 MiB are the bytes requested in the recorded batch."
    )
    assert measured_peak(row, None) is None


def test_what_every_instance_of_a_region_leaves_behind_is_a_leak(tmp_path: Path) -> None:
    events, marks = [], []
    for n in range(4):
        at = 100 * n
        events += [s.alloc(at + 10, 0x1000 * (n + 1), 512, frames=[s.frame("keep")])]
        marks += [s.mark("START", "step", at), s.mark("END", "step", at + 50)]
    blocks = [s.block(0x1000 * (n + 1), 512, 512) for n in range(4)]
    data = s.snapshot(events, segments=[s.segment(0, MiB, *blocks)])
    data["external_annotations"] = marks
    leak = of_id(loaded(tmp_path, data).findings(), "leak")
    assert leak.where == ("step",) and leak.gain is not None and leak.gain.amount == 2048
    assert leak.sentence == (
        "2.0 KiB that keep (train.py:1) allocated in step are live at the end, left by 4 of 4 instances of the region."
    )
