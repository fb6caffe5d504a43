"""The heat map of the ranks and steps of a job: own work beyond that of the peers, red more, blue less."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from markupsafe import Markup

from profiler_kit.analyses.ranks.ranks import STEPS_OF_RANKS
from profiler_kit.render.svg import draw, joined, percent
from profiler_kit.text import fmt_ns

HELP: Final = (
    "Each rank's own work before its arrivals at collectives, against the median of ranks that run the same program: "
    "red is more, blue less. Who waits for another is not coloured."
)
MORE, LESS = "#c42828", "#2f6fb5"
LINES, COLUMNS = 64, 120  # drawn without a script
_LINE_PX, _LEAST_PX, _NAME_PX, _TOP_PX = 7, 150, 14, 5
_CELL: Final = '<rect x="{}" y="{}" width="{}" height="{}" fill="{}" fill-opacity="{:.2f}"><title>{}</title></rect>'
_LEFT: Final = 0.07  # of the width, for the names of ranks


def grid_of(steps: pd.DataFrame) -> pd.DataFrame:
    """STEPS_OF_RANKS -> a row for each rank, a column for each step: nanoseconds beyond its peers."""
    return STEPS_OF_RANKS.check(steps).pivot_table(index="rank", columns="step", values="more_ns", aggfunc="sum")


def order_of(ranks: Sequence[int], places: pd.DataFrame, kind: str) -> list[tuple[int, str]]:
    """Ranks with their group of that kind, those of one group together, groups by their first rank; "" without one.

    Takes RANK_PLACES.
    """
    mine = places[places["kind"] == kind]
    groups = dict(zip(mine["rank"], zip(mine["group"], mine["members"], strict=True), strict=True))
    first: dict[tuple[str, str], int] = {}
    for rank in ranks:
        first.setdefault(groups.get(rank, ("", "")), rank)
    ordered = sorted(ranks, key=lambda rank: (first[groups.get(rank, ("", ""))], rank))
    return [(rank, groups.get(rank, ("", ""))[0]) for rank in ordered]


def told(more_ns: float) -> str:
    """A value of the map in words."""
    return f"{fmt_ns(abs(more_ns))} {'more' if more_ns >= 0 else 'less'} than its peers"


def heat_map(steps: pd.DataFrame) -> Markup:
    """The map as a drawing that needs no script; empty without steps. Takes STEPS_OF_RANKS.

    Where there are more ranks than lines, or more steps than columns, a cell shows the one furthest from its peers.
    """
    grid = grid_of(steps)
    values = grid.to_numpy(dtype=float)
    if not values.size:
        return Markup()
    most = max(float(np.nanmax(np.abs(values))), 1.0)
    lines, columns = min(len(grid), LINES), min(values.shape[1], COLUMNS)
    tall = max(_LINE_PX, min(24, _LEAST_PX // lines))
    cells, names = [], []
    told_of: list[tuple[bool, int, int]] = []  # whether a line stands out, its number, its rank
    for line in range(lines):
        rows = _part(line, lines, len(grid))
        furthest = []
        for column in range(columns):
            at = _part(column, columns, values.shape[1])
            row, place, value = _furthest(values[rows, at])
            if row < 0:
                continue
            row, place = row + rows.start, place + at.start
            furthest.append((abs(value), row))
            tip = f"rank {grid.index[row]}, step {grid.columns[place]}: {told(value)}"
            x, wide = percent(_LEFT + (1 - _LEFT) * column / columns), percent((1 - _LEFT) / columns)
            hue, strength = (MORE if value > 0 else LESS), 0.04 + 0.96 * abs(value) / most
            cells.append(draw(_CELL, x, _TOP_PX + line * tall, wide, tall - (tall > 6), hue, strength, tip))
        if furthest:
            far, row = max(furthest)
            stands_out = far > most / 2 and len(grid) > lines
            told_of.append((stands_out, line, int(grid.index[row if stands_out else rows.start])))
    taken: list[int] = []
    for _, line, rank in sorted(told_of, key=lambda one: (not one[0], one[1])):  # what stands out has its name first
        if all(abs(line - other) * tall >= _NAME_PX for other in taken):
            taken.append(line)
            names.append(draw('<text x="0" y="{}">rank {}</text>', _TOP_PX + line * tall + tall / 2 + 4, rank))
    for column in range(0, columns, -(-columns // 16)):
        step = int(grid.columns[_part(column, columns, values.shape[1]).start])
        x = percent(_LEFT + (1 - _LEFT) * (column + 0.5) / columns)
        text = '<text x="{}" y="{}" text-anchor="middle">{}</text>'
        names.append(draw(text, x, _TOP_PX + lines * tall + 16, step))
    whole = '<svg class="rank-heat" width="100%" height="{}" role="img" aria-label="{}">{}{}</svg>'
    return draw(
        whole,
        _TOP_PX + lines * tall + 22,
        "Own work beyond that of peers, by rank and step",
        joined(cells),
        joined(names),
    )


def _part(number: int, parts: int, whole: int) -> slice:
    return slice(number * whole // parts, (number + 1) * whole // parts)


def _furthest(values: npt.NDArray[np.float64]) -> tuple[int, int, float]:
    """Row, column and value of what is furthest from 0; row -1 where nothing was recorded."""
    if np.isnan(values).all():
        return -1, -1, 0.0
    row, column = np.unravel_index(int(np.nanargmax(np.abs(values))), values.shape)
    return int(row), int(column), float(values[row, column])
