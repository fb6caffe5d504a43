"""The parts of the memory page: the device, the peak in one sentence, the numbers, and who held memory at the peak."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import routes
from app.parts import widgets
from profiler_kit.analyses.memory.stack_names import stack_name
from profiler_kit.findings import memory
from profiler_kit.findings.numbers import of_device as device_numbers
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render import tables
from profiler_kit.snapshot import DeviceRow, Snapshot


def pick_device(snapshot: Snapshot) -> int:
    """The device to show; asked only when there are several."""
    devices = list(snapshot.devices)
    if len(devices) == 1:
        return devices[0]
    return int(
        st.segmented_control("Device", devices, default=devices[0], key="device", bind="query-params") or devices[0]
    )


def say(snapshot: Snapshot, facts: DeviceRow) -> None:
    """When the peak was, what failed, and what the history lacks."""
    peak, *others = [*memory.of_device(snapshot, facts["device"]), *memory.raised(snapshot)]
    widgets.say(peak)
    for one in others:
        widgets.note(one)


def reserves(facts: DeviceRow) -> bool:
    """Whether the allocator keeps memory in reserve; on a CPU it comes from the system and goes back."""
    return facts["device_type"] != "cpu"


def numbers(facts: DeviceRow, record: RunRecord | None) -> None:
    """The numbers that sum up a device, and how the peak agrees with that of run.json."""
    shown = device_numbers(facts)
    for column, one in zip(st.columns(len(shown)), shown, strict=True):
        column.metric(one.name, one.value, help=one.meaning)
    differs = memory.measured_peak(facts, record)
    if differs is not None:
        widgets.note(differs)


def of_device(snapshot: Snapshot, device: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """MEMORY_TIMELINE and MEMORY_REGION_SPANS of one device."""
    timeline, spans = snapshot.timeline(), snapshot.region_spans()
    return timeline[timeline["device"] == device], spans[spans["device"] == device]


def live(snapshot: Snapshot, device: int) -> pd.DataFrame:
    """What was live at the peak, as a table."""
    frame = snapshot.live_at_peak(device)
    names = [
        stack_name(snapshot.stacks[int(stack)], before=bool(before))
        for stack, before in zip(frame["stack"], frame["before"], strict=True)
    ]
    return tables.live_table(frame, names)


def whole_page(run: RunFolder) -> None:
    """The memory page inside this one, and ways to open it alone and to keep it."""
    st.subheader("Every allocation", help="Zoom, search by address or frame, and see what each stack holds over time.")
    left, right, _ = st.columns([1, 1, 3])
    left.link_button("Open alone", routes.url("memory", run.key), width="stretch")
    right.link_button("Download page", routes.url("memory", run.key, download="1"), width="stretch")
    st.iframe(routes.url("memory", run.key), height=_PAGE_PX)


_PAGE_PX = 780
