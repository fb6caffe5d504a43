"""Agreement of masks: by prompt, matched, strict as the sam2 server counts, and by size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler_kit.errors import RunFormatError
from profiler_kit.formats.ladder_record import Agreement
from profiler_kit.models.sam import accuracy
from profiler_kit.models.sam.accuracy import ImageMasks, against_baseline, against_truth, encode, image_masks, mask_iou


def bars(
    *spans: tuple[int, int], width: int = 200, height: int = 100
) -> np.ndarray[tuple[int, int, int], np.dtype[np.bool_]]:
    """One mask a span: full columns from first to last, bool[N, height, width]."""
    masks = np.zeros((len(spans), height, width), dtype=np.bool_)
    for mask, (first, last) in zip(masks, spans, strict=True):
        mask[:, first:last] = True
    return masks


def image(
    *spans: tuple[int, int], name: str = "a", true: tuple[tuple[int, int], ...] = (), paired: bool = True
) -> ImageMasks:
    rles = encode(bars(*spans))
    return image_masks(name, (100, 200), rles, [1.0] * len(rles), encode(bars(*true)), paired=paired)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=5))
def test_encoded_masks_have_the_iou_of_the_plain_ones(spans: list[tuple[int, int]]) -> None:
    mine = bars(*((min(s), max(s)) for s in spans), width=30)
    other = bars(*((0, max(s)) for s in spans), width=30)
    assert accuracy.paired_iou(encode(mine), encode(other)) == pytest.approx(mask_iou(mine, other))
    assert accuracy.areas(encode(mine)) == mine.sum(axis=(1, 2)).tolist()


def test_size_classes_are_half_open() -> None:
    """32**2 pixels are medium and 96**2 large: every mask is in one class."""
    sides = [(32, 32 - 1), (32, 32), (96, 96 - 1), (96, 96)]
    true = np.zeros((4, 100, 200), dtype=np.bool_)
    for mask, (rows, columns) in zip(true, sides, strict=True):
        mask[:rows, :columns] = True
    found = np.zeros_like(true)
    found[1], found[3] = true[1], true[3]
    truth = against_truth([image_masks("a", (100, 200), encode(found), [1.0] * 4, encode(true), paired=True)])
    assert truth is not None
    assert truth.counts == (1, 2, 1) and truth.masks == 4
    assert (truth.miou, truth.small, truth.medium, truth.large) == (0.5, 0.0, 0.5, 1.0)
    assert against_truth([image((0, 10))]) is None


def test_the_best_mask_answers_for_a_true_one_when_prompts_are_unknown() -> None:
    found = image((0, 10), (50, 90), (50, 100), true=((50, 100), (150, 160)), paired=False)
    assert [(mask.area, mask.iou) for mask in found.true] == [(5000, 1.0), (1000, 0.0)]


def test_masks_are_matched_one_to_one_best_first() -> None:
    """Both of mine overlap the first; the better one gets it, the other one what is left."""
    mine, wanted = encode(bars((0, 8), (0, 10))), encode(bars((0, 10), (6, 10), (100, 110)))
    assert accuracy.matched_iou(mine, wanted).tolist() == [1.0, 0.2, 0.0]
    assert accuracy.matched_iou([], wanted).tolist() == [0.0, 0.0, 0.0]
    assert accuracy.matched_iou(mine, []).tolist() == []


def test_strict_leaves_out_images_with_another_number_of_masks() -> None:
    same = [image((0, 10), (50, 100), name="a"), image((0, 10), name="b")]
    other = [image((50, 100), (0, 5), name="a"), image((0, 10), (50, 100), name="b")]
    assert against_baseline(other, same, paired=False) == Agreement(2, 3, (0.5 + 1 + 1) / 3, 0.75, 1, 1)


def test_masks_of_the_same_prompt_belong_together() -> None:
    base, row = [image((0, 10), (50, 100))], [image((50, 100), (0, 10))]
    assert against_baseline(row, base, paired=True) == Agreement(1, 2, 0.0, 0.0, 0, 1)
    assert against_baseline(row, base, paired=False) == Agreement(1, 2, 1.0, 1.0, 0, 0)
    assert against_baseline(base, base, paired=True) == Agreement(1, 2, 1.0, 1.0, 0, 0)
    empty = [image((0, 10), (50, 50))]  # the second mask is empty: one mask less
    assert against_baseline(empty, base, paired=True) == Agreement(1, 2, 0.5, None, 1, 1)
    with pytest.raises(ValueError, match="other images"):
        against_baseline([image(name="x")], base, paired=True)


def test_written_and_read_again(tmp_path: Path) -> None:
    images = [image((0, 10), (3, 77), true=((0, 10), (4, 77))), image(name="<b>ü</b>")]
    path = tmp_path / "masks.json"
    accuracy.write_masks_file(path, images)
    assert accuracy.read_masks_file(path) == images
    path.write_text('{"images": [{"id": "x"}], "annotations": []}')
    with pytest.raises(RunFormatError) as caught:
        accuracy.read_masks_file(path)
    assert str(caught.value) == (
        f"{path}: Expected `int`, got `str` - at `$.images[0].id`, expected results of profiler-kit ladder. Measure "
        "one with: profiler-kit ladder --out DIR"
    )


def test_iou_of_masks_counted_by_hand() -> None:
    predicted = np.zeros((3, 2, 4), dtype=np.bool_)
    true = np.zeros((3, 2, 4), dtype=np.bool_)
    predicted[0, 0, :3] = True  # 3 pixels, 2 of them right, 4 in either
    true[0, 0, 1:] = True
    predicted[1, :, 0] = True  # nothing in common
    true[1, :, 1] = True
    assert mask_iou(predicted, true).tolist() == [0.5, 0.0, 1.0]  # the third pair is empty on both sides


def test_no_masks_and_masks_of_two_sizes() -> None:
    none = np.zeros((0, 2, 2), dtype=np.bool_)
    assert mask_iou(none, none).shape == (0,)
    with pytest.raises(ValueError, match=r"masks of shape \(0, 2, 2\) and \(1, 2, 2\): expected the same shape"):
        mask_iou(none, np.zeros((1, 2, 2), dtype=np.bool_))
