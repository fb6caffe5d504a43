"""Find the source line of an operator that Python ran without a call, such as `a + b`.

The profiler notes where a function calls another one, and `torch.add(a, b)` has its line from there. `a + b` is an
instruction and no call. Its line is one of those between the call before and the call after it, and the bytecode
says which of them hold a `+`. Where more than one remains, the line is unknown: None.
"""

from __future__ import annotations

import dis
import linecache
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Final

from torch._C._profiler import _ExtraFields_PyCall, _ExtraFields_PyCCall, _ExtraFields_TorchOp, _ProfilerEvent

_SUBSCRIPT: Final = "[]"
_KIND: Final = {  # of an operator, without aten:: and the underscore of one in place
    **{"add": "+", "sub": "-", "rsub": "-", "mul": "*", "div": "/", "matmul": "@", "remainder": "%"},
    **{"floor_divide": "//", "pow": "**", "bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"},
    **{"__and__": "&", "__or__": "|", "__xor__": "^", "__lshift__": "<<", "__rshift__": ">>"},
    **{"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="},
    **{"neg": "UNARY_NEGATIVE", "bitwise_not": "UNARY_INVERT"},
    **dict.fromkeys(("index", "select", "slice", "unsqueeze"), _SUBSCRIPT),
    **dict.fromkeys(("index_put", "copy", "fill"), "STORE_SUBSCR"),
}
_MANY: Final = (_SUBSCRIPT, "STORE_SUBSCR")  # one instruction may run several operators


@dataclass(frozen=True, slots=True)
class Slot:
    """An instruction that may run an operator."""

    kind: str
    line: int


def slot_lines(call: _ProfilerEvent) -> dict[tuple[int, str], int]:
    """The lines of the operators that a Python call ran itself, by their start (Unix ns) and name; those known."""
    fields = call.extra_fields
    if not isinstance(fields, _ExtraFields_PyCall):
        return {}
    own = fields.callsite
    slots = function_slots(own.file_name, own.function_name, own.line_number)
    found: dict[tuple[int, str], int] = {}
    if slots:
        for before, operators, after in _stretches(call.children):
            found.update(_place(operators, slots, before, after))
    return found


def _stretches(events: Iterable[_ProfilerEvent]) -> Iterator[tuple[int | None, list[_ProfilerEvent], int | None]]:
    """The operators between two calls, with the lines of the calls."""
    before: int | None = None
    operators: list[_ProfilerEvent] = []
    for event in events:
        fields = event.extra_fields
        if isinstance(fields, _ExtraFields_TorchOp):
            operators.append(event)
        elif isinstance(fields, _ExtraFields_PyCall | _ExtraFields_PyCCall):
            after = fields.caller.line_number
            if operators:
                yield before, operators, after
            before, operators = after, []
    if operators:
        yield before, operators, None


def _place(
    operators: Sequence[_ProfilerEvent], slots: Sequence[Slot], before: int | None, after: int | None
) -> Iterator[tuple[tuple[int, str], int]]:
    by_kind: dict[str, list[_ProfilerEvent]] = {}
    for event in operators:
        kind = _KIND.get(event.name.removeprefix("aten::").removesuffix("_"), "")
        kind = kind or _KIND.get(event.name.removeprefix("aten::"), "")
        by_kind.setdefault(kind, []).append(event)
    for kind, events in by_kind.items():
        places = choose_lines([slot.line for slot in slots if slot.kind == kind], len(events), before, after)
        if places and (kind not in _MANY or len(set(places)) == 1):
            yield from (((event.start_time_ns, event.name), line) for event, line in zip(events, places, strict=True))


def choose_lines(lines: Sequence[int], count: int, before: int | None, after: int | None) -> list[int]:
    """The lines of `count` operators of a kind that ran between calls on the lines `before` and `after`, or nothing.

    `lines` are those of the instructions of that kind, in the order of the code. Where the call after is above the
    call before, or on its line, there is a loop: then those below come first and those above follow.
    """
    low, high = before or 0, after or max(lines, default=0)
    between = [line for line in lines if low <= line <= high]
    around = [line for line in lines if line >= low] + [line for line in lines if line <= high and line < low]
    looped = low > high or (before == after and count > len(between))
    possible = around if looped else between
    if possible and len(set(possible)) == 1:
        return possible[:1] * count
    return possible if len(possible) == count else []


@lru_cache(maxsize=4096)
def function_slots(filename: str, name: str, line: int) -> tuple[Slot, ...]:
    """The instructions that may run operators, in order, of the function `name` that starts on or around `line`."""
    codes = [code for code in _codes(filename) if code.co_name == name]
    exact = [code for code in codes if code.co_firstlineno == line]
    around = [code for code in codes if line in {at for _, _, at in code.co_lines()}]
    chosen = exact or around
    return tuple(_slots(chosen[0])) if len(chosen) == 1 else ()


@lru_cache(maxsize=256)
def _codes(filename: str) -> tuple[CodeType, ...]:
    """Every code object of a source file; none when there is no source, or it is not Python."""
    source = "".join(linecache.getlines(filename))
    try:
        todo = [compile(source, filename, "exec", dont_inherit=True)] if source else []
    except (SyntaxError, ValueError):
        return ()
    found = []
    while todo:
        code = todo.pop()
        found.append(code)
        todo.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))
    return tuple(found)


def _slots(code: CodeType) -> Iterator[Slot]:
    for instruction in dis.get_instructions(code):
        line = instruction.positions.lineno if instruction.positions else None
        if line is None:
            continue
        if instruction.opname == "BINARY_OP":  # "+", "+=", and "[]" from Python 3.14 on
            kind = instruction.argrepr
            yield Slot(kind if kind == _SUBSCRIPT else kind.removesuffix("="), line)
        elif instruction.opname == "COMPARE_OP":  # "<", from Python 3.13 on also "bool(<)"
            yield Slot(instruction.argrepr.removeprefix("bool(").removesuffix(")"), line)
        elif instruction.opname in ("BINARY_SUBSCR", "BINARY_SLICE"):
            yield Slot(_SUBSCRIPT, line)
        elif instruction.opname in ("UNARY_NEGATIVE", "UNARY_INVERT", "STORE_SUBSCR"):
            yield Slot(instruction.opname, line)
