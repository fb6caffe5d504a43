"""Pictures without a browser: a ladder's waterfall and masks over an image, drawn with Pillow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image, ImageColor, ImageDraw, ImageFont

from profiler_kit.formats.ladder_file import LADDER_ROWS
from profiler_kit.render.ladder_style import ALTERNATIVE, BELOW, MEMORY, STEP, speed_text, titles
from profiler_kit.text import MISSING
from profiler_kit.timeline.palette import HUES
from profiler_kit.units import bytes_to_mib

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_FONTS: Final = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc")
_PLAIN: Final = {ord("×"): "x", ord("·"): ",", ord("–"): "-", ord("…"): "..", ord("µ"): "u"}
_INK, _SOFT, _PALE, _PAPER = "#1B1F24", "#5B636D", "#E6E9ED", "#FFFFFF"
_WIDTH, _ROW, _PAD = 1600, 46, 28
_PANELS: Final = ((0.0, 0.54), (0.56, 0.79), (0.81, 1.0))  # of what is right of the names: speed, memory, agreement


def waterfall_png(rows: pd.DataFrame, title: str, footer: str = "") -> bytes:
    """The waterfall of LADDER_ROWS: images a second step by step, peak memory, agreement with the baseline."""
    LADDER_ROWS.check(rows)
    size, small, large = _font(19), _font(16), _font(25)
    head, foot = 118, 84 if footer else 52
    image = Image.new("RGB", (_WIDTH, head + _ROW * len(rows) + foot), _PAPER)
    draw = ImageDraw.Draw(image)
    names = [_sure(_fit(draw, f"{'' if step else '   '}{name}", size, 300), size) for name, step in _named(rows)]
    left = _PAD + max([draw.textlength(name, font=size) for name in names], default=0) + 22
    spans = [(left + a * (_WIDTH - _PAD - left), left + b * (_WIDTH - _PAD - left)) for a, b in _PANELS]
    _text(draw, (_PAD, 20), title, large)
    for (start, stop), heading in zip(spans, titles(rows), strict=True):
        _text(draw, (start, head - 38), _fit(draw, heading, small, stop - start), small, _SOFT)
    for number, name in enumerate(names):
        top = head + number * _ROW
        if number % 2 == 0:
            draw.rectangle((_PAD - 8, top, _WIDTH - _PAD + 8, top + _ROW - 1), fill="#F6F7F9")
        _text(draw, (_PAD, top + _ROW / 2), name, size, anchor="lm")
    _speed(draw, rows, spans[0], head, size)
    _memory(draw, rows, spans[1], head, size)
    _agreement(draw, rows, spans[2], head, size)
    below = head + _ROW * len(rows) + 14
    at = left
    legend = [("step: what it added to the step before is solid", STEP)]
    if not rows["is_step"].all():
        legend.append(("alternative", ALTERNATIVE))
    for label, colour in legend:
        draw.rectangle((at, below + 3, at + 16, below + 17), fill=colour)
        _text(draw, (at + 24, below), label, small, _SOFT)
        at += 56 + draw.textlength(_sure(label, small), font=small)
    if footer:
        _text(draw, (_PAD, below + 32), _fit(draw, footer, small, _WIDTH - 2 * _PAD), small, _SOFT)
    return _png(image)


def overlay_png(image: Image.Image, panels: Sequence[tuple[str, npt.NDArray[np.bool_]]], *, width: int = 640) -> bytes:
    """The image once a panel, side by side, each with its masks (bool[N, H, W]) in colour and its title above.

    Mask i has the same colour in every panel.
    """
    font = _font(18)
    height = round(image.height * width / image.width)
    canvas = Image.new("RGB", (len(panels) * (width + 12) - 12, height + 34), _INK)  # reads on any page
    draw = ImageDraw.Draw(canvas)
    for number, (title, masks) in enumerate(panels):
        at = number * (width + 12)
        _text(draw, (at + 10, 6), _fit(draw, title, font, width - 12), font, _PAPER)
        canvas.paste(_painted(image, masks).resize((width, height), Image.Resampling.LANCZOS), (at, 34))
    return _png(canvas)


def open_image(path: Path) -> Image.Image:
    """A picture as RGB."""
    with Image.open(path) as opened:
        return opened.convert("RGB")


def _painted(image: Image.Image, masks: npt.NDArray[np.bool_]) -> Image.Image:
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32).copy()
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = 0.45 * pixels + 0.55 * (0.6 * grey + 60)  # mute the photograph, so that masks stand out
    for number, mask in enumerate(masks):
        colour = np.array(ImageColor.getrgb(HUES[number % len(HUES)]), dtype=np.float32)
        pixels[mask] = 0.42 * pixels[mask] + 0.58 * colour
        pixels[_edge(mask)] = colour
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _edge(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of the mask next to one outside, two wide."""
    inner = mask.copy()
    for _ in range(2):
        core = inner.copy()
        core[1:] &= inner[:-1]
        core[:-1] &= inner[1:]
        core[:, 1:] &= inner[:, :-1]
        core[:, :-1] &= inner[:, 1:]
        inner = core
    return np.asarray(mask & ~inner)


