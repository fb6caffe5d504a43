"""Answers are computed once: counted, on an object of the test and on a loaded trace and snapshot."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from profiler_kit import kept as keeping
from profiler_kit import load_snapshot, load_trace
from profiler_kit import snapshot as snapshot_module
from profiler_kit import trace as trace_module
from profiler_kit.kept import kept, kept_for_good
from tests import snapshots as s
from tests.builders import TraceBuilder
from tests.effort import calls


class Numbers:
    """Counts what it computes."""

    def __init__(self) -> None:
        self.computed: list[str] = []

    @kept
    def zeros(self, count: int, *, of: str = "a") -> np.ndarray:
        self.computed.append(f"{of}{count}")
        return np.zeros(count, dtype=np.int8)

    @kept_for_good
    def base(self) -> np.ndarray:
        self.computed.append("base")
        return np.zeros(1000, dtype=np.int8)

    @property
    @kept
    def name(self) -> str:
        self.computed.append("name")
        return "numbers"

    @kept
    def fails(self) -> None:
        self.computed.append("fails")
        raise ValueError("as always")


def test_an_answer_is_computed_once_whatever_way_it_is_asked_for() -> None:
    numbers = Numbers()
    first = numbers.zeros(3)
    assert numbers.zeros(count=3) is first and numbers.zeros(3, of="a") is first
    assert numbers.zeros(3, of="b") is not first
    assert numbers.name == numbers.name == "numbers"
    assert numbers.computed == ["a3", "b3", "name"]
    assert Numbers().zeros(3) is not first  # each object has its own


def test_the_answers_not_used_for_longest_go_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "BOUND_BYTES", 100)
    numbers = Numbers()
    for count in (40, 50, 40, 30):  # 50 is the one used longest ago when 30 comes
        numbers.zeros(count)
    numbers.base()
    assert numbers.computed == ["a40", "a50", "a30", "base"]
    numbers.zeros(40), numbers.zeros(30), numbers.base()
    assert numbers.computed == ["a40", "a50", "a30", "base"]
    large = numbers.zeros(200)  # beyond the bound by itself: kept until the next one
    assert numbers.zeros(200) is large
    numbers.zeros(50), numbers.zeros(200), numbers.base()
    assert numbers.computed == ["a40", "a50", "a30", "base", "a200", "a50", "a200"]


def test_the_size_of_long_lists_is_told_by_some_of_their_items() -> None:
    array = np.zeros(1000, dtype=np.int8)
    for count in (1, 99, 100, 12_345):
        arrays = [array] * count
        for value in (arrays, tuple(arrays), dict(enumerate(arrays))):
            assert keeping.size_of(value) == pytest.approx(1000 * count, rel=0.1, abs=300)
    paths = [tuple(f"region {depth}" for depth in range(100))] * 10_000
    assert keeping.size_of([np.zeros(1000), None] * 60) == pytest.approx(480_000, rel=0.1)
    assert calls(lambda: keeping.size_of(paths)) < 100_000  # of a million names


def test_an_exception_is_not_kept() -> None:
    numbers = Numbers()
    for _ in range(2):
        with pytest.raises(ValueError, match="as always"):
            numbers.fails()
    assert numbers.computed == ["fails", "fails"]


def test_threads_that_ask_together_share_one_computation() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        computed = 0

        @kept
        def answer(self) -> object:
            Slow.computed += 1
            begun.set()
            assert go_on.wait(900)
            return object()

    slow, found = Slow(), []
    threads = [threading.Thread(target=lambda: found.append(slow.answer())) for _ in range(4)]
    threads[0].start()
    assert begun.wait(900)
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert Slow.computed == 1 and len(found) == 4 and len(set(map(id, found))) == 1


def counted(monkeypatch: pytest.MonkeyPatch, module: object, *names: str) -> list[str]:
    """Which of these functions of the module are called from now on, in order."""
    calls: list[str] = []
    for name in names:
        function = getattr(module, name)

        def call(*args: object, name: str = name, function=function, **kwargs: object) -> object:  # type: ignore[no-untyped-def]
            calls.append(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, call)
    return calls


def test_a_trace_answers_each_question_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = TraceBuilder()
    builder.span("user_annotation", "work", 0, 50)
    builder.launch(1, 1)
    builder.kernel(1, 100, 5)
    trace = load_trace(builder.write(tmp_path / "trace.json"))
    names = ("idle_gaps", "idle_totals", "region_utilization", "region_totals", "kernel_totals", "copies", "what_ran")
    calls = counted(monkeypatch, trace_module, *names)
    for _ in range(3):
        trace.idle(), trace.idle_gaps(), trace.idle_gaps(scope="stream"), trace.utilization(), trace.regions()
        trace.kernels(), trace.copy_totals(), trace.copy_rate(), trace.presence, trace.summary()
    assert sorted(calls) == sorted(names)
    assert trace.findings() is trace.findings()
    assert trace.idle() is trace.idle(scope="stream") and trace.kernel_details() is trace.kernel_details()


def test_a_snapshot_explains_an_out_of_memory_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [s.alloc(1, 0, 512), s.event("oom", 2, 0, 1 << 30, device_free=1024)]
    data = s.snapshot(events, segments=[s.segment(0, 2 << 20, s.block(0, 512, 512))])
    snapshot = load_snapshot(s.write(tmp_path / "memory.pickle", data))
    device = snapshot.devices[0]
    calls = counted(monkeypatch, snapshot_module.memory, "allocations", "replay", "out_of_memory")
    explained = counted(monkeypatch, snapshot_module.memory_oom, "explain")
    for _ in range(3):
        snapshot.oom_reports(device), snapshot.failures(device), snapshot.summary(), snapshot.leaks(device)
    assert explained == ["explain"]
    assert sorted(calls) == ["allocations", "out_of_memory", *["replay"] * len(snapshot.devices)]
