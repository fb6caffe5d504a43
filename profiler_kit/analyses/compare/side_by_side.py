"""Several runs against one of them: comparisons, layer totals and memory by region in, one frame to tabulate out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.compare.measurements import NOTCH
from profiler_kit.analyses.compare.traces import Comparison
from profiler_kit.analyses.layers.totals import LAYER_TOTALS
from profiler_kit.analyses.memory.regions import MEMORY_REGIONS
from profiler_kit.schema import Column, Schema

COMPARED: Final = Schema(
    "COMPARED",
    "thing compared and run it is compared in, as Comparison orders them",
    {
        "kind": Column("str", "total, region, work, kernel, operator, layer"),
        "path": Column("path", "a region's path, else one name"),
        "metric": Column("str", "gpu, host, wall"),
        "run": Column("str", "B, C, ...: the run compared with A"),
        "a_ns": Column("float64", "NaN where it does not occur in A"),
        "b_ns": Column("float64", "NaN where it does not occur in the run"),
        "a_notch_ns": Column("float64", "half the width of the notch around the median; NaN for a single sample"),
        "b_notch_ns": Column("float64"),
        "change": Column("float64", "b / a - 1; NaN where one is missing"),
        "noise_ns": Column("float64", "how far apart they may be by chance; NaN when nothing is known"),
        "status": Column("str", "slower, faster, same, added, removed"),
    },
)

COMPARED_MEMORY: Final = Schema(
    "COMPARED_MEMORY",
    'region path and run it is compared in; the whole has the path ("peak",)',
    {
        "path": Column("path"),
        "run": Column("str"),
        "a_bytes": Column("Int64"),
        "b_bytes": Column("Int64"),
    },
)


PEAK: Final = ("peak",)


def compared(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Every change of every comparison -> COMPARED, in the order of the first comparison that has it.

    comparisons: by letter (B, C, ...), all with the same A. Empty in, empty out.
    """
    rows = [
        {
            "kind": one.kind,
            "path": one.path,
            "metric": one.metric,
            "run": letter,
            "a_ns": one.a.value_ns if one.a else math.nan,
            "b_ns": one.b.value_ns if one.b else math.nan,
            "a_notch_ns": _known(one.a.notch_ns if one.a else None),
            "b_notch_ns": _known(one.b.notch_ns if one.b else None),
            "change": _known(one.change),
            "noise_ns": _known(one.noise_ns),
            "status": one.status,
        }
        for letter, found in comparisons.items()
        for one in found.changes
    ]
    return COMPARED.check(pd.DataFrame(rows, columns=list(COMPARED.columns))) if rows else COMPARED.empty()


def compared_layers(totals: Mapping[str, pd.DataFrame], batch_size: int) -> pd.DataFrame:
    """LAYER_TOTALS by letter, A among them -> COMPARED: time per image of each layer at one batch size.

    The noise is that of medians whose quartiles are known: see analyses.compare. A layer of only one run is added, or
    removed. Empty in, empty out.
    """
    sides = {letter: _per_image(frame, batch_size) for letter, frame in totals.items()}
    first = sides.get("A")
    rows = []
    for letter, side in sides.items():
        if letter == "A" or first is None:
            continue
        for layer in dict.fromkeys([*first.index, *side.index]):
            a, b = (float(one["per_image_ns"].get(layer, math.nan)) for one in (first, side))
            notches = [float(one["notch_ns"].get(layer, math.nan)) for one in (first, side)]
            known = [notch for notch in notches if not math.isnan(notch)]
            noise = 2 * sum(known) / len(known) if known else math.nan
            rows.append(
                {
                    "kind": "layer",
                    "path": (str(layer),),
                    "metric": "gpu",
                    "run": letter,
                    "a_ns": a,
                    "b_ns": b,
                    "a_notch_ns": notches[0],
                    "b_notch_ns": notches[1],
                    "change": b / a - 1 if a else math.nan,
                    "noise_ns": noise,
                    "status": _status(a, b, noise),
                }
            )
    return COMPARED.check(pd.DataFrame(rows, columns=list(COMPARED.columns))) if rows else COMPARED.empty()


def common_batches(totals: Mapping[str, pd.DataFrame]) -> list[int]:
    """The batch sizes that all of these LAYER_TOTALS have."""
    sizes = [set(frame["batch_size"].tolist()) for frame in totals.values()]
    return sorted(set.intersection(*sizes)) if sizes else []


def compared_memory(regions: Mapping[str, pd.DataFrame], peaks: Mapping[str, int]) -> pd.DataFrame:
    """MEMORY_REGIONS by letter and the peak of each run, A among them -> COMPARED_MEMORY: peaks in bytes.

    Of several devices the one with the highest peak counts. Empty in, empty out.
    """
    sides = {letter: {PEAK: peak} | _peaks(regions[letter]) for letter, peak in peaks.items()}
    first = sides.pop("A", {})
    rows = [
        (path, letter, first.get(path), side.get(path))
        for letter, side in sides.items()
        for path in dict.fromkeys([*first, *side])
    ]
    frame = pd.DataFrame(rows, columns=list(COMPARED_MEMORY.columns))
    return (
        COMPARED_MEMORY.check(frame.astype({"a_bytes": "Int64", "b_bytes": "Int64"}))
        if rows
        else (COMPARED_MEMORY.empty())
    )


def _peaks(regions: pd.DataFrame) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    for path, peak in zip(MEMORY_REGIONS.check(regions)["path"], regions["peak_bytes"].tolist(), strict=True):
        found[path] = max(found.get(path, 0), peak)
    return found


def _per_image(totals: pd.DataFrame, batch_size: int) -> pd.DataFrame:
    """By layer, per_image_ns and notch_ns."""
    totals = LAYER_TOTALS.check(totals)
    rows = totals[totals["batch_size"] == batch_size].set_index("layer")
    notch = NOTCH * (rows["q3_ns"] - rows["q1_ns"]) / np.sqrt(rows["iterations"]) / batch_size
    return pd.DataFrame({"per_image_ns": rows["per_image_ns"], "notch_ns": notch.where(rows["iterations"] > 1)})


def _status(a: float, b: float, noise: float) -> str:
    if math.isnan(a) or math.isnan(b):
        return "added" if math.isnan(a) else "removed"
    if abs(b - a) <= (0.0 if math.isnan(noise) else noise):
        return "same"
    return "slower" if b > a else "faster"


def _known(value: float | None) -> float:
    return math.nan if value is None else value
