"""Masks of a ladder's row beside the baseline's and the image they are of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from profiler_kit.errors import InputError, KitError
from profiler_kit.files import whole_file
from profiler_kit.formats.ladder_record import BASELINE, ROWS, SAMPLES, slug
from profiler_kit.formats.run_record import MASKS
from profiler_kit.formats.student_rows import TEACHER
from profiler_kit.models.sam.accuracy import ImageMasks, decode, read_masks_file
from profiler_kit.render.pictures import open_image, overlay_png

MOST: Final = 40  # masks in one picture
FLOAT, INT8 = "student", "int8"  # rows of a student, as sam student eval names them


def sample_count(folder: Path) -> int:
    """How many images the ladder kept."""
    return sum(1 for _ in (folder / SAMPLES).glob("*.jpg")) if (folder / SAMPLES).is_dir() else 0


def with_masks(folder: Path, techniques: Sequence[str]) -> list[str]:
    """Those of the rows that have masks."""
    return [name for name in techniques if (folder / ROWS / slug(name) / MASKS).is_file()]


def row_overlay(folder: Path, technique: str, number: int = 0) -> bytes:
    """Image `number` with the baseline's masks, and with those of the row, as one PNG; of a student in int8 between
    them those of the student in float.

    Raises InputError when the ladder kept no such image or no masks, and as `read_masks_file`.
    """
    picture = folder / SAMPLES / f"{number}.jpg"
    if not picture.is_file():
        raise InputError(f"{picture}: no such file, expected an image that the ladder kept. Measure the ladder again.")
    between = with_masks(folder, [FLOAT]) if technique == INT8 else []
    panels = [(name, _masks(folder, name, number)) for name in dict.fromkeys((BASELINE, *between, technique))]
    image = open_image(picture)
    for name, masks in panels:
        if (masks.height, masks.width) != (image.height, image.width):
            raise InputError(
                f"{folder / ROWS / slug(name) / MASKS}: masks of {masks.width} x {masks.height} pixels, expected "
                f"{image.width} x {image.height} as {picture} has. Measure the ladder again."
            )
    shown = {BASELINE: TEACHER} if with_masks(folder, [FLOAT]) else {}
    drawn = [
        (
            f"{shown.get(name, name)}: {len(masks.counts)} masks",
            np.array([decode(rle) for rle in masks.rles[:MOST]], dtype=np.bool_),
        )
        for name, masks in panels
    ]
    return overlay_png(image, drawn)


def write_overlays(folder: Path, techniques: list[str]) -> list[Path]:
    """Write overlay.png of the first image into the folder of each row that has masks; returns the files."""
    written = []
    for technique in techniques:
        target = folder / ROWS / slug(technique) / "overlay.png"
        try:
            picture = row_overlay(folder, technique)
        except KitError:  # a row without masks: there is nothing to draw
            continue
        with whole_file(target) as temporary:
            temporary.write_bytes(picture)
        written.append(target)
    return written


def _masks(folder: Path, technique: str, number: int) -> ImageMasks:
    path = folder / ROWS / slug(technique) / MASKS
    images = read_masks_file(path)
    if number >= len(images):
        raise InputError(f"{path}: masks of {len(images)} images, expected image {number}. Measure the ladder again.")
    return images[number]
