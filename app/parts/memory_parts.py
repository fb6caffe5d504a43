"""The parts of the memory page: the device, the peak in one sentence, the numbers, and who held memory at the peak."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import routes
from app.parts import overview_parts
from profiler_kit.analyses.memory.stack_names import stack_name
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render import tables
from profiler_kit.snapshot import DeviceRow, Snapshot
from profiler_kit.text import fmt_bytes, fmt_count, fmt_percent


def pick_device(snapshot: Snapshot) -> int:
    """The device to show; asked only when there are several."""
    devices = list(snapshot.devices)
    if len(devices) == 1:
        return devices[0]
    return int(
        st.segmented_control("Device", devices, default=devices[0], key="device", bind="query-params") or devices[0]
    )


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


def reserves(facts: DeviceRow) -> bool:
    """Whether the allocator keeps memory in reserve; on a CPU it comes from the system and goes back."""
    return facts["device_type"] != "cpu"


def numbers(facts: DeviceRow, record: RunRecord | None) -> None:
    """The numbers that sum up a device, and how the peak agrees with that of run.json."""
    peak = facts["peak_allocated_bytes"]
    shown = [("Peak allocated", fmt_bytes(peak), "Highest total held by tensors, in bytes they asked for.")]
    if reserves(facts):
        shown.append(
            (
                "Reserved at the end",
                fmt_bytes(facts["reserved_bytes"]),
                "Taken from the driver when it was saved; what nvidia-smi shows.",
            )
        )
    shown.append(
        ("Allocated at the end", fmt_bytes(facts["end_allocated_bytes"]), "Held by tensors when it was saved.")
    )
    if reserves(facts):
        shown.append(
            (
                "Unused at the end",
                fmt_percent(facts["fragmentation"]),
                "Fragmentation: share of reserved memory that no tensor used when it was saved.",
            )
        )
    shown.append(("Events", fmt_count(facts["events"]), "Entries of the allocator's history on this device."))
    for column, (name, value, meaning) in zip(st.columns(len(shown)), shown, strict=True):
        column.metric(name, value, help=meaning)
    measured = record.peak_memory_bytes if record is not None else None
    if measured is not None and measured != peak:
        st.caption(
            f"The Overview's {fmt_bytes(measured)} is torch.cuda.max_memory_allocated of the timed iterations, which "
            f"counts blocks as the allocator rounds them up; {fmt_bytes(peak)} here are the bytes asked for in the "
            "recorded batch."
        )


def say_lines(facts: DeviceRow) -> None:
    """What the line numbers mean where they are not those of the call."""
    if not reserves(facts):
        st.caption("On a CPU a line may be where its function begins: not every operator can be placed inside it.")


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
