"""Intersection over union, on masks small enough to count."""

from __future__ import annotations

import math

import numpy as np
import pytest

from profiler_kit.models.sam.metrics import mask_iou, mean_iou


def test_iou_of_masks_counted_by_hand() -> None:
    predicted = np.zeros((3, 2, 4), dtype=np.bool_)
    true = np.zeros((3, 2, 4), dtype=np.bool_)
    predicted[0, 0, :3] = True  # 3 pixels, 2 of them right, 4 in either
    true[0, 0, 1:] = True
    predicted[1, :, 0] = True  # nothing in common
    true[1, :, 1] = True
    assert mask_iou(predicted, true).tolist() == [0.5, 0.0, 1.0]  # the third pair is empty on both sides
    assert mean_iou(predicted, true) == 0.5


def test_no_masks_and_masks_of_two_sizes() -> None:
    none = np.zeros((0, 2, 2), dtype=np.bool_)
    assert math.isnan(mean_iou(none, none))
    with pytest.raises(ValueError, match=r"masks of shape \(0, 2, 2\) and \(1, 2, 2\): want the same shape"):
        mask_iou(none, np.zeros((1, 2, 2), dtype=np.bool_))
