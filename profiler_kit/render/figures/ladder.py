"""Plotly figures of a ladder of optimizations: waterfall, Pareto plot and roofline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from profiler_kit.formats.ladder_file import LADDER_ROWS
from profiler_kit.render.figures.style import GRID, LEGEND_BELOW, LETTER_PX, MARGIN, escape
from profiler_kit.render.labels import Place, place_labels
from profiler_kit.render.ladder_style import ALTERNATIVE, BELOW, MEMORY, STEP, agreement_title, speed_text, titles
from profiler_kit.text import fmt_factor, fmt_rate, rate_label
from profiler_kit.timeline.palette import HUES, NEUTRAL
from profiler_kit.units import bytes_to_mib

_ROW_PX: Final = 34
_PLOT_PX: Final = (350.0, 240.0)
_TICKS: Final = [digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 5)]
_LETTERS: Final = 28
_ROOM: Final = 1.7  # of the longest bar, so that the figures beside it have room


def waterfall(rows: pd.DataFrame) -> go.Figure:
    """Images a second, peak memory and agreement with the baseline of every row, step by step.

    Takes LADDER_ROWS. A step's bar is pale as far as the step before it reached and solid for what it added; rows that
    are alternatives to a step have another colour. A row that was not measured shows why.
    """
    LADDER_ROWS.check(rows)
    names = [escape(name, _LETTERS) for name in rows["technique"]]
    figure = make_subplots(
        rows=1, cols=3, shared_yaxes=True, column_widths=[0.54, 0.25, 0.21], horizontal_spacing=0.02,
        subplot_titles=titles(rows),
    )  # fmt: skip
    _add_speed(figure, rows, names)
    memory = rows["peak_memory_bytes"].map(bytes_to_mib)
    _add_bars(figure, names, memory, MEMORY, [f"{value:,.0f}" if value > 0 else "" for value in memory], column=2)
    _add_agreement(figure, rows, names)
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=names[::-1], fixedrange=True, showgrid=False,
        tickfont={"size": 13},
    )  # fmt: skip
    figure.update_xaxes(fixedrange=True, showgrid=True, gridcolor=GRID, zeroline=False, nticks=4, tickangle=0)
    figure.update_annotations(font={"size": 12}, selector={"showarrow": False, "yref": "paper"})
    figure.update_layout(
        height=110 + _ROW_PX * max(2, len(rows)),
        margin={
            "l": 14 + (LETTER_PX + 0.5) * max(map(len, names), default=0), "r": 8, "t": 28, "b": 52, "pad": 6,
            "autoexpand": False,
        },
        barmode="stack",
        bargap=0.28,
        legend={**LEGEND_BELOW, "traceorder": "normal"},
    )  # fmt: skip
    return figure


def pareto(rows: pd.DataFrame) -> go.Figure:
    """Agreement with the baseline against images a second, with the front of rows that none beats in both."""
    LADDER_ROWS.check(rows)
    known = rows[rows["images_per_s"].notna() & rows["agreement"].notna()]
    figure = go.Figure()
    front = pareto_front(known)
    figure.add_scatter(
        x=front["images_per_s"],
        y=front["agreement"],
        mode="lines",
        line={"color": NEUTRAL, "width": 1.5, "dash": "dot", "shape": "vh"},
        name="front",
        hoverinfo="skip",
    )
    low = float(known["agreement"].min()) if len(known) else 0.9
    span = max(1 - low, 0.002)
    fastest = float(known["images_per_s"].max()) if len(known) else 1.0
    x_range, y_range = (0.0, fastest * 1.12), (low - 0.22 * span, 1 + 0.14 * span)
    steps = list(zip(front["images_per_s"], front["agreement"], strict=True))
    corners = [place for (x, y), (_, above) in pairwise([*steps, *steps[-1:]]) for place in ((x, y), (x, above))]
    label, side = _labels(
        known, known["images_per_s"], known["agreement"], x_range, y_range, front["technique"], [corners]
    )
    for is_step, name, colour in ((True, "step", STEP), (False, "alternative", ALTERNATIVE)):
        mine = known[known["is_step"] == is_step]
        if mine.empty:
            continue
        figure.add_scatter(
            x=mine["images_per_s"],
            y=mine["agreement"],
            mode="markers+text",
            text=label[mine.index],
            textposition=side[mine.index],
            textfont={"size": 12},
            marker={"size": 12, "color": colour, "symbol": "circle" if is_step else "diamond"},
            name=name,
            customdata=mine[["technique"]].map(lambda text: escape(text, _LETTERS)),
            hovertemplate="<b>%{customdata[0]}</b><br>%{x:,.2f} "
            + titles(rows)[0]
            + "<br>agreement %{y:.4f}<extra></extra>",
        )
    figure.update_layout(
        height=380,
        margin={**MARGIN, "l": 64, "b": 78, "autoexpand": False},
        xaxis={"title": titles(rows)[0], "range": list(x_range), "gridcolor": GRID, "fixedrange": True},
        yaxis={"title": agreement_title(rows), "range": list(y_range), "gridcolor": GRID, "fixedrange": True},
        legend=LEGEND_BELOW,
    )
    return figure


def pareto_front(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that no other beats both in images a second and in agreement, fastest first."""
    ordered = rows.sort_values(["images_per_s", "agreement"], ascending=False)
    best = ordered["agreement"].cummax().shift(fill_value=-1.0)
    return ordered[ordered["agreement"] > best]


