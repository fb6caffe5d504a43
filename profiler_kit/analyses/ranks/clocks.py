"""The clocks of the ranks of a job, put on one.

A collective that synchronises ends at one moment on all its members, so that the end on each rank is that moment plus
what its clock is off: a sparse least squares over all collectives, repeated with less weight for what does not fit.
Ranks that no collective joins have clocks that cannot be compared: components.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from profiler_kit.load.integers import F64, I64
from profiler_kit.schema import Column, Schema

CLOCKS: Final = Schema(
    "CLOCKS",
    "rank",
    {
        "rank": Column("int64"),
        "component": Column("int64", "Ranks with the same number share collectives, and are on one clock.", unit="id"),
        "offset_ns": Column("int64", "How far its clock is ahead of the first rank's, in the middle of the recording."),
        "drift_ppm": Column("float64", "By how much it runs faster, in parts per million."),
        "error_ns": Column("int64", "Median distance between its ends of collectives and those of the other ranks."),
        "collectives": Column("int64", "Collectives that it shares with other ranks."),
    },
)
DRIFT_FROM_NS: Final = 10_000_000_000  # longer recordings always get a drift
_ROUNDS: Final = 8
_STEPS: Final = 200
_FLOOR_NS: Final = 500.0  # what differs by less is alike


@dataclass(frozen=True)
class Clocks:
    """One entry per rank. middle_ns: the moment that its offset holds at, by its own clock; drift: nanoseconds per
    nanosecond.
    """

    offset: F64
    drift: F64
    component: I64
    error: F64
    count: I64
    middle_ns: F64

    def correct(self, rank: I64, time: F64) -> F64:
        """Times of these ranks (places), on one clock per component."""
        return time - self.offset[rank] - self.drift[rank] * (time - self.middle_ns[rank])


def components(rank: I64, collective: I64, ranks: int, collectives: int) -> I64:
    """The component of each rank, numbered from 0 by the first rank of each."""
    label = np.arange(ranks)
    while True:
        lowest = np.full(collectives, ranks)
        np.minimum.at(lowest, collective, label[rank])
        new = label.copy()
        np.minimum.at(new, rank, lowest[collective])
        new = np.minimum(new, new[new])
        if (new == label).all():
            return np.unique(label, return_inverse=True)[1]
        label = new


def clocks(rank: I64, collective: I64, end: F64, weight: F64, ranks: int) -> Clocks:
    """The clocks of `ranks` ranks, from the rank, collective, end and weight of each matched kernel."""
    count = int(collective.max()) + 1 if len(collective) else 0
    component = components(rank, collective, ranks, count)
    # without what clocks are off by as a whole, which may be more than the recording is long; each component from 0
    coarse = _solved(rank, collective, end, weight, ranks, count, end * 0)[0]
    origin = np.full(ranks, np.inf)
    np.minimum.at(origin, component[rank], end - coarse[rank])
    coarse += np.where(np.isfinite(origin), origin, 0.0)[component]
    end = end - coarse[rank]
    span = float(end.max(initial=0.0))
    # one moment for all members: by their own ends a stopped clock would fit best
    tau = np.bincount(collective, end, minlength=count) / np.maximum(np.bincount(collective, minlength=count), 1)
    tau = (tau / max(span, 1.0) - 0.5)[collective]
    found = _solved(rank, collective, end, weight, ranks, count, tau * 0)
    # a drift where the recording is long, or where it explains much of what is left
    enough = len(end) >= 8 * ranks and span > 0
    if enough:
        with_drift = _solved(rank, collective, end, weight, ranks, count, tau)
        if span > DRIFT_FROM_NS or with_drift[2] < found[2] - 10 * ranks:
            found = with_drift
    offset, drift, _, left = found
    # the first rank of each component is the one that the others are compared with
    first = np.unique(component, return_index=True)[1][component]
    middle = coarse + span / 2
    offset, drift = (offset + coarse) - (offset + coarse)[first], drift - drift[first]
    order = np.lexsort((np.abs(left), rank))
    counts = np.bincount(rank, minlength=ranks)
    at = np.concatenate(([0], np.cumsum(counts)[:-1])) + np.maximum(counts - 1, 0) // 2
    error = np.full(ranks, np.nan)
    error[counts > 0] = np.abs(left)[order[at[counts > 0]]]
    return Clocks(offset, drift / max(span, 1.0), component, error, counts, middle)


def _solved(
    rank: I64, collective: I64, end: F64, weight: F64, ranks: int, count: int, tau: F64
) -> tuple[F64, F64, float, F64]:
    """Offsets, drifts (over the whole recording), how badly they fit, and what is left of each end."""
    x = np.zeros((2, ranks))
    if not len(end):
        return x[0], x[1], 0.0, end
    robust, cost, left = weight, 0.0, end
    for _ in range(_ROUNDS):
        x = _least_squares(rank, collective, end, robust, ranks, count, tau, x)
        left = _off_middle(collective, end - x[0][rank] - x[1][rank] * tau, count)
        scale = max(1.4826 * float(np.median(np.abs(left))), _FLOOR_NS)
        cost = float(np.log1p((left / (2 * _FLOOR_NS)) ** 2).sum())
        new = weight / (1 + (left / (2 * scale)) ** 2)
        if np.allclose(new, robust, rtol=1e-3):
            break
        robust = new
    return x[0], x[1], cost, left


def _off_middle(collective: I64, value: F64, count: int) -> F64:
    """Each value less the median of its collective, of two that between them: a mean by weights would follow the one
    that weighs more, which then weighs more still.
    """
    order = np.lexsort((value, collective))
    counts = np.bincount(collective, minlength=count)
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    sizes, first = np.maximum(counts, 1), np.minimum(first, max(len(value) - 1, 0))
    low, high = (value[order[first + part]] for part in ((sizes - 1) // 2, sizes // 2))
    return np.asarray(value - ((low + high) / 2)[collective])


def _centred(collective: I64, value: F64, weight: F64, count: int) -> F64:
    """Each value less the weighted mean of its collective."""
    sums = np.bincount(collective, weight * value, minlength=count)
    whole = np.bincount(collective, weight, minlength=count)
    return np.asarray(value - (sums / np.maximum(whole, 1e-30))[collective])


def _least_squares(rank: I64, collective: I64, end: F64, weight: F64, ranks: int, count: int, tau: F64, x: F64) -> F64:
    """Conjugate gradients on the normal equations, in which the moments of the collectives are eliminated."""
    drifts = bool(tau.any())

    def normal(value: F64) -> F64:
        weighted = weight * _centred(collective, value, weight, count)
        found = np.zeros((2, ranks))
        found[0] = np.bincount(rank, weighted, minlength=ranks)
        if drifts:
            found[1] = np.bincount(rank, weighted * tau, minlength=ranks)
        return found

    def value_of(unknown: F64) -> F64:
        return np.asarray(unknown[0][rank] + (unknown[1][rank] * tau if drifts else 0.0))

    scale = np.ones((2, ranks))
    scale[0] = np.maximum(np.bincount(rank, weight, minlength=ranks), 1e-12)
    if drifts:
        scale[1] = np.maximum(np.bincount(rank, weight * tau**2, minlength=ranks), 1e-12)
    x = x.copy()
    rest = normal(end - value_of(x))
    z = rest / scale
    direction, power = z, float((rest * z).sum())
    # against all there is to explain, or to a thousandth of a nanosecond: below is rounding, on which the steps would
    # grow without end
    least = 1e-3 + 4e-16 * float(np.abs(end).max(initial=0.0))
    enough = max(1e-18 * float((normal(end) ** 2 / scale).sum()), least**2 * float(scale[0].sum()))
    for _ in range(_STEPS):
        if power <= enough:
            break
        moved = normal(value_of(direction))
        down = float((direction * moved).sum())
        if down <= 0:
            break
        x += power / down * direction
        rest = rest - power / down * moved
        z = rest / scale
        new = float((rest * z).sum())
        direction, power = z + new / power * direction, new
    return x
