"""Frames of the ladder of optimizations and of the batching studies."""

from __future__ import annotations

from typing import Final

from profiler_kit.schemas.schema import Schema

LADDER_ROWS: Final = Schema(
    "LADDER_ROWS",  # one row per technique, in the order they were listed; the first is the baseline
    {
        "technique": "str",
        "optimizations": "str",  # names in the order they were applied, separated by commas; "" as published
        "status": "str",  # ok, failed, timeout, oom, skipped
        "error": "str",  # one line, "" when it was measured
        "is_step": "bool",  # the waterfall climbs over it; the others are alternatives beside a step
        "parent": "str",  # the step that it is compared with; "" for the baseline
        "dtype": "str",
        "batch_size": "int64",
        "samples": "int64",
        "images_per_s": "float64",  # batch size / median; missing (NaN) where nothing was measured
        "median_ns": "float64",  # of one batch, between events around the timed region
        "q1_ns": "float64",
        "q3_ns": "float64",
        "p90_ns": "float64",
        "p95_ns": "float64",
        "p99_ns": "float64",
        "max_ns": "float64",
        "mean_ns": "float64",
        "first_ns": "float64",  # the first call of the process
        "load_ns": "float64",
        "compile_cold_ns": "float64",  # the first call of a compiled row, empty caches; 0 when nothing was compiled
        "compile_warm_ns": "float64",  # the same in a second process, with the caches of the first
        "warmup_ns": "float64",
        "peak_memory_bytes": "float64",
        "memory_share": "float64",  # of the device's memory
        "miou": "float64",  # against the truth; NaN where none is known
        "miou_small": "float64",
        "miou_medium": "float64",
        "miou_large": "float64",
        "baseline_miou": "float64",  # against the baseline's masks
        "baseline_miou_strict": "float64",  # images with another number of masks left out
        "mask_count_mismatch": "float64",  # images with another number of masks than the baseline's
        "mask_match_mismatch": "float64",  # images with a mask that has no partner
        "speedup": "float64",  # images_per_s over the baseline's
        "gain": "float64",  # images_per_s over the parent's
        "tflops": "float64",  # work of the published model / median
        "intensity": "float64",  # FLOP per byte that the published operators read and write, at this row's dtype
        "peak_tflops": "float64",  # the device's measured matrix rate at that dtype
        "below_min_miou": "bool",
    },
)

STUDY_SAMPLES: Final = Schema(
    "STUDY_SAMPLES",  # one row per timed call of a study
    {
        "study": "str",  # components, batching, image-size, table
        "label": "str",  # the component, sequential or batched, the row of the table
        "device": "str",
        "dtype": "str",
        "compiled": "bool",
        "batch_size": "int64",  # images that the sample is of
        "image_size": "int64",
        "iteration": "int64",
        "latency_ns": "int64",  # of all these images
    },
)

STUDY_TOTALS: Final = Schema(
    "STUDY_TOTALS",  # one row per label, device, dtype, compiled, batch size and image size of a study
    {
        "study": "str",
        "label": "str",
        "device": "str",
        "dtype": "str",
        "compiled": "bool",
        "batch_size": "int64",
        "image_size": "int64",
        "samples": "int64",
        "median_ns": "float64",
        "q1_ns": "float64",
        "q3_ns": "float64",
        "per_image_ns": "float64",  # median / batch size
        "images_per_s": "float64",
    },
)
