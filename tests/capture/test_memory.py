"""memory_runner: its three forms, the snapshot of a CPU run, failures, and the CUDA path where there is a GPU."""

from __future__ import annotations

import gc
import logging
import pickle
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from profiler_kit import load_snapshot, memory_runner, profiler_runner, region
from profiler_kit.capture import memory
from profiler_kit.capture.cpu_snapshot import Change, build_snapshot, peak_bytes
from profiler_kit.errors import CaptureError, OptionError

CUDA = torch.cuda.is_available()
cpu_only = pytest.mark.skipif(CUDA, reason="records the CPU only where there is no CUDA device")
gpu = pytest.mark.skipif(not CUDA, reason="needs a CUDA device")


class PlainUnpickler(pickle.Unpickler):
    """Refuses every global, as the loader does."""

    def find_class(self, module: str, name: str) -> Any:
        raise AssertionError(f"{module}.{name} in a snapshot")


def read(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        found = PlainUnpickler(handle).load()
    assert isinstance(found, dict)
    return found


def replay(trace: list[dict[str, Any]], grows: str, shrinks: str) -> list[int]:
    """The total after each event."""
    totals, total = [], 0
    for event in trace:
        total += {grows: 1, shrinks: -1}.get(event["action"], 0) * event["size"]
        totals.append(total)
    return totals


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def work(kept: list[torch.Tensor], size: int = 1000) -> str:
    with region("outer"):
        scratch = torch.ones(size, 100)
        with region("inner"):
            kept.append(torch.ones(size))
        del scratch
    return "done"


@cpu_only
def test_replay_ends_at_the_segments_total(tmp_path: Path) -> None:
    kept: list[torch.Tensor] = []
    assert memory_runner(tmp_path / "m.pickle", work, kept, size=2000) == "done"
    snapshot = read(tmp_path / "m.pickle")
    (trace,) = snapshot["device_traces"]
    allocated = replay(trace, "alloc", "free_completed")
    reserved = replay(trace, "segment_alloc", "segment_free")
    assert min(allocated) >= 0
    assert max(allocated) == 2000 * 4 + 2000 * 100 * 4
    assert allocated[-1] == reserved[-1] == 2000 * 4
    assert sum(segment["total_size"] for segment in snapshot["segments"]) == 2000 * 4
    assert [block["address"] for segment in snapshot["segments"] for block in segment["blocks"]] == [kept[0].data_ptr()]
    times = [event["time_us"] for event in trace]
    assert times == sorted(times)


@cpu_only
def test_regions_and_stacks_of_a_cpu_run(tmp_path: Path) -> None:
    with memory_runner(tmp_path / "m.pickle"):
        work([])
    snapshot = read(tmp_path / "m.pickle")
    assert [(mark["stage"], mark["name"]) for mark in snapshot["external_annotations"]] == [
        ("START", "outer"),
        ("START", "inner"),
        ("END", "inner"),
        ("END", "outer"),
    ]
    outer_start, inner_start, inner_end, outer_end = (m["time_us"] for m in snapshot["external_annotations"])
    first, second = (event for event in snapshot["device_traces"][0] if event["action"] == "alloc")
    assert outer_start <= first["time_us"] <= inner_start <= second["time_us"] <= inner_end <= outer_end
    assert [frame["name"] for frame in first["frames"][:3]] == ["aten::empty", "aten::ones", "work"]
    line = work.__code__.co_firstlineno + 2
    assert (Path(first["frames"][2]["filename"]).name, first["frames"][2]["line"]) == (Path(__file__).name, line)


@cpu_only
def test_without_stacks_only_operators_are_frames(tmp_path: Path) -> None:
    memory_runner(tmp_path / "m.pickle", stacks="none").run(torch.ones, 10)
    (first, *_) = read(tmp_path / "m.pickle")["device_traces"][0]
    assert [frame["name"] for frame in first["frames"]] == ["aten::empty", "aten::ones"]


@cpu_only
def test_snapshot_is_written_when_the_code_runs_out_of_memory(tmp_path: Path) -> None:
    def fails() -> None:
        torch.ones(100)
        torch.empty(1 << 46, dtype=torch.uint8)

    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        memory_runner(tmp_path / "m.pickle", fails)
    snapshot = read(tmp_path / "m.pickle")
    assert snapshot["profiler_kit"]["error"] == repr(caught.value)
    (oom,) = (event for event in snapshot["device_traces"][0] if event["action"] == "oom")
    assert oom["size"] == 1 << 46
    assert "addr" not in oom
    memory_runner(tmp_path / "again.pickle", work, [])


@cpu_only
def test_says_what_it_is(tmp_path: Path) -> None:
    memory_runner(tmp_path / "m.pickle", max_entries=1234).run(work, [])
    assert read(tmp_path / "m.pickle")["profiler_kit"] == {
        "version": "0.1.0",
        "source": "torch.profiler",
        "max_entries": 1234,
        "torch": torch.__version__,
        "error": None,
    }


@cpu_only
def test_oldest_entries_are_dropped(tmp_path: Path) -> None:
    memory_runner(tmp_path / "all.pickle", work, [])
    memory_runner(tmp_path / "few.pickle", max_entries=3).run(work, [])
    assert len(read(tmp_path / "all.pickle")["device_traces"][0]) == 7
    assert [event["action"] for event in read(tmp_path / "few.pickle")["device_traces"][0]] == [
        "free_requested",
        "free_completed",
        "segment_free",
    ]


@cpu_only
def test_says_once_that_the_cpu_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_told", set())
    with caplog.at_level(logging.WARNING, logger="profiler_kit"):
        for _ in range(2):
            memory_runner(tmp_path / "m.pickle", work, [])
    assert [record.getMessage() for record in caplog.records] == [
        "memory_runner: no CUDA device, so CPU allocations are recorded, through torch.profiler"
    ]


@cpu_only
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
def test_bare_profiler_inside_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "m.pickle"
    with pytest.raises(CaptureError) as caught, memory_runner(path), torch.profiler.profile():
        torch.ones(3)
    assert str(caught.value) == (
        f"memory_runner {path}: another profiler was started inside and ended this recording, nothing is written: "
        "torch runs one at a time. Leave one of the two out."
    )
    assert listing(tmp_path) == []
    memory_runner(path, work, [])


@cpu_only
def test_decorated_function_writes_a_file_for_each_call(tmp_path: Path) -> None:
    recorded = memory_runner(tmp_path / "m.pickle")(work)
    kept: list[torch.Tensor] = []
    assert [recorded(kept), recorded(kept)] == ["done", "done"]
    assert listing(tmp_path) == ["m.1.pickle", "m.pickle"]


@cpu_only
def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.pickle"
    path.write_bytes(old := pickle.dumps({"segments": []}))

    def full(value: object, handle: Any, protocol: int) -> None:
        handle.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pickle, "dump", full)
        with pytest.raises(CaptureError) as caught:
            memory_runner(path, work, [])
    assert str(caught.value) == (
        f"memory_runner {path}: the snapshot cannot be written ([Errno 28] No space left on device). "
        "Choose a path with room for it."
    )
    assert (listing(tmp_path), path.read_bytes()) == (["m.pickle"], old)
    memory_runner(path, work, [])


