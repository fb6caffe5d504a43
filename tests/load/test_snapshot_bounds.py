"""Snapshots built to explode: rows are bounded by the bytes of the file, whatever two counts multiply to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.analyses.memory.regions import MAX_DEPTH, MAX_LETTERS
from profiler_kit.errors import SnapshotFormatError
from profiler_kit.load.snapshot.reader import load_snapshot_data, read_snapshot
from profiler_kit.snapshot import load_snapshot
from tests import snapshots as s

MARKS = [{"stage": ("START", "END")[i % 2], "name": "a", "time_us": i} for i in range(50_000)]
NESTED = [{"stage": "START", "name": f"n{i}", "time_us": i} for i in range(10_000)]
FIFO = NESTED + [{"stage": "END", "name": f"n{i}", "time_us": 30_000 + i} for i in range(10_000)]


def one(number: int) -> dict[str, Any]:
    return {"action": "alloc", "addr": 4096 * number, "size": 512, "stream": 0, "time_us": number, "frames": []}


def refused(path: Path, data: object) -> str:
    with pytest.raises(SnapshotFormatError) as caught:
        read_snapshot(s.write(path, data))
    return str(caught.value).removeprefix(f"{path}: ")


def snapshot(*traces: list[dict[str, Any]], marks: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"device_traces": list(traces), "segments": [], "external_annotations": marks or [], **more}


BLOCKS = [s.block(4096 * i, 4096, 4096) for i in range(1000)]
EXPLODING = {
    "devices": (snapshot(*([] for _ in range(4096))), "'device_traces' names 4096 devices"),
    "devices and regions": (snapshot(*([] for _ in range(4096)), marks=MARKS), "'device_traces' names 4096 devices"),
    "regions on every device": (snapshot(*([one(i)] for i in range(100)), marks=MARKS), "it lists 5000000 regions on"),
    "one region again and again": (snapshot([one(1)], marks=[MARKS[0]] * 400_000), "it lists 400000 regions in"),
    "one event again and again": (snapshot([one(1)] * 400_000), "it lists 400000 events in"),
    "one event of the host": (snapshot([], host_traces=[one(1)] * 400_000), "it lists 400000 events in"),
    "segments that share their blocks": (
        {"segments": [s.segment(i << 30, 1 << 30, *BLOCKS) | {"blocks": BLOCKS} for i in range(1000)]},
        "it lists 1001000 blocks in",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPLODING)
def test_what_lists_more_than_its_bytes_can_hold_is_refused(tmp_path: Path, name: str) -> None:
    data, expected = EXPLODING[name]
    assert refused(tmp_path / "m.pickle", data).startswith(expected)


ASK = """
import os, resource, sys
from profiler_kit.errors import SnapshotFormatError
from profiler_kit.snapshot import load_snapshot
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
for file in sys.argv[1:]:
    asks = os.fork()  # what is imported is imported once
    if not asks:
        break
    if os.waitstatus_to_exitcode(os.waitpid(asks, 0)[1]):
        sys.exit(file)
else:
    sys.exit()
try:
    found = load_snapshot(file)
except SnapshotFormatError:
    sys.exit()
for device in found.devices:
    found.summary(device)
    found.live_at_peak(device)
    found.growth(device)
    found.leaks(device)
found.findings()
status = open("/proc/self/status").read()  # ru_maxrss would count the process that started this one
print(file, int(status.partition("VmHWM:")[2].split()[0]) >> 10)
"""
SHARED_STACK = [s.frame("f" * 40, "a.py", i) for i in range(50_000)]
LONG = "x" * 2_000_000
HEAVY: dict[str, dict[str, Any]] = {
    "regions of thirty empty devices": snapshot(*([] for _ in range(30)), marks=MARKS[:20_000]),
    "regions that never close": snapshot([one(i) for i in range(500)], marks=NESTED),
    "regions that close in the order they opened": snapshot([one(i) for i in range(500)], marks=FIFO),
    "regions that were open": snapshot([one(i) for i in range(500)], marks=[{**m, "stage": "END"} for m in NESTED]),
    "regions of one name that never close": snapshot(
        [one(1)],
        [one(2)],
        marks=[{**MARKS[0], "device": 0, "time_us": i} for i in range(10_000)] + [s.mark("START", "b", 1, device=1)],
    ),
    "one long stack": snapshot([one(i) | {"frames": SHARED_STACK} for i in range(20_000)]),
    "long texts": snapshot(
        [
            one(i) | {"user_metadata": LONG, "category": LONG, "frames": [{"name": LONG, "line": 1}]}
            for i in range(9000)
        ],
        marks=[{"stage": "START", "name": LONG, "time_us": i} for i in range(100)],
    ),
}


def test_what_can_be_read_is_asked_within_a_bound(tmp_path: Path) -> None:
    """Resident memory, in MiB, of processes that ask the questions which multiply devices, regions and stacks."""
    paths = [s.write(tmp_path / name.replace(" ", "_"), data) for name, data in HEAVY.items()]
    done = subprocess.run([sys.executable, "-c", ASK, *paths], capture_output=True, text=True, check=True)
    used = [line.split() for line in done.stdout.splitlines()]
    assert used and not [(name, mib) for name, mib in used if int(mib) >= 300]


def test_paths_are_bounded_in_depth_and_in_letters(tmp_path: Path) -> None:
    """Regions that overlap without nesting make no path longer than regions that nest."""
    chain = [{"stage": "START", "name": "n0", "time_us": 0}]
    for i in range(1, 3000):
        chain += [
            {"stage": "START", "name": f"n{i}", "time_us": i},
            {"stage": "END", "name": f"n{i - 1}", "time_us": i},
        ]
    paths = load_snapshot(s.write(tmp_path / "m.pickle", snapshot([one(1)], marks=chain))).nested_regions(0).paths
    assert len(paths) == 3000
    assert max(map(len, paths)) == MAX_DEPTH
    long = [{"stage": "START", "name": f"{i:04}" * 100, "time_us": i + 1} for i in range(2000)]
    paths = load_snapshot(s.write(tmp_path / "m.pickle", snapshot([one(1)], marks=long))).nested_regions(0).paths
    assert len(paths) == 2000
    own = sum(len(one["name"]) for one in long)  # each at least once
    assert sum(len(name) for path in paths for name in path) < MAX_LETTERS + own


@pytest.mark.parametrize("where", ["native.read_columns", "np.empty", "SnapshotBuilder"])
def test_memory_that_this_process_lacks_is_one_line(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = s.write(tmp_path / "m.pickle", snapshot([one(1)]))

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    if where == "np.empty":  # where what the child hands over would go
        monkeypatch.setattr("profiler_kit.load.snapshot.native.library", lambda: (None, ""))
    monkeypatch.setattr(f"profiler_kit.load.snapshot.reader.{where}", full)
    for read in (read_snapshot, load_snapshot_data):
        with pytest.raises(SnapshotFormatError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path}: reading it takes more memory than this process is given, expected a CUDA memory snapshot. "
            "Free some memory or raise the limit (ulimit -v, or that of the container)."
        )
