"""Turn the marks that layer hooks left into calls: who called whom, under which name, in which iteration."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from profiler_kit.capture.layer_tree import ROOT, Layer

if TYPE_CHECKING:
    import torch

# One hook that fired: layer index on entry and its complement on exit, thread, host time, and the CUDA event
# recorded there. A plain tuple, because it is made twice in every call of every layer.
Mark = tuple[int, int, int, "torch.cuda.Event | None"]


@dataclass(slots=True)
class Call:
    """One finished call. parent is a row of the list of calls; enter and leave are rows of the marks."""

    layer: int
    parent: int | None
    enter: int
    leave: int
    name: str = ""
    parent_name: str = ""


def find_calls(marks: Sequence[Mark], layers: Sequence[Layer]) -> list[Call]:
    """The finished calls in the order they began, named.

    Marks of one thread nest. A call without an exit (cut off by KeyboardInterrupt, or still running) is left out;
    what it called belongs to the call around it.
    """
    started: list[Call] = []
    stacks: dict[int, list[int]] = {}
    for row, (layer, thread, _, _) in enumerate(marks):
        stack = stacks.setdefault(thread, [])
        if layer >= 0:
            started.append(Call(layer, stack[-1] if stack else None, row, -1))
            stack.append(len(started) - 1)
            continue
        while stack:
            call = started[stack.pop()]
            if call.layer == ~layer:
                call.leave = row
                break
    calls = _finished(started)
    _name(calls, layers)
    return calls


def _finished(started: Sequence[Call]) -> list[Call]:
    calls: list[Call] = []
    row_of: list[int | None] = []  # of each started call: its row among the finished, or the row of what is around it
    for call in started:
        around = None if call.parent is None else row_of[call.parent]
        if call.leave < 0:
            row_of.append(around)
            continue
        call.parent = around
        row_of.append(len(calls))
        calls.append(call)
    return calls


def _name(calls: Sequence[Call], layers: Sequence[Layer]) -> None:
    """Choose the name of each call: the one inside the calling layer, or else the module's first."""
    for call in calls:
        names = layers[call.layer].names
        call.name = names[0]
        if call.parent is None:
            continue
        call.parent_name = calls[call.parent].name
        if len(names) > 1:
            prefix = "" if call.parent_name == ROOT else f"{call.parent_name}."
            call.name = next((name for name in names if name.startswith(prefix)), names[0])


def iterations(calls: Sequence[Call], steps: Sequence[int]) -> list[int]:
    """The iteration of each call: steps, or else outermost calls of the root, that ended before it began.

    steps: how many marks there were at each `step()`.
    """
    ends: Sequence[int] = steps
    if not steps:
        inside_root: list[bool] = []  # of each call: it is a call of the root, or runs inside one
        roots = []
        for call in calls:
            below = call.parent is not None and inside_root[call.parent]
            inside_root.append(below or call.name == ROOT)
            if call.name == ROOT and not below:
                roots.append(call.leave)
        ends = sorted(roots)
    return [bisect_right(ends, call.enter) for call in calls]


def repeats(calls: Sequence[Call], iteration: Sequence[int]) -> list[int]:
    """For each call, how many calls of the same layer began before it in its iteration."""
    seen: dict[tuple[int, str], int] = {}
    numbers = []
    for call, number in zip(calls, iteration, strict=True):
        numbers.append(seen.get((number, call.name), 0))
        seen[number, call.name] = numbers[-1] + 1
    return numbers


def less_children(calls: Sequence[Call], totals: Sequence[int | None], tracks: Sequence[object]) -> list[int | None]:
    """Each call's total less the totals of the calls directly inside it on the same track (device)."""
    own = list(totals)
    for row, call in enumerate(calls):
        total = totals[row]
        if call.parent is None or total is None or tracks[row] != tracks[call.parent]:
            continue
        parent = own[call.parent]
        if parent is not None:
            own[call.parent] = parent - total
    return own
