"""What a ladder says of students: size, speed, and accuracy beside the teacher's, which is its baseline."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from profiler_kit.formats.ladder_file import LADDER_ROWS, ladder_rows
from profiler_kit.formats.ladder_record import LadderRecord
from profiler_kit.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd

TEACHER: Final = "teacher"  # how the baseline of a student's ladder is named where it is shown
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
        "agreement": LADDER_ROWS.columns["agreement"],
        "of_teacher": Column("float64", "Mean IoU as a share of the teacher's.", "of the teacher", unit="share"),
        "small_of_teacher": Column("float64", "The same of small objects.", "small, of it", unit="share"),
    },
)


CATEGORIES: Final = Schema(
    "CATEGORIES",
    "row of the ladder and annotated category of true masks, the largest first",
    {
        "technique": LADDER_ROWS.columns["technique"],
        "category": Column("str", "As the annotations name it."),
        "true_masks": Column("int64", "Annotated masks of the category.", "masks"),
        "miou": replace(
            LADDER_ROWS.columns["miou"], show="always", meaning="Mean IoU with them, each with its prompt's mask."
        ),
        "of_baseline": Column("float64", "The same as a share of the first row's.", "of the first", unit="share"),
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


def category_rows(record: LadderRecord) -> pd.DataFrame:
    """CATEGORIES of a record; empty where none are annotated."""
    import pandas as pd

    known = [(row.technique, row.truth.categories) for row in record.rows if row.truth is not None]
    first = dict(known[0][1]) if known else {}
    rows = [
        (technique, name, masks, miou, miou / first[name][1] if name in first and first[name][1] else float("nan"))
        for technique, categories in known
        for name, (masks, miou) in sorted(categories.items(), key=lambda one: (-one[1][0], one[0]))
    ]
    return CATEGORIES.check(pd.DataFrame(rows, columns=list(CATEGORIES.columns)).astype(CATEGORIES.dtypes()))
