"""How well predicted masks agree with the true ones (boolean masks -> intersection over union)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Masks = npt.NDArray[np.bool_]


def mask_iou(predicted: Masks, true: Masks) -> npt.NDArray[np.float64]:
    """Intersection over union of each pair of masks; two empty masks agree fully (1).

    predicted, true: bool[N, H, W], row i against row i. Returns float64[N].
    Raises ValueError when the shapes differ.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"masks of shape {predicted.shape} and {true.shape}: want the same shape")
    common = np.count_nonzero(predicted & true, axis=(1, 2))
    either = np.count_nonzero(predicted | true, axis=(1, 2))
    return np.where(either == 0, 1.0, common / np.maximum(either, 1))


def mean_iou(predicted: Masks, true: Masks) -> float:
    """Mean of `mask_iou` over all masks; NaN when there is none."""
    return float(mask_iou(predicted, true).mean()) if len(true) else float("nan")
