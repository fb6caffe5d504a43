"""profiler_runner and memory_runner inside each other without CUDA: one torch profile, two files, each its own."""

from __future__ import annotations

import json
import logging
import pickle
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler_kit import load_snapshot, load_trace, memory_runner, profiler_runner, region
from profiler_kit.capture import memory, runners
from profiler_kit.errors import CaptureError, StartError

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the two share a profile only without CUDA")

ORDERS = pytest.mark.parametrize("memory_outside", [True, False], ids=["memory-outside", "profiler-outside"])
KEPT = 1000 * 4
PEAK = KEPT + 1000 * 100 * 4


def work(kept: list[torch.Tensor]) -> str:
    with region("outer"):
        scratch = torch.ones(1000, 100)
        with region("inner"):
            kept.append(torch.ones(1000))
        del scratch
    return "done"


def events(path: Path) -> list[dict[str, Any]]:
    found = json.loads(path.read_text())["traceEvents"]
    assert isinstance(found, list)
    return found


def names(path: Path) -> list[str]:
    """Names of what lasted, by start."""
    spans = [event for event in events(path) if event.get("ph") == "X" and event["cat"] != "Trace"]
    return [event["name"] for event in sorted(spans, key=lambda event: float(event["ts"]))]


def snapshot(path: Path) -> dict[str, Any]:
    with path.open("rb") as handle:
        found = pickle.load(handle)
    assert isinstance(found, dict)
    return found


def totals(found: dict[str, Any]) -> list[int]:
    """Allocated bytes after each event that changes them."""
    sign = {"alloc": 1, "free_completed": -1}
    total, result = 0, []
    for event in found["device_traces"][0]:
        if event["action"] in sign:
            total += sign[event["action"]] * event["size"]
            result.append(total)
    return result


def marks(found: dict[str, Any]) -> list[str]:
    return [f"{mark['stage']} {mark['name']}" for mark in found["external_annotations"]]