def _named(rows: pd.DataFrame) -> list[tuple[str, bool]]:
    return list(zip(rows["technique"].astype(str), rows["is_step"].astype(bool), strict=True))


def _speed(draw: ImageDraw.ImageDraw, rows: pd.DataFrame, span: tuple[float, float], head: int, font: Font) -> None:
    speed = rows.set_index("technique")["images_per_s"]
    scale = (span[1] - span[0] - 190) / max(float(np.nanmax([*speed, 1e-9])), 1e-9)
    for number, (_, row) in enumerate(rows.iterrows()):
        top, bottom = head + number * _ROW + 8, head + (number + 1) * _ROW - 9
        value = row["images_per_s"]
        end = span[0]
        if not np.isnan(value):
            colour = STEP if row["is_step"] else ALTERNATIVE
            parent = min(float(speed.get(row["parent"], 0.0) or 0.0), value)
            end, middle = span[0] + value * scale, span[0] + parent * scale
            draw.rectangle((span[0], top, end, bottom), fill=_mix(colour, 0.35))
            if end > middle:
                draw.rectangle((middle, top, end, bottom), fill=colour)
        _text(draw, (end + 10, (top + bottom) / 2), speed_text(row), font, anchor="lm")


def _memory(draw: ImageDraw.ImageDraw, rows: pd.DataFrame, span: tuple[float, float], head: int, font: Font) -> None:
    values = rows["peak_memory_bytes"].map(bytes_to_mib)
    scale = (span[1] - span[0] - 90) / max(float(np.nanmax([*values, 1e-9])), 1e-9)
    for number, value in enumerate(values):
        top, bottom = head + number * _ROW + 8, head + (number + 1) * _ROW - 9
        end = span[0] + (0 if np.isnan(value) else value * scale)
        draw.rectangle((span[0], top, max(end, span[0] + 1), bottom), fill=MEMORY if end > span[0] else _PALE)
        label = MISSING if np.isnan(value) else f"{value:,.0f}"
        _text(draw, (end + 10, (top + bottom) / 2), label, font, anchor="lm")


def _agreement(draw: ImageDraw.ImageDraw, rows: pd.DataFrame, span: tuple[float, float], head: int, font: Font) -> None:
    """Dots on a scale from a little below the lowest to 1."""
    values = rows["agreement"]
    low = min(float(np.nanmin([*values, 0.99])), 0.99)
    scale = (span[1] - span[0] - 110) / (1 - low)
    for number, value in enumerate(values):
        middle = head + (number + 0.5) * _ROW
        if np.isnan(value):
            _text(draw, (span[0] + 8, middle), MISSING, font, _SOFT, anchor="lm")
            continue
        at = span[0] + 8 + (value - low) * scale
        draw.line((span[0] + 8, middle, at, middle), fill=_PALE, width=3)
        colour = BELOW if rows["below_min_miou"].iloc[number] else STEP
        draw.ellipse((at - 6, middle - 6, at + 6, middle + 6), fill=colour)
        _text(draw, (at + 14, middle), f"{value:.4f}", font, anchor="lm")


def _font(size: int) -> Font:
    """A font of the machine that has the signs we use, else Pillow's own."""
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def _sure(text: str, font: Font) -> str:
    """The text in signs that the font has: Pillow's own font has ASCII only."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    if isinstance(font, ImageFont.FreeTypeFont) and font.getname()[0] != "Aileron":
        return shown
    return shown.translate(_PLAIN).encode("ascii", "replace").decode("ascii")


def _text(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, font: Font, fill: str = _INK, anchor: str = "la"
) -> None:
    draw.text(at, _sure(text, font), font=font, fill=fill, anchor=anchor)


def _fit(draw: ImageDraw.ImageDraw, text: str, font: Font, width: float) -> str:
    """The text, its end cut off where it does not fit."""
    if draw.textlength(_sure(text, font), font=font) <= width:
        return text
    while text and draw.textlength(_sure(text + "…", font), font=font) > width:
        text = text[:-1]
    return text + "…"


def _mix(colour: str, share: float) -> tuple[int, int, int]:
    """The colour thinned with paper."""
    return tuple(round(255 + (c - 255) * share) for c in ImageColor.getrgb(colour)[:3])  # type: ignore[return-value]  # three of them


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
