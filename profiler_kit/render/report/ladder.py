"""A ladder in the report: waterfall, table, Pareto plot, roofline and masks."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pandas as pd
from markupsafe import Markup
from PIL import Image

from profiler_kit.errors import KitError
from profiler_kit.finding import Finding
from profiler_kit.findings.records import of_ladder
from profiler_kit.formats.ladder_file import ladder_rows
from profiler_kit.formats.ladder_record import BASELINE, LadderRecord
from profiler_kit.render.figures.ladder import pareto_front
from profiler_kit.render.html import table_html
from profiler_kit.render.ladder_style import ALTERNATIVE, STEP, agreement_title, ladder_facts, titles
from profiler_kit.render.overlays import row_overlay, with_masks
from profiler_kit.render.pictures import waterfall_png
from profiler_kit.render.report.section import Block, Section, warning
from profiler_kit.render.svg import Dot, curve, dots, draw, legend, marks, plot, tick_text
from profiler_kit.tables import every_table
from profiler_kit.tables.ladder import shown_of
from profiler_kit.text import fmt_rate
from profiler_kit.timeline.palette import HUES, NEUTRAL

HEIGHT_PX: Final = 300
OVERLAYS: Final = 2  # rows whose masks are shown, the fastest first
DECADES: Final = [10.0**power for power in range(-6, 13)]
_LEAD: Final = "The published model and named rewrites of it, one process a row."
_ROOFS: Final = "Work of the published model a second, under the matrix rates and the copy bandwidth measured here."
_FRONT: Final = "Dotted: rows that none beats in both."


def ladder_section(folder: Path, record: LadderRecord, anchor: str) -> Section:
    """Everything the report says of one ladder. folder: where the rows' masks and the kept images may be."""
    rows = ladder_rows(record)
    title, footer = ladder_facts(record)
    said = of_ladder(record, rows)
    waterfall = _picture(waterfall_png(rows, title, footer), f"{title}: speed, memory and agreement")
    filled = [every_table()[name].of_source(record) for name in shown_of(record)]
    named = len(filled) > 1
    tables = (Block(one.table.title.capitalize() if named else "", table_html(one, brief=True)) for one in filled)
    blocks = [Block("", waterfall), *tables]
    if rows["images_per_s"].notna().any():
        blocks.append(Block("Accuracy against speed", _pareto(rows), meaning=_FRONT))
    if record.ceilings is not None and rows["tflops"].notna().any():
        roofs = _roofline(rows, record.ceilings.matrix_tflops, record.ceilings.copy_gb_per_s)
        blocks.append(Block("Roofline", roofs, meaning=_ROOFS))
    problems: list[Finding] = []
    blocks += _overlays(folder, rows, problems)
    heading = f"Ladder: {folder.resolve().name}"
    fastest = next((one for one in said if one.id == "fastest-row"), None)
    others = [one for one in said if one is not fastest]
    return Section(
        anchor,
        heading,
        said=fastest,
        lines=[one for one in others if one.level == "note"],
        warnings=[*(one for one in others if one.level != "note"), *problems],
        rows=[[block] for block in blocks],
        lead=_LEAD,
    )


def _picture(data: bytes, label: str) -> Markup:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    source = base64.b64encode(data).decode()
    return draw('<img src="data:image/{};base64,{}" width="100%" alt="{}">', kind, source, label)


def _marked(rows: pd.DataFrame, places: list[tuple[float, float]], tips: list[str]) -> list[Markup]:
    """A mark for each row, named where there is room."""
    return dots(
        [
            Dot(x, y, STEP if is_step else ALTERNATIVE, tip, name, radius=5)
            for (x, y), name, is_step, tip in zip(places, rows["technique"], rows["is_step"], tips, strict=True)
        ],
        HEIGHT_PX,
    )


