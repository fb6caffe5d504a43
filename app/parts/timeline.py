"""The kernel timeline: a run's key in, the selected range of time out.

The browser numbers its selections. The page reads the latest one before it draws (`latest`), and the component is told
which number it is answered, so that an answer to an older selection never moves a newer one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import streamlit as st

from app import state
from app.state import Range

_HERE = Path(__file__).parent
# In this order they are one script: each names what the next ones use.
_SCRIPTS = ("text", "server", "lanes", "paint", "panel", "input", "timeline")
_component = st.components.v2.component(
    "profiler_kit_timeline",
    html=(_HERE / "timeline.html").read_text(encoding="utf-8"),
    css=(_HERE / "timeline.css").read_text(encoding="utf-8"),
    js="\n".join((_HERE / "timeline_js" / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS),
)


def key_of(run_key: str) -> str:
    """The component's key for a run, whose own may hold what Streamlit refuses in one (two underscores in a row)."""
    return f"timeline-{hashlib.sha256(run_key.encode()).hexdigest()[:16]}"


def latest(key: str, base_ns: int) -> tuple[Range | None, int]:
    """The range the browser selected last, in ns, and its number; before that the one in the address, else 0."""
    held = st.session_state.get(key)
    chosen = held.get("selection") if held else None
    if not chosen:
        linked = state.linked_range()
        return (None, 0) if linked is None else ((linked[0] + base_ns, linked[1] + base_ns), 1)
    times = chosen["range"]
    return (int(times[0]) + base_ns, int(times[1]) + base_ns) if times else None, int(chosen["number"])


def timeline(
    run_key: str,
    *,
    key: str,
    base_ns: int,
    focus: Range | None,
    selected: Range | None,
    number: int,
) -> None:
    """Draw the timeline of a run.

    base_ns: start of the timeline, which times in the browser count from. focus: a range to zoom to; the view moves
    when it changes. selected: the range to mark, which answers the browser's selection `number`.
    """
    _component(
        key=key,
        data={
            "base": "/kit",
            "run": run_key,
            "focus": _less(focus, base_ns),
            "range": _less(selected, base_ns),
            "number": number,
        },
        on_selection_change=lambda: None,
    )


def _less(times: Range | None, base_ns: int) -> list[int] | None:
    return None if times is None else [time - base_ns for time in times]
