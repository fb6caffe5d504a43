"""What the doctor found, for a page: the examination of `profiler-kit doctor --json` in, a sentence and tables out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from profiler_kit.render.tables import printable
from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns

SEVERITY: Final = {
    "lost": (":red-badge[lost]", "Events are gone or damaged."),
    "missing": (":orange-badge[not recorded]", "The pages that need it say so."),
    "odd": (":blue-badge[odd]", "It is there, but not to be trusted blindly."),
}
INCIDENTS: Final = {
    "repaired": "mended",
    "dropped": "dropped",
    "of no use": "dropped: no event, or a span without a time",
    "closed early": "the list of events is closed here and goes on",
    "after the end": "left out: behind the end of the trace",
    "cut off": "the file ends in this event",
    "corrupt": "the compressed data is damaged here",
}


def doctor_verdict(found: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Pieces of the sentence on how good the file is; True marks what to set in bold."""
    by = [one["severity"] for one in found["findings"]]
    events = fmt_count(found["contents"]["events"])
    if "lost" in by:
        said: list[tuple[str, bool]] = [("Not whole", True), (f": what could be read holds {events} events", False)]
    else:
        said = [("Whole", True), (f": all {events} events could be read", False)]
    missing, odd = by.count("missing"), by.count("odd")
    if missing:
        said += [("; ", False), (fmt_count(missing), True)]
        said.append((f" {'thing was' if missing == 1 else 'things were'} not recorded", False))
    if odd:
        said += [("; ", False), (fmt_count(odd), True), (f" {'is' if odd == 1 else 'are'} odd", False)]
    return [*said, (".", False)]


def about_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """The file, the recording and the contents: columns fact and value, one row a fact."""
    file, recording, contents = found["file"], found["recording"], found["contents"]
    packed = f"{fmt_bytes(file['size_bytes'])} gzipped, " if file["compressed"] else ""
    devices = list(recording["devices"])
    names = [f"{devices.count(name)} × {name}" for name in dict.fromkeys(devices)]
    rank = recording["distributed"]
    facts = {
        "Trace": Path(found["trace"]).name,
        "Size": f"{packed}{fmt_bytes(file['text_bytes'])} of text ({file['layout']}, {file['encoding']})",
        "torch": recording["torch"] or "",
        "Versions": ", ".join(f"{name} {value}" for name, value in recording["versions"].items()),
        "Options": ", ".join(f"{name} {'on' if on else 'off'}" for name, on in recording["options"].items()),
        "Devices": ", ".join(names),
        "Rank": f"{rank['rank']} of {rank['world_size']} ({rank['backend']})" if rank else "",
        "Time": fmt_ns(contents["span_ns"]),
        "Steps": fmt_count(contents["steps"]),
        "Regions": fmt_count(contents["regions"]),
        "GPU events": fmt_count(contents["gpu_events"]),
        "Streams": fmt_count(contents["streams"]),
        "Host threads": fmt_count(contents["host_threads"]),
    }
    rows = [(name, printable(str(value))) for name, value in facts.items() if value]
    return pd.DataFrame(rows, columns=["fact", "value"])


def incident_table(incidents: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Where the file was damaged, one row a place."""
    return pd.DataFrame(
        {
            "offset": [int(one["offset"]) for one in incidents],
            "incident": [INCIDENTS[one["kind"]] for one in incidents],
            "event_text": [printable(str(one["text"])) for one in incidents],
        }
    )


def category_table(categories: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Events by category and phase, with what they are used for."""
    return pd.DataFrame(
        {
            "event_category": [printable(str(row["category"]) or "(none)") for row in categories],
            "phase": [str(row["phase"]) for row in categories],
            "count": [int(row["events"]) for row in categories],
            "used_as": [f"ignored: {row['why']}" if row["role"] == "ignored" else row["role"] for row in categories],
        }
    )
