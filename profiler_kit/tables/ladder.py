"""What each row of a ladder measured: speed, memory, agreement and the phases before; students; masks by category."""

from __future__ import annotations

from typing import Final

from profiler_kit.formats.ladder_file import LADDER_ROWS, ladder_rows
from profiler_kit.formats.student_rows import CATEGORIES, STUDENTS, category_rows, student_rows
from profiler_kit.table import Table
from profiler_kit.text import rate_label

BESIDE: Final = "↳ "  # before an alternative to the step above it

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
            "gain",
            "median_ns",
            "samples",
            "peak_memory_bytes",
            "agreement",
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
        labels=lambda record: {"images_per_s": rate_label(record.setup.unit)},
    ),
    Table("accuracy_by_category", "ladder", "masks by annotated category", CATEGORIES, category_rows),
)
