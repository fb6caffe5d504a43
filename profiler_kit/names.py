"""Shorten the names of kernels and regions so that they can still be told apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from profiler_kit.kernel_name import short_kernel

_MORE: Final = 16  # letters of the long name, where the short one is not enough
_BEFORE: Final = 2  # letters kept before the first one that differs


def gpu_name(device: int | None, process: str = "") -> str:
    """`GPU 0`; with a process, for a file that holds several: `GPU 0 of [TP01] 4711`."""
    return f"GPU {'?' if device is None else device}{process and f' of {process}'}"


def kernel_names(names: Sequence[str]) -> list[str]:
    """The short name of each kernel; where two would read the same, with the letters from where the long ones differ.

    `computeOffsetsKernel · false, false>(` and `computeOffsetsKernel · true, false>(ca`.
    """
    return tell_apart(names, [short_kernel(name) for name in names])


def names_of_sides(sides: Sequence[Sequence[str]]) -> str:
    """One text for kernels that do the same in several runs: the words that all begin with, then how each goes on.

    sides: the names in each run, the longest time first; "…" says that a run has others too. "" without names.
    `elementwise CUDAFunctor_add f32 [128,2] → bf16 [128,4], …`.
    """
    texts = [f"{short_kernel(names[0])}{', …' * (len(names) > 1)}" for names in sides if names]
    words = [text.split(" ") for text in dict.fromkeys(texts)]
    if len(words) < 2:
        return texts[0] if texts else ""
    most = min(map(len, words)) - 1
    alike = next((n for n in range(most) if len({one[n] for one in words}) > 1), most)
    return " ".join([*words[0][:alike], " → ".join(" ".join(one[alike:]) for one in words)])


def tell_apart(names: Sequence[str], short: Sequence[str]) -> list[str]:
    """The short texts; where those of two names read the same, with the letters from where the names differ."""
    same: dict[str, set[str]] = {}
    for name, reads in zip(names, short, strict=True):
        same.setdefault(reads, set()).add(name)
    more: dict[str, str] = {}
    for alike in same.values():
        if len(alike) > 1:
            group = sorted(alike)
            more |= {name: f" · {_from_word(name, at)}" for name, at in zip(group, differ_at(group), strict=True)}
    return [reads + more.get(name, "") for name, reads in zip(names, short, strict=True)]


def _from_word(name: str, at: int) -> str:
    """The letters of the name from there on, or from the beginning of the word when it began shortly before."""
    start = at
    while start > 0 and at - start < _MORE // 2 and (name[start - 1].isalnum() or name[start - 1] == "_"):
        start -= 1
    return name[start : start + _MORE]


def differ_at(names: Sequence[str]) -> list[int]:
    """Of each name the position where it stops being like the other that is most like it; 0 when none is."""
    order = sorted(set(names))
    like = dict.fromkeys(order, 0)
    for left, right in itertools.pairwise(order):
        same = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(left))
        like[left], like[right] = max(like[left], same), max(like[right], same)
    return [like[name] for name in names]


def fit_names(names: Sequence[str], width: int | Sequence[int]) -> list[str]:
    """Each name in at most `width` letters (one number, or one for each): `…` replaces the middle.

    What sets a name apart stays: one that others start like shows its beginning, and then from where it differs; any
    other its beginning and end.
    """
    widths = [width] * len(names) if isinstance(width, int) else width
    return [_fit(name, at, most) for name, at, most in zip(names, differ_at(names), widths, strict=True)]


def _fit(name: str, at: int, width: int) -> str:
    if len(name) <= width:
        return name
    tail = width * 9 // 20
    head = width - tail - 1
    if at < head:  # the beginning is enough
        return f"{name[:head]}…{name[-tail:]}"
    start = min(max(at - _BEFORE, head), len(name) - tail)
    rest = name[start : start + tail]
    return f"{name[:head]}…{rest if start + tail == len(name) else rest[:-1] + '…'}"


def printable(text: str | Path) -> str:
    """The text with what cannot be printed shown as �: names come from files, and must not steer a terminal."""
    said = str(text)
    if said.isprintable():
        return said
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in said)


def csv_cell(value: Any) -> Any:
    """A cell of a CSV: of text what can be printed, behind a ' where a spreadsheet would take it for a formula."""
    if not isinstance(value, str):
        return value
    return f"'{printable(value)}" if value[:1] in ("=", "+", "-", "@") else printable(value)
