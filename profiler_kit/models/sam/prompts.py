"""What SAM is asked about an image: object centres, object boxes, or a grid of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from profiler_kit.errors import OptionError
from profiler_kit.models.sam.scenes import Mask, Scene

LARGEST_GRID: Final = 64
_EXPECTED: Final = f"expected centers, boxes or grid:N with N from 1 to {LARGEST_GRID}."


@dataclass(frozen=True)
class PromptChoice:
    """Which prompts to make; `grid` is the number of points on each side of the grid.

    Centres and boxes need object masks. A photograph has none: for it both fall back to the grid. multimask: three
    masks of a box too.
    """

    kind: Literal["centers", "boxes", "grid"]
    grid: int = 4
    multimask: bool = False

    def __str__(self) -> str:
        return f"grid:{self.grid}" if self.kind == "grid" else self.kind

    def falls_back(self, scene: Scene) -> bool:
        """Whether `scene` has no masks and gets the grid instead of what was chosen."""
        return self.kind != "grid" and len(scene.masks) == 0


@dataclass(frozen=True, eq=False)
class Prompts:
    """One prompt a row, in pixels of the image; SAM predicts one object for each. One of the two is None.

    points: float32[P, 2], x then y, each a foreground point of one object.
    boxes: float32[P, 4], x0, y0, x1, y1: indices of the first and of the last pixel column and row inside, both
    inclusive (segment-anything adds 0.5 to reach the pixel centres); of annotated boxes, their corners.
    """

    points: npt.NDArray[np.float32] | None
    boxes: npt.NDArray[np.float32] | None

    def __len__(self) -> int:
        rows = self.boxes if self.points is None else self.points
        return 0 if rows is None else len(rows)


def parse_prompts(text: str) -> PromptChoice:
    """Read `centers`, `boxes` or `grid:N`; raises OptionError for anything else."""
    if text == "centers" or text == "boxes":
        return PromptChoice(text)  # type: ignore[arg-type]  # one of the two literals
    kind, _, number = text.partition(":")
    if kind == "grid" and number.isascii() and number.isdigit() and 1 <= int(number) <= LARGEST_GRID:
        return PromptChoice("grid", int(number))
    raise OptionError(f"--prompts {text}: not known, {_EXPECTED}")


def make_prompts(scene: Scene, choice: PromptChoice) -> Prompts:
    """The chosen prompts for one scene, one per object, or grid x grid points.

    Centres and boxes of a scene without masks (a photograph) fall back to the grid.
    """
    if choice.kind == "grid" or choice.falls_back(scene):
        return Prompts(point_grid(scene.size, choice.grid), None)
    if choice.kind == "boxes":
        boxes = scene.boxes or [mask_box(mask) for mask in scene.masks]
        return Prompts(None, np.array(boxes, dtype=np.float32))
    return Prompts(np.array([mask_centre(mask) for mask in scene.masks], dtype=np.float32), None)


def point_grid(size: tuple[int, int], side: int) -> npt.NDArray[np.float32]:
    """side x side points spread evenly over an image of (height, width), float32[side * side, 2], x then y.

    The same places as segment-anything's `build_point_grid`: the middle of each cell.
    """
    steps = (np.arange(side) + 0.5) / side
    x, y = np.meshgrid(steps * size[1], steps * size[0])
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def mask_box(mask: Mask) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the first and last columns and rows the mask covers, inclusive. mask: bool[H, W], not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def mask_centre(mask: Mask) -> tuple[int, int]:
    """A pixel (x, y) of the mask: its centre of mass, or where that lies outside, its most interior pixel.

    mask: bool[H, W], not empty.
    """
    rows, columns = np.nonzero(mask)
    x, y = round(float(columns.mean())), round(float(rows.mean()))
    if mask[y, x]:
        return x, y
    x0, y0, x1, y1 = mask_box(mask)
    depth = _depth(mask[y0 : y1 + 1, x0 : x1 + 1])
    row, column = divmod(int(depth.argmax()), depth.shape[1])
    return x0 + column, y0 + row


def _depth(mask: Mask) -> npt.NDArray[np.int32]:
    """City-block steps from each pixel to the nearest one outside the mask; 0 outside; int32[H, W].

    Two sweeps along each axis are exact for this distance (Rosenfeld and Pfaltz 1966).
    """
    depth = np.pad(np.where(mask, np.int32(mask.size), np.int32(0)), 1)
    for view in (depth, depth[::-1], depth.T, depth.T[::-1]):
        for i in range(1, len(view)):
            np.minimum(view[i], view[i - 1] + 1, out=view[i])
    return depth[1:-1, 1:-1]
