"""Counts of a server, in the text format of Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

LATENCY_S: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Histogram:
    """How many values were at most each bound."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, about: str) -> list[str]:
        """As Prometheus has it: counts add up from bound to bound."""
        found, total = [f"# HELP {name} {about}", f"# TYPE {name} histogram"], 0
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            total += count
            found.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*found, f"{name}_sum {self._sum}", f"{name}_count {total}"]


class Metrics:
    """What is counted while the server runs."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.latency = Histogram(LATENCY_S)

    def text(self, gauges: Mapping[str, tuple[str, float]], sizes: Histogram) -> str:
        """All of it; gauges: name, meaning and value. sizes: of batches."""
        lines = ["# HELP sam_requests_total Requests by status; 499: the client hung up."]
        lines.append("# TYPE sam_requests_total counter")
        lines += [f'sam_requests_total{{status="{one}"}} {count}' for one, count in sorted(self.statuses.items())]
        for name, (about, value) in gauges.items():
            lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge", f"{name} {value:g}"]
        lines += sizes.lines("sam_batch_size", "Requests in a batch.")
        lines += self.latency.lines("sam_latency_seconds", "From the head of a request to the end of its answer.")
        return "\n".join(lines) + "\n"
