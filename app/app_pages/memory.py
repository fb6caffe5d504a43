"""Memory over time with the regions under it, the peak and what was live at it, and the memory page."""

from __future__ import annotations

import streamlit as st

from app import state
from app.parts import joined_parts, memory_parts, widgets
from profiler_kit.render import tables
from profiler_kit.render.figures import memory as figures_memory

run = state.run()
st.title("Memory")
if run.memory is None:
    widgets.empty(
        "No memory snapshot in this run",
        "`profiler-kit capture` records one on a GPU. In your own code:",
        'with memory_runner("memory.pickle"): step()',
    )
    st.stop()
with st.spinner("Reading the snapshot …", show_time=True):
    snapshot = state.snapshot(run.memory)
device = memory_parts.pick_device(snapshot)
facts = next(d for d in snapshot.summary()["devices"] if d["device"] == device)
memory_parts.say(snapshot, facts)
memory_parts.numbers(facts, run.record)
joined = state.joined(run)
if joined is None or not joined_parts.show(joined, device):
    timeline, spans = memory_parts.of_device(snapshot, device)
    widgets.figure(figures_memory.memory_over_time(timeline, spans, reserves=memory_parts.reserves(facts)), "memory")
st.subheader("By region", help="Regions are record_function blocks, from the snapshot's own annotations.")
regions = snapshot.regions()
regions = regions[regions["device"] == device].reset_index(drop=True)
if regions.empty:
    widgets.empty("No regions in this snapshot", "Name the parts of your code:", 'with region("encoder"): ...')
else:
    widgets.table(tables.memory_region_table(regions), "memory-regions")
st.subheader("Live at the peak", help="Who held the memory at the moment the allocated total was highest.")
widgets.table(memory_parts.live(snapshot, device), "memory-live")
memory_parts.whole_page(run)
