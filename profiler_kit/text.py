"""Format times, sizes, shares, counts and region paths for people: aligned text with units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

from profiler_kit.units import NS_PER_MS, NS_PER_S, NS_PER_US

TimeUnit = Literal["ns", "µs", "ms", "s"]
ByteUnit = Literal["B", "KiB", "MiB", "GiB"]

MISSING: Final = "–"
TIME: Final[dict[TimeUnit, tuple[int, int]]] = {
    # unit: (nanoseconds, decimals); decimals are fixed so that a right-aligned column lines up
    "s": (NS_PER_S, 3),
    "ms": (NS_PER_MS, 3),
    "µs": (NS_PER_US, 2),
    "ns": (1, 0),
}
_BANDWIDTHS: Final = {"TB/s": 10**12, "GB/s": 10**9, "MB/s": 10**6, "kB/s": 10**3, "B/s": 1}
_BYTES: Final[dict[ByteUnit, tuple[int, int]]] = {
    "GiB": (1 << 30, 2),
    "MiB": (1 << 20, 1),
    "KiB": (1 << 10, 1),
    "B": (1, 0),
}


def time_unit(values_ns: Iterable[float]) -> TimeUnit:
    """The one unit a column of durations reads best in: the largest that its largest value reaches once."""
    largest = max((abs(value) for value in values_ns), default=0.0)
    return next((unit for unit, (size, _) in TIME.items() if largest >= size), "ns")


def byte_unit(values_bytes: Iterable[float]) -> ByteUnit:
    """The one unit a column of sizes reads best in."""
    largest = max((abs(value) for value in values_bytes), default=0.0)
    return next((unit for unit, (size, _) in _BYTES.items() if largest >= size), "B")


def ns_in(value_ns: float, unit: TimeUnit) -> float:
    """A duration as a number of that unit, for an axis."""
    return value_ns / TIME[unit][0]


def bytes_in(value_bytes: float, unit: ByteUnit) -> float:
    """A size as a number of that unit, for an axis."""
    return value_bytes / _BYTES[unit][0]


def fmt_ns(value_ns: float | None, unit: TimeUnit | None = None) -> str:
    """A duration with its unit, `12.345 ms`; the unit that fits unless one is given, "–" for None.

    ms and s keep three decimals, µs two, ns none.
    """
    if value_ns is None:
        return MISSING
    chosen = unit or time_unit((value_ns,))
    size, decimals = TIME[chosen]
    if unit is None and f"{abs(value_ns) / size:.{decimals}f}" == f"{1000:.{decimals}f}" and chosen != "s":
        chosen = _larger(chosen)  # 999.9996 ms reads 1.000 s, not 1000.000 ms
        size, decimals = TIME[chosen]
    return f"{value_ns / size:,.{decimals}f} {chosen}"


def fmt_all_ns(values_ns: Sequence[float]) -> list[str]:
    """Durations with one unit for all; each with its own where the smallest would lose its digits in the common one."""
    unit = time_unit(values_ns)
    fits = all(reads_in(value, *TIME[unit]) for value in values_ns)
    return [fmt_ns(value, unit if fits else None) for value in values_ns]


def reads_in(value: float | None, size: int, decimals: int) -> bool:
    """Whether a value shows at least two digits in a unit of that size (0 and nothing do)."""
    return not value or abs(value) / size * 10**decimals >= 10


def rate_label(unit: str) -> str:
    """How a column of rates is called: `img/s`, `sequences/s`."""
    return "img/s" if unit == "images" else f"{unit}/s"


def fmt_rate(per_second: float) -> str:
    """A rate with three digits at least: `1,818.2`, `7.92`, `0.0478`."""
    if per_second >= 100:
        return f"{per_second:,.1f}"
    return f"{per_second:.3g}" if per_second >= 0.001 else f"{per_second:.2e}"


def fmt_factor(value: float) -> str:
    """A factor with two decimals, or two digits where these would be zeros: `4.92`, `0.0031`."""
    return f"{value:.2g}" if 0 < abs(value) < 0.005 else f"{value:,.2f}"


def _larger(unit: TimeUnit) -> TimeUnit:
    order = list(TIME)
    return order[order.index(unit) - 1]


def fmt_bytes(value_bytes: float | None, unit: ByteUnit | None = None) -> str:
    """A size with its binary unit, `1.50 GiB`; the unit that fits unless one is given, "–" for None."""
    if value_bytes is None:
        return MISSING
    chosen = unit or byte_unit((value_bytes,))
    size, decimals = _BYTES[chosen]
    return f"{value_bytes / size:,.{decimals}f} {chosen}"


def fmt_bound(bound: str, value_bytes: float) -> str:
    """A size of which a bound is known, `at least 1.50 GiB`; the size alone where the bound is ""."""
    return " ".join((*((bound,) if bound else ()), fmt_bytes(value_bytes)))


def bandwidth_in(largest: float) -> tuple[str, int]:
    """The unit a column of bandwidths reads best in, and its bytes a second: decimal, as in nccl-tests."""
    return next(((unit, size) for unit, size in _BANDWIDTHS.items() if abs(largest) >= size), ("B/s", 1))


def fmt_bandwidth(bytes_per_s: float | None) -> str:
    """Bytes a second with the decimal unit that fits, `88.04 GB/s`; "–" for None."""
    if bytes_per_s is None:
        return MISSING
    unit, size = bandwidth_in(bytes_per_s)
    return f"{bytes_per_s / size:,.2f} {unit}"


def fmt_percent(fraction: float | None, decimals: int = 1) -> str:
    """A share of one as percent, `62.5 %`; "–" for None and for no number."""
    return MISSING if fraction is None or fraction != fraction else f"{fraction * 100:z.{decimals}f} %"


def fmt_count(count: int | None) -> str:
    """A whole number with with thousands separated, `1,234,567`; "–" for None."""
    return MISSING if count is None else f"{count:,}"


def fmt_path(path: Sequence[str]) -> str:
    """A region path as one line, outermost first: `timed region > image encoder`."""
    return " > ".join(path)
