"""region: names in the trace, decorator, exceptions, NVTX, torch.compile."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from profiler_kit import profiler_runner, region
from profiler_kit.errors import OptionError


def annotations(path: Path) -> list[str]:
    events = json.loads(path.read_text())["traceEvents"]
    return [
        event["name"] for event in sorted(events, key=lambda e: e.get("ts", 0)) if event.get("cat") == "user_annotation"
    ]


def test_block_and_function(tmp_path: Path) -> None:
    @region("function")
    def step(value: int) -> int:
        """What it does."""
        return value if value == 0 else step(value - 1)

    with profiler_runner(tmp_path / "t.json"), region("block"):
        assert step(2) == 0
    assert annotations(tmp_path / "t.json") == ["block", "function", "function", "function"]
    assert (step.__name__, step.__doc__) == ("step", "What it does.")


def test_decorated_function_runs_in_several_threads(tmp_path: Path) -> None:
    barrier = threading.Barrier(2)

    @region("function")
    def step() -> None:
        barrier.wait()

    threads = [threading.Thread(target=step) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not barrier.broken


def test_region_ends_when_the_block_raises(tmp_path: Path) -> None:
    with profiler_runner(tmp_path / "t.json"):
        with pytest.raises(ValueError, match="mine"), region("fails"):
            raise ValueError("mine")
        with region("after"):
            torch.ones(3)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    fails, after = (next(e for e in events if e.get("name") == name) for name in ("fails", "after"))
    assert fails["ts"] + fails["dur"] <= after["ts"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('say "hi"', "say 'hi'"),
        ("a\\b", "a/b"),
        ("two\nlines\tand\x00more", "two lines and more"),
        ("naïve ü ½", "naive u 1?2"),
        ("日本", "??"),
    ],
)
def test_name_that_would_break_the_trace(tmp_path: Path, name: str, shown: str) -> None:
    with profiler_runner(tmp_path / "t.json"), region(name):
        torch.ones(3)
    assert annotations(tmp_path / "t.json") == [shown]


def test_nvtx_is_left_out_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with region("block", nvtx=True):
        pass


def test_nvtx_ranges_are_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", log.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: log.append("pop"))

    @region("inner", nvtx=True)
    def inner() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"), region("outer", nvtx=True):
        inner()
    assert log == ["outer", "inner", "pop", "pop"]


def test_compiles_into_one_graph() -> None:
    torch._dynamo.reset()

    def function(x: torch.Tensor) -> torch.Tensor:
        with region("inside"):
            return x + 1

    compiled = torch.compile(function, backend="eager", fullgraph=True)
    assert compiled(torch.ones(2)).tolist() == [2.0, 2.0]


def test_wrong_use() -> None:
    def step() -> None: ...

    async def coroutine() -> None: ...

    with pytest.raises(OptionError) as caught:
        region(step)  # type: ignore[arg-type]
    assert str(caught.value) == 'region: the name is a function, expected text. Write region("image encoder").'
    with pytest.raises(OptionError) as caught:
        region(" ")
    assert str(caught.value) == 'region: the name is empty, expected text. Write region("image encoder").'
    with pytest.raises(OptionError) as caught:
        region("name")(coroutine)
    assert str(caught.value) == (
        f"region 'name': {coroutine.__qualname__} is a generator or a coroutine, expected a plain function. "
        "Open the region with `with` inside it, around code that does not yield."
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nvtx_on_a_gpu() -> None:
    with region("outer", nvtx=True), region("inner", nvtx=True):
        torch.ones(3, device="cuda")


def test_an_async_generator_cannot_be_marked() -> None:
    async def later() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(OptionError, match=r"later is a generator or a coroutine, expected a plain function\."):
        region("x")(later)
