"""Snapshots with bytes changed: the reader refuses or reads them, and what it reads can be analysed."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from profiler_kit.analyses.compare.snapshots import compare_snapshots
from profiler_kit.errors import KitError
from profiler_kit.snapshot import Snapshot, load_snapshot
from tests import snapshots as s

HOST = s.ROOT / "tests" / "cases" / "snapshots" / "host_pinned.pickle"
GOLDEN = s.ROOT / "tests" / "golden" / "memory_train_h200.pickle"


def mutant(data: bytes, seed: int) -> bytes:
    """Some bytes set, flipped, removed, doubled or replaced, or the end cut off."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, length = rng.randrange(len(out)), rng.choice((1, 1, 2, 8, 64))
        kind = rng.randrange(6)
        if kind == 0:
            out[at] = rng.choice((0, 1, 0x2E, 0x52, 0x63, 0x7F, 0x80, 0x93, 0x95, 0xFF))
        elif kind == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        elif kind == 4:
            out[at : at + length] = rng.randbytes(length)
        else:
            del out[at + len(out) // 2 :]
        out = out or bytearray(b".")
    return bytes(out)


MANY = """
import collections, io, json, random, resource, sys
sys.path.insert(0, sys.argv[1])
from profiler_kit.load.snapshot.unpickle_child import Refused, convert, unpickle
from tests.load.test_snapshot_fuzz import mutant
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
data = open(sys.argv[2], "rb").read()
found = collections.Counter()
for seed in range(int(sys.argv[3])):
    broken = mutant(data, seed)
    try:
        head, columns = convert(unpickle(io.BytesIO(broken)), len(broken))
        json.dumps(head)
        assert sum(len(column) for column in columns.values()) <= 64 * len(broken) + (1 << 20)
        found["read"] += 1
    except Refused as refused:
        assert len(str(refused)) < 400, refused
        found["refused"] += 1
    except MemoryError:
        found["too large"] += 1
print(json.dumps(found))
"""


def test_the_reader_refuses_or_reads_whatever_the_bytes() -> None:
    """In one process, as the child runs it; anything but a refusal would end it."""
    done = subprocess.run(
        [sys.executable, "-c", MANY, s.ROOT, GOLDEN, "1500"], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert sum(found.values()) == 1500
    assert found["read"] > 100
    assert found["refused"] > 100


VALUES = (
    b"x",
    {"a": 1},
    0.5,
    1 << 64,
    "annotate",
    "user_defined",
    0,
    -1,
    1,
    512,
    (1 << 63) - 1,
    -(1 << 63),
    (1 << 64) - 1,
    1 << 40,
    None,
    "alloc",
    "oom",
    "segment_map",
    "END",
)


def scrambled(data: bytes, seed: int) -> dict[str, Any]:
    """The snapshot with some values set to others, keys and entries removed, doubled or exchanged."""
    rng, snapshot = random.Random(seed), pickle.loads(data)
    lists = [
        snapshot["device_traces"][0],
        snapshot["segments"],
        snapshot["external_annotations"],
        snapshot.get("host_traces", []),
        snapshot.get("host_segments", []),
        *(segment["blocks"] for segment in snapshot["segments"]),
    ]
    for _ in range(rng.choice((1, 3, 10, 40))):
        entries = rng.choice(lists[:5] if rng.random() < 0.7 else lists)
        if not entries:
            continue
        at, kind = rng.randrange(len(entries)), rng.randrange(6)
        if kind < 3:
            entry = entries[at]
            key = rng.choice([name for name in entry if name not in ("blocks", "frames")])
            entry[key] = rng.choice((*VALUES, rng.choice(entries).get(key)))
        elif kind == 3:
            entries.insert(rng.randrange(len(entries)), entries[at])
        elif kind == 4:
            del entries[at]
        else:
            other = rng.randrange(len(entries))
            entries[at], entries[other] = entries[other], entries[at]
    return cast(dict[str, Any], snapshot)


def analyse(found: Snapshot, other: Snapshot) -> None:
    """Ask everything."""
    found.summary()
    found.fragmentation()
    found.lifetimes()
    found.timeline()
    compare_snapshots(other, found)
    for device in found.devices:
        found.leaks(device)
        found.growth(device)
        found.region_instances(device)
        found.oom_reports(device)
        found.live_by_layer(device)
        found.live_by_region(device)
        found.notes(device)
        found.said(device)
        for by in ("stack", "metadata", "category", "compile_context", "annotation"):
            found.table("memory_groups", device=device, by=by)


@pytest.mark.parametrize("seeds", [GOLDEN, HOST], ids=lambda path: path.name)
def test_nonsense_can_be_analysed(tmp_path: Path, seeds: Path) -> None:
    """Every analysis answers, or says in one line why not."""
    data, whole, read = seeds.read_bytes(), load_snapshot(seeds), 0
    for seed in range(30):
        path = s.write(tmp_path / "m.pickle", scrambled(data, seed))
        try:
            analyse(load_snapshot(path), whole)
            read += 1
        except KitError as error:
            assert "\n" not in str(error)
    assert read > 10 if seeds == GOLDEN else read > 5
