"""Compare several runs with one of them: one frame each for times, layers, regions and memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.compare.measurements import NOTCH
from profiler_kit.analyses.compare.traces import Comparison
from profiler_kit.analyses.layers.totals import LAYER_TOTALS
from profiler_kit.schema import Column, Schema

COMPARED: Final = Schema(
    "COMPARED",
    "thing compared and run it is compared in, as Comparison orders them",
    {
        "kind": Column("str", "What is compared: total, region, work, kernel, operator or layer.", show="never"),
        "path": Column("path", "What is compared: a region's path, else one name.", "what"),
        "metric": Column(
            "str",
            "What is measured. gpu: busy time, of kernels the sum; host: time on its thread; wall: all.",
            show="never",
        ),
        "run": Column("str", "The run that is compared with A: B, C, ..."),
        "a_ns": Column(
            "float64",
            "Time in A: the median over its rounds (steps, batches), or the total if there are no rounds.",
            "A",
        ),
        "b_ns": Column("float64", "The same in the run that is compared with A.", "B"),
        "change": Column("float64", "How much longer (+, ×) or shorter (-, ÷) the run takes than A."),
        "status": Column("str", "The run against A: slower, faster, same (within the noise), added, removed.", "is"),
        "noise_ns": Column(
            "float64", "How far apart the two may be by chance; missing where both were measured once.", "noise ±"
        ),
        "a_count": Column(
            "float64", "How often it ran in A, in one round where there are rounds.", "runs in A", "room", "count"
        ),
        "b_count": Column("float64", "How often it ran in the run.", "runs in B", "room", "count"),
        "a_notch_ns": Column(
            "float64", "Half the width of the notch around A's median; missing for one sample.", show="never"
        ),
        "b_notch_ns": Column("float64", "The same for the run.", show="never"),
        "a_names": Column(
            "list", "Kernels and operators: names in A that are compared as one, the longest time first.", show="never"
        ),
        "b_names": Column("list", "The same in the run.", show="never"),
    },
)

COMPARED_REGIONS: Final = Schema(
    "COMPARED_REGIONS",
    "region and run it is compared in: GPU busy time, and time on the host",
    {
        "path": Column("path"),
        "run": COMPARED.columns["run"],
        "a_ns": Column(
            "float64", "GPU busy time in A: the median over its rounds, or over its instances without rounds.", "A"
        ),
        **{name: COMPARED.columns[name] for name in ("b_ns", "change", "status", "noise_ns")},
        "host_a_ns": Column("float64", "Time that its thread spent inside it in A.", "host A"),
        "host_b_ns": Column("float64", "The same in the run that is compared with A.", "host B"),
        "host_change": Column("float64", "How much longer (+, ×) or shorter (-, ÷) that is than in A."),
        "host_status": Column("str", "Slower, faster, same (within the noise), added or removed.", "host is"),
        "host_noise_ns": Column("float64", "How far apart the two may be by chance.", "host noise ±", "room"),
    },
)


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
            "change": _known(one.change),
            "status": one.status,
            "noise_ns": _known(one.noise_ns),
            "a_count": one.a.count if one.a else math.nan,
            "b_count": one.b.count if one.b else math.nan,
            "a_notch_ns": _known(one.a.notch_ns if one.a else None),
            "b_notch_ns": _known(one.b.notch_ns if one.b else None),
            "a_names": one.a.names if one.a else (),
            "b_names": one.b.names if one.b else (),
        }
        for letter, found in comparisons.items()
        for one in found.changes
    ]
    return COMPARED.of(rows)


def compared_regions(rows: pd.DataFrame) -> pd.DataFrame:
    """COMPARED -> COMPARED_REGIONS: the regions of every run; a run without GPU events has host columns only."""
    rows = COMPARED.check(rows)
    regions = rows[rows["kind"] == "region"]
    names = ["a_ns", "b_ns", "change", "status", "noise_ns"]
    gpu, host = (regions.loc[regions["metric"] == metric, ["path", "run", *names]] for metric in ("gpu", "host"))
    # regions in the order of their GPU time, those of runs without any behind them, each beside its own host time
    order = pd.concat([gpu, host])[["run", "path"]].drop_duplicates().sort_values("run", kind="stable")
    host = host.rename(columns={name: f"host_{name}" for name in names})
    table = order.merge(gpu, how="left", on=["run", "path"]).merge(host, how="left", on=["run", "path"])
    return COMPARED_REGIONS.cast(table.fillna({"status": "", "host_status": ""}))


def compared_layers(totals: Mapping[str, pd.DataFrame], batch_size: int) -> pd.DataFrame:
    """LAYER_TOTALS by letter, A among them -> COMPARED: time per item of each layer at one batch size.

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
                    "change": b / a - 1 if a else math.nan,
                    "status": _status(a, b, noise),
                    "noise_ns": noise,
                    "a_count": math.nan,
                    "b_count": math.nan,
                    "a_notch_ns": notches[0],
                    "b_notch_ns": notches[1],
                    "a_names": (),
                    "b_names": (),
                }
            )
    return COMPARED.of(rows)


def common_batches(totals: Mapping[str, pd.DataFrame]) -> list[int]:
    """The batch sizes that all of these LAYER_TOTALS have."""
    sizes = [set(frame["batch_size"].tolist()) for frame in totals.values()]
    return sorted(set.intersection(*sizes)) if sizes else []


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