def assert_both_files_are_right(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["m.pickle", "t.json"]
    assert [n for n in names(folder / "t.json") if n in ("outer", "inner", "aten::ones")] == [
        "outer", "aten::ones", "inner", "aten::ones"
    ]  # fmt: skip
    assert {event.get("cat") for event in events(folder / "t.json")} == {None, "Trace", "user_annotation", "cpu_op"}
    found = snapshot(folder / "m.pickle")
    assert totals(found) == [PEAK - KEPT, PEAK, KEPT]
    assert sum(segment["total_size"] for segment in found["segments"]) == KEPT
    assert marks(found) == ["START outer", "START inner", "END inner", "END outer"]
    # and our own readers agree
    assert set(load_trace(folder / "t.json").regions()["path"]) >= {("outer",), ("outer", "inner")}
    regions = load_snapshot(folder / "m.pickle").regions()
    assert set(regions["path"]) >= {("outer",), ("outer", "inner")}


@ORDERS
def test_decorators(tmp_path: Path, memory_outside: bool) -> None:
    first, second = memory_runner(tmp_path / "m.pickle"), profiler_runner(tmp_path / "t.json")
    step = first(second(work)) if memory_outside else second(first(work))
    assert step([]) == "done"
    assert_both_files_are_right(tmp_path)
    frames = snapshot(tmp_path / "m.pickle")["device_traces"][0][0]["frames"]
    assert "work" in {frame["name"] for frame in frames}  # Python frames in both orders


@ORDERS
def test_with_statements(tmp_path: Path, memory_outside: bool) -> None:
    kept: list[torch.Tensor] = []
    if memory_outside:
        with memory_runner(tmp_path / "m.pickle"), profiler_runner(tmp_path / "t.json") as prof:
            work(kept)
    else:
        with profiler_runner(tmp_path / "t.json") as prof, memory_runner(tmp_path / "m.pickle"):
            work(kept)
    assert_both_files_are_right(tmp_path)
    assert any(average.key == "aten::ones" for average in prof.key_averages())


@ORDERS
def test_classic_forms(tmp_path: Path, memory_outside: bool) -> None:
    kept: list[torch.Tensor] = []
    if memory_outside:
        result = memory_runner(tmp_path / "m.pickle", profiler_runner, tmp_path / "t.json", work, kept)
    else:
        result = profiler_runner(tmp_path / "t.json", memory_runner, tmp_path / "m.pickle", work, kept)
    assert result == "done"
    assert_both_files_are_right(tmp_path)


def test_a_decorated_function_called_again_writes_two_more_files(tmp_path: Path) -> None:
    step = profiler_runner(tmp_path / "t.json")(memory_runner(tmp_path / "m.pickle")(work))
    kept: list[torch.Tensor] = []
    step(kept)
    step(kept)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.1.pickle", "m.pickle", "t.1.json", "t.json"]
    assert totals(snapshot(tmp_path / "m.1.pickle")) == [PEAK - KEPT, PEAK, KEPT]


def test_outer_decorator_starts_the_profile_with_the_inner_ones_options(tmp_path: Path) -> None:
    inner = profiler_runner(tmp_path / "t.json", record_shapes=True, with_stack=True, profile_memory=True)
    memory_runner(tmp_path / "m.pickle", stacks="none")(inner(work))([])
    found = events(tmp_path / "t.json")
    (first, *_) = (event for event in found if event["name"] == "aten::add" or event["name"] == "aten::fill_")
    assert first["args"]["Input Dims"][0] == [1000, 100]
    assert any(event.get("cat") == "python_function" for event in found)
    assert any(event["name"] == "[memory]" for event in found)
    frames = snapshot(tmp_path / "m.pickle")["device_traces"][0][0]["frames"]
    assert [frame["name"] for frame in frames] == ["aten::empty", "aten::ones"]  # stacks="none"


@ORDERS
def test_each_file_holds_its_own_time(tmp_path: Path, memory_outside: bool) -> None:
    kept: list[torch.Tensor] = []
    outer = memory_runner(tmp_path / "m.pickle") if memory_outside else profiler_runner(tmp_path / "t.json")
    with outer, region("around"):
        before = torch.ones(7)
        if memory_outside:
            profiler_runner(tmp_path / "t.json", work, kept)
        else:
            memory_runner(tmp_path / "m.pickle", work, kept)
        assert not (tmp_path / ("t.json" if memory_outside else "m.pickle")).exists()  # it comes when the outer ends
        with region("after"):
            before.add_(1)
    found, regions = snapshot(tmp_path / "m.pickle"), set(names(tmp_path / "t.json"))
    if memory_outside:
        assert max(totals(found)) == PEAK + 7 * 4
        assert marks(found)[-2:] == ["END after", "END around"]
        assert not {"around", "after", "aten::add_"} & regions and {"outer", "inner"} <= regions
    else:
        assert totals(found) == [PEAK - KEPT, PEAK, KEPT]
        assert marks(found) == ["START outer", "START inner", "END inner", "END outer"]
        assert {"around", "outer", "inner", "after", "aten::add_"} <= regions


def test_many_inside_one(tmp_path: Path) -> None:
    runner = memory_runner(tmp_path / "m.pickle")
    with profiler_runner(tmp_path / "t.json"):
        for _ in range(3):
            runner.run(work, [])
    for name in ("m.pickle", "m.1.pickle", "m.2.pickle"):
        assert max(totals(snapshot(tmp_path / name))) == PEAK
    assert names(tmp_path / "t.json").count("outer") == 3


def test_memory_inside_a_with_has_no_python_frames_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_told", set())
    with caplog.at_level(logging.WARNING, logger="profiler_kit"):
        for _ in range(2):
            with profiler_runner(tmp_path / "t.json"), memory_runner(tmp_path / "m.pickle"):
                work([])
    assert [record.getMessage() for record in caplog.records][1:] == [
        "memory_runner: it shares the torch profile of a profiler_runner that was started without with_stack=True, "
        "so stacks hold operators and no Python frames"
    ]
    with profiler_runner(tmp_path / "s.json", with_stack=True), memory_runner(tmp_path / "s.pickle"):
        work([])
    frames = snapshot(tmp_path / "s.pickle")["device_traces"][0][0]["frames"]
    assert "work" in {frame["name"] for frame in frames}


def test_snapshot_of_a_function_that_raises(tmp_path: Path) -> None:
    def fails() -> None:
        work([])
        torch.empty(1 << 50, dtype=torch.uint8)

    step = profiler_runner(tmp_path / "t.json")(memory_runner(tmp_path / "m.pickle")(fails))
    with pytest.raises(RuntimeError, match="can't allocate memory") as caught:
        step()
    assert not hasattr(caught.value, "__notes__")
    found = snapshot(tmp_path / "m.pickle")
    assert found["profiler_kit"]["error"] == repr(caught.value)
    assert [e["size"] for e in found["device_traces"][0] if e["action"] == "oom"] == [1 << 50]
    assert "outer" in names(tmp_path / "t.json")


def refusal(start: Callable[[], object]) -> str:
    with pytest.raises(StartError) as caught:
        start()
    return str(caught.value)


def nested(outer: Any, inner: Any) -> None:
    with outer, inner:
        raise AssertionError("not reached")


def test_options_that_the_shared_profile_lacks(tmp_path: Path) -> None:
    trace, pickled = tmp_path / "t.json", tmp_path / "m.pickle"
    shared = f"without CUDA it shares the torch profile of memory_runner {pickled}"
    swap = "Swap the two: put this profiler_runner outside."
    no_schedule = "Leave wait, warmup, active and repeat out, or record one after the other."
    cases = [
        ({"record_shapes": True, "with_modules": True}, f"which runs without record_shapes, with_modules. {swap}"),
        ({"active": 1}, f"and a shared profile has no schedule. {no_schedule}"),
    ]
    for options, rest in cases:
        said = refusal(lambda o=options: nested(memory_runner(pickled), profiler_runner(trace, **o)))  # type: ignore[misc]
        assert said == f"profiler_runner {trace}: {shared}, {rest}"
    for options, rest in [
        ({"profile_memory": False}, "which runs without profile_memory. Swap the two: put this memory_runner outside."),
        ({"active": 1}, f"and a shared profile has no schedule. {no_schedule}"),
    ]:
        said = refusal(lambda o=options: nested(profiler_runner(trace, **o), memory_runner(pickled)))  # type: ignore[misc]
        assert said == (
            f"memory_runner {pickled}: without CUDA it shares the torch profile of profiler_runner {trace}, {rest}"
        )
    assert list(tmp_path.iterdir()) == []  # no trace of nothing is left behind
    profiler_runner(trace, work, [])


def test_a_refusal_after_work_keeps_what_was_recorded(tmp_path: Path) -> None:
    with pytest.raises(StartError), profiler_runner(tmp_path / "t.json"):
        work([])
        profiler_runner(tmp_path / "u.json", work, [])
    assert "outer" in names(tmp_path / "t.json")
    with pytest.raises(StartError), memory_runner(tmp_path / "m.pickle"):
        work([])
        memory_runner(tmp_path / "n.pickle", work, [])
    assert max(totals(snapshot(tmp_path / "m.pickle"))) == PEAK
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.pickle", "t.json"]


def test_one_of_a_kind(tmp_path: Path) -> None:
    rest = "expected no profiler around it: torch runs one at a time. Leave one of the two out, or mark the inner part "
    kept: list[torch.Tensor] = []
    with memory_runner(tmp_path / "m.pickle"), profiler_runner(tmp_path / "t.json"):
        work(kept)
        said = refusal(lambda: memory_runner(tmp_path / "n.pickle", work, []))
        assert said == (
            f"memory_runner {tmp_path / 'n.pickle'}: memory_runner {tmp_path / 'm.pickle'} is already recording, "
            f"{rest}with profiler_kit.region."
        )
        said = refusal(lambda: profiler_runner(tmp_path / "u.json", work, []))
        assert said.startswith(f"profiler_runner {tmp_path / 'u.json'}: profiler_runner {tmp_path / 't.json'} is ")
    assert_both_files_are_right(tmp_path)


@ORDERS
@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
def test_bare_profiler_inside_both_is_reported(tmp_path: Path, memory_outside: bool) -> None:
    a, b = memory_runner(tmp_path / "m.pickle"), profiler_runner(tmp_path / "t.json")
    first, second = (a, b) if memory_outside else (b, a)
    with pytest.raises(CaptureError) as caught, first, second, torch.profiler.profile():
        work([])
    assert "another profiler was started inside and ended this recording, nothing is written" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    profiler_runner(tmp_path / "t.json", work, [])


def test_one_file_that_cannot_be_written_does_not_take_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(value: object, handle: Any, protocol: int) -> None:
        raise OSError(28, "No space left on device")

    for memory_outside in (True, False):
        folder = tmp_path / str(memory_outside)
        a, b = memory_runner(folder / "m.pickle"), profiler_runner(folder / "t.json")
        with monkeypatch.context() as patched, ExitStack() as stack:
            patched.setattr(pickle, "dump", full)
            stack.enter_context(pytest.raises(CaptureError, match=r"m\.pickle: the snapshot cannot be written"))
            stack.enter_context(a if memory_outside else b)
            stack.enter_context(b if memory_outside else a)
            work([])
        assert [path.name for path in folder.iterdir()] == ["t.json"]
    with monkeypatch.context() as patched:
        patched.setattr(runners, "_is_closed", lambda path: False)
        with pytest.raises(CaptureError, match="trace cannot be written"):
            memory_runner(tmp_path / "m.pickle", profiler_runner, tmp_path / "t.json", work, [])
    assert max(totals(snapshot(tmp_path / "m.pickle"))) == PEAK
    assert not (tmp_path / "t.json").exists()


def test_a_guest_that_outlives_its_host_is_told(tmp_path: Path) -> None:
    host, guest = profiler_runner(tmp_path / "t.json"), memory_runner(tmp_path / "m.pickle")
    host.start()
    guest.start()
    work([])
    host.stop(None)
    with pytest.raises(CaptureError) as caught:
        guest.stop(None)
    assert str(caught.value) == (
        f"memory_runner {tmp_path / 'm.pickle'}: profiler_runner {tmp_path / 't.json'}, whose torch profile it shares, "
        "ended first, nothing is written. End this one first."
    )
    memory_runner(tmp_path / "m.pickle", work, [])


def test_a_memory_runner_in_another_thread_shares_too(tmp_path: Path) -> None:
    with profiler_runner(tmp_path / "t.json"):
        thread = threading.Thread(target=memory_runner, args=(tmp_path / "m.pickle", torch.ones, 1000))
        thread.start()
        thread.join()
    assert snapshot(tmp_path / "m.pickle")["profiler_kit"]["error"] is None


def test_trace_holds_memory_only_when_asked(tmp_path: Path) -> None:
    profiler_runner(tmp_path / "plain.json", work, [])
    profiler_runner(tmp_path / "memory.json", profile_memory=True).run(work, [])
    plain, with_memory = events(tmp_path / "plain.json"), events(tmp_path / "memory.json")
    assert not any(event["name"] == "[memory]" for event in plain)
    assert sum(event["name"] == "[memory]" for event in with_memory) == 3
    assert [e["name"] for e in with_memory if e["name"] != "[memory]"] == [e["name"] for e in plain]
