"""Add up the host time of operators by region path and operator name."""

from __future__ import annotations

from typing import Final

import pandas as pd

from profiler_kit.attribute.frames import OPERATORS, THREAD_PATH
from profiler_kit.schema import Column, Schema

OPERATOR_TOTALS: Final = Schema(
    "OPERATOR_TOTALS",
    "innermost region path and operator name, longest self time first; host time",
    {
        "path": Column("path", THREAD_PATH),
        "name": Column("str", "A PyTorch operator on the host.", "operator"),
        "count": Column("int64", label="calls"),
        "sum_ns": Column("int64", "Host time inside it, operators called inside included.", "host"),
        "self_ns": Column("int64"),
    },
)


def operator_totals(operators: pd.DataFrame) -> pd.DataFrame:
    """Host time by innermost region path and operator name, longest self time first.

    sum_ns includes operators called inside (so it counts nested time again), self_ns does not: the self times of
    one thread add up to the time it spent in operators. Empty in, empty out.
    """
    operators = OPERATORS.check(operators)
    if operators.empty:
        return OPERATOR_TOTALS.empty()
    grouped = operators.groupby(["path", "name"], observed=True, sort=False)
    totals = grouped.agg(count=("dur_ns", "size"), sum_ns=("dur_ns", "sum"), self_ns=("self_ns", "sum")).reset_index()
    totals["path"] = totals["path"].astype(object)
    totals["name"] = totals["name"].astype(object)
    order = totals["self_ns"].sort_values(ascending=False, kind="stable").index
    return OPERATOR_TOTALS.check(totals.loc[order].reset_index(drop=True))
