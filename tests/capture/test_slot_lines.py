"""Stacks of a CPU snapshot name the line that ran an operator, also where it is `a + b` and no call."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from profiler_kit import memory_runner
from profiler_kit.capture.slot_lines import Slot, choose_lines, function_slots

cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA records its own stacks")
Tensor = torch.Tensor


def straight(x: Tensor) -> Tensor:
    y = x + 1
    z = (
        x.view(-1) * 2  # 2: the line of the instruction is that of its left side
    )
    y = y + z  # 4
    w = x @ x  # 5
    return -(w < y).float()  # 6


def looped(x: Tensor) -> Tensor:
    for _ in range(2):
        y = x.abs() + 1
        x = y * 2
    return x


def unclear(x: Tensor, flag: bool) -> Tensor:
    if flag:
        return x + 1
    return x + 2


def lines(path: Path, function: Callable[..., Tensor], *args: object) -> list[tuple[str, int]]:
    """Each allocation: its outermost operator, and the line in the function, counted from its `def`."""
    memory_runner(path, function, torch.ones(8), *args)
    found = []
    for event in pickle.loads(path.read_bytes())["device_traces"][0]:
        if event["action"] == "alloc":
            names = [frame["name"] for frame in event["frames"]]
            at = names.index(function.__name__)
            line = event["frames"][at]["line"] - function.__code__.co_firstlineno
            operators = [name for name in names[:at] if name.startswith("aten::")]
            if operators:  # a Python number becomes a tensor of 8 bytes before any operator runs
                found.append((operators[-1], line))
    return found


def tensors(found: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """One row an operator: it may allocate several times."""
    return [row for i, row in enumerate(found) if i == 0 or found[i - 1] != row]


@cpu_only
def test_operators_without_a_call(tmp_path: Path) -> None:
    assert tensors(lines(tmp_path / "m.pickle", straight)) == [
        ("aten::add", 1),
        ("aten::mul", 3),
        ("aten::add", 5),
        ("aten::matmul", 6),
        ("aten::lt", 7),
        ("aten::to", 7),
        ("aten::neg", 7),
    ]


@cpu_only
def test_operators_in_a_loop(tmp_path: Path) -> None:
    found = tensors(lines(tmp_path / "m.pickle", looped))
    assert found == [("aten::abs", 2), ("aten::add", 2), ("aten::mul", 3)] * 2


@cpu_only
def test_a_line_that_is_not_known_is_the_functions_first(tmp_path: Path) -> None:
    assert tensors(lines(tmp_path / "m.pickle", unclear, False)) == [("aten::add", 0)]


@pytest.mark.parametrize(
    ("candidates", "count", "before", "after", "chosen"),
    [
        ([5], 1, None, None, [5]),
        ([5], 3, None, None, [5, 5, 5]),  # a loop without calls
        ([5, 7], 1, None, None, []),
        ([5, 7], 2, None, None, [5, 7]),
        ([5, 7], 1, 6, None, [7]),
        ([5, 7], 1, None, 6, [5]),
        ([5, 7, 9], 1, 6, 8, [7]),
        ([5, 7], 4, 4, 9, []),
        ([3, 9], 2, 8, 4, [9, 3]),  # to the end of a loop and round again
        ([5, 6], 2, 5, 5, [5, 6]),
        ([6], 1, 5, 5, [6]),
        ([], 2, 1, 2, []),
    ],
)
def test_choice(candidates: list[int], count: int, before: int | None, after: int | None, chosen: list[int]) -> None:
    assert choose_lines(candidates, count, before, after) == chosen


def test_instructions_of_a_function() -> None:
    first = looped.__code__.co_firstlineno
    expected = (Slot("+", first + 2), Slot("*", first + 3))
    assert function_slots(__file__, "looped", first) == expected
    assert function_slots(__file__, "looped", first + 3) == expected  # a function that ran before the recording
    assert function_slots(__file__, "looped", 1) == ()
    assert function_slots("/nowhere.py", "looped", 1) == ()


def test_source_that_is_no_python(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("def (")
    assert function_slots(str(tmp_path / "x.py"), "f", 1) == ()
