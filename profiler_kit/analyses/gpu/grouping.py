"""Choose what to add GPU time up by where no region names the parts of the code: modules, operators, kinds of work."""

from __future__ import annotations

import re
from typing import Final, Literal

import pandas as pd

from profiler_kit.analyses.gpu.kernels import KERNEL_GROUPS
from profiler_kit.analyses.gpu.operators import MODULE_WORK, NO_LAUNCH, NO_OPERATOR, OPERATOR_WORK
from profiler_kit.analyses.gpu.regions import REGION_TOTALS, UNNAMED
from profiler_kit.analyses.gpu.steps import STEP
from profiler_kit.analyses.gpu.window import NAME_SUMS

By = Literal["module", "operator", "kind"]
TELLS_FROM: Final = 0.5  # share of the GPU time that must have a module, or an operator, for these to be of use
_NUMBERED: Final = re.compile(r"_\d+$")  # Kineto numbers the modules of a class: Linear_0, Linear_1
GOES_DOWN_FROM: Final = 0.9  # a module that holds this much of what those beside it do tells no more than all of them


def names_parts(regions: pd.DataFrame) -> bool:
    """Whether some region, beside the profiler's steps, launched GPU work. Takes REGION_TOTALS."""
    REGION_TOTALS.check(regions)
    return any(
        path[-1] != STEP and not path[-1].startswith(UNNAMED) and events
        for path, events in zip(regions["path"], regions["gpu_events"], strict=True)
    )


def grouped(modules: pd.DataFrame, operators: pd.DataFrame, kinds: pd.DataFrame) -> tuple[By, pd.DataFrame]:
    """By what, and NAME_SUMS of it: modules where most GPU time has one, else operators, else kinds of work.

    Takes MODULE_WORK, OPERATOR_WORK, and KERNEL_GROUPS by kind. The sums add up to all GPU time.
    """
    MODULE_WORK.check(modules), OPERATOR_WORK.check(operators), KERNEL_GROUPS.check(kinds)
    whole = int(kinds["sum_ns"].sum())
    named = modules[modules["path"].map(len) > 0]
    if int(named.loc[named["path"].map(len) == 1, "sum_ns"].sum()) >= TELLS_FROM * max(1, whole):
        return "module", _sums(_modules(named, whole, int(kinds["count"].sum())))
    rest = operators["name"].isin([NO_OPERATOR, NO_LAUNCH])
    if int(operators.loc[~rest, "gpu_ns"].sum()) >= TELLS_FROM * max(1, whole):
        rows = operators[operators["gpu_ns"] > 0]
        return "operator", _sums(list(zip(rows["name"], rows["gpu_events"], rows["gpu_ns"], strict=True)))
    return "kind", _sums(list(zip(kinds["key"], kinds["count"], kinds["sum_ns"], strict=True)))


def _modules(named: pd.DataFrame, whole: int, events: int) -> list[tuple[str, int, int]]:
    """The modules right below the innermost one that holds nearly all, by class, and what ran outside them."""
    held = {tuple(path): (int(count), int(ns)) for path, count, ns in named[["path", "gpu_events", "sum_ns"]].values}
    around: tuple[str, ...] = ()
    while True:
        inside = {path: one for path, one in held.items() if path[:-1] == around}
        most = max(inside, key=lambda path: inside[path][1])
        below = any(path[:-1] == most for path in held)
        if not below or inside[most][1] < GOES_DOWN_FROM * sum(one[1] for one in inside.values()):
            break
        around = most
    classes: dict[str, list[tuple[int, int]]] = {}
    for path, one in inside.items():
        classes.setdefault(_NUMBERED.sub("", path[-1]), []).append(one)
    rows = [
        (name if len(ones) == 1 else f"{name} × {len(ones)}", sum(one[0] for one in ones), sum(one[1] for one in ones))
        for name, ones in classes.items()
    ]
    count, ns = events - sum(row[1] for row in rows), whole - sum(row[2] for row in rows)
    return [*rows, ("(outside them)", count, ns)] if ns > 0 else rows


def _sums(rows: list[tuple[str, int, int]]) -> pd.DataFrame:
    frame = NAME_SUMS.of(rows)
    return frame.sort_values(["sum_ns", "name"], ascending=[False, True], ignore_index=True)
