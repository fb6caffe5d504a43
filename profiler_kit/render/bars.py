"""Bars with names as HTML that fits any width: totals in, text for a page out; every name in it is escaped.

The style sheet (app/parts/page.html) knows the classes. A name has its middle cut out where it does not fit.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.analyses.gpu.window import NAME_SUMS, OPERATOR_SUMS
from profiler_kit.finding import Gain
from profiler_kit.names import differ_at, kernel_names
from profiler_kit.text import fmt_count, fmt_ns, fmt_path, fmt_percent
from profiler_kit.timeline.palette import HUES, region_colours

_SAME: Final = 1.005  # a sum this close to busy time is drawn as one bar
_TAIL: Final = 22  # letters from where a name differs that stay, whatever the width


@dataclass(frozen=True)
class Bar:
    """One row. length, pale: share of the longest bar, of the solid one and of the pale one behind it."""

    name: str
    value: str
    share: str
    tip: str
    length: float
    colour: str
    pale: float = 0.0
    depth: int = 0


def region_bars(regions: pd.DataFrame, *, host: bool = False, most: int = 16) -> str:
    """Time of each region, a region above the ones nested in it.

    Takes REGION_TOTALS. On the GPU the solid bar is busy time (union over streams) and the pale one behind it the sum;
    with `host` the bar is host time. The share is of the rows at the top.
    """
    REGION_TOTALS.check(regions)
    column = "host_ns" if host else "busy_ns"
    rows = regions[regions[column] > 0].head(most)
    top = int(regions.loc[regions["path"].map(len) == 1, column].sum()) or 1
    colours = region_colours(name for path in regions["path"] for name in path)
    pale = not host and bool((rows["sum_ns"] > rows["busy_ns"] * _SAME).any())
    longest = int((rows["sum_ns"] if pale else rows[column]).max()) if len(rows) else 1
    return _bars(
        [
            Bar(
                row["path"][-1],
                fmt_ns(row[column]),
                fmt_percent(row[column] / top),
                f"{fmt_path(row['path'])}\nbusy {fmt_ns(row['busy_ns'])} · sum {fmt_ns(row['sum_ns'])}\n"
                f"host {fmt_ns(row['host_ns'])} · {fmt_count(row['launches'])} launches · "
                f"{fmt_count(row['instances'])} times",
                row[column] / longest,
                colours[row["path"][-1]],
                row["sum_ns"] / longest if pale else 0.0,
                len(row["path"]) - 1,
            )
            for row in rows.to_dict("records")
        ],
        [path[-1] for path in rows["path"]],
    )


def kernel_bars(kernels: pd.DataFrame, *, most: int = 9) -> str:
    """Kernels by summed time over all streams and devices, longest first. Takes NAME_SUMS."""
    NAME_SUMS.check(kernels)
    rows = kernels.head(most)
    return _ranking(rows, kernel_names(list(rows["name"])), "sum_ns", int(kernels["sum_ns"].sum()), "events")


def operator_bars(operators: pd.DataFrame, *, most: int = 9) -> str:
    """Host time inside each operator itself, longest first. Takes OPERATOR_SUMS; the share is of all operators."""
    OPERATOR_SUMS.check(operators)
    rows = operators.head(most)
    return _ranking(rows, list(rows["name"]), "self_ns", int(operators["self_ns"].sum()), "calls")


def _ranking(rows: pd.DataFrame, names: Sequence[str], column: str, whole: int, counted: str) -> str:
    """Names above their bars: those of kernels are long."""
    longest = int(rows[column].max()) if len(rows) else 1
    bars = [
        Bar(
            name,
            fmt_ns(row[column]),
            fmt_percent(row[column] / max(1, whole)),
            f"{row['name']}\n{fmt_ns(row[column])} in {fmt_count(row['count'])} {counted}",
            row[column] / max(1, longest),
            HUES[0],
        )
        for row, name in zip(rows.to_dict("records"), names, strict=True)
    ]
    return _bars(bars, names, above=True)


def _bars(bars: Sequence[Bar], names: Sequence[str], *, above: bool = False) -> str:
    rows = [_row(bar, at) for bar, at in zip(bars, differ_at(names), strict=True)]
    return f'<div class="pk-bars{" pk-above" if above else ""}">{"".join(rows)}</div>'


def _row(bar: Bar, differs_at: int) -> str:
    pale = (
        f'<i class="pk-pale" style="width:{bar.pale:.2%};background:{bar.colour}"></i>' if bar.pale > bar.length else ""
    )
    return (
        f'<div class="pk-row" title="{_escape(bar.tip)}">'
        f'<span class="pk-name" style="padding-left:{bar.depth}em">{_name(bar.name, differs_at)}</span>'
        f'<span class="pk-track">{pale}<i style="width:{bar.length:.2%};background:{bar.colour}"></i></span>'
        f'<span class="pk-value">{_escape(bar.value)}</span><span class="pk-share">{_escape(bar.share)}</span></div>'
    )


def _name(name: str, differs_at: int) -> str:
    """Three parts: the first two letters off shrink where there is no room, the one that tells stays."""
    if len(name) <= _TAIL:
        return f"<b>{_escape(name)}</b>"
    start = max(0, min(differs_at - 2 if differs_at else len(name), len(name) - _TAIL // 2))
    stop = min(len(name), start + _TAIL)
    return f"<u>{_escape(name[:start])}</u><b>{_escape(name[start:stop])}</b><s>{_escape(name[stop:])}</s>"


def _escape(text: str) -> str:
    return html.escape("".join(c if c.isprintable() or c == "\n" else "�" for c in text))


def facts(table: pd.DataFrame) -> str:
    """A table of views.tables.record_table as a list that wraps long values."""
    rows = (
        f"<dt>{_escape(str(fact))}</dt><dd>{_escape(str(value))}</dd>"
        for fact, value in zip(table["fact"], table["value"], strict=True)
    )
    return f'<dl class="pk-facts">{"".join(rows)}</dl>'


def gain(one: Gain) -> str:
    """What a cause could give back: the time, its share, and that share as a meter."""
    return (
        f'<div class="pk-gain"><em>{_escape(one.start)}</em>{_escape(one.size)}'
        f"<small>{_escape(fmt_percent(one.share))}</small></div>"
        f'<div class="pk-meter"><i style="width:{min(1.0, max(0.0, one.share)):.1%}"></i></div>'
    )
