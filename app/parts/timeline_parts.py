"""The timeline of a run, drawn in the browser, and the range of time that is selected in it.

The browser numbers its selections. The page reads the latest one before it draws (`latest`), and the component is told
which number it is answered, so that an answer to an older selection never moves a newer one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import streamlit as st

from app import cache, query_params, routes, state
from app.parts import widgets
from app.query_params import Range
from profiler_kit.load.discover.runs import RunFolder

HELP = (
    "Above: requests of a server, regions as GPUs run their kernels, then each stream. Below: regions and outermost "
    "operators on each host thread. The colour is the region's. No trace says how busy the SMs were: the occupancy "
    "lane is Kineto's estimate for each kernel. Where spans are too short to see, height is the share of busy "
    "time."
)
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
        linked = query_params.linked_range()
        return (None, 0) if linked is None else ((linked[0] + base_ns, linked[1] + base_ns), 1)
    times = chosen["range"]
    return (int(times[0]) + base_ns, int(times[1]) + base_ns) if times else None, int(chosen["number"])


def show(
    folder: RunFolder,
    path: tuple[str, ...] | None = None,
    focus: Range | None = None,
    *,
    headed: bool = True,
    beside: cache.Beside = (),
) -> Range | None:
    """Draw the timeline, with a link to Perfetto; returns the selected range.

    path: the region that is picked in the table. focus: a range to zoom to; the view moves when it changes. beside:
    other runs to draw with it, and what is taken from their times.
    """
    if headed:
        st.subheader("Timeline", help=HELP)
    key, base_ns = key_of(folder.key), cache.timeline(folder)[0].start_ns
    selected, number = state.selected_range(folder.key, path, *latest(key, base_ns))
    _component(
        key=key,
        data={
            "base": "/kit",
            "run": folder.key,
            "beside": named(beside),
            "focus": _less(focus, base_ns),
            "range": _less(selected, base_ns),  # marked; it answers the browser's selection `number`
            "number": number,
        },
        on_selection_change=lambda: None,
    )
    if routes.perfetto_folder() is not None:
        part = selected or focus
        more = "" if part is None else f"{part[0] - base_ns}-{part[1] - base_ns}"
        label = "Open in Perfetto" if part is None else "Open this range in Perfetto"
        widgets.go("perfetto", label, icon="↗️", sel=more)
    return selected


def named(beside: cache.Beside) -> list[str]:
    """Other runs as an address names them."""
    return [f"{shift}:{run.key}" for run, shift in beside]


def _less(times: Range | None, base_ns: int) -> list[int] | None:
    return None if times is None else [time - base_ns for time in times]
