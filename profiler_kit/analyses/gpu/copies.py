"""What was copied where, and how fast: copies one by one, by kind, and bandwidth over time."""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.attribute.frames import GPU_EVENTS, LAUNCH_PATH
from profiler_kit.load.trace.categories import MEMCPY, MEMSET
from profiler_kit.schema import Column, Schema
from profiler_kit.units import NS_PER_S

COPIES: Final = Schema(
    "COPIES",
    "memory copy and memory set, by start",
    {
        "event": Column("int64"),
        "process": Column("category", show="varied"),
        "device": Column("Int64"),
        "stream": Column("Int64"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "kind": Column("str", "HtoD, DtoH, DtoD and others, as the trace says; Memset for a memory set."),
        "source": Column("str", "Pageable, Pinned, Device and others; empty for a memory set.", "from"),
        "target": Column("str", "Pageable, Pinned, Device and others.", "to"),
        "size_bytes": Column("Int64", "Bytes copied or set; missing where the trace does not say."),
        "path": Column("paths", LAUNCH_PATH),
    },
)

COPY_TOTALS: Final = Schema(
    "COPY_TOTALS",
    "device, kind, source and target, longest sum first",
    {
        "process": Column("str", show="varied"),
        "device": Column("Int64", show="room"),
        "kind": COPIES.columns["kind"],
        "source": COPIES.columns["source"],
        "target": COPIES.columns["target"],
        "count": Column("int64", show="room"),
        "size_bytes": Column(
            "Int64", "Bytes copied or set, added up, where the trace says; missing where it does not."
        ),
        "sum_ns": Column("int64", label="time"),
        "bytes_per_s": Column("Float64", "Size by time of the copies whose size is known.", "bandwidth"),
        "min_bytes_per_s": Column("Float64", "Bandwidth of the slowest single copy.", "slowest", "room"),
        "max_bytes_per_s": Column("Float64", "Bandwidth of the fastest single copy.", "fastest", "room"),
    },
)

COPY_RATE: Final = Schema(
    "COPY_RATE",
    "moment at which the bandwidth of a kind changed, by device, kind and time",
    {
        "process": Column("str", show="varied"),
        "device": Column("Int64"),
        "kind": COPIES.columns["kind"],
        "time_ns": Column("int64"),
        "bytes_per_s": Column("float64", "Bandwidth of all copies running at once, from then on.", "bandwidth"),
    },
)


# "Memcpy HtoD (Pinned -> Device)", "Memset (Device)": libkineto/src/CuptiActivity.cpp, memcpyName and memsetName.
_COPY: Final = re.compile(r"Memcpy (\S+) \((.+) -> (.+)\)")
_SET: Final = re.compile(r"Memset \((.+)\)")
# ROCm's and MTIA's spellings: CopyHostToDevice, MEMORY_COPY_HOST_TO_DEVICE, MemcpyDtoD, dma_request_h2d.
_ENDS: Final = re.compile(r"(host|device|peer)_?to_?(host|device|peer)|([hdp])(?:to|2)([hdp])(?![a-z])", re.IGNORECASE)
_SIDES: Final = {"h": "Host", "d": "Device", "p": "Peer"}
SET: Final = "Memset"
UNKNOWN: Final = "unknown"


def copies(gpu_events: pd.DataFrame, size_bytes: pd.Series[int]) -> pd.DataFrame:
    """GPU_EVENTS -> COPIES: one row per memory copy and memory set, by start.

    size_bytes holds the bytes of every row of EVENTS (its column `bytes`). kind is HtoD, DtoH, DtoD, PtoP, ... as the
    name says, or Memset, or unknown; source and target say Pageable, Pinned, Device, Host, ... Empty in, empty out.
    """
    gpu_events = GPU_EVENTS.check(gpu_events)
    found = gpu_events[gpu_events["category"].isin([MEMCPY, MEMSET]).to_numpy()].reset_index(drop=True)
    kinds = [_kind(str(name)) for name in found["name"].cat.categories]
    code = found["name"].cat.codes.to_numpy()
    # a set that no name says the kind of, such as ROCm's fill kernels
    kinds.append((SET, "", ""))
    unnamed = np.array([kind[0] == UNKNOWN for kind in kinds], dtype=bool)[code]
    code = np.where(unnamed & (found["category"] == MEMSET).to_numpy(), len(kinds) - 1, code).tolist()
    frame = found[["event", "process", "device", "stream", "start_ns", "dur_ns", "path"]].assign(
        size_bytes=size_bytes.iloc[found["event"].to_numpy()].astype("Int64").array,
        kind=pd.Series([kinds[number][0] for number in code], dtype=object),
        source=pd.Series([kinds[number][1] for number in code], dtype=object),
        target=pd.Series([kinds[number][2] for number in code], dtype=object),
    )
    return COPIES.check(frame)


def _kind(name: str) -> tuple[str, str, str]:
    copied, filled = _COPY.fullmatch(name), _SET.fullmatch(name)
    if copied:
        return copied[1], copied[2], copied[3]
    if filled:
        return SET, "", filled[1]
    ends = _ENDS.search(name)
    if ends and not name.startswith(SET):
        source, target = ((ends[1] or ends[3])[0].lower(), (ends[2] or ends[4])[0].lower())
        return f"{source.upper()}to{target.upper()}", _SIDES[source], _SIDES[target]
    return (SET, "", "") if name.startswith(SET) else (UNKNOWN, "", "")


def copy_totals(found: pd.DataFrame) -> pd.DataFrame:
    """COPIES -> COPY_TOTALS: one row per device, kind, source and target, longest sum first. Empty in, empty out.

    bytes_per_s = size_bytes / sum_ns over the copies whose size is known; missing when none took any time.
    """
    found = COPIES.check(found)
    if found.empty:
        return COPY_TOTALS.empty()
    timed = found["dur_ns"].where(found["size_bytes"].notna(), 0)
    rate = (found["size_bytes"] / found["dur_ns"].where(found["dur_ns"] > 0)) * NS_PER_S
    frame = found.assign(timed=timed, rate=rate.astype("Float64"))
    keys = ["process", "device", "kind", "source", "target"]
    totals = frame.groupby(keys, dropna=False, sort=False, observed=True).agg(
        count=("event", "size"),
        size_bytes=("size_bytes", "sum"),
        known=("size_bytes", "count"),
        sum_ns=("dur_ns", "sum"),
        timed=("timed", "sum"),
        min_bytes_per_s=("rate", "min"),
        max_bytes_per_s=("rate", "max"),
    )
    totals = totals.reset_index().astype({"size_bytes": "Int64", "process": object})
    totals["size_bytes"] = totals["size_bytes"].where(totals["known"] > 0)
    moved = totals["size_bytes"].astype("Float64")
    totals["bytes_per_s"] = moved / totals["timed"].where(totals["timed"] > 0).astype("Float64") * NS_PER_S
    totals = totals.sort_values(["sum_ns", *keys], ascending=[False, *[True] * len(keys)])
    return COPY_TOTALS.check(totals.reset_index(drop=True))


def copy_rate(found: pd.DataFrame) -> pd.DataFrame:
    """COPIES -> COPY_RATE: one row per moment at which the bandwidth of a kind changed, by device, kind and time.

    A copy moves size_bytes / dur_ns from its start to its end; bytes_per_s adds those that run at once and holds until
    the next row; where none runs it is exactly 0, free of rounding errors. As HolisticTraceAnalysis
    (`get_memory_bw_time_series`), but from bytes and times instead of the rounded rate in the file. Copies that took
    no time or whose size is not known are left out. Empty in, empty out.
    """
    found = COPIES.check(found)
    found = found[(found["dur_ns"] > 0) & found["size_bytes"].notna()].reset_index(drop=True)
    if found.empty:
        return COPY_RATE.empty()
    rate = found["size_bytes"].to_numpy(dtype=np.float64) / found["dur_ns"].to_numpy() * NS_PER_S
    # each copy adds its rate at its start and takes it away at its end; the running sum is the bandwidth
    steps = pd.DataFrame(
        {
            "process": pd.concat([found["process"].astype(object)] * 2),
            "device": pd.concat([found["device"]] * 2),
            "kind": pd.concat([found["kind"]] * 2),
            "time_ns": np.concatenate((found["start_ns"], found["start_ns"] + found["dur_ns"])),
            "bytes_per_s": np.concatenate((rate, -rate)),
            "running": np.repeat([1, -1], len(found)),
        }
    )
    keys = ["process", "device", "kind"]
    steps = steps.groupby([*keys, "time_ns"], dropna=False)[["bytes_per_s", "running"]].sum()
    series = steps.groupby(keys, dropna=False).cumsum()
    series["bytes_per_s"] = series["bytes_per_s"].where(series["running"] > 0, 0.0)
    return COPY_RATE.check(series.reset_index())