def roofline(rows: pd.DataFrame, matrix_tflops: Mapping[str, float], copy_gb_per_s: float) -> go.Figure:
    """Achieved TFLOP/s of each row under the device's measured ceilings, against FLOP per byte.

    Takes LADDER_ROWS; work and bytes are those of the published model at the row's dtype, so a row that fuses kernels
    moves fewer bytes than its place says. A roof is the copy bandwidth up to the matrix rate of that dtype.
    """
    LADDER_ROWS.check(rows)
    known = rows[rows["tflops"].notna() & rows["intensity"].notna()]
    figure = go.Figure()
    if known.empty:
        return figure
    lowest, highest = float(known["intensity"].min()) / 8, float(known["intensity"].max()) * 8
    roofs = []
    for number, (dtype, rate) in enumerate(_roofs(known, matrix_tflops)):
        ridge = rate * 1e3 / copy_gb_per_s  # FLOP per byte where both ceilings meet
        x = [lowest, min(max(ridge, lowest), highest), highest]
        y = [min(rate, copy_gb_per_s * value / 1e3) for value in x]
        roofs.append(list(zip(np.log10(x).tolist(), np.log10(y).tolist(), strict=True)))
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": HUES[(number + 3) % len(HUES)], "width": 2},
            name=f"{dtype}: {fmt_rate(rate)} TFLOP/s, {fmt_rate(copy_gb_per_s)} GB/s",
            hoverinfo="skip",
        )
    top = float(known[["peak_tflops", "tflops"]].max().max())  # a dtype whose rate was not measured has no peak
    x_range = (np.log10(lowest), np.log10(highest))
    y_range = (np.log10(float(known["tflops"].min()) / 3), np.log10(top * 2))
    best = known.sort_values("tflops", ascending=False)["technique"]
    label, side = _labels(known, np.log10(known["intensity"]), np.log10(known["tflops"]), x_range, y_range, best, roofs)
    for is_step, colour in ((True, STEP), (False, ALTERNATIVE)):
        mine = known[known["is_step"] == is_step]
        figure.add_scatter(
            x=mine["intensity"],
            y=mine["tflops"],
            mode="markers+text",
            text=label[mine.index],
            textposition=side[mine.index],
            marker={"size": 11, "color": colour, "symbol": "circle" if is_step else "diamond"},
            customdata=np.stack(
                [
                    100 * mine["tflops"] / mine["peak_tflops"],
                    mine["peak_tflops"],
                    [escape(name, _LETTERS) for name in mine["technique"]],
                ],
                axis=-1,
                dtype=object,
            ),
            hovertemplate="<b>%{customdata[2]}</b><br>%{y:,.3g} TFLOP/s, %{customdata[0]:.1f} % of the "
            "%{customdata[1]:,.3g} measured<br>%{x:,.0f} FLOP per byte<extra></extra>",
            showlegend=False,
        )
    lines = {"type": "log", "gridcolor": GRID, "fixedrange": True, "tickvals": _TICKS, "tickformat": ",~g"}
    figure.update_layout(
        height=380,
        margin={**MARGIN, "l": 64, "b": 58 + 20 * (len(figure.data) - 2), "autoexpand": False},
        xaxis={"title": "FLOP per byte of the published model", "range": list(x_range), **lines},
        yaxis={"title": "TFLOP/s", "range": list(y_range), **lines},
        legend=LEGEND_BELOW,
    )
    return figure


