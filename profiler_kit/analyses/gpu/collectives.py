"""Collectives of one rank: message sizes, groups, and the bandwidths that nccl-tests defines."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.attribute.frames import KERNEL_DETAILS, OPERATORS
from profiler_kit.attribute.launch_context import codes_of
from profiler_kit.load.integers import I64
from profiler_kit.load.trace.columns import TextColumn
from profiler_kit.schema import Column, Schema
from profiler_kit.table import json_of

NONE: Final = -1
ARGUMENTS: Final = (
    "collective_name", "process_group_name", "process_group_ranks", "group_size", "dtype", "in_msg_nelems",
    "out_msg_nelems",
)  # fmt: skip

COLLECTIVES: Final = Schema(
    "COLLECTIVES",
    "collective with the same group, dtype and message size, longest sum first",
    {
        "collective": Column("str", "Its name, else that of the kernel."),
        "group": Column("str", "Name of the process group; empty where it was not recorded."),
        "members": Column("str", "Ranks of the group.", show="room"),
        "ranks": Column("Int64", "How many ranks the group has.", show="room"),
        "dtype": Column("str", "Dtype of the message.", show="room"),
        "in_elements": Column("Int64", "Elements that this rank contributes.", show="room"),
        "out_elements": Column("Int64", "Elements that this rank receives.", show="room"),
        "message_bytes": Column(
            "Int64", "Bytes that the bandwidth is computed from: the output of gathers and all-gathers, the input "
            "of all others.", "message"
        ),
        "count": Column("int64", "Kernels."),
        "sum_ns": Column("int64"),
        "mean_ns": Column("float64", show="room"),
        "min_ns": Column("int64", "The shortest kernel: the others also waited for later ranks.", show="room"),
        "max_ns": Column("int64", show="room"),
        "algorithm_bytes_per_s": Column(
            "float64", "Message over the average duration (nccl-tests: algbw).", "algbw", show="room"
        ),
        "bus_bytes_per_s": Column(
            "float64", "What each rank's link carries for that: algbw times the collective's factor (busbw).", "busbw"
        ),
        "best_bus_bytes_per_s": Column("float64", "The same over the shortest duration.", "best busbw"),
        "peak_share": Column("float64", "Best busbw as a share of the one-way bandwidth of the GPU's links.", "of "
        "link"),
    },
)  # fmt: skip

_SIZES: Final = {
    "Double": 8, "Long": 8, "ComplexFloat": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2, "Byte": 1,
    "Char": 1, "Bool": 1, "Float8_e4m3fn": 1, "Float8_e5m2": 1, "Float8_e4m3fnuz": 1, "Float8_e5m2fnuz": 1,
}  # fmt: skip
# One way, all links of a GPU together: NVLink 3, 4 and 5, seven Infinity Fabric links (data sheets).
_LINKS: Final = (
    ("A100-SXM", 300e9), ("H100 80GB HBM3|H100 SXM|H200(?! NVL)", 450e9), (r"\bB200", 900e9), ("MI300X", 448e9)
)  # fmt: skip
# nccl-tests, doc/PERFORMANCE.md: by a part of the name without "_", whether the result is the message, and the factor.
_KINDS: Final = (
    ("allreduce", False, lambda n: 2 * (n - 1) / n),
    ("reducescatter", False, lambda n: (n - 1) / n),
    ("allgather", True, lambda n: (n - 1) / n),
    ("alltoall", False, lambda n: (n - 1) / n),
    ("broadcast", False, lambda n: 1.0),
    ("scatter", False, lambda n: (n - 1) / n),
    ("gather", True, lambda n: (n - 1) / n),
    ("reduce", False, lambda n: 1.0),
    ("send", False, lambda n: 1.0),
    ("recv", True, lambda n: 1.0),
)


@dataclass(frozen=True)
class Message:
    """One collective's texts and numbers (the first eight columns of COLLECTIVES), size and factor as numbers."""

    texts: tuple[Any, ...]
    size: float
    factor: float


