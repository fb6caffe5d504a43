"""Compare what was measured in two traces (measurements.py): one Change per region, kernel and operator.

A is before, B is after. Times are per round, and of what ran inside rounds: a ProfilerStep when both traces have
steps, else an instance of the outermost region that both repeat and that takes longest. Without rounds,
regions are compared per instance, kernels and operators as a whole.

A change counts when the notches around the medians do not overlap: 1.57 * IQR / sqrt(n) to either side, some 95 %
confidence (McGill, Tukey, Larsen: Variations of Box Plots, The American Statistician 32, 1978). Of fewer than four
samples the range takes the place of the IQR. A side with a single sample is taken to vary as the other does; where
both have one, the noise is unknown: the change counts, and the noise is reported as unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from profiler_kit.analyses.compare.measurements import STEP, Measured, Path, Side
from profiler_kit.kernel_name import kernel_key

Kind = Literal["total", "region", "work", "kernel", "operator"]
Metric = Literal["wall", "gpu", "host"]
Status = Literal["slower", "faster", "same", "added", "removed"]

LATENCY: Final = "latency"  # name of the row of what was timed without the profiler
GATE_SHARE: Final = 0.01  # of a round or trace: what takes less than this on both sides fails no threshold


@dataclass(frozen=True)
class Change:
    """One row: a total, a region, a kind of GPU work, a kernel, or an operator.

    path: a region's path, else one name. metric: "gpu" (busy time of totals and regions, sums of kernels), "host"
    (time on the host's threads; self time of operators) or "wall". a, b: None where it does not occur.
    """

    kind: Kind
    path: Path
    metric: Metric
    a: Measured | None
    b: Measured | None

    @property
    def delta_ns(self) -> float:
        """B - A."""
        return (self.b.value_ns if self.b else 0.0) - (self.a.value_ns if self.a else 0.0)

    @property
    def change(self) -> float | None:
        """B / A - 1; None where one of them is missing or A is 0."""
        if self.a is None or self.b is None or not self.a.value_ns:
            return None
        return self.b.value_ns / self.a.value_ns - 1

    @property
    def noise_ns(self) -> float | None:
        """How far apart the values may be by chance; None when neither side has more than one sample."""
        known = [side.notch_ns for side in (self.a, self.b) if side is not None and side.notch_ns is not None]
        return 2 * sum(known) / len(known) if known else None

    @property
    def status(self) -> Status:
        """How B compares with A; "same" when they differ by no more than the noise."""
        if self.a is None or self.b is None:
            return "added" if self.a is None else "removed"
        if abs(self.delta_ns) <= (self.noise_ns or 0.0):
            return "same"
        return "slower" if self.delta_ns > 0 else "faster"


@dataclass(frozen=True)
class Comparison:
    """Every row, by kind: regions as a tree, a parent before its children, the others by the size of the change.

    round: the region whose instances values are per, None when there is none; rounds: how many A and B have.
    metric: what regions are compared by.
    """

    round: str | None
    rounds: tuple[int, int]
    metric: Literal["gpu", "host"]
    changes: tuple[Change, ...]

    def of(self, kind: Kind, metric: Metric | None = None) -> list[Change]:
        """The rows of one kind, of one metric when it is given."""
        return [row for row in self.changes if row.kind == kind and metric in (None, row.metric)]

    def worst(self, threshold: float) -> Change | None:
        """The row that got slower by the largest share above `threshold` (0.05 is 5 %); None when there is none.

        Looks at the totals and the regions (GPU time, or host time where a trace has no GPU events): which kernels
        and operators run within a region may change. Rows below GATE_SHARE of the whole are left out.
        """
        slower = [row for row in self.of("total") + self.of("region", self.metric) if self._fails(row, threshold)]
        return max(slower, key=lambda row: row.change or 0.0, default=None)

    def _fails(self, row: Change, threshold: float) -> bool:
        whole = max((side.value_ns for row in self.of("total", "wall") for side in (row.a, row.b) if side), default=0.0)
        return (
            row.status == "slower"
            and row.b is not None
            and row.b.value_ns >= GATE_SHARE * whole
            and (row.change is None or row.change > threshold)
        )


def compare(a: Side, b: Side, also: Sequence[Change] = ()) -> Comparison:
    """Compare two traces; where one has no events, everything is added, or removed. `also` comes before the rows."""
    a, b, name = _in_rounds(a, b)
    gpu = bool(len(a.gpu_events) and len(b.gpu_events))
    measured: list[tuple[Kind, Metric, Callable[[Side], dict[Path, Measured]]]] = [
        ("total", "wall", Side.wall),
        ("total", "gpu", Side.busy),
        ("region", "gpu", Side.region_busy),
        ("region", "host", Side.region_host),
        ("work", "gpu", Side.work_time),
        ("kernel", "gpu", lambda side: side.events_by(kernel_key)),
        ("operator", "host", Side.operator_time),
    ]
    changes: list[Change] = list(also)
    for kind, metric, values in measured:
        if (kind, metric) == ("region", "gpu") and not gpu:
            continue
        left, right = values(a), values(b)
        rows = [Change(kind, path, metric, left.get(path), right.get(path)) for path in {**left, **right}]
        changes += _as_tree(rows) if kind == "region" else sorted(rows, key=lambda row: (-abs(row.delta_ns), row.path))
    return Comparison(name, (a.rounds, b.rounds), "gpu" if gpu else "host", tuple(changes))


def _in_rounds(a: Side, b: Side) -> tuple[Side, Side, str | None]:
    """Both sides in the same kind of rounds, and the name of those."""
    if a.rounds and b.rounds:
        return a, b, STEP
    a, b = a.without_steps(), b.without_steps()
    left, right = a.repeated(), b.repeated()
    both = sorted(left.keys() & right.keys(), key=lambda name: (-left[name] - right[name], name))
    return (a.in_rounds(both[0]), b.in_rounds(both[0]), both[0]) if both else (a, b, None)


def _as_tree(rows: list[Change]) -> list[Change]:
    """Depth first; siblings by their time in A or B, longest first."""
    weight = {row.path: max(side.value_ns for side in (row.a, row.b) if side is not None) for row in rows}

    def place(row: Change) -> list[tuple[float, str]]:
        return [(-weight.get(row.path[:n], 0.0), row.path[n - 1]) for n in range(1, len(row.path) + 1)]

    return sorted(rows, key=place)
