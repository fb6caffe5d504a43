"""Shorten names so that they can still be told apart: names of kernels or regions in, shorter ones out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Final

from profiler_kit.views.text import fmt_kernel, short_kernel

_LONG: Final = 10_000
_BEFORE: Final = 2  # letters kept before the first one that differs


def kernel_names(names: Sequence[str]) -> list[str]:
    """The short name of each kernel; the long one, template arguments and all, where two would read the same."""
    short = {name: short_kernel(name) for name in names}
    taken = Counter(short.values())
    return [
        short[name] if taken[short[name]] == 1 else fmt_kernel(name.removeprefix("aten::"), _LONG) for name in names
    ]


def differ_at(names: Sequence[str]) -> list[int]:
    """Of each name the position where it stops being like the other that is most like it; 0 when none is."""
    order = sorted(set(names))
    like = dict.fromkeys(order, 0)
    for left, right in itertools.pairwise(order):
        same = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(left))
        like[left], like[right] = max(like[left], same), max(like[right], same)
    return [like[name] for name in names]


def fit_names(names: Sequence[str], width: int) -> list[str]:
    """Each name in at most `width` letters: `…` stands for the middle, and what sets a name apart stays.

    A name that others start like shows its beginning, and then from where it differs; any other its beginning and end.
    """
    return [_fit(name, at, width) for name, at in zip(names, differ_at(names), strict=True)]


def _fit(name: str, at: int, width: int) -> str:
    if len(name) <= width:
        return name
    tail = width * 9 // 20
    head = width - tail - 1
    if at < head:  # the beginning tells already
        return f"{name[:head]}…{name[-tail:]}"
    start = min(max(at - _BEFORE, head), len(name) - tail)
    rest = name[start : start + tail]
    return f"{name[:head]}…{rest if start + tail == len(name) else rest[:-1] + '…'}"
