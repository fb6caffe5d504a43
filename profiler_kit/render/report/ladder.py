"""A ladder in the report: waterfall, table, Pareto plot, roofline and masks (a folder and its record -> HTML)."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pandas as pd
from PIL import Image

from profiler_kit.errors import KitError
from profiler_kit.formats.ladder_file import ladder_rows
from profiler_kit.formats.ladder_record import BASELINE, LadderRecord
from profiler_kit.render.figures.ladder import pareto_front
from profiler_kit.render.ladder_style import ALTERNATIVE, STEP, agreement_title, ladder_facts, titles
from profiler_kit.render.overlays import row_overlay, with_masks
from profiler_kit.render.pictures import waterfall_png
from profiler_kit.render.report.parts import Column, notice, sub, table
from profiler_kit.render.svg import escape, line, percent, plot, swatch, tick_text, ticks
from profiler_kit.render.tables import printable
from profiler_kit.text import MISSING, fmt_rate
from profiler_kit.timeline.palette import HUES, NEUTRAL
from profiler_kit.units import bytes_to_mib, ns_to_ms

HEIGHT_PX: Final = 300
OVERLAYS: Final = 2  # rows whose masks are shown, the fastest first
_PAGE_PX, _LETTER_PX, _LINE_PX = 900, 7, 13
_DECADES: Final = range(-6, 13)


def ladder_section(folder: Path, record: LadderRecord) -> str:
    """Everything the report says of one ladder. folder: where the rows' masks and the kept images may be."""
    rows = ladder_rows(record)
    title, footer = ladder_facts(record)
    parts = [_picture(waterfall_png(rows, title, footer), f"{title}: speed, memory and agreement")]
    parts += [
        notice(f"{printable(row.technique)}: {row.status}. {printable(row.error)}")
        for row in record.rows
        if row.status != "ok"
    ]
    parts.append(ladder_rows_table(rows))
    if rows["images_per_s"].notna().any():
        parts.append(sub("Accuracy against speed", _pareto(rows), meaning="Dotted: rows that none beats in both."))
    if record.ceilings is not None and rows["tflops"].notna().any():
        rates = record.ceilings.matrix_tflops
        parts.append(sub("Roofline", _roofline(rows, rates, record.ceilings.copy_gb_per_s), meaning=_ROOFS))
    parts += _overlays(folder, rows)
    return "".join(parts)


_ROOFS: Final = "Work of the published model a second, under the matrix rates and the copy bandwidth measured here."


def ladder_rows_table(rows: pd.DataFrame) -> str:
    """One line a row of LADDER_ROWS."""

    def numbers(name: str, values: pd.Series, form: str, meaning: str = "") -> Column:
        return Column(name, [MISSING if pd.isna(v) else format(v, form) for v in values], "number", meaning)

    names = [printable(name) for name in rows["technique"]]
    verdicts = (
        ("mIoU", rows["miou"], ".4f", "Mean IoU with the truth."),
        ("mIoU fp32", rows["baseline_miou"], ".4f", "Mean IoU with the masks of the fp32 row."),
        ("rel. error", rows["relative_error"], ".2e", "Of the outputs of one batch, against those of the fp32 row."),
        ("cosine", rows["cosine"], ".4f", "Between the outputs of one batch and those of the fp32 row."),
    )
    return table(
        [
            Column("row", names, "text", "", [printable(text) for text in rows["optimizations"]]),
            numbers(f"{titles(rows)[0].partition(' ')[0]}/s", rows["images_per_s"], ",.1f"),
            numbers("× fp32", rows["speedup"], ",.2f"),
            numbers("median ms", rows["median_ns"].map(ns_to_ms), ",.3f"),
            numbers("peak MiB", rows["peak_memory_bytes"].map(bytes_to_mib), ",.0f"),
            *(numbers(*column) for column in verdicts if column[1].notna().any()),
            Column("TFLOP/s", [MISSING if pd.isna(rate) else fmt_rate(rate) for rate in rows["tflops"]], "number"),
            numbers("% of rate", 100 * rows["tflops"] / rows["peak_tflops"], ".1f", "Of the measured matrix rate."),
        ],
        "The rows of the ladder",
    )


def _picture(data: bytes, label: str) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f'<img src="data:image/{kind};base64,{base64.b64encode(data).decode()}" width="100%" alt="{escape(label)}">'


def _dots(rows: pd.DataFrame, places: Sequence[tuple[float, float]], tips: Sequence[str]) -> str:
    """A mark for each row, at (share of the width, share of the height from the bottom), named where there is room."""
    out: list[str] = []
    taken: list[tuple[float, float, float]] = []  # left, right and height of each name, in pixels of a usual page
    for (x, y), name, is_step, tip in zip(places, rows["technique"], rows["is_step"], tips, strict=True):
        down, colour = HEIGHT_PX * (1 - y), STEP if is_step else ALTERNATIVE
        side, shift = ("end", -9) if x > 0.7 else ("start", 9)
        out.append(
            f'<circle cx="{percent(x)}" cy="{down:.1f}" r="5" fill="{colour}"><title>{escape(tip)}</title></circle>'
        )
        long = _LETTER_PX * len(name) + 12
        left = _PAGE_PX * x - (long if side == "end" else 0)
        if all(left > end or left + long < start or abs(down - at) > _LINE_PX for start, end, at in taken):
            taken.append((left, left + long, down))
            out.append(
                f'<text class="tick" x="{percent(x)}" dx="{shift}" y="{down + 4:.1f}" text-anchor="{side}">'
                f"{escape(printable(name))}</text>"
            )
    return "".join(out)


