"""One sentence that answers "where did the time go": totals in, text out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from profiler_kit.schemas import OPERATOR_SUMS, REGION_TOTALS
from profiler_kit.views.text import fmt_ns, fmt_percent

_HOLDS = 0.5  # a nested region that holds this share of the one around it is the better answer
# Nobody's own names: what was not attributed, and regions torch.compile makes up.
_UNNAMED = ("(no region)", "(unlinked)", "## Call CompiledFxGraph", "Torch-Compiled Region", "CompiledFunction")
_STARVED = 0.25  # idle share from which the GPU is said to wait


def main_region(regions: pd.DataFrame, column: str) -> tuple[tuple[str, ...], float] | None:
    """The innermost region that still holds most of the time, and its share of the rows at the top.

    Goes down from the largest region at the top as long as one nested region holds half of the one around it.
    Takes REGION_TOTALS; None when no region has any time. What nobody named counts in the whole only.
    """
    REGION_TOTALS.check(regions)
    depth = regions["path"].map(len)
    whole = int(regions.loc[depth == 1, column].sum())
    shown = [not path[-1].startswith(_UNNAMED) for path in regions["path"]]
    named = regions[(regions[column] > 0) & pd.Series(shown, index=regions.index, dtype=bool)]
    best: tuple[str, ...] = ()
    value = 0
    while True:
        nested = named[[len(p) == len(best) + 1 and p[: len(best)] == best for p in named["path"]]]
        if nested.empty or (best and nested[column].max() < _HOLDS * value):
            break
        largest = int(nested[column].to_numpy().argmax())
        best, value = tuple(nested["path"].iloc[largest]), int(nested[column].iloc[largest])
    return (best, value / whole) if best else None


def gpu_verdict(gpu_timeline: Mapping[str, int], regions: pd.DataFrame) -> list[tuple[str, bool]]:
    """Pieces of the sentence for a run on a GPU; True marks what to set in bold."""
    total, busy = gpu_timeline["total_ns"], gpu_timeline["busy_ns"]
    said = [("The GPU was busy ", False), (fmt_percent(busy / max(1, total), 0), True), (f" of {fmt_ns(total)}", False)]
    found = main_region(regions, "busy_ns")
    if found is not None:
        path, share = found
        said += [("; ", False), (fmt_percent(share, 0), True), (" of its work came from ", False), (path[-1], True)]
    said.append((".", False))
    if gpu_timeline["idle_ns"] > _STARVED * total:
        said.append((f" It waited for {fmt_ns(gpu_timeline['idle_ns'])}: look at launches and copies first.", False))
    elif gpu_timeline["exposed_communication_ns"] > 0.1 * total:
        waited = fmt_ns(gpu_timeline["exposed_communication_ns"])
        said.append((f" Communication that nothing overlaps took {waited}.", False))
    return said


def host_verdict(regions: pd.DataFrame, operators: pd.DataFrame) -> list[tuple[str, bool]]:
    """Pieces of the sentence for a run without GPU events."""
    OPERATOR_SUMS.check(operators)
    whole = int(operators["self_ns"].sum())
    said: list[tuple[str, bool]] = [("No GPU in this run. ", False)]
    found = main_region(regions, "host_ns")
    if found is not None:
        path, share = found
        said += [(path[-1], True), (" took ", False), (fmt_percent(share, 0), True), (" of the time in regions", False)]
    if whole:
        said += [("; the " if found else "The ", False), ("longest operator is ", False)]
        said += [(str(operators["name"].iloc[0]), True), (", ", False)]
        said += [(fmt_percent(int(operators["self_ns"].iloc[0]) / whole, 0), True), (" of operator time", False)]
    return [*said, (".", False)]
