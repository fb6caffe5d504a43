"""One sentence that answers "where did the time go": totals in, text out."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from profiler_kit.analyses.gpu.batch_load import BatchLoad
from profiler_kit.analyses.gpu.gpu_presence import Presence
from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.analyses.gpu.utilization import REGION_UTILIZATION
from profiler_kit.analyses.gpu.window import OPERATOR_SUMS
from profiler_kit.analyses.layers.totals import LAYER_COVERAGE, LAYER_KINDS
from profiler_kit.findings.advice import UNNAMED
from profiler_kit.text import fmt_count, fmt_ns, fmt_percent

_HOLDS = 0.5  # a nested region that holds this share of the one around it is the better answer
_UNNAMED = UNNAMED
_STARVED = 0.25  # idle share from which the GPU is said to wait
_TOO_NOISY = 0.25  # spread of the forwards from which nothing can be said about them
_SLOWED = 0.03  # of the busy share: below, recording made no difference worth a word


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


def gpu_verdict(
    gpu_timeline: Mapping[str, int], regions: pd.DataFrame, load: BatchLoad | None = None
) -> list[tuple[str, bool]]:
    """Pieces of the sentence for a run on a GPU; True marks what to set in bold.

    With `load` the busy share and the advice are those of a batch without the profiler, and the recorded share stands
    beside it; without, they are of the recorded time.
    """
    total, busy = max(1, gpu_timeline["total_ns"]), gpu_timeline["busy_ns"]
    said = _recorded(busy, total) if load is None else _unrecorded(load, busy / total)
    found = main_region(regions, "busy_ns")
    if found is not None:
        path, share = found
        said += [
            ("; ", False),
            (fmt_percent(share, 0), True),
            (" of the GPU's work came from ", False),
            (path[-1], True),
        ]
    said.append((".", False))
    if load is not None and 1 - load.busy_share > _STARVED:
        waits = fmt_ns(load.latency_ns - load.gpu_ns)
        said.append((f" It waits {waits} of each batch: look at launches and copies first.", False))
    elif load is None and gpu_timeline["idle_ns"] > _STARVED * total:
        waited = fmt_ns(gpu_timeline["idle_ns"])
        said.append(
            (f" It waited for {waited}, some of that for the recording: look at launches and copies first.", False)
        )
    elif gpu_timeline["exposed_communication_ns"] > 0.1 * total:
        waited = fmt_ns(gpu_timeline["exposed_communication_ns"])
        said.append((f" Communication that nothing overlaps took {waited}.", False))
    return said


def regions_verdict(regions: pd.DataFrame, utilization: pd.DataFrame) -> list[tuple[str, bool]]:
    """Pieces of the sentence on what bounds the region that holds most GPU time, and the one where the GPU idles most.

    Takes REGION_TOTALS and REGION_UTILIZATION of one trace; empty when no region launched anything.
    """
    REGION_UTILIZATION.check(utilization)
    found = main_region(regions, "busy_ns")
    rows = {tuple(row["path"]): row for row in utilization.to_dict("records")}
    if found is None or found[0] not in rows:
        return []
    path, share = found
    said: list[tuple[str, bool]] = [
        (path[-1], True),
        (f" holds {fmt_percent(share, 0)} of the GPU's work and is ", False),
    ]
    said.append((str(rows[path]["verdict"]), True))
    inner = {one: row for one, row in rows.items() if not any(o[: len(one)] == one and o != one for o in rows)}
    idle = max(inner, key=lambda one: int(inner[one]["idle_ns"]), default=None)
    if idle is not None and idle != path and int(rows[idle]["idle_ns"]):
        said += [("; the GPU idles longest in ", False), (idle[-1], True)]
        said += [(f" ({fmt_ns(int(rows[idle]['idle_ns']))}), which is ", False), (str(rows[idle]["verdict"]), True)]
    return [*said, (".", False)]


def kinds_verdict(kinds: pd.DataFrame) -> str:
    """How much longer the slowest variant of a type takes than the fastest, at the largest batch; "" without variants.

    Takes LAYER_KINDS.
    """
    LAYER_KINDS.check(kinds)
    last = kinds[(kinds["batch_size"] == kinds["batch_size"].max()) & (kinds["variant"] != "")]
    if last.empty:
        return ""
    slow = last.loc[last["one_per_image_ns"].idxmax()]
    alike = last[[kind.removesuffix(v) == slow["kind"].removesuffix(slow["variant"]) for kind, v in _kinds(last)]]
    fast = alike.loc[alike["one_per_image_ns"].idxmin()]
    if len(alike) < 2 or not fast["one_per_image_ns"]:
        return ""
    factor = slow["one_per_image_ns"] / fast["one_per_image_ns"]
    return (
        f"At batch {int(slow['batch_size'])} one layer {slow['kind']} takes {fmt_ns(slow['one_per_image_ns'])} per "
        f"image, {factor:.1f} × one layer {fast['kind']} ({fmt_ns(fast['one_per_image_ns'])}). "
        f"{_held(slow)} of the forward, {_held(fast)}."
    )


def _kinds(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(rows["kind"], rows["variant"], strict=True))


def _held(row: pd.Series) -> str:
    return f"{int(row['layers'])} of {row['kind']} hold {fmt_percent(float(row['share']), 0)}"


def _recorded(busy: int, total: int) -> list[tuple[str, bool]]:
    return [
        ("The GPU was busy ", False),
        (fmt_percent(busy / total, 0), True),
        (f" of the recorded {fmt_ns(total)}", False),
    ]


def _unrecorded(load: BatchLoad, recorded_share: float) -> list[tuple[str, bool]]:
    recorded = fmt_percent(recorded_share, 0)
    slowed = recorded_share < load.busy_share - _SLOWED
    return [
        (f"GPU work {fmt_ns(load.gpu_ns)} of a {fmt_ns(load.latency_ns)} batch: ", False),
        (f"{fmt_percent(load.busy_share, 0)} busy", True),
        (" when not recorded", False),
        (
            f" (recording slowed the host: {recorded} while recorded)" if slowed else f", {recorded} while recorded",
            False,
        ),
    ]


def missing_gpu(presence: Presence) -> str:
    """One sentence on a trace without GPU events: whether there was a GPU, and why its work is not there."""
    calls = f"{fmt_count(presence.launches)} {'call launches' if presence.launches == 1 else 'calls launch'}"
    if presence.ran == "cut off":
        why = f"{calls} GPU work" if presence.launches else ""
        why = why or (f"it was recorded on a machine with {presence.devices[0]}" if presence.devices else "")
        if why:
            return f"The trace is cut off before its GPU events ({why}): this is its host side only."
        return "The trace is cut off: no GPU events up to there, which files hold last."
    if presence.ran == "not recorded":
        return f"GPU work was launched ({calls} it), but the GPU was not recorded: this is the host side only."
    return "No GPU in this run."


def layers_coverage(coverage: pd.DataFrame, spread: float) -> str:
    """How much of the forward the layers explain, and what the hooks cost; what is smaller than noise is called noise.

    Takes LAYER_COVERAGE, not empty, and analyses.layers.forward_spread.
    """
    LAYER_COVERAGE.check(coverage)
    least = coverage.loc[coverage["share"].idxmin()]
    share, overhead = float(least["share"]), float(coverage["overhead"].max())
    if spread > _TOO_NOISY:
        return (
            f"The forward run without hooks took so differently long each time (spread {fmt_percent(spread, 0)}) that "
            "it cannot be said how much of it the layers explain. More --iterations or --warmup would tell."
        )
    noise = f"the spread of its samples ({fmt_percent(spread)})"
    if share >= 1 - spread:
        said = f"The layers explain all of the forward run without hooks, within {noise}"
    else:
        said = (
            f"The layers explain at least {fmt_percent(share)} of the forward run without hooks "
            f"(batch {int(least['batch_size'])}); {noise} is smaller, so the rest ran outside every layer"
        )
    cost = f"cost {fmt_percent(overhead)} at most" if overhead > spread else "cost no more than that spread"
    return f"{said}. The hooks {cost}."


def host_verdict(
    regions: pd.DataFrame, operators: pd.DataFrame, presence: Presence | None = None
) -> list[tuple[str, bool]]:
    """Pieces of the sentence for a trace without GPU events."""
    OPERATOR_SUMS.check(operators)
    whole = int(operators["self_ns"].sum())
    first = "No GPU in this run." if presence is None else missing_gpu(presence)
    said: list[tuple[str, bool]] = [(first, False)]
    found = main_region(regions, "host_ns")
    if found is not None:
        path, share = found
        said += [(" ", False), (path[-1], True), (" took ", False), (fmt_percent(share, 0), True)]
        said.append((" of the time in regions", False))
    if whole:
        said += [("; the " if found else " The ", False), ("longest operator is ", False)]
        said += [(str(operators["name"].iloc[0]), True), (", ", False)]
        said += [(fmt_percent(int(operators["self_ns"].iloc[0]) / whole, 0), True), (" of operator time", False)]
    return [*said, (".", False)] if found or whole else said
