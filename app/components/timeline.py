"""The kernel timeline: a run's key in, the selected range of time out."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

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


def timeline(
    meta_url: str,
    tiles_url: str,
    *,
    key: str,
    base_ns: int,
    focus: tuple[int, int] | None,
    selected: tuple[int, int] | None,
) -> tuple[int, int] | None:
    """Draw the timeline behind the two URLs; returns the selected range in ns, or None.

    base_ns: start of the timeline, which times in the browser count from. focus: a range to zoom to; the view moves
    when it changes.
    """
    result = _component(
        key=key,
        data={"meta": meta_url, "tiles": tiles_url, "focus": _less(focus, base_ns), "range": _less(selected, base_ns)},
        on_range_change=lambda: None,
    )
    chosen = result.get("range")
    return (int(chosen[0]) + base_ns, int(chosen[1]) + base_ns) if chosen else None


def _less(times: tuple[int, int] | None, base_ns: int) -> list[int] | None:
    return None if times is None else [time - base_ns for time in times]
