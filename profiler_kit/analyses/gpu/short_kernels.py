"""Kernels that are too short to be worth a launch, by the operator and shapes that launch them."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.operators import NO_LAUNCH, NO_OPERATOR
from profiler_kit.attribute.frames import KERNEL_DETAILS
from profiler_kit.attribute.launch_context import codes_of
from profiler_kit.load.trace.columns import TextColumn
from profiler_kit.schema import Column, Schema

SHORT_BELOW_NS: Final = 10_000

SHORT_KERNELS: Final = Schema(
    "SHORT_KERNELS",
    "innermost operator, its shapes, and kernel of which some are short, longest sum first",
    {
        "operator": Column("str", "Innermost operator open at the launch; (no operator) and (unlinked) hold the rest."),
        "shapes": Column("str", "Sizes of its arguments.", unit="json", show="room"),
        "name": Column("str", "The GPU event.", "kernel", unit="kernel"),
        "count": Column("int64", "How many are short."),
        "sum_ns": Column("int64", "Durations of the short ones added up."),
        "mean_ns": Column("float64"),
        "share": Column("float64", "Of the time of all GPU events.", "of GPU"),
    },
)


def short_kernels(details: pd.DataFrame, shapes: TextColumn, below_ns: int = SHORT_BELOW_NS) -> pd.DataFrame:
    """KERNEL_DETAILS -> SHORT_KERNELS: GPU events shorter than `below_ns`. Empty in, empty out."""
    details = KERNEL_DETAILS.check(details)
    short = details[details["dur_ns"] < below_ns]
    if short.empty:
        return SHORT_KERNELS.empty()
    event = short["operator_event"].fillna(-1).to_numpy(dtype=np.int64)
    # without an operator there are no shapes: code -1, and -2 for what has no launch
    unlinked = short["launch_thread"].isna().to_numpy()
    operator = np.where(event < 0, np.where(unlinked, -2, -1), codes_of(short["operator"]))
    shape = np.where(event < 0, -1, shapes.codes[np.maximum(event, 0)])
    frame = pd.DataFrame({"operator": operator, "shapes": shape, "name": codes_of(short["name"])})
    grouped = frame.assign(dur=short["dur_ns"].to_numpy()).groupby(["operator", "shapes", "name"])["dur"]
    totals = grouped.agg(count="size", sum_ns="sum", mean_ns="mean").reset_index()
    operators, names = list(short["operator"].cat.categories), list(short["name"].cat.categories)
    rest = {-1: NO_OPERATOR, -2: NO_LAUNCH}
    totals["operator"] = [rest.get(code) or operators[code] for code in totals["operator"].tolist()]
    totals["shapes"] = ["" if code < 0 else shapes.values[code] for code in totals["shapes"].tolist()]
    totals["name"] = [names[code] for code in totals["name"].tolist()]
    totals["share"] = totals["sum_ns"] / max(1, int(details["dur_ns"].sum()))
    order = totals.sort_values(["sum_ns", "operator", "shapes", "name"], ascending=[False, True, True, True])
    return SHORT_KERNELS.check(order.reset_index(drop=True).astype(SHORT_KERNELS.dtypes()))
