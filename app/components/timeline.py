"""The kernel timeline: a run's key in, the selected range of time out.

The browser numbers its selections. The page reads the latest one before it draws (`latest`), and the component is told
which number it is answered, so that an answer to an older selection never moves a newer one.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app.state import Range

_HERE = Path(__file__).parent
_HTML = """
<div class="tl">
  <div class="bar"><span class="shown"></span>
    <button class="in" title="Zoom in (W)">+</button><button class="out" title="Zoom out (S)">−</button>
    <button class="fit" title="Show everything (F)">Fit</button>
    <span class="hint">wheel zooms · drag pans · <kbd>shift</kbd>+drag selects ·
    <kbd>W</kbd><kbd>A</kbd><kbd>S</kbd><kbd>D</kbd> · click selects a span, double click zooms to it</span></div>
  <div class="problem" role="alert"></div>
  <canvas tabindex="0" aria-label="Timeline of GPU streams, regions and threads"></canvas>
  <div class="tip"></div>
</div>
"""
_component = st.components.v2.component(
    "profiler_kit_timeline",
    html=_HTML,
    css=(_HERE / "timeline.css").read_text(encoding="utf-8"),
    js=(_HERE / "timeline.js").read_text(encoding="utf-8"),
)


def latest(key: str, base_ns: int) -> tuple[Range | None, int]:
    """The range the browser selected last, in ns, and its number; 0 when nothing was ever selected."""
    held = st.session_state.get(key)
    chosen = held.get("selection") if held else None
    if not chosen:
        return None, 0
    times = chosen["range"]
    return (int(times[0]) + base_ns, int(times[1]) + base_ns) if times else None, int(chosen["number"])


def timeline(
    meta_url: str,
    tiles_url: str,
    *,
    key: str,
    base_ns: int,
    focus: Range | None,
    selected: Range | None,
    number: int,
) -> None:
    """Draw the timeline behind the two URLs.

    base_ns: start of the timeline, which times in the browser count from. focus: a range to zoom to; the view moves
    when it changes. selected: the range to mark, which answers the browser's selection `number`.
    """
    _component(
        key=key,
        data={
            "meta": meta_url,
            "tiles": tiles_url,
            "focus": _less(focus, base_ns),
            "range": _less(selected, base_ns),
            "number": number,
        },
        on_selection_change=lambda: None,
    )


def _less(times: Range | None, base_ns: int) -> list[int] | None:
    return None if times is None else [time - base_ns for time in times]
