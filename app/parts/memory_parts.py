"""The parts of the memory page: the device, the peak in one sentence, the numbers, and memory over time."""

from __future__ import annotations

import streamlit as st

from app import cache, routes
from app.parts import tables, widgets
from profiler_kit.findings import memory
from profiler_kit.findings.numbers import of_device
from profiler_kit.findings.records import FROM_TRACE, clock
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.joined import JoinedRun
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.figures.memory import kernels_and_memory as both_figure
from profiler_kit.render.figures.memory import memory_over_time
from profiler_kit.snapshot import DeviceRow, Snapshot
from profiler_kit.tables import every_table
from profiler_kit.units import NS_PER_US

_PAGE_PX = 780
_JOINED_HELP = (
    "Both files count Unix time. A region's kernels run after it launched them; its memory moves when it does."
)


def in_trace(folder: RunFolder) -> bool:
    """Whether the run's trace holds allocations; says so where it does."""
    if widgets.opened(folder) is None:
        return False
    with st.spinner("Reading what was recorded …", show_time=True):
        recording = cache.examination(folder)[0]["recording"]
    if recording["options"]["profile_memory"]:
        widgets.note(FROM_TRACE)
    return bool(recording["options"]["profile_memory"])


def pick_device(snapshot: Snapshot) -> int:
    """The device to show, the one with the highest peak unless told; asked only when there are several."""
    devices = list(snapshot.devices)
    if len(devices) == 1:
        return devices[0]
    first = memory.fullest(snapshot)
    picked = st.segmented_control(
        "Device", devices, default=first, format_func=snapshot.device_name, key="device", bind="query-params"
    )
    return int(first if picked is None else picked) if first is not None else devices[0]


def say(snapshot: Snapshot, device: int) -> None:
    """When the peak was, what failed, and what the history lacks."""
    peak, *others = [*memory.of_device(snapshot, device), *memory.raised(snapshot)]
    widgets.say(peak)
    for one in others:
        widgets.note(one)


def numbers(facts: DeviceRow, record: RunRecord | None) -> None:
    """The numbers that sum up a device, and how the peak agrees with that of run.json."""
    widgets.numbers(of_device(facts))
    differs = memory.measured_peak(facts, record)
    if differs is not None:
        widgets.note(differs)


def over_time(snapshot: Snapshot, facts: DeviceRow) -> None:
    """Memory over time with the regions under it; a CPU keeps nothing in reserve. Without a history: nothing."""
    if not facts["history_followed"]:
        return
    timeline, spans = (
        frame[frame["device"] == facts["device"]] for frame in (snapshot.timeline(), snapshot.region_spans())
    )
    widgets.figure(memory_over_time(timeline, spans, reserves=facts["device_type"] != "cpu"), "memory")


def kernels_and_memory(joined: JoinedRun, device: int) -> bool:
    """Kernels and memory on one clock, and the table of their regions, with how far the clocks agree.

    False, and nothing drawn, where the regions do not hold the peak of the device.
    """
    regions, timeline = joined.regions(), joined.snapshot.timeline()
    regions, timeline = regions[regions["device"] == device], timeline[timeline["device"] == device]
    if regions.empty or timeline.empty:
        return False
    peak_us = int(timeline["time_us"].iloc[int(timeline["allocated_bytes"].to_numpy().argmax())])
    peak_ns = peak_us * NS_PER_US - joined.trace.base_ns
    if not regions["start_ns"].min() <= peak_ns <= regions["end_ns"].max():
        return False
    st.subheader("Kernels and memory", help=_JOINED_HELP)
    events = joined.trace.gpu_events()
    events = events[(events["device"] == device) | events["device"].isna()]
    widgets.figure(both_figure(events, timeline, regions, joined.trace.base_ns), "kernels-and-memory")
    totals = joined.region_totals()
    mine = totals[totals["device"] == device].reset_index(drop=True)
    tables.show(every_table()["region_memory"].holding(mine, joined), "joined-regions")
    widgets.note(clock(joined))
    return True


def whole_page(folder: RunFolder) -> None:
    """The memory page inside this one, and ways to open it alone and to keep it."""
    st.subheader("Every allocation", help="Zoom, search by address or frame, and see what each stack holds over time.")
    left, right, _ = st.columns([1, 1, 3])
    left.link_button("Open alone", routes.url("memory", folder.key), width="stretch")
    right.link_button("Download page", routes.url("memory", folder.key, download="1"), width="stretch")
    st.iframe(routes.url("memory", folder.key), height=_PAGE_PX)