def _pareto(rows: pd.DataFrame) -> Markup:
    known = rows[rows["images_per_s"].notna() & rows["agreement"].notna()]
    fastest, low = float(known["images_per_s"].max()) * 1.05, float(known["agreement"].min())
    span = max(1 - low, 0.002)
    least, height = low - 0.1 * span, 1.15 * span + 1 - low - span

    def place(frame: pd.DataFrame) -> list[tuple[float, float]]:
        across, up = frame["images_per_s"] / fastest, (frame["agreement"] - least) / height
        return list(zip(across.tolist(), up.tolist(), strict=True))

    tips = [
        f"{name}: {fmt_rate(rate)} images/s, agreement {miou:.4f}"
        for name, rate, miou in zip(known["technique"], known["images_per_s"], known["agreement"], strict=True)
    ]
    return plot(
        [curve(place(pareto_front(known).iloc[::-1]), HEIGHT_PX, NEUTRAL, dash="2 4")],
        _marked(known, place(known), tips),
        height=HEIGHT_PX,
        y_ticks=[(share * span / height, f"{least + share * span:.3f}") for share in (0.1, 0.6, 1.1)],
        x_ticks=marks(fastest),
        label=f"{agreement_title(rows)} against {titles(rows)[0]}",
        y_name=agreement_title(rows),
        x_name=titles(rows)[0],
    )


def _roofline(rows: pd.DataFrame, rates: Mapping[str, float], copy_gb_per_s: float) -> Markup:
    """Logarithmic in both directions; a roof for each dtype that a row computes in."""
    known = rows[rows["tflops"].gt(0) & rows["intensity"].gt(0)]
    if known.empty:
        return Markup()
    roofs = {name: rates[name] for name in dict.fromkeys(known["dtype"]) if name in rates}
    low, high = float(known["intensity"].min()) / 8, float(known["intensity"].max()) * 8
    least = min(float(known["tflops"].min()) / 2, copy_gb_per_s * low / 1e3)
    most = max([float(known["tflops"].max()), *roofs.values()]) * 1.5

    def place(x: float, y: float) -> tuple[float, float]:
        return math.log(x / low) / math.log(high / low), math.log(y / least) / math.log(most / least)

    lines, names = [], []
    for number, (name, rate) in enumerate(roofs.items()):
        ridge = min(max(rate * 1e3 / copy_gb_per_s, low), high)
        colour = HUES[(number + 3) % len(HUES)]
        roof = [place(x, min(rate, copy_gb_per_s * x / 1e3)) for x in (low, ridge, high)]
        lines.append(curve(roof, HEIGHT_PX, colour))
        names.append((colour, f"{name}: {fmt_rate(rate)} TFLOP/s"))
    places = [place(x, y) for x, y in zip(known["intensity"], known["tflops"], strict=True)]
    tips = [f"{name}: {rate:,.3g} TFLOP/s" for name, rate in zip(known["technique"], known["tflops"], strict=True)]
    return plot(
        lines,
        _marked(known, places, tips),
        height=HEIGHT_PX,
        y_ticks=[(place(low, at)[1], tick_text(at)) for at in DECADES if least <= at <= most],
        x_ticks=[(place(at, least)[0], tick_text(at)) for at in DECADES if low <= at <= high],
        label="TFLOP/s of each row under the measured ceilings",
        y_name="TFLOP/s",
        x_name="FLOP per byte of the published model",
    ) + legend(names)


def _overlays(folder: Path, rows: pd.DataFrame, problems: list[Finding]) -> Iterator[Block]:
    """Masks of the fastest rows that kept some, beside the baseline's, as JPEG; what cannot be drawn is a problem."""
    ordered = [str(name) for name in rows.sort_values("images_per_s", ascending=False)["technique"]]
    for name in [n for n in with_masks(folder, ordered) if n != BASELINE][:OVERLAYS]:
        try:
            drawn = Image.open(io.BytesIO(row_overlay(folder, name))).convert("RGB")
        except KitError as error:
            problems.append(warning(str(error)))
            continue
        packed = io.BytesIO()
        drawn.save(packed, "JPEG", quality=82)
        yield Block(f"Masks of {name}", _picture(packed.getvalue(), f"Masks of the first row and of {name}"))