def _add_speed(figure: go.Figure, rows: pd.DataFrame, names: list[str]) -> None:
    speed = rows.set_index("technique")["images_per_s"]
    below = rows["parent"].map(speed).fillna(0.0).to_numpy()
    total = rows["images_per_s"].fillna(0.0).to_numpy()
    solid = np.maximum(total - below, 0)
    pale = total - solid
    colours = [STEP if step else ALTERNATIVE for step in rows["is_step"]]
    tips = [_tip(row) for _, row in rows.iterrows()]
    # the first trace names every category, so that rows that were not measured keep their place
    figure.add_bar(
        y=names, x=pale, orientation="h", marker={"color": colours, "opacity": 0.35}, showlegend=False,
        hovertext=tips, hoverinfo="text", row=1, col=1,
    )  # fmt: skip
    figure.add_bar(
        y=names, x=solid, orientation="h", marker={"color": colours}, showlegend=False,
        text=[escape(speed_text(row)) for _, row in rows.iterrows()], textposition="outside", cliponaxis=False,
        textfont={"size": 13}, hovertext=tips, hoverinfo="text", row=1, col=1,
    )  # fmt: skip
    for shown, colour in (("step", STEP), ("alternative", ALTERNATIVE)):
        if colour in colours:
            figure.add_bar(y=[None], x=[None], orientation="h", marker={"color": colour}, name=shown, row=1, col=1)
    figure.update_xaxes(range=[0, (total.max() if len(total) else 0) * _ROOM or 1], row=1, col=1)


def _add_bars(
    figure: go.Figure, names: list[str], values: pd.Series, colour: str, text: list[str], *, column: int
) -> None:
    figure.add_bar(
        y=names, x=values, orientation="h", marker={"color": colour}, showlegend=False, text=text,
        textposition="outside", cliponaxis=False, textfont={"size": 13},
        hovertemplate="<b>%{y}</b><br>%{x:,.0f}<extra></extra>", row=1, col=column,
    )  # fmt: skip
    most = float(values.max()) if values.notna().any() else 0.0
    figure.update_xaxes(range=[0, most * _ROOM or 1], row=1, col=column)


def _add_agreement(figure: go.Figure, rows: pd.DataFrame, names: list[str]) -> None:
    """Dots, since their axis need not start at zero."""
    values = rows["agreement"]
    low = min(float(values.min()) if values.notna().any() else 0.99, 0.99)
    figure.add_scatter(
        x=values, y=names, mode="markers+text", textposition="middle right", showlegend=False,
        text=["" if np.isnan(value) else f"{value:.4f}" for value in values], textfont={"size": 13},
        marker={"size": 10, "color": [BELOW if bad else STEP for bad in rows["below_min_miou"]]},
        cliponaxis=False, hovertemplate="<b>%{y}</b><br>agreement %{x:.4f}<extra></extra>", row=1, col=3,
    )  # fmt: skip
    ticks = [low, 1.0]
    figure.update_xaxes(
        range=[low - 0.15 * (1 - low), 1 + 0.75 * (1 - low)], tickvals=ticks, tickformat=".3~f", row=1, col=3
    )


def _labels(
    rows: pd.DataFrame,
    x: pd.Series,
    y: pd.Series,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    first: pd.Series,
    lines: Sequence[Sequence[Place]],
) -> tuple[pd.Series, pd.Series]:
    """Text and side of each row's label, by the index of `rows`: the techniques in `first`, then as many as have room.

    lines: the corners of what is drawn beside the rows, in the units of x and y.

    Room is judged on the plot of a window of 1280 pixels; a wider one has more.
    """
    width, height = _PLOT_PX

    def pixels(places: Iterable[Place]) -> list[Place]:
        return [
            (
                width * (a - x_range[0]) / (x_range[1] - x_range[0]),
                height * (b - y_range[0]) / (y_range[1] - y_range[0]),
            )
            for a, b in places
        ]

    rank = {name: number for number, name in enumerate(first)}
    order = sorted(range(len(rows)), key=lambda at: rank.get(rows["technique"].iloc[at], len(rank)))
    names = [escape(name, _LETTERS) for name in rows["technique"]]
    crossed = [pixels(line) for line in lines]
    placed = place_labels(pixels(zip(x, y, strict=True)), names, order, _PLOT_PX, crossed)
    return (
        pd.Series([text for text, _ in placed], index=rows.index, dtype=object),
        pd.Series([side for _, side in placed], index=rows.index, dtype=object),
    )


def _tip(row: pd.Series) -> str:
    """What the pointer shows of a row."""
    name = f"<b>{escape(row['technique'])}</b>"
    if np.isnan(row["images_per_s"]):
        return f"{name}<br>{escape(row['status'])}: {escape(row['error'], 160)}"
    gain = "" if np.isnan(row["gain"]) else f"<br>{fmt_factor(row['gain'])} times {escape(row['parent'], _LETTERS)}"
    how = escape(row["optimizations"] or "as published", 120)
    return f"{name}<br>{how}<br>{fmt_rate(row['images_per_s'])} {rate_label(row['unit'])}{gain}"


def _roofs(rows: pd.DataFrame, matrix_tflops: Mapping[str, float]) -> list[tuple[str, float]]:
    """The ceilings that some row has, lowest first."""
    wanted = set(rows["peak_tflops"].dropna())
    return sorted(((name, rate) for name, rate in matrix_tflops.items() if rate in wanted), key=lambda item: item[1])
