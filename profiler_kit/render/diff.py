"""A comparison as people read it: what changed, in sentences first, then tables (Comparison -> text, Markdown)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from profiler_kit.analyses.compare.measurements import STEP
from profiler_kit.analyses.compare.traces import Change, Comparison
from profiler_kit.finding import Finding
from profiler_kit.findings.compare import changed, from_to, noise
from profiler_kit.render.markdown import grid, plain
from profiler_kit.text import MISSING, fmt_count, fmt_ns, time_unit

WIDTH: Final = 90  # of a kernel's name; JSON has all of it


@dataclass(frozen=True)
class Grid:
    """A table: the first column is text, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    detail: bool


def grids(found: Comparison, top: int) -> list[Grid]:
    """The tables: totals, regions, kinds of GPU work, and of kernels and operators those that changed most."""
    per = _per(found) or "in all"
    values = ("A", "B", "change", "noise")
    tables = [
        Grid("Totals", ("", *values), tuple((_label(found, row), *_cells(row)) for row in found.of("total")), False),
        _region_grid(found),
    ]
    for kind, title in (
        ("work", "GPU work by kind"),
        ("kernel", "Kernels"),
        ("operator", "Operators, self time on the host"),
    ):
        rows = found.of(kind)  # type: ignore[arg-type]
        shown = rows if kind == "work" else rows[:top]
        if shown:
            many = f"the {len(shown)} of {fmt_count(len(rows))} that changed most, " if len(shown) < len(rows) else ""
            cells = tuple((_short(row.path[0]), *_cells(row), _counts(row)) for row in shown)
            columns = ("kind" if kind == "work" else kind, *values, "calls")
            tables.append(Grid(f"{title}: {many}{per}", columns, cells, kind != "work"))
    return [table for table in tables if table.rows]


def markdown(found: Comparison, names: tuple[str, str], said: Sequence[Finding], top: int) -> str:
    """The comparison to paste into a pull request; kernels and operators folded away."""
    return grids_markdown(f"{names[0]} → {names[1]}", said, grids(found, top))


def grids_markdown(title: str, said: Sequence[Finding], tables: Sequence[Grid]) -> str:
    """A heading, a list and tables as Markdown; tables of details are folded away."""
    out = [f"### {plain(title)}", "", *(f"- {plain(one.sentence)}" for one in said), ""]
    for table in tables:
        rows = grid(table.columns, table.rows)
        if table.detail:
            out += ["<details>", f"<summary>{plain(table.title)}</summary>", "", *rows, "", "</details>", ""]
        else:
            out += [f"**{plain(table.title)}**", "", *rows, ""]
    return "\n".join(out)


def _region_grid(found: Comparison) -> Grid:
    host = {row.path: row for row in found.of("region", "host")}
    main = found.of("region", found.metric)
    rows = []
    for row in main or list(host.values()):
        cells = (_indented(row.path), *_cells(row))
        rows.append((*cells, from_to(host[row.path]), changed(host[row.path])) if found.metric == "gpu" else cells)
    what = "GPU busy time" if found.metric == "gpu" else "host time"
    per = _per(found) or "per instance, median"
    columns = ("region", "A", "B", "change", "noise", *(("host", "host change") if found.metric == "gpu" else ()))
    return Grid(f"Regions: {what} {per}", columns, tuple(rows), False)


def _per(found: Comparison) -> str:
    return "" if found.round is None else "per step" if found.round == STEP else f"per {found.round}"


def _label(found: Comparison, row: Change) -> str:
    names = {"round": f"{'step' if found.round == STEP else found.round}, on the host", "trace": "first to last event"}
    return names.get(row.path[0], row.path[0])


def _cells(row: Change) -> tuple[str, str, str, str]:
    unit = time_unit(side.value_ns for side in (row.a, row.b) if side)
    values = [fmt_ns(side.value_ns if side else None, unit) for side in (row.a, row.b)]
    return values[0], values[1], changed(row), noise(row)


def _counts(row: Change) -> str:
    counts = [f"{side.count:,.1f}".removesuffix(".0") if side else MISSING for side in (row.a, row.b)]
    return counts[0] if counts[0] == counts[1] else f"{counts[0]} → {counts[1]}"


def _short(name: str) -> str:
    return name if len(name) <= WIDTH else name[: WIDTH - 1] + "…"


def _indented(path: tuple[str, ...]) -> str:
    return "  " * (len(path) - 1) + path[-1]
