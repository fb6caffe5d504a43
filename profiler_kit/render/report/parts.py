"""The building blocks of a report: text and numbers in; headings, tables, notices as HTML out, every text escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from profiler_kit.analyses.gpu.utilization import GPU_BOUND, HOST_BOUND, MEANINGS, NAMES, NO_GPU_WORK, SYNCHRONISING
from profiler_kit.finding import Finding, Level
from profiler_kit.findings.numbers import Number
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.render.svg import escape, swatch
from profiler_kit.render.tables import record_table
from profiler_kit.run import Run
from profiler_kit.text import MISSING, ByteUnit, byte_unit, fmt_bytes, fmt_ns, fmt_percent, time_unit
from profiler_kit.timeline.palette import region_colours

_CHIPS: Final = {GPU_BOUND: "gpu", HOST_BOUND: "host", SYNCHRONISING: "sync", NO_GPU_WORK: "none"}
_NOTICES: Final[Mapping[Level, str]] = {"error": "danger", "warning": "warn", "note": "plain"}
Colours = Mapping[str, str]  # of regions by name, the same all over a report


def asset(name: str) -> str:
    """A file beside this module."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def colours_of(runs: Iterable[Run]) -> Colours:
    """A colour for each region of these runs, in their traces and in their snapshots."""
    parts = [part for run in runs for part in (run.trace, run.snapshot) if part is not None]
    return region_colours(name for part in parts for path in part.regions()["path"] for name in path)


@dataclass(frozen=True)
class Column:
    """One column of a table. kind: text, prose (may break), number (right), html (not escaped; made here only)."""

    name: str
    cells: Sequence[str]
    kind: Literal["text", "prose", "number", "html"] = "number"
    meaning: str = ""
    full: Sequence[str] = ()  # what a cell shows on hover, where that is more than its text


def table(columns: Sequence[Column], label: str, *, sortable: bool = True) -> str:
    """A table; sortable by any column where the page has its script. `label` is for those who hear it."""
    head = "".join(
        f'<th scope="col" class="{column.kind}"{_title(column.meaning)}>{escape(column.name)}</th>'
        for column in columns
    )
    rows = (f"<tr>{''.join(_cell(column, row) for column in columns)}</tr>" for row in range(len(columns[0].cells)))
    kind = ' class="sortable"' if sortable and len(columns[0].cells) > 1 else ""
    return (
        f'<div class="scroll"><table{kind} aria-label="{escape(label)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(column: Column, row: int) -> str:
    text = column.cells[row]
    shown = text if column.kind == "html" else escape(text)
    title = _title(column.full[row]) if column.full and column.full[row] != text else ""
    return f'<td class="{column.kind}"{title}>{shown}</td>'


def _title(text: str) -> str:
    return f' title="{escape(text)}"' if text else ""


def times(name: str, values_ns: Sequence[float | None], meaning: str = "") -> Column:
    """A column of durations in one unit, which stands in its head."""
    unit = time_unit(value for value in values_ns if value is not None)
    cells = [MISSING if value is None else fmt_ns(value, unit).removesuffix(f" {unit}") for value in values_ns]
    return Column(f"{name}, {unit}", cells, "number", meaning)


def sizes(name: str, values: Sequence[int], meaning: str = "") -> Column:
    """A column of sizes in one unit, which stands in its head."""
    unit = size_unit(values)
    return Column(f"{name}, {unit}", [fmt_bytes(v, unit).removesuffix(f" {unit}") for v in values], "number", meaning)


def size_unit(values: Sequence[int]) -> ByteUnit:
    """One unit for a column, small enough that its small rows still say something."""
    unit = byte_unit(values)
    return "MiB" if unit == "GiB" and max(map(abs, values)) < 100 << 30 else unit


def counts(name: str, values: Sequence[int], meaning: str = "") -> Column:
    """A column of whole numbers."""
    return Column(name, [f"{value:,}" for value in values], "number", meaning)


def shares(name: str, values: Sequence[float], meaning: str = "") -> Column:
    """A column of shares of one."""
    return Column(name, [fmt_percent(value) for value in values], "number", meaning)


def section(anchor: str, title: str, *parts: str, level: int = 2, lead: str = "") -> str:
    """A part of the report with its heading; empty when nothing is in it."""
    body = "".join(parts)
    if not body:
        return ""
    note = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f'<section id="{escape(anchor)}"><h{level}>{escape(title)}</h{level}>{note}{body}</section>'


def sub(title: str, body: str, *, lead: str = "", meaning: str = "") -> str:
    """A block with a small heading; empty when nothing is in it."""
    if not body:
        return ""
    note = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return f"<div><h3{_title(meaning)}>{escape(title)}</h3>{note}{body}</div>"


def two(left: str, right: str, *, wide_left: bool = False) -> str:
    """Two blocks beside each other where there is room."""
    return f'<div class="two{" wide-left" if wide_left else ""}">{left}{right}</div>' if left or right else ""


def folded(title: str, body: str) -> str:
    """What not everybody wants to see: behind a line that opens it, and printed all the same."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""


def sentence(one: Finding) -> str:
    """The sentence of a finding, its figures in bold."""
    return "".join(f"<b>{escape(piece)}</b>" if bold else escape(piece) for piece, bold in one.pieces)


def verdict_line(one: Finding | None) -> str:
    """The sentence that answers the question; nothing where there is none."""
    return f'<p class="verdict">{sentence(one)}</p>' if one is not None else ""


def warning(one: Finding) -> str:
    """A finding that must not be overlooked, by its level, with what to try and what else the numbers say."""
    head = f"<b>{escape(one.title)}</b> " if one.title else ""
    attempt = f" Try: {escape(one.attempt)}" if one.attempt else ""
    more = f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in one.details)}</ul>" if one.details else ""
    return f'<div class="notice {_NOTICES[one.level]}">{head}{sentence(one)}{attempt}{more}</div>'


def tiles(shown: Sequence[Number]) -> str:
    """The numbers that sum up a run."""
    items = "".join(
        f"<div{_title(one.meaning)}><dt>{escape(one.name)}</dt><dd>{escape(one.value)}</dd></div>" for one in shown
    )
    return f'<dl class="tiles">{items}</dl>' if items else ""


def notice(text: str, kind: Literal["warn", "danger", "plain"] = "warn") -> str:
    """One line that must not be overlooked; `plain` where it is no trouble."""
    return f'<p class="notice {kind}">{escape(text)}</p>'


def facts_list(record: RunRecord) -> str:
    """What ran, one line a fact."""
    facts = record_table(record)
    rows = "".join(
        f"<dt>{escape(fact)}</dt><dd>{escape(value)}</dd>"
        for fact, value in zip(facts["fact"], facts["value"], strict=True)
    )
    return f'<dl class="facts">{rows}</dl>'


def chip(verdict: str) -> str:
    """What bounds a region, as a small label."""
    if not verdict:
        return ""
    kind = _CHIPS.get(verdict, "mixed")
    return f'<span class="chip {kind}"{_title(MEANINGS[verdict])}>{escape(NAMES[verdict])}</span>'


def named(colour: str, name: str, depth: int = 0) -> str:
    """A region's name behind its colour, indented by how deep it is nested."""
    return f'<span class="named d{min(depth, 9)}">{swatch(colour)}{escape(name)}</span>'
