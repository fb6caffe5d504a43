"""Bars with names, as rows that a page of the dashboard and a report each lay out in their own way.

A name is three parts, so that its middle goes where there is no room and what sets it apart stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd
from markupsafe import Markup

from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.analyses.gpu.window import NAME_SUMS, OPERATOR_SUMS
from profiler_kit.finding import Gain
from profiler_kit.names import differ_at, kernel_names
from profiler_kit.render.html import Colours, fill
from profiler_kit.text import fmt_count, fmt_ns, fmt_path, fmt_percent
from profiler_kit.timeline.palette import HUES, colour_of, region_colours

Path = tuple[str, ...]
_SAME: Final = 1.005  # a sum this close to busy time is drawn as one bar
_TAIL: Final = 22  # letters from where a name differs that stay, whatever the width


@dataclass(frozen=True)
class Bar:
    """One row. length, pale: share of the longest bar, of the solid one and of the pale one behind it.

    mark: what bounds a region. differs_at: where the name stops being like another. key: what it is of, in full.
    """

    name: str
    value: str
    share: str
    tip: str
    length: float
    colour: str
    pale: float = 0.0
    depth: int = 0
    mark: str = ""
    differs_at: int = 0
    key: str = ""

    @property
    def name_parts(self) -> tuple[str, str, str]:
        """The letters that may go, those that stay, and those that go first."""
        name = self.name
        if len(name) <= _TAIL:
            return "", name, ""
        start = max(0, min(self.differs_at - 2 if self.differs_at else len(name), len(name) - _TAIL // 2))
        return name[:start], name[start : start + _TAIL], name[start + _TAIL :]


def region_rows(
    regions: pd.DataFrame,
    most: int,
    *,
    host: bool = False,
    colours: Colours | None = None,
    bounds: dict[Path, str] | None = None,
) -> list[Bar]:
    """Time of the longest regions, a region above the ones nested in it. Takes REGION_TOTALS.

    On the GPU the solid bar is busy time (union over streams) and the pale one behind it the sum; with `host` the bar
    is host time. The share is of the rows at the top. bounds: what bounds each region.
    """
    REGION_TOTALS.check(regions)
    column = "host_ns" if host else "busy_ns"
    rows = regions[regions[column] > 0]
    rows = rows.loc[rows[column].nlargest(most).index.sort_values()]  # a parent takes as long as its children
    top = int(regions.loc[regions["path"].map(len) == 1, column].sum()) or 1
    hues = colours or region_colours(name for path in regions["path"] for name in path)
    pale = not host and bool((rows["sum_ns"] > rows["busy_ns"] * _SAME).any())
    longest = int((rows["sum_ns"] if pale else rows[column]).max()) if len(rows) else 1
    return [
        Bar(
            row["path"][-1],
            fmt_ns(row[column]),
            fmt_percent(row[column] / top),
            f"{fmt_path(row['path'])}\nbusy {fmt_ns(row['busy_ns'])} · sum {fmt_ns(row['sum_ns'])}\n"
            f"host {fmt_ns(row['host_ns'])} · {fmt_count(row['launches'])} launches · "
            f"{fmt_count(row['instances'])} times",
            row[column] / longest,
            colour_of(hues, row["path"][-1]),
            row["sum_ns"] / longest if pale else 0.0,
            len(row["path"]) - 1,
            (bounds or {}).get(row["path"], ""),
            at,
            fmt_path(row["path"]),
        )
        for row, at in zip(rows.to_dict("records"), differ_at([path[-1] for path in rows["path"]]), strict=True)
    ]


def kernel_rows(kernels: pd.DataFrame, most: int) -> list[Bar]:
    """Kernels by summed time over all streams and devices, longest first. Takes NAME_SUMS."""
    NAME_SUMS.check(kernels)
    rows = kernels.head(most)
    return _ranking(rows, kernel_names(list(rows["name"])), "sum_ns", int(kernels["sum_ns"].sum()), "events")


def operator_rows(operators: pd.DataFrame, most: int) -> list[Bar]:
    """Host time inside each operator itself, longest first. Takes OPERATOR_SUMS; the share is of all operators."""
    OPERATOR_SUMS.check(operators)
    rows = operators.head(most)
    return _ranking(rows, list(rows["name"]), "self_ns", int(operators["self_ns"].sum()), "calls")


def _ranking(rows: pd.DataFrame, names: Sequence[str], column: str, whole: int, counted: str) -> list[Bar]:
    longest = max(1, int(rows[column].max())) if len(rows) else 1
    return [
        Bar(
            name,
            fmt_ns(row[column]),
            fmt_percent(row[column] / max(1, whole)),
            f"{row['name']}\n{fmt_ns(row[column])} in {fmt_count(row['count'])} {counted}",
            row[column] / longest,
            HUES[0],
            differs_at=at,
            key=str(row["name"]),
        )
        for row, name, at in zip(rows.to_dict("records"), names, differ_at(names), strict=True)
    ]


# For the dashboard, whose style sheet (app/parts/page.html) knows the classes.


Link = Callable[[str], str]  # the address of what a bar is of, from its key


def region_bars(regions: pd.DataFrame, *, host: bool = False, most: int = 16, link: Link | None = None) -> Markup:
    """Time of each region as `region_rows`."""
    return fill("dashboard_bars.html.j2", rows=region_rows(regions, most, host=host), above=False, link=link)


def kernel_bars(kernels: pd.DataFrame, *, most: int = 9, link: Link | None = None) -> Markup:
    """Kernels as `kernel_rows`, their names, which are long, above the bars."""
    return fill("dashboard_bars.html.j2", rows=kernel_rows(kernels, most), above=True, link=link)


def group_bars(groups: pd.DataFrame, *, most: int = 9, link: Link | None = None) -> Markup:
    """Modules, operators or kinds of work by the GPU time they launched. Takes NAME_SUMS."""
    NAME_SUMS.check(groups)
    rows = groups.head(most)
    bars = _ranking(rows, list(rows["name"]), "sum_ns", int(groups["sum_ns"].sum()), "GPU events")
    return fill("dashboard_bars.html.j2", rows=bars, above=False, link=link)


def operator_bars(operators: pd.DataFrame, *, most: int = 9, link: Link | None = None) -> Markup:
    """Operators as `operator_rows`, their names above the bars."""
    return fill("dashboard_bars.html.j2", rows=operator_rows(operators, most), above=True, link=link)


def facts(rows: Sequence[tuple[str, str]], style: str = "pk-facts") -> Markup:
    """Names and values as a list that wraps long values. style: the class that its page knows."""
    return fill("facts.html.j2", rows=rows, name=style)


def gain(one: Gain) -> Markup:
    """What a cause could give back: the time, its share, and that share as a meter."""
    part = f"{min(1.0, max(0.0, one.share)):.1%}"
    return fill("dashboard_gain.html.j2", gain=one, share=fmt_percent(one.share), part=part)
