"""Memory over time with the regions under it, the peak and what was live at it, and the memory page."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import memory_parts as parts
from app.parts import tables, widgets
from profiler_kit.tables import every_table
from profiler_kit.tables.memory import live

folder = state.run()
st.title("Memory")
if folder.memory is None and not parts.in_trace(folder):
    how = "`profiler-kit capture` records one on a GPU. In your own code:"
    widgets.empty("No memory snapshot in this run", how, 'with memory_runner("memory.pickle"): step()')
    st.stop()
with st.spinner("Reading the snapshot …", show_time=True):
    snapshot = cache.snapshot(folder)
device = parts.pick_device(snapshot)
facts = next(row for row in snapshot.summary()["devices"] if row["device"] == device)
parts.say(snapshot, device)
parts.numbers(facts, folder.record)
joined = cache.run(folder).joined if folder.memory is not None else None
if joined is None or not parts.kernels_and_memory(joined, device):
    parts.over_time(snapshot, facts)
st.subheader("By region", help="Regions are record_function blocks, from the snapshot's own annotations.")
regions = every_table()["memory_regions"].of_source(snapshot, device=device)
if len(regions):
    tables.show(regions, "memory-regions")
else:
    widgets.empty("No regions in this snapshot", "Name the parts of your code:", 'with region("encoder"): ...')
held = every_table()[live(facts).name].of_source(snapshot, device=device)
st.subheader(held.table.heading, help="What held the memory at that moment.")
tables.show(held, "memory-live")
if folder.memory is not None:
    parts.whole_page(folder)
