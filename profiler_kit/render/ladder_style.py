"""What the waterfall looks like wherever it is drawn: colours, headings and the text beside a bar; needs no plotly."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.text import fmt_rate
from profiler_kit.timeline.palette import HUES, MARK

STEP, ALTERNATIVE, BELOW, MEMORY = HUES[0], HUES[1], MARK, HUES[2]
TITLES: Final = ("images per second", "peak memory, MiB", "mIoU with the fp32 masks")


def speed_text(row: pd.Series) -> str:
    """`148.7 img/s · 4.92×`, or why there is nothing."""
    if np.isnan(row["images_per_s"]):
        return str(row["status"])
    speedup = "" if np.isnan(row["speedup"]) or row["parent"] == "" else f" · {row['speedup']:.2f}×"
    return f"{fmt_rate(row['images_per_s'])}{speedup}"
