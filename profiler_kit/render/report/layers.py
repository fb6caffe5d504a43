"""Layers against the batch size: a heat map and lines for pages that may load nothing (LAYER_TOTALS -> HTML)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import pandas as pd

from profiler_kit.analyses.layers.totals import LAYER_TOTALS
from profiler_kit.findings.layers import of_layers, scaling
from profiler_kit.render.layer_choice import best_depth, layers_at_depth, telling_layers
from profiler_kit.render.report.parts import folded, notice, sub, two, verdict_line
from profiler_kit.render.svg import WIDE, escape, line, percent, plot, swatch, tick_text, ticks
from profiler_kit.run import Layers, Run
from profiler_kit.text import MISSING, fmt_all_ns, fmt_count, fmt_ns, fmt_percent, ns_in, time_unit
from profiler_kit.timeline.palette import HUES, SCALE_DARK, SCALE_LIGHT, ink_on, on_scale

STEPS: Final = 20  # colours of the heat map
HEIGHT_PX: Final = 230
DEEP_ROWS: Final = 160  # layers of the deepest level, behind a line


def layer_section(run: Run, *, lead: bool = True) -> str:
    """Everything about the layers of a run; empty when it has none. lead: with the sentence on scaling."""
    layers = run.layers
    if layers is None:
        return ""
    totals = layers.totals
    if totals.empty:
        return notice("The layer timings are empty: no layer was called.")
    names = layers_at_depth(totals, best_depth(totals))
    picked = telling_layers(totals, names)
    several = totals["batch_size"].nunique() > 1
    lines = two(
        sub("Time per image", layer_lines(totals, picked),
            lead="Median over the iterations. Dashed: global attention."),
        sub("Scaling efficiency", layer_lines(totals, picked, efficiency=True),
            lead="Time per image at the smallest batch over time per image here: above 1 batching helps."),
    )  # fmt: skip
    return "".join(
        [
            verdict_line(scaling(totals)) if lead else "",
            _notes(run, layers),
            sub(
                "Time per image, by layer", heat_map(totals, names), lead="Median of a layer divided by the batch size."
            ),
            lines if several else "",
            _deeper(totals, len(names)),
        ]
    )


def heat_map(totals: pd.DataFrame, layers: Sequence[str]) -> str:
    """Time per image of each layer (down) at each batch size (across), the longer the further from the page's colour.

    Takes LAYER_TOTALS. A table, so that it can be read without colours, copied and printed.
    """
    LAYER_TOTALS.check(totals)
    rows = totals[totals["layer"].isin(list(layers))]
    batches = sorted(rows["batch_size"].unique().tolist())
    names, sizes = rows["layer"].tolist(), rows["batch_size"].tolist()
    cells = dict(zip(zip(names, sizes, strict=True), rows["per_image_ns"].tolist(), strict=True))
    share = dict(zip(names, rows["share"].tolist(), strict=True))  # rows are by batch size: the largest stays
    about = dict(zip(names, zip(rows["type"], rows["variant"], strict=True), strict=True))
    most = max(cells.values(), default=0.0) or 1.0
    texts = dict(zip(cells, fmt_all_ns(list(cells.values())), strict=True))
    head = "".join(f'<th scope="col" class="number">batch {batch}</th>' for batch in batches)
    body = "".join(
        f'<tr><th scope="row" class="text">{escape(layer)}</th><td class="text">{escape(about[layer][0])}'
        f"{f' · {escape(about[layer][1])}' if about[layer][1] else ''}</td>"
        + "".join(_cell(cells.get((layer, batch)), most, texts.get((layer, batch), MISSING)) for batch in batches)
        + f'<td class="number">{fmt_percent(share[layer])}</td></tr>'
        for layer in layers
        if layer in about
    )
    return (
        '<div class="scroll"><table class="heat" aria-label="Time per image by layer and batch size"><thead><tr>'
        f'<th scope="col" class="text">layer</th><th scope="col" class="text">type</th>{head}'
        '<th scope="col" class="number" title="Of the whole forward at the largest batch size.">share</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(value: float | None, most: float, text: str) -> str:
    if value is None:
        return f'<td class="number">{MISSING}</td>'
    return f'<td class="number h{round(STEPS * value / most)}">{escape(text)}</td>'


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


def layer_lines(totals: pd.DataFrame, layers: Sequence[str], *, efficiency: bool = False) -> str:
    """Time per image, or scaling efficiency, of some layers against the batch size. Takes LAYER_TOTALS."""
    LAYER_TOTALS.check(totals)
    rows = totals[totals["layer"].isin(list(layers))]
    if rows.empty:
        return ""
    unit = time_unit(rows["per_image_ns"])
    batches = sorted(rows["batch_size"].unique().tolist())
    place = {batch: (number + 0.5) / len(batches) for number, batch in enumerate(batches)}
    value: Callable[[pd.Series], float] = (
        (lambda row: float(row["efficiency"])) if efficiency else lambda row: ns_in(float(row["per_image_ns"]), unit)
    )
    most = 1.08 * max(value(row) for _, row in rows.iterrows()) or 1.0
    body, over, legend = [], [], []
    for number, layer in enumerate(layers):
        mine = rows[rows["layer"] == layer].sort_values("batch_size")
        colour, variant = HUES[number % len(HUES)], str(mine["variant"].iloc[0])
        dash = ' stroke-dasharray="6 4"' if "global" in variant else ""
        points = [(place[row["batch_size"]], value(row) / most) for _, row in mine.iterrows()]
        body.append(f'<path class="line" d="{line(points, HEIGHT_PX)}" stroke="{colour}"{dash}/>')
        for (x, y), (_, row) in zip(points, mine.iterrows(), strict=True):
            shown = f"{value(row):.2f}" if efficiency else f"{fmt_ns(float(row['per_image_ns']))} per image"
            over.append(
                f'<circle cx="{percent(x)}" cy="{HEIGHT_PX * (1 - y):.1f}" r="4" fill="{colour}">'
                f"<title>{escape(layer)}, batch {row['batch_size']}: {shown}</title></circle>"
            )
        legend.append(f"<li>{swatch(colour)}{escape(layer)}{f' · {escape(variant)}' if variant else ''}</li>")
    if efficiency:
        at = HEIGHT_PX * (1 - 1 / most)
        body.append(f'<path class="line base" d="M0 {at:.1f}H{WIDE}" stroke-dasharray="2 4"/>')
    marks = [(at / most, tick_text(at) + ("" if efficiency else f" {unit}")) for at in ticks(most)]
    return plot(
        "".join(body), "".join(over), height=HEIGHT_PX, y_ticks=marks,
        x_ticks=[(place[batch], str(batch)) for batch in batches],
        label="Scaling efficiency by batch size" if efficiency else "Time per image by batch size", x_name="batch size",
    ) + f'<ul class="legend">{"".join(legend)}</ul>'  # fmt: skip


def _notes(run: Run, layers: Layers) -> str:
    """How much of the forward the layers explain, and what to know about how they were timed."""
    said = [one.line for one in of_layers(layers, run.record) if one.id != "batching"]
    return "".join(f'<p class="note">{escape(text)}</p>' for text in (*said, *layers.notes))


def _deeper(totals: pd.DataFrame, shown: int) -> str:
    """All layers of the deepest level, where the picture shows fewer."""
    names = layers_at_depth(totals, int(totals["depth"].max()))
    if len(names) <= shown:
        return ""
    return folded(f"The innermost {fmt_count(min(len(names), DEEP_ROWS))} layers", heat_map(totals, names[:DEEP_ROWS]))
