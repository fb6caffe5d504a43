"""A comparison of two snapshots as people read it (MemoryComparison -> sentences, tables, Markdown)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler_kit.analyses.compare.snapshots import MemoryChange, MemoryComparison, Path
from profiler_kit.finding import Finding
from profiler_kit.findings.compare import changed, memory_cells
from profiler_kit.render.diff import Grid, grids_markdown
from profiler_kit.text import fmt_bytes, fmt_count, fmt_path

SHOWN: Final = 2  # functions of a stack's key that a table shows, the innermost
WIDTH: Final = 90


def grids(found: MemoryComparison, top: int) -> list[Grid]:
    """The tables: totals, regions, and the stacks whose memory at the peak changed most; unchanged ones left out."""
    many = len({row.device for row in found.changes}) > 1
    totals = tuple(
        (_named(row, row.path[0], many), *memory_cells(row), changed(row)) for row in found.of("total") if _any(row)
    )
    regions = tuple(
        (
            _named(row, "  " * (len(row.path) - 1) + row.path[-1], many),
            *memory_cells(row),
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
            *memory_cells(row),
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


def markdown(found: MemoryComparison, names: tuple[str, str], said: Sequence[Finding], top: int) -> str:
    """The comparison to paste into a pull request; stacks folded away."""
    return grids_markdown(f"Memory: {names[0]} → {names[1]}", said, grids(found, top))


def _any(row: MemoryChange) -> bool:
    return bool(row.a_bytes or row.b_bytes)


def _arrow(a: str, b: str) -> str:
    return a if a == b else f"{a} → {b}"


def _named(row: MemoryChange, text: str, many: bool) -> str:
    return f"device {row.device}: {text}" if many else text


def _stack(path: Path) -> str:
    text = fmt_path(path[-SHOWN:])
    return text if len(text) <= WIDTH else "…" + text[1 - WIDTH :]
