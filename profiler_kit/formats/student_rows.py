"""What a ladder says of students: size, speed, and accuracy beside the teacher's, which is its baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from profiler_kit.formats.ladder_file import LADDER_ROWS, ladder_rows
from profiler_kit.formats.ladder_record import LadderRecord
from profiler_kit.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd

_KEPT: Final = ("dtype", "batch_size", "images_per_s", "median_ns", "q1_ns", "q3_ns", "samples")
_SEEN: Final = ("miou", "miou_small", "miou_medium", "miou_large")
STUDENTS: Final = Schema(
    "STUDENTS",
    "row of the ladder; the first is the teacher",
    {
        "technique": LADDER_ROWS.columns["technique"],
        "parameters": Column("int64", "Of the whole model, encoder and decoder."),
        "image_size": Column("int64", "Side of the model's input, pixels.", "px"),
        **{name: LADDER_ROWS.columns[name] for name in _KEPT},
        **{name: replace(LADDER_ROWS.columns[name], show="always") for name in _SEEN},
        "of_teacher": Column("float64", "Mean IoU as a share of the teacher's.", "of the teacher", unit="share"),
        "small_of_teacher": Column("float64", "The same of small objects.", "small, of it", unit="share"),
        "agreement": LADDER_ROWS.columns["agreement"],
    },
)


def student_rows(record: LadderRecord) -> pd.DataFrame:
    """STUDENTS of a record."""
    rows = ladder_rows(record)
    rows["parameters"] = [row.parameters for row in record.rows]
    rows["image_size"] = [row.image_size for row in record.rows]
    for name, of in (("of_teacher", "miou"), ("small_of_teacher", "miou_small")):
        rows[name] = rows[of] / (rows[of].iloc[0] if len(rows) else 1.0)
    rows = rows.astype({"parameters": "int64", "image_size": "int64"})
    return STUDENTS.check(rows[list(STUDENTS.columns)])
