"""Kernels and memory of one batch on one clock: the figure, the table by region, and how far the clocks agree."""

from __future__ import annotations

import streamlit as st

from app.parts import widgets
from profiler_kit.findings.records import clock
from profiler_kit.joined import JoinedRun
from profiler_kit.render import tables
from profiler_kit.render.figures import kernels_and_memory as figures_joined
from profiler_kit.units import NS_PER_US

HELP = "Both files count Unix time. A region's kernels run after it launched them; its memory moves when it does."


def show(joined: JoinedRun, device: int) -> bool:
    """The figure over the table of its regions; False, and nothing, where they do not hold the peak of the device."""
    regions, timeline = joined.regions(), joined.snapshot.timeline()
    regions, timeline = regions[regions["device"] == device], timeline[timeline["device"] == device]
    if regions.empty or timeline.empty:
        return False
    peak_us = int(timeline["time_us"].iloc[int(timeline["allocated_bytes"].to_numpy().argmax())])
    peak_ns = peak_us * NS_PER_US - joined.trace.base_ns
    if not regions["start_ns"].min() <= peak_ns <= regions["end_ns"].max():
        return False
    st.subheader("Kernels and memory", help=HELP)
    events = joined.trace.gpu_events()
    events = events[(events["device"] == device) | events["device"].isna()]
    figure = figures_joined.kernels_and_memory(events, timeline, regions, joined.trace.base_ns)
    widgets.figure(figure, "kernels-and-memory")
    totals = joined.region_totals()
    widgets.table(tables.joined_table(totals[totals["device"] == device].reset_index(drop=True)), "joined-regions")
    widgets.note(clock(joined))
    return True