@cpu_only
def test_another_runner_gets_a_number_and_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.pickle"
    for _ in range(2):
        memory_runner(path, work, [])
    assert listing(tmp_path) == ["m.1.pickle", "m.pickle"]
    path.write_bytes(weights := pickle.dumps({"weights": [1.0]}))
    with pytest.raises(OptionError, match="holds no memory snapshot, expected a new name"):
        memory_runner(path, work, [])
    assert path.read_bytes() == weights


def test_bad_options(tmp_path: Path) -> None:
    path = tmp_path / "m.pickle"
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / "m.json", {}, f"path {tmp_path / 'm.json'} ends in '.json', expected .pickle or .pkl."),
        (tmp_path, {}, f"path {tmp_path} ends in {tmp_path.suffix!r}, expected .pickle or .pkl."),
        (path, {"stacks": "some"}, 'stacks is \'some\', expected "python", "all" or "none".'),
        (path, {"max_entries": 0}, "max_entries is 0, expected a whole number from 1."),
        (path, {"entries": 0}, "unknown option 'entries', expected one of stacks, max_entries, rank."),
    ]
    for target, options, message in cases:
        with pytest.raises(OptionError) as caught:
            memory_runner(target, **options)
        assert str(caught.value) == f"memory_runner: {message}"


