"""Our tables against TraceLens's, by its rules done anew: what differs in the timeline is its float arithmetic."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from profiler_kit.analyses.gpu.timeline import is_communication
from profiler_kit.trace import load_trace
from tests.builders import SHARED

FOLDERS = sorted(SHARED.glob("peers/tracelens/*/*"))


def merged(start: list[float], end: list[float]) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    for low, high in sorted(zip(start, end, strict=True)):
        if spans and low <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], high))
        else:
            spans.append((low, high))
    return spans


def length(spans: list[tuple[float, float]]) -> float:
    return sum(high - low for low, high in spans)


@pytest.mark.skipif(not FOLDERS, reason="other projects' results are not beside the project")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_their_floats_give_their_digits_and_ours_are_within_their_rounding(folder: Path) -> None:
    """TraceLens subtracts microseconds of some 1e12 as floats; every interval of a union may be off by one last bit.

    Each number of gpu_timeline.csv comes out to the last digit when the same events are added up as floats. In exact
    nanoseconds they are up to 10.2 ns apart (3e-7 of the time); 0.2 ns (8e-5) where one copy of 2.4 us is all there is.
    """
    trace = load_trace(folder / "trace.json.gz")
    events = trace.linked_gpu_events()
    start = events["start_ns"].to_numpy() / 1e3  # the double nearest to the decimal in the file
    end = start + events["dur_ns"].to_numpy() / 1e3
    memcpy = (events["category"] == "gpu_memcpy").to_numpy()
    communication = is_communication(events)

    def union_ms(mask: np.ndarray) -> float:
        return length(merged(start[mask].tolist(), end[mask].tolist())) / 1e3

    theirs = pd.read_csv(folder / "gpu_timeline.csv").set_index("type")["time ms"]
    floats = {
        "computation_time": union_ms(~memcpy & ~communication),
        "total_comm_time": union_ms(communication),
        "total_memcpy_time": union_ms(memcpy),
        "busy_time": union_ms(np.ones(len(events), dtype=bool)),
        "total_time": (end.max() - start.min()) / 1e3,
    }
    ours = trace.summary(linked_only=True)["gpu_timeline"]
    exact = {
        "computation_time": ours["computation_ns"],
        "total_comm_time": ours["communication_ns"],
        "total_memcpy_time": ours["memcpy_ns"],
        "busy_time": ours["busy_ns"],
        "total_time": ours["total_ns"],
    }
    last_bit_us = float(np.spacing(end.max()))
    for name, value in floats.items():
        assert value == pytest.approx(theirs[name], rel=1e-12), name
        assert abs(exact[name] / 1e3 - theirs[name] * 1e3) <= last_bit_us * 2 * len(events), name


def raw_events(file: Path) -> list[dict[str, Any]]:
    return [event for event in json.loads(gzip.decompress(file.read_bytes()))["traceEvents"] if event.get("ph") == "X"]


@pytest.mark.parametrize("rank", [0, 1])
def test_collectives_are_the_rows_of_their_coll_analysis(rank: int) -> None:
    """Its rule on the events as they are: kernels named nccl by name, group, dtype and elements, durations added up."""
    file = Path(__file__).parents[1] / "golden" / "ddp" / f"ddp_rank{rank}.json.gz"
    names = ["Collective name", "Process Group Name", "Group size", "dtype", "In msg nelems", "Out msg nelems"]
    found = [e for e in raw_events(file) if e["cat"] == "kernel" and "nccl" in e["name"]]
    theirs = pd.DataFrame([[*(e["args"][name] for name in names), e["dur"]] for e in found], columns=[*names, "dur"])
    wanted = theirs.groupby(names)["dur"].agg(["count", "sum", "mean", "min", "max"])
    ours = load_trace(file).collectives()
    assert len(ours) == len(wanted) and int(ours["count"].sum()) == len(found)
    keys = ["collective", "group", "ranks", "dtype", "in_elements", "out_elements"]
    for row in ours.to_dict("records"):
        count, *durations = wanted.loc[tuple(row[key] for key in keys)]
        assert row["count"] == count
        mine = [row[name] / 1e3 for name in ("sum_ns", "mean_ns", "min_ns", "max_ns")]
        assert mine == pytest.approx(durations, rel=1e-9)


@pytest.mark.skipif(not FOLDERS, reason="other projects' results are not beside the project")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_short_kernels_are_the_rows_of_their_short_kernels_summary(folder: Path) -> None:
    """Kernels below 10 us by operator, sizes and name: the operator that has the kernel's External id, as they find it.

    They part rows by strides and values too, leave out what has no operator and is no kernel, and take the share of
    the whole span; ours is of the time of all GPU events.
    """
    events = raw_events(folder / "trace.json.gz")
    calls = {e["args"]["External id"]: e for e in events if e["cat"] == "cpu_op"}
    wanted: dict[tuple[str, str, str], list[int]] = {}
    for event in events:
        call = calls.get(event["args"].get("External id"))
        if event["cat"] == "kernel" and event["dur"] < 10 and call is not None:
            sizes = json.dumps(call["args"].get("Input Dims", ""), separators=(",", ":")).replace('""', "")
            row = wanted.setdefault((call["name"], sizes, event["name"]), [0, 0])
            row[0] += 1
            row[1] += round(event["dur"] * 1000)
    trace = load_trace(folder / "trace.json.gz")
    ours = trace.short_kernels()
    kernels = set(trace.kernels().query("category == 'kernel'")["name"])
    ours = ours[~ours["operator"].str.startswith("(") & ours["name"].isin(kernels)]
    keys = ours[["operator", "shapes", "name"]].itertuples(index=False, name=None)
    assert dict(zip(keys, ours[["count", "sum_ns"]].to_numpy().tolist(), strict=True)) == wanted
