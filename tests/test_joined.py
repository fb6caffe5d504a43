"""A real trace and snapshot recorded at once: one clock, to microseconds, and numbers that are those of each file."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from profiler_kit import JoinedRun, join_run, load_snapshot, load_trace
from profiler_kit.errors import InputError
from tests.builders import TraceBuilder

BASE_US = 1_700_000_000_000_000  # of the traces that TraceBuilder writes
GOLDEN = Path(__file__).parent / "golden"
TRACE, SNAPSHOT = GOLDEN / "joined_h200.json.gz", GOLDEN / "joined_h200.pickle"


@pytest.fixture(scope="module")
def joined() -> JoinedRun:
    return join_run(load_trace(TRACE, cache=False), load_snapshot(SNAPSHOT))


def test_every_region_is_in_both_files_and_they_agree_to_microseconds(joined: JoinedRun) -> None:
    assert len(joined.pairs) == len(joined.trace.region_instances()) == len(joined.snapshot.region_spans()) == 14
    clock = joined.clock
    assert clock.readings == 28
    assert (round(clock.median_us, 1), round(clock.p99_us, 1), round(clock.max_us, 1)) == (3.1, 30.9, 38.5)
    assert clock.offset_us == clock.median_us  # the snapshot reads the clock first, each time


def test_every_allocation_is_in_both_files_at_the_same_microseconds(joined: JoinedRun) -> None:
    """The trace was recorded with profile_memory: each allocation is in it as `[memory]`, by address and in order."""
    content = json.loads(gzip.decompress(TRACE.read_bytes()))
    base_ns = content["baseTimeNanoseconds"]
    traced = defaultdict(list)
    for event in content["traceEvents"]:
        if event["name"] == "[memory]" and event["args"]["Device Type"] == 1 and event["args"]["Bytes"] > 0:
            traced[event["args"]["Addr"]].append(round(event["ts"] * 1000) + base_ns)
    events = joined.snapshot.events
    allocs = events[events["action"] == "alloc"]
    differences = []
    for address, rows in allocs.groupby("address"):
        assert len(traced[address]) == len(rows)
        differences += [(ns - us * 1000) / 1000 for ns, us in zip(traced.pop(address), rows["time_us"], strict=True)]
    assert not traced and len(differences) == 1_992
    assert min(differences) > 0 and np.median(differences) < 2 and np.percentile(differences, 99) < 5
    assert max(differences) < 10


def test_the_joined_numbers_are_those_of_each_file_alone(joined: JoinedRun) -> None:
    totals = joined.region_totals().set_index("path")
    traced, held = joined.trace.regions().set_index("path"), joined.snapshot.regions().set_index("path")
    assert len(totals) == 7
    for path in totals.index:
        for name in ("instances", "gpu_events", "sum_ns", "busy_ns"):
            assert totals.at[path, name] == traced.at[path, name]
        for name in ("peak_bytes", "allocated_bytes", "net_bytes"):
            assert totals.at[path, name] == held.at[path, name]


def test_files_of_different_runs_are_refused(tmp_path: Path) -> None:
    snapshot = load_snapshot(SNAPSHOT)
    hint = (
        "Record both at once: with profiler_runner('trace.json.gz'), memory_runner('memory.pickle'): ... "
        "with your code in `with region(name):` blocks."
    )

    def message(trace: Path) -> str:
        with pytest.raises(InputError) as caught:
            join_run(load_trace(trace, cache=False), snapshot)
        return str(caught.value)

    def one_region(name: str, at_us: int | None) -> Path:
        trace = TraceBuilder()
        trace.operator("aten::add", first - BASE_US, 1)
        if at_us is not None:
            trace.region("step", at_us - BASE_US, 10)
        return trace.write(tmp_path / name)

    expected = "expected the memory snapshot of"
    first = int(snapshot.region_spans()["start_us"].min())
    last = int(snapshot.region_spans()["end_us"].max())
    other = one_region("later.json", last + 5_000_000)
    assert message(other) == f"{SNAPSHOT}: recorded 5.000 s before the trace, {expected} {other}. {hint}"
    other = one_region("earlier.json", first - 2_000_010)
    assert message(other) == f"{SNAPSHOT}: recorded 2.000 s after the trace, {expected} {other}. {hint}"
    other = one_region("same.json", first + 100)
    assert message(other) == (
        f"{SNAPSHOT}: none of its regions (ProfilerStep, data transfer, image encoder, mask decoder, …) is in the "
        f"trace at its time, {expected} {other}. {hint}"
    )
    other = one_region("none.json", None)
    assert message(other) == f"{SNAPSHOT}: no regions in the trace, {expected} {other}. {hint}"
