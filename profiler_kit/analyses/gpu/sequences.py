"""Which kernels often follow one another under one operator."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.attribute.frames import KERNEL_DETAILS
from profiler_kit.errors import OptionError
from profiler_kit.load.integers import I64
from profiler_kit.schema import Column, Schema

KERNEL_SEQUENCES: Final = Schema(
    "KERNEL_SEQUENCES",
    "outermost operator and sequence of what it launched, longest sum first",
    {
        "operator": Column("str", "Outermost operator open at the launch."),
        "kernels": Column("path", "Kernels in the order of their launch, by their short names.", unit="kernel"),
        "length": Column("int64", "How many kernels.", show="never"),
        "count": Column("int64", "How often the sequence occurs."),
        "calls": Column("int64", "Calls of the operator in which it occurs.", show="room"),
        "sum_ns": Column("int64"),
        "gap_ns": Column("int64", "Time between its kernels in which neither neighbour ran.", "between them", "room"),
    },
)


def kernel_sequences(details: pd.DataFrame, *, length: int | None = 3, operator: str | None = None) -> pd.DataFrame:
    """KERNEL_DETAILS -> KERNEL_SEQUENCES: one row per operator name and sequence of GPU events, longest sum
    first.

    The GPU events launched under one call of an outermost operator are taken in the order of their launches (those of
    one launch by start). A sequence is `length` of them in a row, names compared; sequences overlap, so an event counts
    in up to `length` of them. With length=None it is all that one call launched. operator keeps the outermost operators
    whose name contains it. sum_ns adds the events' durations, gap_ns the distances between neighbours in which
    neither ran (0 where they overlap). Empty in, empty out.

    As HolisticTraceAnalysis's get_frequent_cuda_kernel_sequences in spirit; that one counts whole calls only
    (length=None here) and takes operators of one depth. Raises OptionError for a length below 2.
    """
    if length is not None and length < 2:
        raise OptionError(
            f"sequence length {length}: expected 2 or more. --length 0 (None in Python) takes all that one call of an "
            "operator launched."
        )
    details = KERNEL_DETAILS.check(details)
    call = details["outer_operator_event"].fillna(-1).to_numpy(dtype=np.int64)
    names = details["outer_operator"].astype(object)
    kept = call >= 0
    if operator is not None:
        kept &= names.map(lambda name: isinstance(name, str) and operator in name).to_numpy(dtype=bool)
    rows = np.flatnonzero(kept)
    start = details["start_ns"].to_numpy()
    launched = details["launch_start_ns"].fillna(0).to_numpy(dtype=np.int64)
    rows = rows[np.lexsort((start[rows], launched[rows], call[rows]))]
    first, size = _windows(call[rows], length)
    if not len(first):
        return KERNEL_SEQUENCES.empty()
    kernel = details["name"].cat.codes.to_numpy().astype(np.int64)[rows]
    code = _sequence_codes(kernel, first, size)
    end = start + details["dur_ns"].to_numpy()
    # distance of each kernel from the end of the one before; a sequence leaves out that of its first
    gap = np.concatenate(([0], np.maximum(start[rows[1:]] - end[rows[:-1]], 0)))
    under = details["outer_operator"].cat.codes.to_numpy().astype(np.int64)[rows[first]]
    frame = pd.DataFrame(
        {
            "key": code,
            "under": under,
            "call": call[rows[first]],
            "sum_ns": _over(details["dur_ns"].to_numpy()[rows], first, size),
            "gap_ns": _over(gap, first + 1, size - 1),
            "first": first,
            "size": size,
        }
    )
    totals = frame.groupby(["under", "key"], sort=False).agg(
        count=("key", "size"),
        calls=("call", "nunique"),
        sum_ns=("sum_ns", "sum"),
        gap_ns=("gap_ns", "sum"),
        first=("first", "first"),
        length=("size", "first"),
    )
    totals = totals.reset_index()
    labels = details["name"].cat.categories
    spelled = [
        tuple(str(labels[number]) for number in kernel[at : at + length])
        for at, length in zip(totals["first"].tolist(), totals["length"].tolist(), strict=True)
    ]
    totals["kernels"] = pd.Series(spelled, dtype=object)
    totals["operator"] = details["outer_operator"].cat.categories[totals["under"]].astype(object)
    order = totals.assign(text=totals["kernels"].map("\n".join))
    order = order.sort_values(["sum_ns", "count", "operator", "text"], ascending=[False, False, True, True])
    return KERNEL_SEQUENCES.check(order.reset_index(drop=True))


def _windows(call: I64, length: int | None) -> tuple[I64, I64]:
    """First row and number of rows of each sequence; the rows of a call follow one another."""
    if length is not None:
        first = np.arange(max(len(call) - length + 1, 0))
        # a window lies within one call when its first and last row do
        first = first[call[first] == call[first + length - 1]]
        return first, np.full(len(first), length, dtype=np.int64)
    # a call begins where its number differs from that of the row before
    first = np.flatnonzero(np.concatenate(([True], call[1:] != call[:-1]))[: len(call)])
    return first, np.diff(np.append(first, len(call)))


def _sequence_codes(kernel: I64, first: I64, size: I64) -> I64:
    """A number for each sequence, equal where the kernels are; one round per position, two codes joined in each."""
    code = size.copy()
    for position in range(int(size.max())):
        going = np.flatnonzero(size > position)
        # one integer for (sequence so far, next kernel), numbered from 0 again so that it stays small
        pair = code[going] * (int(kernel.max()) + 1) + kernel[first[going] + position]
        _, where = np.unique(pair, return_inverse=True)
        code[going] = where + (int(code.max()) + 1)  # those that have ended keep codes of their own
        _, code = np.unique(code, return_inverse=True)
    return np.asarray(code, dtype=np.int64)


def _over(value: I64, first: I64, size: I64) -> I64:
    """Sums of `size` values from `first` on."""
    done = np.concatenate(([0], np.cumsum(value)))
    return np.asarray(done[first + size] - done[first], dtype=np.int64)
