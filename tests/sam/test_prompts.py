"""Prompts: centres always inside the visible mask, boxes inclusive, grids as segment-anything lays them."""

from __future__ import annotations

import numpy as np
import pytest

from profiler_kit.errors import OptionError
from profiler_kit.models.sam.prompts import PromptChoice, make_prompts, mask_box, mask_centre, parse_prompts, point_grid
from profiler_kit.models.sam.scenes import Scene, generate_scenes


def test_every_centre_lies_in_its_visible_mask() -> None:
    for scene in generate_scenes(6, height=120, width=160):
        points = make_prompts(scene, PromptChoice("centers")).points
        assert points is not None and points.shape == (len(scene.masks), 2) and points.dtype == np.float32
        assert all(mask[int(y), int(x)] for mask, (x, y) in zip(scene.masks, points, strict=True))


def test_centre_of_mass_when_inside_and_the_most_interior_pixel_when_not() -> None:
    mask = np.zeros((9, 12), dtype=np.bool_)
    mask[2:7, 3:8] = True
    assert mask_centre(mask) == (5, 4)
    ring = np.ones((9, 12), dtype=np.bool_)
    ring[1:8, 1:9] = False  # its right side is three columns wide, the middle of it is column 10
    x, y = mask_centre(ring)
    assert ring[y, x] and x == 10 and 1 <= y <= 7
    single = np.zeros((5, 5), dtype=np.bool_)
    single[4, 0] = single[0, 4] = True
    x, y = mask_centre(single)
    assert single[y, x]


def test_boxes_name_the_first_and_the_last_pixel() -> None:
    mask = np.zeros((9, 12), dtype=np.bool_)
    mask[2:7, 3:8] = True
    assert mask_box(mask) == (3, 2, 7, 6)
    scene = Scene(np.zeros((9, 12, 3), dtype=np.uint8), mask[None], "x")
    prompts = make_prompts(scene, PromptChoice("boxes"))
    assert prompts.points is None and prompts.boxes is not None and len(prompts) == 1
    assert prompts.boxes.tolist() == [[3, 2, 7, 6]]


def test_grid_is_segment_anythings() -> None:
    from segment_anything.utils.amg import build_point_grid

    assert point_grid((100, 200), 4) == pytest.approx(build_point_grid(4) * (200, 100))


@pytest.mark.parametrize("kind", ["centers", "boxes"])
def test_a_photograph_gets_the_grid(kind: str) -> None:
    photograph = Scene(np.zeros((40, 80, 3), dtype=np.uint8), np.zeros((0, 40, 80), dtype=np.bool_), "x.jpg")
    choice = parse_prompts(kind)
    assert choice.falls_back(photograph)
    prompts = make_prompts(photograph, choice)
    assert prompts.boxes is None and len(prompts) == 16
    assert not PromptChoice("grid", 2).falls_back(photograph)


def test_parse_prompts() -> None:
    assert parse_prompts("grid:3") == PromptChoice("grid", 3)
    assert [str(parse_prompts(text)) for text in ("centers", "boxes", "grid:64")] == ["centers", "boxes", "grid:64"]
    for text in ("", "grid", "grid:", "grid:0", "grid:65", "grid:-1", "grid:2x", "points"):
        with pytest.raises(OptionError) as caught:
            parse_prompts(text)
        assert (
            str(caught.value) == f"--prompts {text}: not known, expected centers, boxes or grid:N with N from 1 to 64."
        )
