"""A comparison of two snapshots as people read it (MemoryComparison -> sentences, tables, Markdown)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler_kit.analyses.compare.snapshots import PEAK, MemoryChange, MemoryComparison, Path
from profiler_kit.render.diff import Grid, grids_markdown
from profiler_kit.text import MISSING, byte_unit, fmt_bytes, fmt_count, fmt_path

SHOWN: Final = 2  # functions of a stack's key that a table shows, the innermost
WIDTH: Final = 90


def verdict(found: MemoryComparison) -> list[str]:
    """Some sentences, the most important first."""
    lines = []
    devices = {row.device for row in found.changes}
    for device in sorted(devices):
        where = f" on device {device}" if len(devices) > 1 else ""
        peak = next(row for row in found.of("total") if row.device == device and row.path == (PEAK,))
        if peak.a_bytes is None or peak.b_bytes is None:
            side = "B" if peak.a_bytes is None else "A"
            lines.append(f"Only {side} knows device {device}: its peak is {fmt_bytes(peak.a_bytes or peak.b_bytes)}.")
            continue
        if not peak.a_bytes and not peak.b_bytes:
            continue
        if peak.status == "same":
            lines.append(f"The peak is the same{where}: {fmt_bytes(peak.a_bytes)}.")
        else:
            verb = "grew" if peak.delta_bytes > 0 else "shrank"
            lines.append(f"The peak {verb}{where}: {from_to(peak)} ({changed(peak)}).")
            lines += _cause(found, device, peak.delta_bytes)
    return lines or ["Neither snapshot holds any memory."]


def _cause(found: MemoryComparison, device: int, delta: int) -> list[str]:
    """What held more (or less) at the peak, of the stacks that went the way of the peak."""
    rows = [row for row in found.of("stack") if row.device == device and row.delta_bytes * delta > 0]
    if not rows:
        return []
    row = rows[0]
    word = {"added": " (new)", "removed": " (gone)"}.get(row.status, "")
    return [f"Most of it: {fmt_path(row.path[-SHOWN:])}{word}, {from_to(row)} live at the peak."]


def changed(row: MemoryChange) -> str:
    """The change in words: `+4.8 %`, `same`, `new`, `gone`."""
    if row.status in ("added", "removed", "same"):
        return {"added": "new", "removed": "gone", "same": "same"}[row.status]
    return MISSING if row.change is None else f"{row.change * 100:+.1f} %"


def from_to(row: MemoryChange) -> str:
    """`1.20 → 1.35 GiB`, in one unit."""
    a, b = _cells(row)
    return f"{a.rsplit(' ', 1)[0]} → {b}" if row.a_bytes is not None and row.b_bytes is not None else f"{a} → {b}"


def grids(found: MemoryComparison, top: int) -> list[Grid]:
    """The tables: totals, regions, and the stacks whose memory at the peak changed most; unchanged ones left out."""
    many = len({row.device for row in found.changes}) > 1
    totals = tuple(
        (_named(row, row.path[0], many), *_cells(row), changed(row)) for row in found.of("total") if _any(row)
    )
    regions = tuple(
        (
            _named(row, "  " * (len(row.path) - 1) + row.path[-1], many),
            *_cells(row),
            changed(row),
            _arrow(*(fmt_bytes(size) for size in row.allocated_bytes)),
            _arrow(fmt_count(row.a_count), fmt_count(row.b_count)),
        )
        for row in found.of("region")
    )
    stacks = [row for row in found.of("stack") if row.status != "same"]
    rest = f"the {top} of {fmt_count(len(stacks))} that changed most" if len(stacks) > top else "those that changed"
    rows = tuple(
        (
            _named(row, _stack(row.path), many),
            *_cells(row),
            changed(row),
            _arrow(fmt_count(row.a_count), fmt_count(row.b_count)),
        )
        for row in stacks[:top]
    )
    tables = [
        Grid("Totals", ("", "A", "B", "change"), totals, False),
        Grid("Regions: peak", ("region", "A", "B", "change", "allocated by one", "instances"), regions, False),
        Grid(f"Live at the peak by stack: {rest}", ("stack", "A", "B", "change", "allocations"), rows, True),
    ]
    return [table for table in tables if table.rows]


def markdown(found: MemoryComparison, names: tuple[str, str], lines: Sequence[str], top: int) -> str:
    """The comparison to paste into a pull request; stacks folded away."""
    return grids_markdown(f"Memory: {names[0]} → {names[1]}", lines, grids(found, top))


def _any(row: MemoryChange) -> bool:
    return bool(row.a_bytes or row.b_bytes)


def _cells(row: MemoryChange) -> tuple[str, str]:
    unit = byte_unit([size for size in (row.a_bytes, row.b_bytes) if size is not None])
    a, b = (MISSING if size is None else fmt_bytes(size, unit) for size in (row.a_bytes, row.b_bytes))
    return a, b


def _arrow(a: str, b: str) -> str:
    return a if a == b else f"{a} → {b}"


def _named(row: MemoryChange, text: str, many: bool) -> str:
    return f"device {row.device}: {text}" if many else text


def _stack(path: Path) -> str:
    text = fmt_path(path[-SHOWN:])
    return text if len(text) <= WIDTH else "…" + text[1 - WIDTH :]
