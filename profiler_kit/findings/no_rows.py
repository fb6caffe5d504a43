"""Why a table of a trace is empty, and how to record what it would show."""

from __future__ import annotations

from profiler_kit.attribute.regions import NO_REGION, UNLINKED
from profiler_kit.finding import Finding, say
from profiler_kit.findings.quality import WORDS
from profiler_kit.findings.time import missing_gpu
from profiler_kit.table import Empty, Filled
from profiler_kit.trace import Trace


def is_hollow(filled: Filled) -> bool:
    """Whether the table has no rows, or only those of what has no module, shapes or region."""
    empty = filled.table.empty
    if not len(filled) or not isinstance(empty, Empty) or not empty.nothing:
        return not len(filled)
    return all(part in ("", (), NO_REGION, UNLINKED) for part in filled.frame[empty.nothing])


def no_rows(filled: Filled) -> Finding | None:
    """Why the table is hollow, and what to try; None where nothing is to be said, and for what is of no trace."""
    trace, empty = filled.source, filled.table.empty
    if not isinstance(trace, Trace):
        return None
    found = empty if empty is None or isinstance(empty, Empty) else empty(trace)
    if (found is None or not found.of_host) and trace.presence.ran != "gpu":
        said, attempt = missing_gpu(trace.presence).sentence, WORDS["no GPU activity"][2]
    elif found is not None:
        said, attempt = found.said, WORDS[found.lacks][2] if found.lacks else found.attempt
    else:
        return None
    name = filled.table.name.replace("_", "-")
    return Finding(f"no-{name}", "missing", say(said), attempt=attempt, page="doctor")
