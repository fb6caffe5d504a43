"""How findings about a memory snapshot name its devices."""

from __future__ import annotations

from profiler_kit.snapshot import DeviceRow, Snapshot


def holds_memory(row: DeviceRow) -> bool:
    """Whether a device did anything at all."""
    return bool(row["events"] or row["reserved_bytes"] or row["end_allocated_bytes"])


def row_of(snapshot: Snapshot, device: int) -> DeviceRow:
    """The summary of one device."""
    return snapshot.summary(device)["devices"][0]


def on(snapshot: Snapshot, device: int) -> str:
    """Which device, where several hold memory."""
    used = [row["device"] for row in snapshot.summary()["devices"] if holds_memory(row)]
    return f" on {snapshot.device_name(device)}" if len(used) > 1 else ""


def id_of(name: str, device: int, number: int = 1) -> str:
    """Unique in a snapshot: device 0 and the first of several need no number."""
    return name + (f"-{number}" if number > 1 else "") + (f"-device-{device}" if device else "")
