"""Layers against the batch size: a heat map and lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import pandas as pd
from markupsafe import Markup

from profiler_kit.analyses.layers.totals import LAYER_TOTALS, best_depth, layers_at_depth, telling_layers
from profiler_kit.findings.layers import of_layers, scaling
from profiler_kit.render.html import fill
from profiler_kit.render.report.section import Block, Section, warning
from profiler_kit.render.svg import Dot, curve, dots, legend, marks, plot
from profiler_kit.run import Run
from profiler_kit.text import MISSING, fmt_all_ns, fmt_count, fmt_ns, fmt_percent, ns_in, time_unit
from profiler_kit.timeline.palette import HUES, NEUTRAL, SCALE_DARK, SCALE_LIGHT, ink_on, on_scale

STEPS: Final = 20  # colours of the heat map
HEIGHT_PX: Final = 230
DEEP_ROWS: Final = 160  # layers of the deepest level, behind a line


def layer_section(run: Run, prefix: str = "", *, lead: bool = True) -> Section:
    """Everything about the layers of a run; empty when it has none. lead: with the sentence on scaling."""
    anchor, title = f"{prefix}layers", "Layers against batch size"
    layers = run.layers
    if layers is None:
        return Section(anchor, title)
    totals = layers.totals
    if totals.empty:
        return Section(anchor, title, warnings=[warning("The layer timings are empty: no layer was called.")])
    names, deepest = layers_at_depth(totals, best_depth(totals)), layers_at_depth(totals, int(totals["depth"].max()))
    rows = [[Block("Time per item, by layer", heat_map(totals, names), "Median of a layer divided by the batch size.")]]
    if totals["batch_size"].nunique() > 1:
        picked = telling_layers(totals, names)
        rows.append(
            [Block("Time per item", layer_lines(totals, picked),
                   "Median over the iterations. Dashed: global attention."),
             Block("Scaling efficiency", layer_lines(totals, picked, efficiency=True),
                   "Time per item at the smallest batch over time per item here: above 1 batching helps.")]
        )  # fmt: skip
    if len(deepest) > len(names):  # the picture shows fewer
        title_of_all = f"The innermost {fmt_count(min(len(deepest), DEEP_ROWS))} layers"
        rows.append([Block(title_of_all, heat_map(totals, deepest[:DEEP_ROWS]), folded=True)])
    return Section(
        anchor,
        title,
        said=scaling(totals) if lead else None,
        notes=[*(one.line for one in of_layers(layers, run.record) if one.id != "batching"), *layers.notes],
        rows=rows,
        wide_left=False,
    )


def heat_map(totals: pd.DataFrame, layers: Sequence[str]) -> Markup:
    """Time per item of each layer (down) at each batch size (across), the longer the further from the page's colour.

    Takes LAYER_TOTALS. A table, so that it can be read without colours, copied and printed.
    """
    LAYER_TOTALS.check(totals)
    rows = totals[totals["layer"].isin(list(layers))]
    batches = sorted(rows["batch_size"].unique().tolist())
    keys = list(zip(rows["layer"], rows["batch_size"], strict=True))
    values = rows["per_image_ns"].tolist()
    most = max(values, default=0.0) or 1.0
    cells = {
        key: (round(STEPS * value / most), text)
        for key, value, text in zip(keys, values, fmt_all_ns(values), strict=True)
    }
    last = {row["layer"]: row for row in rows.to_dict("records")}  # rows are by batch size: the largest stays
    lines = [
        (
            layer,
            " · ".join(filter(None, (str(last[layer]["type"]), str(last[layer]["variant"])))),
            [cells.get((layer, batch), (None, MISSING)) for batch in batches],
            fmt_percent(last[layer]["share"]),
        )
        for layer in layers
        if layer in last
    ]
    return fill("heat_map.html.j2", batches=batches, lines=lines)


def heat_styles(*, dark: bool = True) -> str:
    """The style of each colour of the heat map; with `dark` also those on a dark page."""

    def rules(scale: Sequence[str]) -> str:
        out = []
        for step in range(STEPS + 1):
            red, green, blue = on_scale(scale, step / STEPS)
            colour = f"#{round(red):02x}{round(green):02x}{round(blue):02x}"
            out.append(f".pk-report .h{step}{{background:{colour};color:{ink_on(scale, step / STEPS)}}}")
        return "".join(out)

    light = rules(SCALE_LIGHT)
    return light + f"@media screen and (prefers-color-scheme: dark){{{rules(SCALE_DARK)}}}" if dark else light


def layer_lines(totals: pd.DataFrame, layers: Sequence[str], *, efficiency: bool = False) -> Markup:
    """Time per item, or scaling efficiency, of some layers against the batch size. Takes LAYER_TOTALS."""
    LAYER_TOTALS.check(totals)
    rows = totals[totals["layer"].isin(list(layers))]
    if rows.empty:
        return Markup()
    unit = time_unit(rows["per_image_ns"])
    batches = sorted(rows["batch_size"].unique().tolist())
    place = {batch: (number + 0.5) / len(batches) for number, batch in enumerate(batches)}
    value: Callable[[pd.Series], float] = (
        (lambda row: float(row["efficiency"])) if efficiency else lambda row: ns_in(float(row["per_image_ns"]), unit)
    )
    most = 1.08 * max(value(row) for _, row in rows.iterrows()) or 1.0
    lines, over, names = [], list[Dot](), []
    for number, layer in enumerate(layers):
        mine = rows[rows["layer"] == layer].sort_values("batch_size")
        colour, variant = HUES[number % len(HUES)], str(mine["variant"].iloc[0])
        points = [(place[row["batch_size"]], value(row) / most) for _, row in mine.iterrows()]
        lines.append(curve(points, HEIGHT_PX, colour, dash="6 4" if "global" in variant else ""))
        for (x, y), (_, row) in zip(points, mine.iterrows(), strict=True):
            shown = f"{value(row):.2f}" if efficiency else f"{fmt_ns(float(row['per_image_ns']))} per item"
            over.append(Dot(x, y, colour, f"{layer}, batch {row['batch_size']}: {shown}"))
        names.append((colour, f"{layer} · {variant}" if variant else layer))
    if efficiency:
        lines.append(curve([(0, 1 / most), (1, 1 / most)], HEIGHT_PX, NEUTRAL, dash="2 4"))
    return plot(
        lines, dots(over, HEIGHT_PX), height=HEIGHT_PX, y_ticks=marks(most, "" if efficiency else unit),
        x_ticks=[(place[batch], str(batch)) for batch in batches], x_name="batch size",
        label="Scaling efficiency by batch size" if efficiency else "Time per item by batch size",
    ) + legend(names)  # fmt: skip
