"""What is in a trace file, event by event, and where it was damaged: filled from what the doctor found (examine)."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from profiler_kit.names import printable
from profiler_kit.schema import Column, Schema
from profiler_kit.table import Table

EVENT_CATEGORIES: Final = Schema(
    "EVENT_CATEGORIES",
    "category and phase of events, most events first",
    {
        "category": Column("str", "As the profiler writes it."),
        "phase": Column("str", "X: a span, i: a moment, M: metadata, s and f: ends of an arrow, C: a counter."),
        "events": Column("int64", "How many there are."),
        "role": Column("str", "What the analyses make of them; what is ignored says why.", "used as"),
    },
)
INCIDENTS: Final = Schema(
    "INCIDENTS",
    "place where the file was damaged, in order",
    {
        "offset": Column("int64", "Bytes from the beginning of the uncompressed text.", unit="id"),
        "kind": Column("str", "What was done with the event that is there.", "what"),
        "text": Column("str", "How the event begins."),
    },
)
# What was done with a damaged event, by the kind of the incident.
DONE: Final = {
    "repaired": "repaired",
    "dropped": "dropped",
    "of no use": "dropped: no event, or one without a time or with an impossible one",
    "closed early": "the list of events is closed here and continues",
    "after the end": "left out: after the end of the trace",
    "cut off": "the file ends in this event",
    "corrupt": "the compressed data is damaged here",
}


def _categories(found: dict[str, Any]) -> pd.DataFrame:
    rows = [
        (
            printable(str(row["category"]) or "(none)"),
            str(row["phase"]),
            int(row["events"]),
            f"ignored: {row['why']}" if row["role"] == "ignored" else row["role"],
        )
        for row in found["categories"]
    ]
    return EVENT_CATEGORIES.of(rows)


def _incidents(found: dict[str, Any]) -> pd.DataFrame:
    rows = [(int(one["offset"]), DONE[one["kind"]], printable(one["text"])) for one in found["quality"]["incidents"]]
    return INCIDENTS.of(rows)


TABLES: Final = (
    Table("event_categories", "file", "events by category", EVENT_CATEGORIES, _categories),
    Table("incidents", "file", "where the file was damaged", INCIDENTS, _incidents),
)