def collectives(
    operators: pd.DataFrame,
    details: pd.DataFrame,
    arguments: Mapping[str, TextColumn],
    telling: npt.NDArray[np.bool_],
    gpu_name: str,
) -> pd.DataFrame:
    """OPERATORS, KERNEL_DETAILS -> COLLECTIVES: kernels that communicate, by what their arguments say.

    arguments: the columns ARGUMENTS of every event; telling: which events have them. A kernel without takes those of
    the operator around its launch. Empty in, empty out.
    """
    operators, details = OPERATORS.check(operators), KERNEL_DETAILS.check(details)
    mine = np.flatnonzero(details["communication"].notna().to_numpy())
    if not len(mine):
        return COLLECTIVES.empty()
    kernels = details.iloc[mine]
    source = _source(operators, kernels, telling)
    known, name = source != NONE, codes_of(kernels["name"])
    key = np.where(known, 0, name + 1)  # without arguments the kernel's name is all there is
    columns = [arguments[argument] for argument in ARGUMENTS]
    for column in columns:
        code = np.where(known, column.codes[np.maximum(source, 0)].astype(np.int64) + 1, 0)
        key = np.unique(key * (int(code.max()) + 1) + code, return_inverse=True)[1]
    _, first, row = np.unique(key, return_index=True, return_inverse=True)
    peak = next((peak for pattern, peak in _LINKS if re.search(pattern, gpu_name)), np.nan)
    rows = []
    for at in first.tolist():
        values = [json_of(column.values[column.codes[source[at]]]) if known[at] else None for column in columns]
        rows.append(message_of(values, str(kernels["name"].iloc[at])))
    grouped = kernels.assign(row=row).groupby("row")["dur_ns"]
    sums = grouped.agg(count="size", sum_ns="sum", mean_ns="mean", min_ns="min", max_ns="max")
    found = pd.DataFrame([one.texts for one in rows], columns=list(COLLECTIVES.columns)[:8]).join(sums)
    size, factor = (np.array([getattr(one, field) for one in rows]) for field in ("size", "factor"))
    longest = found["mean_ns"].where(found["mean_ns"] > 0)
    found["algorithm_bytes_per_s"] = size / longest * 1e9
    found["bus_bytes_per_s"] = found["algorithm_bytes_per_s"] * factor
    found["best_bus_bytes_per_s"] = size * factor / found["min_ns"].where(found["min_ns"] > 0) * 1e9
    found["peak_share"] = found["best_bus_bytes_per_s"] / peak
    return COLLECTIVES.cast(found).sort_values(["sum_ns", "collective"], ascending=[False, True], ignore_index=True)


def _source(operators: pd.DataFrame, kernels: pd.DataFrame, telling: npt.NDArray[np.bool_]) -> I64:
    """The event whose arguments say what each kernel does: itself, or the innermost operator that has them."""
    event = kernels["event"].to_numpy()
    found = np.where(telling[event], event, NONE)
    above = np.append(operators["event"].to_numpy()[operators["parent"].fillna(0).to_numpy(dtype=np.int64)], NONE)
    above[:-1][operators["parent"].isna().to_numpy()] = NONE
    row_of = np.full(len(telling) + 1, len(operators), dtype=np.int64)
    row_of[operators["event"].to_numpy()] = np.arange(len(operators))
    operator = kernels["operator_event"].fillna(NONE).to_numpy(dtype=np.int64)
    while ((found == NONE) & (operator != NONE)).any():
        found = np.where((found == NONE) & (operator != NONE) & telling[operator], operator, found)
        operator = above[row_of[operator]]
    return found


def bus_factor(operation: str, ranks: int | None) -> float:
    """What a link carries for each byte of the message of that operation among so many ranks; NaN if not known."""
    plain = operation.lower().replace("_", "")
    kind = next((kind for kind in _KINDS if kind[0] in plain), None)
    return kind[2](ranks) if kind is not None and ranks else np.nan


def message_of(values: list[Any], kernel: str) -> Message:
    """What the arguments of a collective say, in the order of ARGUMENTS; kernel: its name, where they say none."""
    name, group, members, ranks, dtype, given, got = values
    ranks, given, got = (one if type(one) is int and 0 <= one < 1 << 53 else None for one in (ranks, given, got))
    called = name if isinstance(name, str) and name else kernel
    plain = called.lower().replace("_", "")
    kind = next((kind for kind in _KINDS if kind[0] in plain), None)
    item = _SIZES.get(str(dtype))
    elements = None if kind is None else got if kind[1] else given
    size = elements * item if elements is not None and item is not None else None
    factor = bus_factor(called, ranks)
    texts = (called, str(group or ""), str(members or ""), ranks, str(dtype or ""), given, got, size)
    return Message(texts, np.nan if size is None else float(size), factor)
