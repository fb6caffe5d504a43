"""profiler_runner: its three forms, schedules, names of files, failures, nesting."""

from __future__ import annotations

import functools
import gzip
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from profiler_kit import KitError, profiler_runner, region
from profiler_kit.capture import runners
from profiler_kit.capture.torch_profile import TorchProfile
from profiler_kit.errors import CaptureError, OptionError

CPU = [ProfilerActivity.CPU]
OLD = '{"traceEvents": []}'
OLD_GZ = gzip.compress(b'{"lr": 0.1}', mtime=0)


def events(path: Path) -> list[dict[str, Any]]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    found = json.loads(data)["traceEvents"]
    assert isinstance(found, list)
    return found


def names(path: Path) -> set[str]:
    return {event["name"] for event in events(path) if event.get("ph") == "X"}


def work(value: int = 3) -> torch.Tensor:
    with region(f"work {value}"):
        return torch.ones(value) + 1


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_context_manager_gives_torchs_profiler(tmp_path: Path, name: str) -> None:
    with profiler_runner(tmp_path / name) as prof:
        assert isinstance(prof, profile)
        work()
    assert {"work 3", "aten::ones"} <= names(tmp_path / name)
    assert listing(tmp_path) == [name]
    assert any(average.key == "aten::ones" for average in prof.key_averages())


