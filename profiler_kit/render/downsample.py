"""Thin a line of many points to what a picture can show, its peaks kept."""

from __future__ import annotations

import itertools

import numpy as np


def keep_peaks(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]], most: int) -> list[int]:
    """Row numbers, in order, at most `most`: first, last, and lowest and highest of every stretch between."""
    if values.size <= most:
        return list(range(values.size))
    edges = np.linspace(0, values.size, most // 2).astype(np.int64)
    keep = {0, values.size - 1}
    for low, high in itertools.pairwise(edges):
        part = values[low:high]
        keep |= {int(low + part.argmax()), int(low + part.argmin())}
    return sorted(keep)
