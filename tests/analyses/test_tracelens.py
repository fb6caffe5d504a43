"""Our GPU timeline against TraceLens's: what differs is its float arithmetic, shown by doing the same arithmetic."""

from __future__ import annotations

from pathlib import Path

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
