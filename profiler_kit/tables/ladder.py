"""What each row of a ladder measured: speed, memory, agreement and the phases before; students; masks by category."""

from __future__ import annotations

from typing import Final

from profiler_kit.formats.ladder_file import LADDER_ROWS, ladder_rows
from profiler_kit.formats.ladder_record import BASELINE, LadderRecord
from profiler_kit.formats.student_rows import CATEGORIES, STUDENTS, TEACHER, category_rows, student_rows
from profiler_kit.table import Table
from profiler_kit.text import rate_label

BESIDE: Final = "↳ "  # before an alternative to the step above it


def _sizes(record: LadderRecord) -> dict[str, str]:
    """Headings of accuracy by size that say of how many objects it is the mean."""
    truth = next((row.truth for row in record.rows if row.truth is not None), None)
    names = ("small", "medium", "large")
    return (
        {} if truth is None else {f"miou_{name}": f"{name} ({n})" for name, n in zip(names, truth.counts, strict=True)}
    )


TABLES: Final = (
    Table(
        "ladder",
        "ladder",
        "rows of the ladder",
        LADDER_ROWS,
        ladder_rows,
        order=(
            "technique",
            "images_per_s",
            "speedup",
            "speedup_verdict",
            "agreement",
            "masks_judged",
            "median_ns",
            "miou",
            "gain",
            "peak_memory_bytes",
            "samples",
        ),
        texts=lambda record, rows: {
            "technique": [
                name if step else BESIDE + name for name, step in zip(rows["technique"], rows["is_step"], strict=True)
            ]
        },
        labels=lambda record: {
            "images_per_s": rate_label(record.setup.unit),
            "agreement": LADDER_ROWS.label("baseline_miou" if record.setup.task else "cosine"),
        },
    ),
    Table(
        "students",
        "ladder",
        "students beside their teacher",
        STUDENTS,
        student_rows,
        texts=lambda _, rows: {"technique": [TEACHER if name == BASELINE else name for name in rows["technique"]]},
        labels=lambda record: {"images_per_s": rate_label(record.setup.unit), **_sizes(record)},
    ),
    Table("accuracy_by_category", "ladder", "masks by annotated category", CATEGORIES, category_rows),
)


def shown_of(record: LadderRecord) -> tuple[str, ...]:
    """Names of the tables that say something of a ladder, in the order to show them."""
    students = ("students",) if record.setup.family == "student" else ()
    named = any(row.truth is not None and row.truth.categories for row in record.rows)
    return (*students, "ladder", *(("accuracy_by_category",) if named else ()))
