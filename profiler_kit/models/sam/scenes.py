"""Images to segment: generated scenes whose object masks are known exactly, or a folder of photographs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from profiler_kit.errors import InputError, OptionError

if TYPE_CHECKING:
    from PIL.Image import Image as Opened

Image = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

SMALLEST_SIDE: Final = 32
SUFFIXES: Final = (".jpg", ".jpeg", ".png")
_TRIES: Final = 40  # placements tried for one object before the scene goes on without it
_VISIBLE: Final = 0.5  # share of its own area that every object keeps in sight


@dataclass(frozen=True, eq=False)
class Scene:
    """One image and the objects in it.

    image: uint8[H, W, 3], RGB. masks: bool[N, H, W], the visible pixels of each object, back to front: object i
    hides parts of objects before it. They never overlap; the background is what none covers. A photograph has
    N = 0: nothing is known. name: the file's name, or "scene-<number>". boxes, areas: x0, y0, x1, y1 and pixels of
    each object where they are annotated; else empty, and those of the masks count. categories: what each object is,
    where that is annotated.
    """

    image: Image
    masks: Mask
    name: str
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    areas: tuple[int, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.image.shape[0], self.image.shape[1]


def generate_scenes(count: int, *, height: int, width: int, seed: int = 0, objects: int = 8) -> tuple[Scene, ...]:
    """`count` different scenes of up to `objects` objects; scene i depends on seed, i, the size and `objects` alone.

    Objects are discs, rectangles, triangles and stars, textured, over a noisy gradient. A pixel belongs to an
    object when its centre lies inside the object's outline. Every object keeps half of its area in sight, so a
    small crowded scene may hold fewer than `objects`, but at least one.

    Raises OptionError when a side is below SMALLEST_SIDE or a count below 1.
    """
    if count < 1:
        raise OptionError(f"--scenes {count}: expected 1 or more.")
    if objects < 1:
        raise OptionError(f"{objects} objects in a scene: expected 1 or more.")
    if min(height, width) < SMALLEST_SIDE:
        raise OptionError(f"a scene of {width} x {height} pixels: expected at least {SMALLEST_SIDE} on each side.")
    return tuple(_scene(np.random.default_rng([seed, i]), height, width, objects, f"scene-{i}") for i in range(count))


def load_images(folder: Path, *, limit: int | None = None) -> tuple[Scene, ...]:
    """The JPEG and PNG files of `folder` (not of folders in it) by name, turned as their EXIF says, without masks.

    `limit`: read only the first so many files. Raises InputError when the folder is missing or holds no image,
    or when a file cannot be decoded.
    """
    if not folder.is_dir():
        found = "this is a file" if folder.exists() else "no such folder"
        raise InputError(
            f"{folder}: {found}, expected a folder of JPEG or PNG files. Leave --images out to generate some."
        )
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise InputError(
            f"{folder}: no image in the folder, expected files ending in {', '.join(SUFFIXES)}. "
            "Leave --images out to generate some."
        )
    return tuple(_photograph(path) for path in files[:limit])


def as_rgb(opened: Opened) -> Image:
    """Its pixels, uint8[H, W, 3]; of 16 bits a grey the upper eight, where Pillow makes all but the darkest white."""
    if opened.mode.startswith("I"):
        return np.repeat((np.asarray(opened) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.array(opened.convert("RGB"), dtype=np.uint8)


def read_image(path: Path, *, turn: bool = False) -> Image:
    """The pixels of an image file, uint8[H, W, 3]; `turn`: as its EXIF says. Raises InputError."""
    from PIL import Image as Pillow
    from PIL import ImageOps, UnidentifiedImageError

    try:
        with Pillow.open(path) as opened:
            return as_rgb(ImageOps.exif_transpose(opened) if turn else opened)
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        reason = "no image data" if isinstance(error, UnidentifiedImageError) else str(error)
        raise InputError(
            f"{path}: cannot be decoded ({reason}), expected a JPEG or PNG image. Repair the file or take it out."
        ) from error


def _photograph(path: Path) -> Scene:
    pixels = read_image(path, turn=True)
    return Scene(pixels, np.zeros((0, *pixels.shape[:2]), dtype=np.bool_), path.name)


def _scene(rng: np.random.Generator, height: int, width: int, objects: int, name: str) -> Scene:
    owner = np.full((height, width), -1, dtype=np.int32)  # which object is in front at each pixel
    image = _background(rng, height, width)
    areas: list[int] = []
    for _ in range(objects):
        for _ in range(_TRIES):
            outline = _OUTLINES[rng.integers(len(_OUTLINES))](rng, height, width)
            area = int(np.count_nonzero(outline))
            visible = np.bincount(owner[(owner >= 0) & ~outline], minlength=len(areas))
            if area >= 9 and bool(np.all(visible >= _VISIBLE * np.array(areas))):
                owner[outline] = len(areas)
                _paint(rng, image, outline)
                areas.append(area)
                break
    masks = owner[None] == np.arange(len(areas), dtype=np.int32)[:, None, None]
    return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), masks, name)


def _background(rng: np.random.Generator, height: int, width: int) -> npt.NDArray[np.float32]:
    """A colour gradient in a random direction under pixel noise, float32[H, W, 3]."""
    turn = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    ramp = x / width * math.cos(turn) + y / height * math.sin(turn)
    ramp = (ramp - ramp.min()) / (ramp.max() - ramp.min())
    low, high = rng.uniform(20, 120, 3), rng.uniform(90, 200, 3)
    image = low + ramp[..., None] * (high - low) + rng.normal(0, 6, (height, width, 3))
    return np.asarray(image, dtype=np.float32)


def _paint(rng: np.random.Generator, image: npt.NDArray[np.float32], outline: Mask) -> None:
    """Fill the outline with a colour in stripes, in checks or plain, under pixel noise."""
    rows, columns = np.nonzero(outline)
    colour, other = rng.uniform(0, 255, (2, 3))
    cell = rng.integers(3, 20)
    match rng.integers(3):
        case 0:
            second = (columns + rows) // cell % 2
        case 1:
            second = (columns // cell + rows // cell) % 2
        case _:
            second = np.zeros_like(rows)
    mix = 0.35 * second[:, None]
    image[rows, columns] = colour * (1 - mix) + other * mix + rng.normal(0, 4, (len(rows), 3))


def _placed(
    rng: np.random.Generator, height: int, width: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """Pixel centres relative to a random place in the image, and a random radius to draw with."""
    radius = rng.uniform(0.07, 0.2) * min(height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    cy, cx = rng.uniform(0.1, 0.9, 2) * (height, width)
    return x + np.float32(0.5 - cx), y + np.float32(0.5 - cy), radius


def _disc(rng: np.random.Generator, height: int, width: int) -> Mask:
    x, y, radius = _placed(rng, height, width)
    return np.asarray(x * x + y * y <= radius * radius)


def _rectangle(rng: np.random.Generator, height: int, width: int) -> Mask:
    x, y, radius = _placed(rng, height, width)
    turn, flat = rng.uniform(0, math.pi), rng.uniform(0.4, 1.0)
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    return np.asarray((np.abs(along) <= radius) & (np.abs(across) <= radius * flat))


def _polygon(corners: int, dent: float) -> Callable[[np.random.Generator, int, int], Mask]:
    """A regular polygon, or with `dent` < 1 a star whose inner corners lie at that share of the radius."""

    def draw(rng: np.random.Generator, height: int, width: int) -> Mask:
        x, y, radius = _placed(rng, height, width)
        step = math.pi / corners
        turn = np.mod(np.arctan2(y, x) + rng.uniform(0, 2 * math.pi), 2 * step)
        turn = np.minimum(turn, 2 * step - turn)  # fold every corner's sector on one edge: (r, 0) to (dent r, step)
        px, py = np.hypot(x, y) * np.cos(turn), np.hypot(x, y) * np.sin(turn)
        ex, ey = dent * radius * math.cos(step) - radius, dent * radius * math.sin(step)
        return np.asarray(ex * py - ey * (px - radius) >= 0)

    return draw


_OUTLINES: Final = (_disc, _rectangle, _polygon(3, math.cos(math.pi / 3)), _polygon(5, 0.5))
