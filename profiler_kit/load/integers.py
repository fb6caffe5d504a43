"""Integers that may be missing, in as few bytes as hold them.

Numpy's integers have no null: the smallest integer of a dtype means a missing one. That holds in every width, so a
column can change its width and keep what is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[Any]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]

MISSING: Final = -(1 << 63)  # in int64


def narrowest(values: Integers) -> np.dtype[Any]:
    """The narrowest dtype of signed integers that holds these."""
    lowest = np.iinfo(values.dtype).min
    least = int(values.min(where=values != lowest, initial=0))  # of those that are not missing
    most = int(values.max(initial=0))
    for dtype in (np.dtype(np.int8), np.dtype(np.int16), np.dtype(np.int32)):
        if dtype.itemsize < values.dtype.itemsize and np.iinfo(dtype).min < least and most <= np.iinfo(dtype).max:
            return dtype
    return values.dtype


def resized(values: Integers, dtype: npt.DTypeLike) -> Integers:
    """The same integers in another width that holds them; where all are missing, a read-only array without memory."""
    if values.dtype == dtype:
        return values
    missing = values == np.iinfo(values.dtype).min
    lowest = np.iinfo(np.dtype(dtype)).min
    if missing.all():
        return np.broadcast_to(np.array(lowest, dtype=dtype), values.shape)
    known = values if np.can_cast(values.dtype, dtype) else values.astype(dtype)
    return np.where(missing, np.array(lowest, dtype=dtype), known) if missing.any() else known.astype(dtype)


def narrowed(values: Integers) -> Integers:
    """The same integers in the narrowest dtype that holds them."""
    return resized(values, narrowest(values))


def widest(dtypes: Iterable[np.dtype[Any]]) -> np.dtype[Any]:
    """The widest of the dtypes that parts of one column have; int64 without any."""
    return max(dtypes, key=lambda dtype: dtype.itemsize, default=np.dtype(np.int64))


def of_one_width(parts: Sequence[Integers]) -> list[Integers]:
    """Parts of one column that `narrowed` gave different dtypes, all in the widest of these."""
    dtype = widest(part.dtype for part in parts)
    return [resized(part, dtype) for part in parts]
