"""Iterations: how long each took, and what differs in the long ones."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd

from profiler_kit.attribute.frames import REGION_INSTANCES

NONE: Final = -1


def step_of(instances: pd.DataFrame, instance: pd.Series[Any]) -> pd.Series[Any]:
    """The step of each row whose innermost region is that row of REGION_INSTANCES; missing outside every step."""
    instances = REGION_INSTANCES.check(instances)
    step = instances["step"].fillna(NONE).to_numpy(dtype=np.int64)
    above = instances["parent"].fillna(NONE).to_numpy(dtype=np.int64)
    while True:  # of regions without a step take the one that is above, level by level
        open_ones = np.flatnonzero((step == NONE) & (above != NONE))
        if not len(open_ones):
            break
        step[open_ones], above[open_ones] = step[above[open_ones]], above[above[open_ones]]
    inside = instance.fillna(NONE).to_numpy(dtype=np.int64)
    found = np.where(inside == NONE, NONE, np.append(step, NONE)[inside])
    return pd.Series(found, index=instance.index).astype("Int64").mask(found == NONE)
