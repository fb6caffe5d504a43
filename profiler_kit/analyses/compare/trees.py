"""Two trees of calls side by side: where they begin to differ, and the time of each side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pandas as pd

from profiler_kit.analyses.compare.kernel_keys import host_key
from profiler_kit.analyses.gpu.trees import CALL_TREE, depth_first
from profiler_kit.attribute.regions import Path
from profiler_kit.kernel_name import kernel_key
from profiler_kit.schema import Column, Schema

TREE_COMPARED: Final = Schema(
    "TREE_COMPARED",
    "path of regions, nn.Modules, operators and at last a kernel in A or B, a parent above its children",
    {
        "path": Column("path", "Open at the launch, outermost first; last a kernel without dtype and sizes.", "call"),
        "kind": CALL_TREE.columns["kind"],
        "a_ns": Column("float64", "GPU time in A, nested calls included; of one step where both have steps.", "A"),
        "b_ns": Column("float64", "The same in B.", "B"),
        "more_ns": Column("float64", "B less A.", "B - A"),
        "status": Column("str", "Both, or only in A or B."),
        "differs": Column(
            "bool", "The lowest call that both have and in which they begin to call other things.", "differs here"
        ),
        "a_names": Column("list", "Names in A that are compared as this one, the longest time first.", show="never"),
        "b_names": Column("list", "The same in B.", show="never"),
    },
)


def compare_trees(trees: Mapping[str, pd.DataFrame], rounds: Mapping[str, int]) -> pd.DataFrame:
    """CALL_TREE of A and B, and how many steps each has -> TREE_COMPARED. Empty in, empty out."""
    both_step = all(rounds[letter] for letter in "AB")
    sides = [_by_path(trees[letter], rounds[letter] if both_step else 1) for letter in "AB"]
    kinds = {path: side[path].kind for side in sides for path in side}
    if not kinds:
        return TREE_COMPARED.empty()
    nothing = _Call("", math.nan, {})
    both = sides[0].keys() & sides[1].keys()
    # what both have and has a child that only one has; of these the lowest, with none below
    split = {path[:-1] for path in kinds.keys() - both} & both
    above = {path[:depth] for path in split for depth in range(1, len(path))}
    rows = []
    for path in depth_first({path: max(side[path].ns for side in sides if path in side) for path in kinds}):
        a, b = (side.get(path, nothing) for side in sides)
        status = "both" if path in both else "only in A" if path in sides[0] else "only in B"
        more = (0.0 if math.isnan(b.ns) else b.ns) - (0.0 if math.isnan(a.ns) else a.ns)
        differs = path in split and path not in above
        rows.append((path, kinds[path], a.ns, b.ns, more, status, differs, a.longest_first(), b.longest_first()))
    return TREE_COMPARED.of(rows)


@dataclass
class _Call:
    """What one side has at a path. names: the time of each name that is compared as the last of the path."""

    kind: str
    ns: float
    names: dict[str, float]

    def longest_first(self) -> tuple[str, ...]:
        return tuple(sorted(self.names, key=lambda name: -self.names[name]))


def _by_path(tree: pd.DataFrame, rounds: int) -> dict[Path, _Call]:
    """Kind and time of one round by path, without what compiled code and template arguments add to names."""
    found: dict[Path, _Call] = {}
    tree = CALL_TREE.check(tree)
    for path, kind, ns in zip(tree["path"], tree["kind"], tree["sum_ns"].tolist(), strict=True):
        last = kernel_key(path[-1]) if kind == "kernel" else host_key(path[-1])
        call = found.setdefault((*map(host_key, path[:-1]), last), _Call(kind, 0.0, {}))
        call.ns += ns / rounds
        call.names[path[-1]] = call.names.get(path[-1], 0.0) + ns
    return found