def change(time_ns: int, address: int, size: int) -> Change:
    return Change("memory", time_ns, address, size, [])


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 1000), st.booleans()), min_size=1, max_size=30))
def test_the_peak_is_that_of_the_snapshot_when_it_is_loaded(steps: list[tuple[int, int, bool]]) -> None:
    changes, held, seen, doubtful = [], dict[int, int](), set[int](), False
    for number, (place, size, frees) in enumerate(steps):
        doubtful |= frees and place in seen and place not in held
        size = held.pop(place, size) if frees else size
        if not frees:
            held[place] = size
        seen.add(place)
        changes.append(Change("memory", 10_000 * (number + 1), 4096 * (place + 1), -size if frees else size, []))
    snapshot = build_snapshot(changes, [], 1000)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "memory.pickle").write_bytes(pickle.dumps(snapshot))
        (row,) = load_snapshot(Path(folder) / "memory.pickle").summary()["devices"]
    assert peak_bytes(snapshot, 1000) == (None if doubtful else row["peak_allocated_bytes"])
    assert peak_bytes(snapshot, len(snapshot["device_traces"][0])) is None  # older ones may have been dropped


def test_block_freed_out_of_sight_is_closed_when_its_address_returns() -> None:
    snapshot = build_snapshot([change(1000, 16, 100), change(3000, 16, 50)], [], 100)
    (trace,) = snapshot["device_traces"]
    assert replay(trace, "alloc", "free_completed") == [0, 100, 100, 0, 0, 0, 50]
    assert [event["time_us"] for event in trace] == [1, 1, 3, 3, 3, 3, 3]
    assert [segment["total_size"] for segment in snapshot["segments"]] == [50]


def test_free_of_a_block_from_an_earlier_recording_stands_alone() -> None:
    snapshot = build_snapshot([change(1000, 16, -100)], [], 100)
    assert [(e["action"], e["addr"], e["size"]) for e in snapshot["device_traces"][0]] == [
        ("free_requested", 16, 100),
        ("free_completed", 16, 100),
        ("segment_free", 16, 100),
    ]


@pytest.mark.gpu
@gpu
def test_cuda_replay_equals_torchs_own_figure(tmp_path: Path) -> None:
    gc.collect()  # what other tests left would be freed in between
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    kept = []
    with memory_runner(tmp_path / "m.pickle", stacks="all"), region("outer"):
        scratch = torch.ones(1 << 20, device="cuda")
        kept.append(scratch * 2)
        del scratch
    assert not torch._C._cuda_isHistoryEnabled()
    snapshot = read(tmp_path / "m.pickle")
    totals = replay(snapshot["device_traces"][torch.cuda.current_device()], "alloc", "free_completed")
    assert min(totals) >= 0
    assert totals[-1] == torch.cuda.memory_allocated() - before
    assert {mark["name"] for mark in snapshot["external_annotations"]} == {"outer"}
    assert snapshot["profiler_kit"]["source"] == "cuda"


@pytest.mark.gpu
@gpu
def test_cuda_snapshot_after_running_out_of_memory(tmp_path: Path) -> None:
    with pytest.raises(torch.cuda.OutOfMemoryError) as caught:
        memory_runner(tmp_path / "m.pickle", torch.empty, 1 << 46, dtype=torch.uint8, device="cuda")
    assert not torch._C._cuda_isHistoryEnabled()
    snapshot = read(tmp_path / "m.pickle")
    assert snapshot["profiler_kit"]["error"] == repr(caught.value)[:2000]
    (oom,) = (event for trace in snapshot["device_traces"] for event in trace if event["action"] == "oom")
    assert oom["size"] == 1 << 46


@pytest.mark.gpu
@gpu
def test_cuda_history_that_is_already_recording_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "m.pickle"
    torch.cuda.memory._record_memory_history(max_entries=100)
    try:
        with pytest.raises(CaptureError) as caught:
            memory_runner(path, work, [])
        assert torch._C._cuda_isHistoryEnabled()
    finally:
        torch.cuda.memory._record_memory_history(None)
    assert str(caught.value) == (
        f"memory_runner {path}: CUDA memory history is already recording, expected it off: the allocator keeps one "
        "history. Leave one of the two out, or call torch.cuda.memory._record_memory_history(None) first."
    )


@pytest.mark.gpu
@gpu
@pytest.mark.parametrize("memory_outside", [True, False])
def test_trace_and_cuda_snapshot_together(tmp_path: Path, memory_outside: bool) -> None:
    outer, inner = memory_runner(tmp_path / "m.pickle"), profiler_runner(tmp_path / "t.json")
    with outer if memory_outside else inner, inner if memory_outside else outer, region("both"):
        torch.ones(1 << 20, device="cuda")
    assert {mark["name"] for mark in read(tmp_path / "m.pickle")["external_annotations"]} == {"both"}
    assert '"both"' in (tmp_path / "t.json").read_text()