def test_classic_form_hands_every_argument_to_the_function(tmp_path: Path) -> None:
    def function(*args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
        work()
        return args, kwargs

    result = profiler_runner(tmp_path / "t.json", function, 1, 2, path="a", function="b", with_stack="c", options="d")
    assert result == ((1, 2), {"path": "a", "function": "b", "with_stack": "c", "options": "d"})
    assert "work 3" in names(tmp_path / "t.json")


def test_run_takes_options_in_the_classic_form(tmp_path: Path) -> None:
    assert profiler_runner(tmp_path / "t.json", record_shapes=True).run(work, value=5).tolist() == [2.0] * 5
    shapes = [e["args"]["Input Dims"] for e in events(tmp_path / "t.json") if e["name"] == "aten::add"]
    assert shapes == [[[5], [], []]]


def test_decorated_function_writes_a_file_for_each_call(tmp_path: Path) -> None:
    @profiler_runner(tmp_path / "t.json.gz")
    def step(value: int) -> int:
        """What it does."""
        work(value)
        return value

    assert [step(value) for value in (1, 2, 3)] == [1, 2, 3]
    assert (step.__name__, step.__doc__) == ("step", "What it does.")
    assert listing(tmp_path) == ["t.1.json.gz", "t.2.json.gz", "t.json.gz"]
    assert "work 1" in names(tmp_path / "t.json.gz")
    assert "work 2" in names(tmp_path / "t.1.json.gz")
    assert "work 3" in names(tmp_path / "t.2.json.gz")


def test_file_of_an_earlier_run_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(OLD)
    profiler_runner(tmp_path / "t.json", work)
    assert "work 3" in names(tmp_path / "t.json")


def test_another_runner_of_the_same_path_gets_a_number(tmp_path: Path) -> None:
    for value in (1, 2):
        with profiler_runner(tmp_path / "t.json"):
            work(value)
    profiler_runner(tmp_path / "t.json", work, 4)
    for number, value in (("", 1), (".1", 2), (".2", 4)):
        assert f"work {value}" in names(tmp_path / f"t{number}.json")
    assert len(listing(tmp_path)) == 3


@pytest.mark.parametrize(("name", "held"), [("t.json", b'{"lr": 0.1}'), ("t.json.gz", b"text"), ("t.json.gz", OLD_GZ)])
def test_a_file_that_is_no_trace_is_left_alone(tmp_path: Path, name: str, held: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(held)
    with pytest.raises(OptionError) as caught:
        profiler_runner(path, work)
    assert str(caught.value) == (
        f"profiler_runner: path {path} is a file that holds no trace, expected a new name or an earlier trace to "
        "replace. Choose another name."
    )
    path.unlink()
    runner = profiler_runner(path)
    path.write_bytes(held)  # it came later: the recording is kept beside it
    runner.run(work)
    assert path.read_bytes() == held
    assert "work 3" in names(tmp_path / name.replace("t.", "t.1."))


def test_methods_of_every_kind_are_recorded(tmp_path: Path) -> None:
    recorded = profiler_runner(tmp_path / "t.json")

    class Net:
        @recorded
        def step(self, value: int) -> torch.Tensor:
            return work(value)

        @recorded
        @staticmethod
        def fixed(value: int) -> torch.Tensor:
            return work(value)

        @staticmethod
        @recorded
        def below(value: int) -> torch.Tensor:
            return work(value)

        @recorded
        @classmethod
        def made(cls, value: int) -> torch.Tensor:
            assert cls is Net
            return work(value)

        @property
        @recorded
        def held(self) -> torch.Tensor:
            return work(9)

    net = Net()
    for call, value in ((net.step, 1), (net.fixed, 2), (Net.below, 4), (Net.made, 5), (net.made, 6)):
        assert len(call(value)) == value
    assert len(net.held) == 9
    for number, value in enumerate((1, 2, 4, 5, 6, 9)):
        assert f"work {value}" in names(tmp_path / (f"t.{number}.json" if number else "t.json"))


def test_a_module_is_recorded_as_a_function_is(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 2)
    assert profiler_runner(tmp_path / "t.json", net, torch.ones(1, 2)).shape == (1, 2)
    assert profiler_runner(tmp_path / "t.json")(net)(torch.ones(1, 2)).shape == (1, 2)
    assert "aten::linear" in names(tmp_path / "t.json") & names(tmp_path / "t.1.json")


def test_schedule_records_the_active_steps_only(tmp_path: Path) -> None:
    with profiler_runner(tmp_path / "t.json", wait=1, warmup=1, active=2) as prof:
        for value in range(1, 7):
            work(value)
            prof.step()
    found = names(tmp_path / "t.json")
    assert {name for name in found if name.startswith("work")} == {"work 3", "work 4"}
    assert {name for name in found if name.startswith("ProfilerStep")} == {"ProfilerStep#2", "ProfilerStep#3"}
    assert listing(tmp_path) == ["t.json"]


def test_each_cycle_has_its_own_file(tmp_path: Path) -> None:
    with profiler_runner(tmp_path / "t.json", wait=1, active=1, repeat=2) as prof:
        for value in range(1, 6):
            work(value)
            prof.step()
    assert listing(tmp_path) == ["t.0.json", "t.1.json"]
    assert "work 2" in names(tmp_path / "t.0.json")
    assert "work 4" in names(tmp_path / "t.1.json")


def test_schedule_cut_short_writes_what_it_has(tmp_path: Path) -> None:
    with profiler_runner(tmp_path / "t.json", warmup=1, active=5) as prof:
        work(1)
        prof.step()
        work(2)
    assert "work 2" in names(tmp_path / "t.json")


def test_schedule_that_records_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with pytest.raises(CaptureError) as caught, profiler_runner(path, wait=1, warmup=1, active=1) as prof:
        work()
        prof.step()
    assert str(caught.value) == (
        f"profiler_runner {path}: nothing was recorded: the schedule skips 2 steps and found 1. "
        "Call prof.step() after each step, or skip fewer."
    )
    assert listing(tmp_path) == []
    profiler_runner(path, work)


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
def test_trace_is_written_when_the_code_raises(tmp_path: Path, error: BaseException) -> None:
    def fails() -> None:
        work()
        raise error

    with pytest.raises(type(error)) as caught:
        profiler_runner(tmp_path / "t.json", fails)
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert "work 3" in names(tmp_path / "t.json")
    profiler_runner(tmp_path / "again.json", work)


def _break_export(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: object, path: str) -> None:
        Path(path).write_text('{"traceEvents": [')

    monkeypatch.setattr(profile, "export_chrome_trace", half)


@pytest.mark.parametrize("name", ["t.json", "t.json.gz"])
def test_failed_export_leaves_nothing_and_keeps_the_old_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    old = OLD.encode() if name == "t.json" else gzip.compress(OLD.encode())
    path.write_bytes(old)
    with monkeypatch.context() as patched:
        _break_export(patched)
        with pytest.raises(CaptureError) as caught:
            profiler_runner(path, work)
    assert str(caught.value) == (
        f"profiler_runner {path}: the trace cannot be written (the folder is gone, or the disk is full). "
        "Choose a path with room for it."
    )
    assert listing(tmp_path) == [name]
    assert path.read_bytes() == old
    profiler_runner(path, work)
    assert "work 3" in names(path)


def test_failed_export_does_not_hide_the_users_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ValueError("mine")

    _break_export(monkeypatch)
    with pytest.raises(ValueError) as caught:
        profiler_runner(tmp_path / "t.json", fails)
    assert str(caught.value) == "mine"
    assert caught.value.__notes__ == [
        f"profiler_runner {tmp_path / 't.json'}: the trace cannot be written (the folder is gone, or the disk is full)."
        " Choose a path with room for it."
    ]
    assert listing(tmp_path) == []


def nested_message(inner: Path, outer: str) -> str:
    return (
        f"profiler_runner {inner}: {outer} is already recording, expected no profiler around it: torch runs one at a "
        "time. Leave one of the two out, or mark the inner part with profiler_kit.region."
    )


def test_nested_runner_is_refused_and_the_outer_one_goes_on(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer.json", tmp_path / "inner.json"
    with profiler_runner(outer):
        work(1)
        with pytest.raises(CaptureError) as caught:
            profiler_runner(inner, work)
        work(2)
    assert str(caught.value) == nested_message(inner, f"profiler_runner {outer}")
    assert {"work 1", "work 2"} <= names(outer)
    assert listing(tmp_path) == ["outer.json"]


def test_runner_inside_a_waiting_runner_is_refused(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer.json", tmp_path / "inner.json"
    with profiler_runner(outer, wait=1, active=1) as prof:
        with pytest.raises(CaptureError) as caught:
            profiler_runner(inner, work)
        prof.step()
        work(2)
    assert str(caught.value) == nested_message(inner, f"profiler_runner {outer}")
    assert "work 2" in names(outer)


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
@pytest.mark.filterwarnings("ignore:Profiler won't be using warmup")
@pytest.mark.parametrize("warmup", [0, 1])
def test_runner_inside_a_bare_profiler_is_refused(tmp_path: Path, warmup: int) -> None:
    inner = tmp_path / "inner.json"
    with profile(activities=CPU, schedule=schedule(wait=0, warmup=warmup, active=1)) as prof:
        with pytest.raises(CaptureError) as caught:
            profiler_runner(inner, work)
        for _ in range(warmup):
            prof.step()
        with record_function("mine"):
            work(2)
    expected = "a torch.profiler.profile that warms up" if warmup else "a torch profiler"
    assert str(caught.value) == nested_message(inner, expected)
    prof.export_chrome_trace(str(tmp_path / "bare.json"))
    assert {"mine", "work 2"} <= names(tmp_path / "bare.json")
    profiler_runner(inner, work)


def test_runner_inside_an_autograd_profiler_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner.json"
    with torch.autograd.profiler.profile() as prof, pytest.raises(CaptureError) as caught:
        profiler_runner(inner, work)
    assert str(caught.value) == nested_message(inner, "a torch profiler")
    assert prof.kineto_results is not None


def test_profiler_in_another_thread_is_seen(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer.json", tmp_path / "inner.json"
    caught: list[BaseException] = []

    def other() -> None:
        try:
            profiler_runner(inner, work)
        except KitError as error:
            caught.append(error)

    with profiler_runner(outer):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert [str(error) for error in caught] == [nested_message(inner, f"profiler_runner {outer}")]


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
def test_bare_profiler_started_inside_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "outer.json"
    with pytest.raises(CaptureError) as caught, profiler_runner(path):
        work(1)
        with profile(activities=CPU):
            work(2)
        work(3)
    assert str(caught.value) == (
        f"profiler_runner {path}: another profiler was started inside and ended this recording, nothing is written: "
        "torch runs one at a time. Leave one of the two out."
    )
    assert listing(tmp_path) == []
    profiler_runner(path, work)
    assert "work 3" in names(path)


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events")
def test_bare_profiler_started_inside_a_schedule_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    reached = []
    with pytest.raises(CaptureError) as caught, profiler_runner(path, warmup=1, active=1, repeat=2) as prof:
        prof.step()
        with profile(activities=CPU):
            work(2)
        reached.append("nested")
        prof.step()
        reached.append("not here")
    assert str(caught.value).startswith(f"profiler_runner {tmp_path / 't.0.json'}: another profiler was started inside")
    assert reached == ["nested"]
    assert listing(tmp_path) == []
    with pytest.raises(AssertionError):
        prof.export_chrome_trace(str(path))
    profiler_runner(path, work)
    assert "work 3" in names(path)


def test_failing_start_leaves_the_profiler_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> None:
        raise RuntimeError("no")

    with monkeypatch.context() as patched:
        patched.setattr(profile, "start_trace", refuse)
        with pytest.raises(RuntimeError, match="no"):
            profiler_runner(tmp_path / "t.json", work)
    profiler_runner(tmp_path / "t.json", work)
    assert "work 3" in names(tmp_path / "t.json")


def test_rank_goes_into_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profiler_runner(tmp_path / "fixed.json", rank=7).run(work)
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        profiler_runner(tmp_path / "auto.json.gz", work)
        profiler_runner(tmp_path / "none.json", rank="none").run(work)
        with profiler_runner(tmp_path / "cycles.json", active=1, repeat=2) as prof:
            prof.step()
    finally:
        torch.distributed.destroy_process_group()
    assert listing(tmp_path) == [
        "auto.rank0.json.gz",
        "cycles.rank0.0.json",
        "cycles.rank0.1.json",
        "fixed.rank7.json",
        "none.json",
    ]


def test_bad_options(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "t.json"
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / "t.txt", {}, f"path {tmp_path / 't.txt'} ends in '.txt', expected .json.gz or .json."),
        (tmp_path / ".json", {}, f"path {tmp_path / '.json'} ends in '', expected .json.gz or .json."),
        (
            tmp_path / "file" / "t.json",
            {},
            f"path {tmp_path / 'file' / 't.json'} lies in {tmp_path / 'file'}, which is no folder. "
            "Choose another path.",
        ),
        (path, {"active": 0}, "active is 0, expected a whole number from 1."),
        (path, {"wait": -1, "active": 1}, "wait is -1, expected a whole number from 0."),
        (path, {"repeat": True, "active": 1}, "repeat is True, expected a whole number from 0."),
        (
            path,
            {"wait": 1},
            "wait, warmup and repeat make a schedule, but active is missing, expected the number of steps to record in "
            "each cycle. Add active=1.",
        ),
        (path, {"rank": -1}, 'rank is -1, expected "auto", "none" or a whole number from 0.'),
        (path, {"activities": []}, "activities is empty, expected at least one. Use ProfilerActivity.CPU."),
        (
            path,
            {"shapes": True},
            "unknown option 'shapes', expected one of wait, warmup, active, repeat, record_shapes, with_stack, "
            "profile_memory, with_modules, all_threads, activities, rank.",
        ),
    ]
    for target, options, message in cases:
        with pytest.raises(OptionError) as caught:
            profiler_runner(target, **options)
        assert str(caught.value) == f"profiler_runner: {message}"
    with pytest.raises(OptionError) as caught:
        profiler_runner(path, 3)  # type: ignore[call-overload]
    assert str(caught.value) == (
        "profiler_runner: second argument is a int, expected the function to run. Give options by name."
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_activity_that_is_not_here(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        profiler_runner(tmp_path / "t.json", activities=[ProfilerActivity.CUDA])
    assert str(caught.value) == "profiler_runner: activity CUDA is not available here, expected some of CPU."


def test_generators_and_coroutines_are_refused(tmp_path: Path) -> None:
    async def step() -> None: ...

    with pytest.raises(OptionError) as caught:
        profiler_runner(tmp_path / "t.json")(step)
    assert str(caught.value) == (
        f"profiler_runner: {step.__qualname__} is a generator or a coroutine, expected a plain function. "
        "Use `with` around the code that runs it."
    )


def test_export_folder_is_made_and_gzip_level_is_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "_GZIP_LEVEL", 0)
    profiler_runner(tmp_path / "a" / "b" / "t.json.gz", work)
    packed = (tmp_path / "a" / "b" / "t.json.gz").read_bytes()
    assert len(packed) > len(gzip.decompress(packed))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_kernels_are_recorded(tmp_path: Path) -> None:
    value = torch.ones(1 << 10, device="cuda")
    with profiler_runner(tmp_path / "t.json.gz"), region("on the gpu"):
        value * 2
    found = events(tmp_path / "t.json.gz")
    assert any(event.get("cat") == "kernel" for event in found)
    assert any(event.get("cat") == "user_annotation" and event["name"] == "on the gpu" for event in found)


def test_nothing_of_kinetos_own_is_left_when_the_trace_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: profile, path: str) -> None:  # on a full disk Kineto leaves what it wrote under this name
        Path(f"{path}.tmp").write_text("half")
        raise RuntimeError("no space left")

    monkeypatch.setattr(runners.TorchProfile, "export_chrome_trace", full)
    for name in ("t.json", "t.json.gz"):
        with pytest.raises(CaptureError), profiler_runner(tmp_path / name):
            work()
    assert listing(tmp_path) == []


def test_a_folder_that_cannot_be_made_any_more_is_a_capture_error(tmp_path: Path) -> None:
    runner = profiler_runner(tmp_path / "new" / "t.json")
    (tmp_path / "new").touch()
    with pytest.raises(CaptureError) as caught, runner:
        work()
    assert str(caught.value) == (
        f"profiler_runner {tmp_path / 'new' / 't.json'}: cannot make the folder (File exists). "
        "Choose a path that can be written."
    )


def test_a_relative_path_means_the_folder_it_was_given_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    with profiler_runner("t.json"):
        monkeypatch.chdir("elsewhere")
    assert listing(tmp_path) == ["elsewhere", "t.json"]


def test_what_only_makes_something_to_run_later_cannot_be_decorated(tmp_path: Path) -> None:
    async def later() -> AsyncIterator[int]:
        yield 1

    def steps() -> Iterator[int]:
        yield 1

    class Later:
        async def __call__(self) -> None: ...

    runner = profiler_runner(tmp_path / "t.json")
    for function in (later, functools.partial(steps), Later()):
        for use in (runner, runner.run):
            with pytest.raises(OptionError) as caught:
                use(function)
            name = getattr(function, "__qualname__", repr(function))
            assert str(caught.value) == (
                f"profiler_runner: {name} is a generator or a coroutine, expected a plain function. "
                "Use `with` around the code that runs it."
            )
    for wrong, named in (
        (Later, "the class Later"),
        (property(work), "an object of type property"),
        (3, "an object of type int"),
    ):
        with pytest.raises(OptionError) as caught:
            runner(wrong)
        assert str(caught.value) == (
            f"profiler_runner: found {named} to decorate, expected a function. Decorate the method that does the work."
        )
    assert listing(tmp_path) == []


def test_all_threads_are_recorded_when_asked_for(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # the thread is older than the recording
        for every in (False, True):
            with profiler_runner(tmp_path / f"{every}.json", all_threads=every):
                work(3)
                pool.submit(work, 4).result()
    assert "work 3" in names(tmp_path / "False.json") and "work 4" not in names(tmp_path / "False.json")
    assert {"work 3", "work 4"} <= names(tmp_path / "True.json")


def test_what_has_not_run_when_the_call_returns_is_refused(tmp_path: Path) -> None:
    class Lazy(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> Iterator[torch.Tensor]:
            yield x + 1

    async def later() -> None: ...

    for number, (function, found) in enumerate(
        ((Lazy(), "Lazy returned a generator"), (lambda _: later(), "<lambda> returned a coroutine"))
    ):
        with pytest.raises(CaptureError) as caught:
            profiler_runner(tmp_path / f"{number}.json", function, torch.ones(2))
        assert str(caught.value).endswith(
            f"{found}, which has not run, expected the work to be done by the call. Use `with` around the code that "
            "runs it."
        )


def test_a_trace_that_cannot_be_written_in_a_step_is_said_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(runners, "_export", full)
    with pytest.raises(CaptureError) as caught, profiler_runner(tmp_path / "t.json", active=1) as prof:
        prof.step()
    assert "the trace cannot be written (the disk is full)" in str(caught.value)
    assert not getattr(caught.value, "__notes__", [])


def test_without_a_gpu_libkineto_is_silent_as_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels: list[str | None] = []

    def prepare(_: object) -> None:
        levels.append(os.environ.get("KINETO_LOG_LEVEL"))

    monkeypatch.setattr(torch.profiler.profile, "prepare_trace", prepare)
    for has_gpu, given in ((False, None), (True, None), (False, "1")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda has=has_gpu: has)
        monkeypatch.delenv("KINETO_LOG_LEVEL", raising=False)
        if given:
            monkeypatch.setenv("KINETO_LOG_LEVEL", given)
        TorchProfile().prepare_trace()
        assert os.environ.get("KINETO_LOG_LEVEL") == given
    assert levels == ["99", None, "1"]
