"""Frames of several runs against one of them."""

from __future__ import annotations

from typing import Final

from profiler_kit.schemas.schema import Schema

COMPARED: Final = Schema(
    "COMPARED",  # one row per thing compared and run it is compared in, as Comparison orders them
    {
        "kind": "str",  # total, region, work, kernel, operator, layer
        "path": "path",  # a region's path, else one name
        "metric": "str",  # gpu, host, wall
        "run": "str",  # B, C, ...: the run compared with A
        "a_ns": "float64",  # NaN where it does not occur in A
        "b_ns": "float64",  # NaN where it does not occur in the run
        "a_notch_ns": "float64",  # half the width of the notch around the median; NaN for a single sample
        "b_notch_ns": "float64",
        "change": "float64",  # b / a - 1; NaN where one is missing
        "noise_ns": "float64",  # how far apart they may be by chance; NaN when nothing is known
        "status": "str",  # slower, faster, same, added, removed
    },
)

COMPARED_MEMORY: Final = Schema(
    "COMPARED_MEMORY",  # one row per region path and run it is compared in; the whole has the path ("peak",)
    {"path": "path", "run": "str", "a_bytes": "Int64", "b_bytes": "Int64"},
)
