"""The parts of the memory page: the device, the peak in one sentence, the numbers, and who held memory at the peak."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app.components import overview_parts
from profiler_kit.analyses.stack_names import stack_name
from profiler_kit.snapshot import DeviceRow, Snapshot
from profiler_kit.views import tables
from profiler_kit.views.text import fmt_bytes, fmt_count, fmt_percent


def pick_device(snapshot: Snapshot) -> int:
    """The device to show; asked only when there are several."""
    devices = list(snapshot.devices)
    if len(devices) == 1:
        return devices[0]
    return int(st.segmented_control("Device", devices, default=devices[0], key="device") or devices[0])


def say_peak(snapshot: Snapshot, facts: DeviceRow) -> None:
    """When the peak was, what failed, and what the history lacks."""
    said = [("At its peak ", False), (fmt_bytes(facts["peak_allocated_bytes"]), True), (" were allocated", False)]
    inside = snapshot.peak_region(facts["device"])
    said += [(", inside ", False), (inside[-1], True)] if inside else []
    overview_parts.say([*said, (".", False)])
    if facts["oom"]:
        first, times = facts["oom"][0], len(facts["oom"])
        st.error(
            f"Out of memory {'once' if times == 1 else f'{times} times; the first'}: wanted "
            f"{fmt_bytes(first['requested_bytes'])}, {fmt_bytes(first['device_free_bytes'])} were free on the device.",
            icon="⚠️",
        )
    if facts["history_truncated"]:
        st.warning("The beginning of the history is missing: the recorder's ring buffer was full.", icon="⚠️")


def numbers(facts: DeviceRow) -> None:
    """The numbers that sum up a device."""
    shown = [
        ("Peak allocated", fmt_bytes(facts["peak_allocated_bytes"]), "Highest total held by tensors."),
        ("Reserved", fmt_bytes(facts["reserved_bytes"]), "Taken from the driver at the end; what nvidia-smi shows."),
        ("Allocated at the end", fmt_bytes(facts["end_allocated_bytes"]), "Held by tensors when it was saved."),
        ("Fragmentation", fmt_percent(facts["fragmentation"]), "Share of reserved memory not used when it was saved."),
        ("Events", fmt_count(facts["events"]), "Entries of the allocator's history on this device."),
    ]
    for column, (name, value, meaning) in zip(st.columns(len(shown)), shown, strict=True):
        column.metric(name, value, help=meaning)


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
