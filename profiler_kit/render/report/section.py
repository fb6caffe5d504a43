"""What a report is made of: sections with a sentence, notices, numbers and blocks, which one template lays out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from profiler_kit.finding import Finding, Level, say
from profiler_kit.findings.numbers import Number
from profiler_kit.render.html import Colours
from profiler_kit.run import Run
from profiler_kit.timeline.palette import region_colours


@dataclass(frozen=True)
class Block:
    """A drawing or a table with a small heading; left out when its body is empty. folded: opened by a click."""

    title: str
    body: Markup
    lead: str = ""
    meaning: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Section:
    """A part of a report.

    said: the finding that answers the question. lines: further ones. warnings: what must not be overlooked, by their
    levels. notes: what to know of how it was measured. rows: blocks that are beside each other. wide_left: the left of
    two blocks has more of the room.
    """

    anchor: str
    title: str
    said: Finding | None = None
    lines: Sequence[Finding] = ()
    warnings: Sequence[Finding] = ()
    notes: Sequence[str] = ()
    numbers: Sequence[Number] = ()
    rows: Sequence[Sequence[Block]] = ()
    parts: Sequence[Section] = ()
    lead: str = ""
    wide_left: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to show."""
        said = (self.said, self.lines, self.warnings, self.notes, self.numbers, self.parts)
        return not any(said) and not any(block.body for row in self.rows for block in row)


def warning(text: str, level: Level = "warning") -> Finding:
    """A line of the report itself: what it leaves out and why."""
    return Finding("report", "missing", say(text), level)


def colours_of(runs: Iterable[Run]) -> Colours:
    """A colour for each region of these runs, in their traces and in their snapshots."""
    parts = [part for run in runs for part in (run.trace, run.snapshot) if part is not None]
    return region_colours(name for part in parts for path in part.regions()["path"] for name in path)
