"""What comes in and goes out: image files within limits to pixels, masks to a picture or to run lengths."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from profiler_kit.capture.regions import region
from profiler_kit.models.sam.generator import Pixels, Points, mask_of
from profiler_kit.models.sam.scenes import as_rgb

FORMATS: Final = ("JPEG", "PNG", "WEBP")
SLIMMEST: Final = 64  # longer side by the shorter: a model's input would be left with no row
CHUNK: Final = 64  # masks of a stream that are sent at once
MOST_POINTS: Final = 1024


class Refused(Exception):
    """A request that is answered with a status of HTTP and one sentence."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, headers


@dataclass(frozen=True)
class Limits:
    """Of an image: bytes of the file, pixels of the picture."""

    file_bytes: int = 20 << 20
    pixels: int = 40_000_000


@region("decode image")
def decode_image(data: bytes, limits: Limits) -> Pixels:
    """The pixels of an image file, uint8[H, W, 3], turned as its EXIF says; raises Refused."""
    from PIL import Image, ImageOps

    if not data:
        raise Refused(
            400, "The request holds no image: send a JPEG, PNG or WebP file as the body or as the field image."
        )
    try:
        opened = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Refused(413, f"The image has more than {limits.pixels:,} pixels; send a smaller one.") from error
    except Exception as error:  # whatever a hostile file brings about in a decoder
        raise Refused(400, f"No image in {len(data):,} bytes: expected a JPEG, PNG or WebP file.") from error
    width, height = opened.size
    if width * height > limits.pixels:
        raise Refused(
            413, f"The image has {width} x {height} pixels, expected at most {limits.pixels:,}; send a smaller one."
        )
    if max(width, height) > SLIMMEST * min(width, height):
        raise Refused(422, f"The image has {width} x {height} pixels, expected sides of at most {SLIMMEST} to 1.")
    try:
        return as_rgb(ImageOps.exif_transpose(opened))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Refused(400, f"The {opened.format} image is broken ({reason}); send a whole one.") from error


def read_points(text: str) -> Points:
    """ "120,80;30.5,40" as pixels, float64[N, 2], x then y; raises Refused."""
    try:
        found = np.array([[float(one) for one in pair.split(",")] for pair in text.split(";")], dtype=np.float64)
        if found.ndim != 2 or found.shape[1] != 2 or not np.isfinite(found).all():
            raise ValueError(text)
    except ValueError as error:
        raise Refused(422, f"points={text[:40]}: expected pixels, x then y, such as 120,80;30,40.") from error
    if len(found) > MOST_POINTS:
        raise Refused(422, f"points: found {len(found):,}, expected at most {MOST_POINTS:,}; ask several times.")
    return found


def check_points(points: Points, image: Pixels) -> None:
    """Raise Refused for a point outside of the image."""
    height, width = image.shape[:2]
    outside = ((points < 0) | (points >= (width, height))).any(axis=1)
    if outside.any():
        x, y = points[outside.argmax()].tolist()
        raise Refused(422, f"points: {x:g},{y:g} is outside of the image of {width} x {height} pixels.")


@region("encode answer")
def overlay(image: Pixels, masks: list[dict[str, Any]]) -> bytes:
    """A PNG: each mask in a colour of its own over the image, the largest below."""
    from PIL import Image

    canvas, colours = image.copy(), np.random.default_rng(0)
    for mask in sorted(masks, key=lambda one: -one["area"]):
        inside = mask_of(mask["segmentation"])
        canvas[inside] = canvas[inside] // 2 + colours.integers(0, 128, 3, dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(canvas).save(out, "PNG", compress_level=1)
    return out.getvalue()


@region("encode answer")
def run_lengths(_image: Pixels, masks: list[dict[str, Any]]) -> bytes:
    """{"mask_0": {"size": [H, W], "counts": [...]}, ...}: plain run lengths, as sam2's example server answers."""
    return json.dumps({f"mask_{number}": mask["segmentation"] for number, mask in enumerate(masks)}).encode()


def lines(masks: list[dict[str, Any]]) -> Iterator[bytes]:
    """The records of the generator as lines of JSON, some at a time."""
    for at in range(0, len(masks), CHUNK):
        with region("encode answer"):
            text = "".join(json.dumps(mask) + "\n" for mask in masks[at : at + CHUNK]).encode()
        yield text
