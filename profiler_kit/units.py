"""Conversions between units; nothing else in the package multiplies by a power of ten or of two."""

from __future__ import annotations

from typing import Final

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
BYTES_PER_MIB: Final = 1 << 20


def ns_to_ms(ns: float) -> float:
    """Nanoseconds to milliseconds."""
    return ns / NS_PER_MS


def ns_to_s(ns: float) -> float:
    """Nanoseconds to seconds."""
    return ns / NS_PER_S


def us_to_ns(us: float) -> int:
    """Microseconds to whole nanoseconds."""
    return round(us * NS_PER_US)


def ms_to_ns(ms: float) -> int:
    """Milliseconds (what `torch.cuda.Event.elapsed_time` gives) to whole nanoseconds."""
    return round(ms * NS_PER_MS)


def bytes_to_mib(size_bytes: float) -> float:
    """Bytes to MiB (2**20 bytes)."""
    return size_bytes / BYTES_PER_MIB
