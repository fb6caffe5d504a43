from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler_kit.errors import OptionError, SnapshotFormatError
from profiler_kit.load.snapshot.data import CPU, Frame
from profiler_kit.load.trace.memory_events import read_memory_events
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s
from tests.cli.run import profiler_kit

BASE_NS = 1_795_000_000_000_000_000


def span(name: str, cat: str, ts: float, dur: float, tid: int = 1) -> dict[str, Any]:
    return {"ph": "X", "name": name, "cat": cat, "pid": 9, "tid": tid, "ts": ts, "dur": dur, "args": {}}


def memory(ts: float, address: int, size: int, total: int, *, cuda: bool = False, reserved: int = 0) -> dict[str, Any]:
    device = {"Device Type": 1, "Device Id": 0} if cuda else {"Device Type": 0, "Device Id": -1}
    values = {"Addr": address, "Bytes": size, "Total Allocated": total, "Total Reserved": reserved, **device}
    return {
        "ph": "i",
        "s": "t",
        "name": "[memory]",
        "cat": "cpu_instant_event",
        "pid": 9,
        "tid": 1,
        "ts": ts,
        "args": values,
    }


def load(tmp_path: Path, *events: dict[str, Any]) -> Snapshot:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"baseTimeNanoseconds": BASE_NS, "traceEvents": list(events)}))
    return load_snapshot(path)


@pytest.fixture
def small(tmp_path: Path) -> Snapshot:
    """50 bytes from before the trace; `step` allocates 100 and 30 and frees the 100; a GPU reserves 4096 for 512."""
    return load(
        tmp_path,
        span("step", "user_annotation", 0, 100),
        span("train.py(12): main", "python_function", 1, 90),
        span("nn.Module: Linear_0", "python_function", 5, 20),
        span("aten::empty", "cpu_op", 9, 5),
        memory(20, 0x2000, 30, 180),  # not in the order of time
        memory(10, 0x1000, 100, 150),
        memory(11, 0x9000, 512, 512, cuda=True, reserved=4096),
        memory(30, 0x1000, -100, 80),
    )


def test_totals_are_those_of_the_events(small: Snapshot) -> None:
    assert small.devices == (CPU, 0)
    cpu = small.replay(CPU)
    assert cpu.allocated_bytes.tolist() == [50, 150, 180, 80]
    assert cpu.times_us.tolist() == [s.T0 + 10, s.T0 + 20, s.T0 + 30]
    gpu = small.replay(0)
    assert (gpu.allocated_bytes.tolist(), gpu.reserved_bytes.tolist()) == ([0, 512], [4096, 4096])
    assert [small.device_type(device) for device in small.devices] == ["cpu", "cuda"]


def test_stacks_are_what_was_open(small: Snapshot) -> None:
    live = small.live_at_peak(CPU)
    stacks = [small.stacks[number] for number in live["stack"]]
    assert stacks == [
        (Frame("", 0, "aten::empty"), Frame("", 0, "nn.Module: Linear_0"), Frame("train.py", 12, "main")),
        (),
        (Frame("", 0, "nn.Module: Linear_0"), Frame("train.py", 12, "main")),
    ]
    assert live["before"].tolist() == [False, True, False]
    assert small.live_by_layer(CPU)["path"].tolist() == [("Linear_0",), ("(before the recording)",)]


def test_regions_are_those_of_the_trace(small: Snapshot) -> None:
    rows = small.regions().query("device == @CPU", local_dict={"CPU": CPU})
    assert rows[["path", "instances", "allocated_bytes", "freed_bytes", "net_bytes"]].to_numpy().tolist() == [
        [("step",), 1, 130, 100, 30],
        [("(no region)",), 0, 0, 0, 0],
    ]
    assert small.peak_region(CPU) == ("step",)


def test_what_is_reserved_follows_its_changes(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        span("a", "cpu_op", 0, 1),
        memory(1, 0x1000, 512, 512, cuda=True, reserved=2048),
        memory(2, 0x2000, 512, 1024, cuda=True, reserved=4096),
        memory(3, 0x2000, -512, 512, cuda=True, reserved=1024),
    )
    assert found.timeline()[["allocated_bytes", "reserved_bytes"]].to_numpy().tolist() == [
        [512, 2048],
        [512, 4096],
        [1024, 4096],
        [1024, 1024],
        [512, 1024],
    ]


def test_a_trace_does_not_know_blocks(small: Snapshot) -> None:
    with pytest.raises(OptionError) as caught:
        small.fragmentation()
    assert str(caught.value) == (
        f"{small.path}: a trace's [memory] events do not say where segments and blocks are, so that fragmentation is "
        "unknown. Record a memory snapshot with profiler_kit.memory_runner."
    )


def test_a_trace_without_memory(tmp_path: Path) -> None:
    with pytest.raises(SnapshotFormatError) as caught:
        load(tmp_path, span("a", "cpu_op", 0, 1))
    assert str(caught.value) == (
        f"{tmp_path / 'trace.json'}: this chrome trace has no [memory] events, expected some, or a CUDA memory "
        "snapshot (a pickle). Record them with profiler_runner(path, profile_memory=True), or a snapshot with "
        "profiler_kit.memory_runner. For what else it holds use: profiler-kit summary."
    )


def test_events_that_say_too_little(tmp_path: Path) -> None:
    whole = memory(1, 0x1000, 10, 10)
    broken = [{**whole, "args": {**whole["args"], "Addr": value}} for value in ("x", -5, 1 << 70, None)]
    no_total = {**memory(2, 0x2000, 20, 0), "args": {"Addr": 0x2000, "Bytes": 20, "Device Type": 0}}
    found = load(tmp_path, span("a", "cpu_op", 0, 1), whole, *broken, no_total)
    assert found.replay(CPU).allocated_bytes.tolist() == [0, 10, 30]


def test_the_page_and_the_command(small: Snapshot, tmp_path: Path) -> None:
    assert "trace.json" in small.html("trace.json")
    packed = tmp_path / "t.json.gz"
    packed.write_bytes(gzip.compress(Path(small.path).read_bytes()))
    done = profiler_kit("memory", packed, "--json")
    assert (done.code, done.err) == (0, "")
    assert [(row["device"], row["device_type"]) for row in json.loads(done.out)["devices"]] == [
        (-1, "cpu"),
        (0, "cuda"),
    ]
    done = profiler_kit("memory", packed, "--device", "-1")
    title, _, heading, _, row, *_ = done.out.splitlines()
    assert (
        title == f"{packed}: memory" and heading.split()[:2] == ["type", "events"] and row.split()[:2] == ["cpu", "3"]
    )


@pytest.mark.skipif(not s.CAPTURES.is_dir(), reason="the real captures are not beside the project")
def test_a_real_trace_adds_up_to_what_torch_counted_at_every_event() -> None:
    path = s.CAPTURES / "sam_vit_b_stack.json.gz"
    found = load_snapshot(path)
    _, events = read_memory_events(path)
    assert len(events) == 2704
    for device in found.devices:
        mine = np.flatnonzero(np.where(events.device_type == 0, CPU, events.device_id) == device)
        mine = mine[np.argsort(events.start_ns[mine], kind="stable")]
        one = found.replay(device)
        moves = found.events["action"].iloc[one.rows].isin(["alloc", "free_completed"]).to_numpy()
        assert one.allocated_bytes[1:][moves].tolist() == events.total_allocated[mine].tolist()
        assert device == CPU or one.reserved_bytes[1:][moves].tolist() == events.total_reserved[mine].tolist()
    assert found.live_by_layer(0)["path"].iloc[2] == ("ImageEncoderViT_0", "Block_2", "Attention_2")
