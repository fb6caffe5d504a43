"""How sure a ladder can be of a ratio: the baseline's rounds around a row, bootstrap intervals, and what is noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from profiler_kit.formats.ladder_record import LadderRecord, RowResult

NAN: Final = math.nan
FEWEST_SAMPLES: Final = 5  # of either side, for an interval
FASTER, SLOWER, NOISE, UNSURE = "faster", "slower", "within the noise", "too few samples"
_RESAMPLED: Final = 2000
_SEED: Final = 0  # the same interval each time a ladder is shown
_TAIL: Final = 0.025  # beyond either end of a 95 % interval


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one is as the other: by the medians of their samples, with its 95 % interval (or NaN)."""

    value: float = NAN
    low: float = NAN
    high: float = NAN

    def verdict(self, drift: float) -> str:
        """Faster, slower, or within the noise: when 1 lies in the interval, or no further off than `drift`."""
        if math.isnan(self.value):
            return ""
        if math.isnan(self.low):
            return UNSURE
        if self.low <= 1 <= self.high or max(self.value, 1 / self.value) <= 1 + (0.0 if math.isnan(drift) else drift):
            return NOISE
        return FASTER if self.value > 1 else SLOWER


def quantile(samples: Sequence[float], share: float) -> float:
    """The sample quantile, linear between the two nearest (numpy's default); NaN of none."""
    if not samples:
        return NAN
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def tail(samples: Sequence[float], share: float) -> float:
    """A high quantile, NaN of too few samples to have one beyond it: p90 needs 10, p95 20, p99 100."""
    return quantile(samples, share) if len(samples) * (1 - share) >= 1 - 1e-9 else NAN


def ratio(mine: Sequence[int], other: Sequence[int], scale: float = 1.0) -> Ratio:
    """How many times as fast as `other` the samples of `mine` are, times `scale` (items of a batch of each).

    The interval is the percentile bootstrap's: both medians of samples drawn again, with replacement. It takes the
    samples of a process as independent, and knows nothing of how processes differ: that is `drift`.
    """
    if not mine or not other:
        return Ratio()
    value = scale * quantile(other, 0.5) / quantile(mine, 0.5)
    if min(len(mine), len(other)) < FEWEST_SAMPLES:
        return Ratio(value)
    import numpy as np

    draw = np.random.default_rng(_SEED)

    def medians(samples: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        # The median of n samples drawn again is one of the n in order: at n * U, U the middle one of n numbers from
        # 0 to 1, which is Beta distributed. Of an even n it is the mean of two neighbours U and W: W is the least of
        # the n / 2 numbers above U.
        ordered = np.sort(np.asarray(samples, dtype=np.float64))
        count = len(ordered)
        half = (count + 1) // 2
        middle = draw.beta(half, count + 1 - half, _RESAMPLED)
        chosen = ordered[np.minimum((count * middle).astype(np.int64), count - 1)]
        if count % 2:
            return chosen
        above = 1 - (1 - middle) * draw.random(_RESAMPLED) ** (1 / half)
        return (chosen + ordered[np.minimum((count * above).astype(np.int64), count - 1)]) / 2

    low, high = np.quantile(scale * medians(other) / medians(mine), (_TAIL, 1 - _TAIL))
    return Ratio(value, float(low), float(high))


def baseline_samples(record: LadderRecord, row: RowResult) -> tuple[int, ...]:
    """The baseline's samples before and after a row: of the two measurements it was measured between.

    Those of the baseline's own row where there are no rounds around it.
    """
    base = record.baseline
    if base is None or row.technique == base.technique:
        return () if base is None else base.latency_ns
    for number, one in enumerate(record.rounds):
        if row.technique in one.rows:
            before = record.rounds[number - 1].latency_ns if number else base.latency_ns
            return (*before, *one.latency_ns) or base.latency_ns
    return base.latency_ns


def over_baseline(record: LadderRecord, row: RowResult) -> Ratio:
    """The speed of a row over that of the baseline around it; 1 for the baseline itself."""
    base = record.baseline
    if base is None or not base.latency_ns or not row.latency_ns:
        return Ratio()
    if row.technique == base.technique:
        return Ratio(1.0)
    return ratio(row.latency_ns, baseline_samples(record, row), row.batch_size / base.batch_size)


def over_step(record: LadderRecord, row: RowResult, parent: RowResult | None) -> Ratio:
    """The speed of a row over that of the step below it."""
    if parent is None or not parent.latency_ns:
        return Ratio()
    if record.baseline is not None and parent.technique == record.baseline.technique:
        return over_baseline(record, row)
    return ratio(row.latency_ns, parent.latency_ns, row.batch_size / parent.batch_size)


def baseline_medians(record: LadderRecord) -> list[float]:
    """The baseline's median each time it was measured, its row first."""
    base = () if record.baseline is None else record.baseline.latency_ns
    return [quantile(samples, 0.5) for samples in (base, *(one.latency_ns for one in record.rounds)) if samples]


def drift(record: LadderRecord) -> float:
    """How far the baseline's medians lie apart, as a share (0.02: 2 %); NaN when it was measured once."""
    medians = baseline_medians(record)
    return max(medians) / min(medians) - 1 if len(medians) > 1 else NAN
