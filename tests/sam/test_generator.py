"""Our mask generator gives what segment-anything's gives, mask for mask, in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from profiler_kit.errors import InputError, OptionError
from profiler_kit.models.sam import generator
from profiler_kit.models.sam.accuracy import decode
from profiler_kit.models.sam.generator import MaskGenerator, crop_boxes, mask_of, packed, run_lengths
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam.segmenter import PublishedPredictor, SamSegmenter
from profiler_kit.models.sam.workload import resized

LOW = {"pred_iou_thresh": 0.3, "stability_score_thresh": 0.3}
SIDE = 128


@pytest.fixture(scope="module")
def sam() -> Sam:
    """With images of a quarter of its own side: a twentieth of the time, and masks all the same."""
    return resized(load_model("vit_small").model, SIDE)


def image(height: int, width: int, seed: int = 3) -> generator.Pixels:
    return generate_scenes(1, height=height, width=width, seed=seed)[0].image


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((96, 128), LOW),
        ((120, 80), {**LOW, "output_mode": "coco_rle", "points_per_batch": 5}),
        ((96, 128), {**LOW, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2}),
        ((90, 90), {"pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "output_mode": "uncompressed_rle"}),
        ((64, 90), {**LOW, "points_per_side": None, "point_grids": [np.array([[0.1, 0.9], [0.5, 0.5]])]}),
        ((96, 128), {"stability_score_offset": 0.2, "box_nms_thresh": 0.2, "pred_iou_thresh": 0.2}),
    ],
)
def test_masks_are_those_of_segment_anything(
    sam: Sam, size: tuple[int, int], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "ENLARGED", 7)
    options = {"points_per_side": 4, **options}
    picture = image(*size)
    wanted = SamAutomaticMaskGenerator(sam, **options).generate(picture)
    found = MaskGenerator(SamSegmenter(sam), **options).generate(picture)
    assert wanted and len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for key, value in other.items():
            assert np.array_equal(one[key], value), key


def test_images_of_several_sizes_at_once(sam: Sam) -> None:
    ours = MaskGenerator(SamSegmenter(sam), points_per_side=3, output_mode="coco_rle", **LOW)
    pictures = [image(96, 128), image(80, 60, seed=5)]
    together = ours.generate_batch(pictures)
    for found, picture in zip(together, pictures, strict=True):
        alone = ours.generate(picture)
        assert [one["point_coords"] for one in found] == [one["point_coords"] for one in alone]
        assert [one["area"] for one in found] == pytest.approx([one["area"] for one in alone], rel=0.01)


def test_an_image_without_masks(sam: Sam) -> None:
    strict = MaskGenerator(SamSegmenter(sam), points_per_side=2, pred_iou_thresh=9.0, crop_n_layers=1)
    assert strict.generate(image(40, 50)) == []


def test_a_mask_for_each_point_is_the_published_one(sam: Sam) -> None:
    picture = image(96, 128)
    points = np.array([[20.0, 30.0], [64.0, 48.0], [127.0, 95.0]])
    wanted = PublishedPredictor(sam).segment(picture, points)
    found = MaskGenerator(SamSegmenter(sam), points_per_batch=2, output_mode="coco_rle").segment(picture, points)
    assert [one["point_coords"] for one in found] == [[[x, y]] for x, y in points.tolist()]
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(decode(one["segmentation"]), decode(other["segmentation"]))
        assert one["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-5)


def test_run_lengths() -> None:
    masks = torch.rand(20, 6, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[0], masks[1] = False, True
    lengths, counts = run_lengths(masks)
    for mask, mine in zip(masks, lengths.split(counts.tolist()), strict=True):
        assert np.array_equal(mask_of({"size": [6, 5], "counts": mine.numpy()}), mask.numpy())


def test_packed_as_pycocotools() -> None:
    """Noise, masks of one run, and lengths whose differences need every number of characters."""
    import pycocotools.mask

    share = torch.linspace(0, 1, 12)[:, None, None]
    masks = torch.rand(12, 200, 300, generator=torch.Generator().manual_seed(0)) > share
    masks[0], masks[1] = False, True
    masks[2, :, 1:], masks[3, 1:], masks[4, ::7] = True, False, False
    lengths, counts = run_lengths(masks)
    text, characters = packed(lengths, counts)
    mine = [bytes(one.tolist()) for one in text.split(characters.tolist())]
    wanted = pycocotools.mask.encode(np.asfortranarray(masks.permute(1, 2, 0).numpy().astype(np.uint8)))
    assert mine == [one["counts"] for one in wanted]
    rare = [0, 1, 15, 16, 31, 32, 511, 512, 2**14, 3, 2**19, 5, 2**24 - 1, 2**24, 2**29 - 1, 1, 2**30, 0]
    text, characters = packed(torch.tensor(rare, dtype=torch.int32), torch.tensor([len(rare)]))
    pixels = {"size": [1, sum(rare)], "counts": rare}
    assert bytes(text.tolist()) == pycocotools.mask.frPyObjects(pixels, 1, sum(rare))["counts"]
    assert characters.tolist() == [len(text)]
    nothing = packed(torch.zeros(0, dtype=torch.int32), torch.zeros(0, dtype=torch.int64))
    assert [len(one) for one in nothing] == [0, 0]


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((4, 5), dtype=np.uint8), "uint8[4, 5]"),
        (np.zeros((4, 5, 4), dtype=np.uint8), "uint8[4, 5, 4]"),
        (np.zeros((4, 5, 3)), "float64[4, 5, 3]"),
        (np.zeros((0, 5, 3), dtype=np.uint8), "uint8[0, 5, 3]"),
    ],
)
def test_what_is_no_image(sam: Sam, image: Any, found: str) -> None:
    with pytest.raises(InputError) as caught:
        MaskGenerator(SamSegmenter(sam)).generate(image)
    assert str(caught.value) == f"an image: found {found}, expected uint8[H, W, 3]: red, green and blue."


def test_specks_and_holes_go(sam: Sam) -> None:
    scipy = pytest.importorskip("scipy.ndimage")
    options = {"points_per_side": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "min_mask_region_area": 60}
    for one in MaskGenerator(SamSegmenter(sam), **options).generate(image(90, 90)):
        mask = one["segmentation"]
        assert mask.sum() == one["area"]
        for inside in (mask, ~mask):
            labels, count = scipy.label(inside, structure=np.ones((3, 3)))
            sizes = np.bincount(labels.ravel())[1:]
            assert count <= 1 or sizes.min() >= 60


def test_of_islands_as_large_the_first_in_opencvs_order_stays() -> None:
    """remove_small_regions of segment-anything, with OpenCV 5.0.0, keeps the same; by rows the other comes first."""
    pytest.importorskip("scipy")
    mask = np.zeros((4, 12), dtype=bool)
    mask[0, 8] = mask[1, 0] = mask[3, 3] = True
    kept = generator._without_small(mask, 5, holes=False)
    assert np.argwhere(kept).tolist() == [[1, 0]]


def test_crops_cover_the_image() -> None:
    boxes = list(crop_boxes((300, 500), 2, 0.3))
    assert [layer for _, layer in boxes] == [0] + [1] * 4 + [2] * 16
    for layer in range(3):
        seen = np.zeros((300, 500), dtype=bool)
        for (x0, y0, x1, y1), of in boxes:
            seen[y0:y1, x0:x1] |= of == layer
        assert seen.all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"points_per_side": None}, "points_per_side and point_grids: found neither, expected one of them."),
        ({"point_grids": []}, "points_per_side and point_grids: found both, expected one of them."),
        (
            {"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1},
            "point_grids: found 1, expected 2: one for the image and one for each of crop_n_layers.",
        ),
        ({"points_per_batch": 0}, "points_per_batch is 0, expected a whole number from 1."),
        (
            {"crop_n_points_downscale_factor": 0},
            "crop_n_points_downscale_factor is 0, expected a whole number from 1.",
        ),
        (
            {"points_per_side": 3, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2},
            "points_per_side is 3, which leaves no point for the crops of the last layer, expected 4 or more: "
            "crop_n_points_downscale_factor to the power of crop_n_layers.",
        ),
        *(
            (
                {"points_per_side": None, "point_grids": [np.full((1, 2), 0.5), np.full(shape, value)]},
                f"point_grids, layer 1: found shape {shape}, expected float[N, 2] in 0 to 1: shares of the width and "
                "the height.",
            )
            for shape, value in (((2,), 0.5), ((0, 2), 0.5), ((4, 3), 0.5), ((4, 2), 17.0), ((4, 2), np.nan))
        ),
        (
            {"output_mode": "png"},
            "output_mode is 'png', expected one of binary_mask, uncompressed_rle, coco_rle.",
        ),
    ],
)
def test_bad_options(sam: Sam, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError) as caught:
        MaskGenerator(SamSegmenter(sam), **options)
    assert str(caught.value) == said


@pytest.mark.parametrize("size", [(96, 128), (700, 400), (768, 1024), (480, 640)])
def test_an_image_resized_on_the_device_is_the_one_of_the_host(sam: Sam, size: tuple[int, int]) -> None:
    host, device = (
        SamSegmenter(sam, on_device=on_device)._resized(image(*size)).float() for on_device in (False, True)
    )
    assert host.shape == device.shape and max(host.shape) == SIDE
    assert (host - device).abs().max() <= 2 and (host != device).float().mean() < 0.05  # of 255
