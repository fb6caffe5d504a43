"""Perfetto inside the app: which part of a trace it opens, and links to it."""

from __future__ import annotations

import streamlit as st

from app import routes, state
from app.parts import widgets
from app.state import Range
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.text import fmt_bytes, fmt_ns

WHOLE_BYTES = 20 << 20  # Perfetto takes a second per two MB of gzip: beyond this a part is offered first
HEIGHT_PX = 820


def link(run: RunFolder, selected: Range | None, base_ns: int) -> None:
    """A link to the Perfetto page, at the selected range where there is one."""
    if routes.perfetto_folder() is None:
        return
    more = {} if selected is None else {"sel": f"{selected[0] - base_ns}-{selected[1] - base_ns}"}
    label = "Open in Perfetto" if selected is None else "Open this range in Perfetto"
    st.page_link("app_pages/perfetto.py", label=label, icon="↗️", query_params={"run": run.key, **more})


def show(run: RunFolder) -> None:
    """Perfetto with the trace, or the part of it that the address names."""
    assert run.trace is not None
    size, part = run.trace.stat().st_size, state.linked_range()
    large = size > WHOLE_BYTES
    if part is not None:
        length = fmt_ns(part[1] - part[0])
        what = f"{length} from {fmt_ns(part[0])} on" + (", cut out of a large trace" if large else "")
        st.caption(f"{what}. Perfetto's own keys: W A S D, F, ?. Nothing leaves this machine.")
    elif large and not st.toggle("Open the whole trace", help="It may take minutes, and gigabytes in the browser."):
        widgets.empty(
            f"This trace is large: {fmt_bytes(size)} packed",
            "Select a range on the Timeline page and open that here, or write a part of it to a file:",
            f"profiler-kit export {widgets.in_root(run.key)} --time 0:100 --output part.json.gz",
        )
        st.page_link("app_pages/timeline.py", label="Choose a range", query_params={"run": run.key})
        return
    more = {} if part is None else {"t0": str(part[0]), "t1": str(part[1]), **({"cut": "1"} if large else {})}
    st.iframe(routes.url("perfetto", run.key, **more), height=HEIGHT_PX)