def _pareto(rows: pd.DataFrame) -> str:
    known = rows[rows["images_per_s"].notna() & rows["agreement"].notna()]
    fastest, low = float(known["images_per_s"].max()) * 1.05, float(known["agreement"].min())
    span = max(1 - low, 0.002)
    least = low - 0.1 * span

    def place(frame: pd.DataFrame) -> list[tuple[float, float]]:
        heights = (frame["agreement"] - least) / (1 + 0.05 * span - least)
        return list(zip((frame["images_per_s"] / fastest).tolist(), heights.tolist(), strict=True))

    front = line(place(pareto_front(known).iloc[::-1]), HEIGHT_PX)
    tips = [
        f"{name}: {rate:,.1f} images/s, agreement {miou:.4f}"
        for name, rate, miou in zip(known["technique"], known["images_per_s"], known["agreement"], strict=True)
    ]
    marks = [least + share * span for share in (0.1, 0.6, 1.1)]
    return plot(
        f'<path class="line" d="{front}" stroke="{NEUTRAL}" stroke-dasharray="2 4"/>',
        _dots(known, place(known), tips),
        height=HEIGHT_PX,
        y_ticks=[((at - least) / (1 + 0.05 * span - least), f"{at:.3f}") for at in marks],
        x_ticks=[(at / fastest, tick_text(at)) for at in ticks(fastest)],
        label=f"{agreement_title(rows)} against {titles(rows)[0]}",
        y_name=agreement_title(rows),
        x_name=titles(rows)[0],
    )


def _roofline(rows: pd.DataFrame, rates: Mapping[str, float], copy_gb_per_s: float) -> str:
    """Logarithmic in both directions; a roof for each dtype that a row computes in."""
    known = rows[rows["tflops"].gt(0) & rows["intensity"].gt(0)]
    if known.empty:
        return ""
    roofs = {name: rates[name] for name in dict.fromkeys(known["dtype"]) if name in rates}
    low, high = float(known["intensity"].min()) / 8, float(known["intensity"].max()) * 8
    least = min(float(known["tflops"].min()) / 2, copy_gb_per_s * low / 1e3)
    most = max([float(known["tflops"].max()), *roofs.values()]) * 1.5

    def place(x: float, y: float) -> tuple[float, float]:
        return math.log(x / low) / math.log(high / low), math.log(y / least) / math.log(most / least)

    paths, legend = [], []
    for number, (name, rate) in enumerate(roofs.items()):
        ridge = min(max(rate * 1e3 / copy_gb_per_s, low), high)
        points = [place(x, min(rate, copy_gb_per_s * x / 1e3)) for x in (low, ridge, high)]
        colour = HUES[(number + 3) % len(HUES)]
        paths.append(f'<path class="line" d="{line(points, HEIGHT_PX)}" stroke="{colour}"/>')
        legend.append(f"<li>{swatch(colour)}{escape(name)}: {fmt_rate(rate)} TFLOP/s</li>")
    places = [place(x, y) for x, y in zip(known["intensity"], known["tflops"], strict=True)]
    tips = [f"{name}: {rate:,.3g} TFLOP/s" for name, rate in zip(known["technique"], known["tflops"], strict=True)]
    decades = [10.0**power for power in _DECADES]
    return (
        plot(
            "".join(paths),
            _dots(known, places, tips),
            height=HEIGHT_PX,
            y_ticks=[(place(low, at)[1], tick_text(at)) for at in decades if least <= at <= most],
            x_ticks=[(place(at, least)[0], tick_text(at)) for at in decades if low <= at <= high],
            label="TFLOP/s of each row under the measured ceilings",
            y_name="TFLOP/s",
            x_name="FLOP per byte of the published model",
        )
        + f'<ul class="legend">{"".join(legend)}</ul>'
    )


def _overlays(folder: Path, rows: pd.DataFrame) -> list[str]:
    """Masks of the fastest rows that kept some, beside the baseline's, as JPEG."""
    ordered = [str(name) for name in rows.sort_values("images_per_s", ascending=False)["technique"]]
    parts = []
    for name in [n for n in with_masks(folder, ordered) if n != BASELINE][:OVERLAYS]:
        try:
            drawn = Image.open(io.BytesIO(row_overlay(folder, name))).convert("RGB")
        except KitError as error:
            parts.append(notice(str(error)))
            continue
        packed = io.BytesIO()
        drawn.save(packed, "JPEG", quality=82)
        shown = _picture(packed.getvalue(), f"Masks of fp32 and of {printable(name)}")
        parts.append(sub(f"Masks of {printable(name)}", shown))
    return parts
