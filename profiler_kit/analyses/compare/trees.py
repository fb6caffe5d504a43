"""Two trees of calls side by side: where they begin to differ, and the time of each side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.compare.kernel_keys import host_key, kernel_key
from profiler_kit.analyses.gpu.trees import CALL_TREE, depth_first
from profiler_kit.attribute.regions import Path
from profiler_kit.schema import Column, Schema

TREE_COMPARED: Final = Schema(
    "TREE_COMPARED",
    "path of regions, nn.Modules, operators and at last a kernel in A or B, a parent above its children",
    {
        "path": Column("path", "Open at the launch, outermost first; last the kernel, without template.", "call"),
        "kind": CALL_TREE.columns["kind"],
        "a_ns": Column("float64", "GPU time in A, nested calls included; of one step where both have steps.", "A"),
        "b_ns": Column("float64", "The same in B.", "B"),
        "more_ns": Column("float64", "B less A.", "B - A"),
        "status": Column("str", "Both, or only in A or B."),
        "differs": Column(
            "bool", "The lowest call that both have and in which they begin to call other things.", "differs here"
        ),
    },
)


def compare_trees(trees: Mapping[str, pd.DataFrame], rounds: Mapping[str, int]) -> pd.DataFrame:
    """CALL_TREE of A and B, and how many steps each has -> TREE_COMPARED. Empty in, empty out."""
    both_step = all(rounds[letter] for letter in "AB")
    sides = [_by_path(trees[letter], rounds[letter] if both_step else 1) for letter in "AB"]
    kinds: dict[Path, str] = {path: kind for side in sides for path, (kind, _) in side.items()}
    if not kinds:
        return TREE_COMPARED.empty()
    times = {path: tuple(side[path][1] if path in side else np.nan for side in sides) for path in kinds}
    both = sides[0].keys() & sides[1].keys()
    # what both have and has a child that only one has; of these the lowest, with none below
    split = {path[:-1] for path in kinds.keys() - both} & both
    above = {path[:depth] for path in split for depth in range(1, len(path))}
    largest = {path: np.nanmax(values) for path, values in times.items()}
    rows = []
    for path in depth_first(largest):
        a, b = times[path]
        status = "both" if a == a and b == b else "only in A" if a == a else "only in B"
        more = (b if b == b else 0.0) - (a if a == a else 0.0)
        rows.append((path, kinds[path], a, b, more, status, path in split and path not in above))
    return TREE_COMPARED.of(rows)


def _by_path(tree: pd.DataFrame, rounds: int) -> dict[Path, tuple[str, float]]:
    """Kind and time of one round by path, names of compiled code and template arguments left out."""
    found: dict[Path, tuple[str, float]] = {}
    tree = CALL_TREE.check(tree)
    for path, kind, ns in zip(tree["path"], tree["kind"], tree["sum_ns"].tolist(), strict=True):
        last = kernel_key(path[-1]) if kind == "kernel" else host_key(path[-1])
        named: Path = (*map(host_key, path[:-1]), last)
        found[named] = (kind, found.get(named, (kind, 0.0))[1] + ns / rounds)
    return found
