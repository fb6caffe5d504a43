"""What a memory snapshot holds: devices, regions, what is live, what stays, fragmentation, what it says itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

import pandas as pd

from profiler_kit.analyses.memory.fragmentation import (
    MEMORY_FITS,
    MEMORY_FRAGMENTATION,
    MEMORY_MOMENTS,
    fit_rows,
    moments,
)
from profiler_kit.analyses.memory.groups import KEYS, MEMORY_GROUPS, MEMORY_NOTES, By
from profiler_kit.analyses.memory.leaks import MEMORY_GROWTH, MEMORY_LEAKS, MEMORY_LIFETIMES
from profiler_kit.analyses.memory.live import MEMORY_LIVE_LAYERS, MEMORY_LIVE_TREE
from profiler_kit.analyses.memory.oom import MEMORY_OOM_STATES, oom_states
from profiler_kit.analyses.memory.regions import MEMORY_REGIONS
from profiler_kit.analyses.memory.replay import MEMORY_LIVE
from profiler_kit.analyses.memory.stack_names import stack_name
from profiler_kit.analyses.memory.stats import MEMORY_STATS
from profiler_kit.errors import OptionError
from profiler_kit.load.snapshot.data import HOST
from profiler_kit.schema import Column, Schema
from profiler_kit.snapshot import DeviceRow, Snapshot
from profiler_kit.table import Option, Table

Fill = Callable[..., pd.DataFrame]

MEMORY_DEVICES: Final = Schema(
    "MEMORY_DEVICES",
    "device that the snapshot knows, used or not",
    {
        "device": Column(
            "int64", "Number of the device; -1 is the CPU in the memory of a trace, -2 pinned host memory."
        ),
        "device_type": Column("str", "Type of the device: cuda, cpu, or host for pinned host memory.", "type"),
        "events": Column("int64", "Entries of the allocator's history on this device."),
        "span_us": Column("Int64", "Time from where the history begins to the last of them.", "recorded", "room"),
        "peak_bound": Column(
            "str", "At least, where the peak of the run may be higher than that of what is recorded; else empty.", ""
        ),
        "peak_allocated_bytes": Column(
            "Int64", "Highest total held by tensors, in bytes they asked for; missing without a history.", "peak"
        ),
        "peak_time_us": Column("Int64", "When that was first so, in Unix time.", show="never"),
        "peak_after_us": Column(
            "Int64",
            "When that was first so, since the history begins: with its first entry, or with the region around that.",
            "at",
            "room",
        ),
        "peak_path": Column("path", "The regions that were open then, outermost first.", "in"),
        "end_allocated_bytes": Column(
            "int64", "Held by tensors when the snapshot was saved, in requested bytes.", "at the end"
        ),
        "reserved_bytes": Column(
            "Int64",
            "Reserved from the driver when the snapshot was saved; what nvidia-smi shows. A CPU keeps nothing in "
            "reserve.",
        ),
        "fragmentation": Column(
            "Float64", "Share of the reserved memory in no active block when it was saved.", "unused", unit="share"
        ),
        "failed": Column("int64", "Allocations that failed: out of memory."),
        "history_followed": Column(
            "bool", "Whether there is a history that agrees with itself; if not, only the end is known.", show="never"
        ),
        "history_truncated": Column("bool", "Whether the recorder dropped the beginning of the history.", "cut off"),
        "missing_allocations": Column("int64", "Allocations known to be missing from the history.", "missing", "room"),
    },
)

DEVICE: Final = Option("device", None, "Only this device; all of them when left out.", "count", least=-2, suggest="0")
SIZES: Final = Option("fits", "512MiB", "Sizes of allocations, separated by commas.")
BY: Final = Option(
    "by",
    None,
    "What a group is: allocations of one stack, metadata, category, compile_context or annotation; what the file says "
    "when left out, and stack where it says nothing.",
    "choice",
    ("stack", *KEYS),
    suggest="metadata",
)
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)I?B?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_size(text: str) -> int:
    """512MiB in bytes; raises OptionError for anything else."""
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].upper()]) if found else 0
    if not 0 < size < 1 << 50:
        raise OptionError(f"--fits {text}: not a size, expected a number with KiB, MiB or GiB. Try: --fits 512MiB")
    return size


def per_device(
    name: str, title: str, schema: Schema, of_device: Callable[..., pd.DataFrame], *options: Option, **more: Any
) -> Table:
    """A table of `memory` that asks for each device by itself: `of_device(snapshot, device, **options)`.

    options: beside DEVICE. more: as Table's.
    """

    def fill(snapshot: Snapshot, device: int | None = None, **options: object) -> pd.DataFrame:
        devices = snapshot.devices if device is None else (snapshot.require_device(device),)
        return schema.join([of_device(snapshot, one, **options) for one in devices])

    return Table(name, "snapshot", title, schema, fill, (DEVICE, *options), "memory", **more)


def _of(frame: Callable[[Snapshot], pd.DataFrame]) -> Fill:
    """A fill that asks for all devices at once and keeps one of them where it is given."""

    def fill(snapshot: Snapshot, device: int | None = None) -> pd.DataFrame:
        every = frame(snapshot)
        if device is None:
            return every
        return every[every["device"] == snapshot.require_device(device)].reset_index(drop=True)

    return fill


def _devices(snapshot: Snapshot, device: int | None = None) -> pd.DataFrame:
    rows = []
    for row in snapshot.summary(device)["devices"]:
        number = row["device"]
        one, origin, missing = snapshot.replay(number), snapshot.origin_us(number), snapshot.missing(number)
        reserves = row["device_type"] != "cpu"  # a CPU allocates from the system, without a cache between
        rows.append(
            {
                **{name: row[name] for name in MEMORY_DEVICES.columns if name in row},  # type: ignore[literal-required]  # a row has these keys
                "peak_allocated_bytes": row["peak_allocated_bytes"] if one.followed else None,
                "span_us": int(one.times_us[-1]) - origin if one.timed else None,
                "peak_after_us": None if row["peak_time_us"] is None else row["peak_time_us"] - origin,
                "peak_path": snapshot.peak_region(number),
                "reserved_bytes": row["reserved_bytes"] if reserves else None,
                "fragmentation": row["fragmentation"] if reserves else None,
                "failed": len(row["oom"]),
                "missing_allocations": missing.unmatched_frees + missing.recorded_before if missing.truncated else 0,
            }
        )
    return MEMORY_DEVICES.of(rows)


def live(row: DeviceRow) -> Table:
    """The table of what one device held: at the peak, or at the end where nothing else is known."""
    return LIVE if row["history_followed"] else LIVE_AT_END


def _moments(snapshot: Snapshot, device: int) -> pd.DataFrame:
    if device not in snapshot.block_devices:
        return MEMORY_MOMENTS.empty()
    failed = [report.state for report in snapshot.oom_reports(device)]
    return moments(snapshot.replay(device), snapshot.block_replay(device), failed, snapshot.origin_us(device))


def _fits(snapshot: Snapshot, device: int, fits: str) -> pd.DataFrame:
    if device not in snapshot.block_devices:
        return MEMORY_FITS.empty()
    blocks, peak = snapshot.block_replay(device), snapshot.replay(device).peak
    return MEMORY_FITS.join(fit_rows(blocks, parse_size(size), peak) for size in fits.split(","))


def _failed(snapshot: Snapshot, device: int) -> pd.DataFrame:
    every = snapshot.oom()
    return oom_states(every[every["device"] == device], snapshot.oom_reports(device))


def device_texts(snapshot: Snapshot, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """The name of pinned host memory in place of its number; the others stay numbers."""
    devices = frame["device"].tolist()
    return {"device": ["host" if one == HOST else str(one) for one in devices]} if HOST in devices else {}


def stack_texts(snapshot: Snapshot, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """The line of each stack that is the one to show, in place of its number."""
    before = frame["before"] if "before" in frame else [False] * len(frame)
    pairs = list(zip(frame["stack"].tolist(), before, strict=True))
    names = {pair: stack_name(snapshot.stacks[pair[0]], before=bool(pair[1])) for pair in set(pairs)}
    return {"stack": [names[pair] for pair in pairs], **device_texts(snapshot, frame)}


def _groups(snapshot: Snapshot, device: int, by: str | None) -> pd.DataFrame:
    keys = [cast(By, by)] if by else snapshot.keys_said(device) or ["stack"]
    return MEMORY_GROUPS.join(snapshot.groups(device, key) for key in keys)


def _note_texts(snapshot: Snapshot, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """The stacks of the allocations, where there is one; addresses as others write them."""
    texts = stack_texts(snapshot, frame)
    known = frame["address"].notna().tolist()
    stacks = [text if is_known else "" for text, is_known in zip(texts["stack"], known, strict=True)]
    addresses = [f"0x{one:x}" if is_known else "" for one, is_known in zip(frame["address"], known, strict=True)]
    return {**texts, "stack": stacks, "address": addresses}


def _live(name: str, title: str, key: str, fill: Fill) -> Table:
    order = ("stack", "device", "count", "size_bytes")
    return per_device(name, title, MEMORY_LIVE, fill, key=key, order=order, share_of="size_bytes", texts=stack_texts)


def _live_tree(by: str, what: str, schema: Schema, fill: Fill) -> Table:
    title = f"live at the peak, by the {what} that allocated"
    return per_device(by, title, schema, fill, key=by, order=("path", "device"), tree=True, texts=device_texts)


LIVE: Final = _live("live_at_peak", "live at the peak, by stack", "live_at_peak", Snapshot.live_at_peak)
LIVE_AT_END: Final = _live("live_at_end", "live at the end, by stack", "live", Snapshot.live_at_end)
TABLES: Final = (
    Table("memory_devices", "snapshot", "memory", MEMORY_DEVICES, _devices, (DEVICE,), "memory", texts=device_texts),
    per_device(
        "memory_stats",
        "in the words of torch.cuda.memory_stats",
        MEMORY_STATS,
        Snapshot.stats,
        key="memory_stats",
        order=("quantity", "device"),
    ),
    Table(
        "memory_regions",
        "snapshot",
        "memory by region",
        MEMORY_REGIONS,
        _of(Snapshot.regions),
        (DEVICE,),
        "memory",
        order=("path", "device", "peak_bound", "peak_bytes", "allocated_bytes", "freed_bytes", "net_bytes"),
        tree=True,
        texts=device_texts,
    ),
    LIVE,
    LIVE_AT_END,
    _live_tree("live_by_region", "region", MEMORY_LIVE_TREE, Snapshot.live_by_region),
    _live_tree("live_by_layer", "layer", MEMORY_LIVE_LAYERS, Snapshot.live_by_layer),
    per_device(
        "memory_leaks",
        "left behind at the end, by stack and region",
        MEMORY_LEAKS,
        Snapshot.leaks,
        key="leaks",
        order=("stack", "path", "device", "instances_left", "instances"),
        texts=stack_texts,
    ),
    per_device(
        "memory_growth",
        "total from instance to instance",
        MEMORY_GROWTH,
        Snapshot.growth,
        key="growth",
        order=("path", "device"),
        texts=device_texts,
    ),
    Table(
        "memory_lifetimes",
        "snapshot",
        "lifetimes, most allocated first",
        MEMORY_LIFETIMES,
        _of(Snapshot.lifetimes),
        (DEVICE,),
        "memory",
        key="lifetimes",
        order=("stack", "device"),
        texts=stack_texts,
    ),
    per_device(
        "memory_moments",
        "fragmentation at the moments that tell most",
        MEMORY_MOMENTS,
        _moments,
        order=("moment", "device"),
    ),
    per_device(
        "memory_fits",
        "what an allocation would have found, default pool and stream",
        MEMORY_FITS,
        _fits,
        SIZES,
        order=("size_bytes", "moment", "device"),
    ),
    per_device(
        "out_of_memory",
        "allocations that failed",
        MEMORY_OOM_STATES,
        _failed,
        order=("stack", "device"),
        texts=stack_texts,
    ),
    Table(
        "memory_fragmentation",
        "snapshot",
        "fragmentation over time",
        MEMORY_FRAGMENTATION,
        _of(Snapshot.fragmentation),
        (DEVICE,),
        "memory",
        key="fragmentation_timeline",
    ),
    per_device(
        "memory_groups",
        "memory by what the file says about it",
        MEMORY_GROUPS,
        _groups,
        BY,
        key="groups",
        order=("group", "by", "device", "peak_count", "peak_bytes", "end_bytes"),
        texts=device_texts,
    ),
    per_device(
        "memory_notes",
        "what the program wrote into the history",
        MEMORY_NOTES,
        Snapshot.notes,
        key="notes",
        order=("text", "action", "device", "size_bytes", "stack"),
        texts=_note_texts,
    ),
)
