"""Plotly figures of several runs against A (COMPARED): grouped bars, and boxes of latencies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd
import plotly.graph_objects as go

from profiler_kit.analyses.compare.side_by_side import COMPARED
from profiler_kit.names import fit_names
from profiler_kit.render.figures.style import LEGEND_ABOVE, MARGIN, NAMES, escape, time_axis
from profiler_kit.tables.diff import kernel_texts
from profiler_kit.text import fmt_ns, ns_in, time_unit
from profiler_kit.timeline.palette import HUES, NEUTRAL

Path = tuple[str, ...]
Rows = Mapping[Path, Mapping[str, object]]
LETTERS: Final = "ABCDEF"
MOST: Final = 14  # bars in one figure


def run_colours() -> dict[str, str]:
    """The colour of each letter; A is grey, what it is compared with stands out."""
    return dict(zip(LETTERS, [NEUTRAL, *HUES], strict=False))


def compared_bars(rows: pd.DataFrame, *, most: int = MOST) -> go.Figure:
    """Grouped bars: one group a path, one bar a run, A first; the whiskers are the notches. Takes COMPARED."""
    COMPARED.check(rows)
    paths = _longest(rows, most)
    unit = time_unit(pd.concat([rows["a_ns"], rows["b_ns"]]).dropna())
    labels = [escape(name, 44) for name in fit_names(_labels(rows, paths), 44)]
    colours = run_colours()
    figure = go.Figure()
    by_run = _by_run(rows)
    first = {path: {name: _first(by_run, path, name) for name in ("a_ns", "a_notch_ns")} for path in paths}
    sides = {"A": (first, "a")} | {run: (mine, "b") for run, mine in by_run.items()}
    for run, (mine, side) in sides.items():
        values = [_value(mine, path, f"{side}_ns") for path in paths]
        notches = [_value(mine, path, f"{side}_notch_ns") for path in paths]
        figure.add_bar(
            y=labels,
            x=[None if math.isnan(value) else ns_in(value, unit) for value in values],
            orientation="h",
            name=run,
            marker={"color": colours[run], "line": {"width": 0}},
            error_x={
                "type": "data",
                "array": [0.0 if math.isnan(notch) else ns_in(notch, unit) for notch in notches],
                "thickness": 1.2,
                "width": 3,
                "color": "rgba(90,90,90,0.9)",
            },
            customdata=["not there" if math.isnan(value) else fmt_ns(value) for value in values],
            hovertemplate=f"%{{y}}<br>{run}: %{{customdata}}<extra></extra>",
        )
    figure.update_layout(
        barmode="group",
        bargap=0.3,
        bargroupgap=0.05,
        height=70 + len(paths) * (14 + 13 * len(sides)),
        margin=MARGIN,
        legend={**LEGEND_ABOVE, "traceorder": "normal"},
        xaxis=time_axis(unit, rangemode="tozero"),
        yaxis={**NAMES, "automargin": True},
    )
    return figure


def latency_boxes(latency_ns: Mapping[str, Sequence[int]]) -> go.Figure:
    """Every latency sample of each run, by letter, with quartiles and median."""
    unit = time_unit([value for samples in latency_ns.values() for value in samples])
    colours = run_colours()
    figure = go.Figure()
    for letter, samples in latency_ns.items():
        figure.add_box(
            x=[ns_in(value, unit) for value in samples],
            name=letter,
            boxpoints="all",
            jitter=0.5,
            pointpos=0,
            orientation="h",
            marker={"color": colours[letter], "size": 5},
            line={"width": 1.2},
            hovertemplate=f"{letter}: %{{x:,.3f}} {unit}<extra></extra>",
        )
    figure.update_layout(
        height=70 + 44 * max(2, len(latency_ns)),
        margin=MARGIN,
        showlegend=False,
        xaxis=time_axis(unit, rangemode="tozero"),
        yaxis=NAMES,
    )
    return figure


def _by_run(rows: pd.DataFrame) -> Mapping[str, Rows]:
    """Of each run its rows by path."""
    found: dict[str, dict[Path, Mapping[str, object]]] = {str(run): {} for run in sorted(set(rows["run"]))}
    for row in rows.to_dict("records"):
        found[row["run"]].setdefault(row["path"], {str(name): value for name, value in row.items()})
    return found


def _value(rows: Rows, path: Path, column: str) -> float:
    return float(str(rows.get(path, {}).get(column, math.nan)))


def _first(by_run: Mapping[str, Rows], path: Path, column: str) -> float:
    """What the first run that knows says of A."""
    known = (_value(mine, path, column) for mine in by_run.values())
    return next((value for value in known if not math.isnan(value)), math.nan)


def _weight(rows: pd.DataFrame) -> dict[Path, float]:
    weight: dict[Path, float] = {}
    for path, a, b in zip(rows["path"], rows["a_ns"].fillna(0), rows["b_ns"].fillna(0), strict=True):
        for n in range(1, len(path) + 1):
            weight.setdefault(path[:n], 0.0)
        weight[path] = max(weight[path], a, b)
    return weight


def _longest(rows: pd.DataFrame, most: int) -> list[Path]:
    """The paths with most time in any run, in that order."""
    weight = _weight(rows)
    paths = list(dict.fromkeys(rows["path"]))
    return sorted(paths, key=lambda path: -weight[path])[:most]


def _labels(rows: pd.DataFrame, paths: Sequence[Path]) -> list[str]:
    """The innermost name, of kernels as tables have it; the whole path where two would read the same."""
    kernels = rows[rows["kind"] == "kernel"]
    shown = dict(zip(kernels["path"], kernel_texts(kernels), strict=True))
    last = [shown.get(path, path[-1]) for path in paths]
    return [name if last.count(name) == 1 else " > ".join(path) for name, path in zip(last, paths, strict=True)]
