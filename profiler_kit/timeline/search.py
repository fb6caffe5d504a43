"""Find spans of a timeline by name: count them, mark them, and step from one to the next.

Each row keeps how many spans before each of its spans match, four bytes a span: counting, stepping and marking then
take a binary search each.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from profiler_kit.timeline.index import Bins, Exact, Timeline

Direction = Literal["next", "previous"]


@dataclass(frozen=True)
class Found:
    """One match: its row, its number in the row, and its number among all matches by start and row, from 1."""

    row: int
    index: int
    number: int


@dataclass(frozen=True)
class Matches:
    """before[row][i]: how many of the first i spans of a row match."""

    before: tuple[npt.NDArray[np.int32], ...]

    def total(self, rows: Collection[int]) -> int:
        """How many spans of these rows match."""
        return sum(int(self.before[row][-1]) for row in rows)

    def in_view(self, row: int, view: Exact | Bins) -> npt.NDArray[np.bool_]:
        """Whether each span or bin of a view is a match, or has one starting in it."""
        before = self.before[row]
        # a match between two places makes the count of matches before them differ
        if isinstance(view, Exact):
            return np.diff(before[view.first : view.first + view.start_ns.size + 1]) > 0
        return np.diff(before[view.first]) > 0


def find_matches(timeline: Timeline, text: str) -> Matches:
    """The spans whose name contains the text; upper and lower case are the same."""
    wanted = text.casefold()
    table = np.array([wanted in name.casefold() for _, name, *_ in timeline.labels] or [False], dtype=bool)
    # look each label up once, then count matches along each row
    return Matches(
        tuple(
            np.concatenate((np.zeros(1, np.int32), np.cumsum(table[row.code], dtype=np.int32))) for row in timeline.rows
        )
    )


def step(
    timeline: Timeline,
    matches: Matches,
    rows: Collection[int],
    at: tuple[int, int],
    direction: Direction,
) -> Found | None:
    """The match after (or before) a place, which is a time on the trace's clock and a row; None if nothing matches.

    Matches are in order of start, then row; after the last one comes the first.
    """
    total = matches.total(rows)
    if not total:
        return None
    place = {row: _place(timeline, row, at, direction) for row in rows}
    before = sum(int(matches.before[row][i]) for row, i in place.items())
    if direction == "next":
        number = before % total
        found = [_following(matches, row, i if before < total else 0) for row, i in place.items()]
    else:
        number = (before - 1) % total
        found = [_preceding(matches, row, i if before else len(timeline.rows[row])) for row, i in place.items()]
    there = [((int(timeline.rows[row].start[i]), row), i) for row, i in zip(place, found, strict=True) if i is not None]
    (_, row), index = min(there) if direction == "next" else max(there)
    return Found(row, index, number + 1)


def _place(timeline: Timeline, row: int, at: tuple[int, int], direction: Direction) -> int:
    """How many spans of a row come before the place; when going back, not counting one that is at the place."""
    time_ns, here = at
    through = row <= here if direction == "next" else row < here
    return int(np.searchsorted(timeline.rows[row].start, time_ns, "right" if through else "left"))


def _following(matches: Matches, row: int, i: int) -> int | None:
    """The first match of a row from its span i on: the last place with no more matches before it than i has."""
    before = matches.before[row]
    found = int(np.searchsorted(before, before[i], "right")) - 1
    return found if found < before.size - 1 else None


def _preceding(matches: Matches, row: int, i: int) -> int | None:
    """The last match of a row before its span i: before the first place with as many matches as i."""
    before = matches.before[row]
    return int(np.searchsorted(before, before[i], "left")) - 1 if before[i] else None
