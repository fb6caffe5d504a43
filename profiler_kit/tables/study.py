"""What a batching study measured: every call, their medians, and the speed by device, dtype and compilation."""

from __future__ import annotations

from typing import Final

from profiler_kit.formats.study_file import (
    STUDY_SAMPLES,
    STUDY_SPEEDS,
    STUDY_TOTALS,
    study_samples,
    study_speeds,
    study_totals,
)
from profiler_kit.table import Table
from profiler_kit.text import rate_label

TABLES: Final = (
    Table(
        "study_speeds",
        "study",
        "speed by device and dtype",
        STUDY_SPEEDS,
        lambda record: study_speeds(study_totals(study_samples(record))),
    ),
    Table(
        "study_totals",
        "study",
        "medians of the study",
        STUDY_TOTALS,
        lambda record: study_totals(study_samples(record)),
        order=(
            "study",
            "label",
            "device",
            "dtype",
            "image_size",
            "batch_size",
            "median_ns",
            "images_per_s",
            "compiled",
        ),
        labels=lambda record: {
            "images_per_s": rate_label(record.unit),
            "per_image_ns": f"per {record.unit.removesuffix('s')}",
        },
    ),
    Table("study_samples", "study", "calls of the study", STUDY_SAMPLES, study_samples),
)
