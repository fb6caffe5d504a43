"""Snapshots with bytes changed: the reader refuses or reads them, and what it reads can be analysed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from profiler_kit.analyses.memory_compare import compare_snapshots
from profiler_kit.errors import KitError
from profiler_kit.snapshot import load_snapshot
from tests import snapshots as s

GOLDEN = s.ROOT / "tests" / "golden" / "memory_train_h200.pickle"


def mutant(data: bytes, seed: int, *, kinds: int = 6) -> bytes:
    """Some bytes set, flipped, removed, doubled or replaced, or the end cut off; the first `kinds` of these."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, length = rng.randrange(len(out)), rng.choice((1, 1, 2, 8, 64))
        kind = rng.randrange(kinds)
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
from profiler_kit.load.snapshot_child import Refused, convert, unpickle
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
        [sys.executable, "-c", MANY, s.ROOT, GOLDEN, "1500"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert sum(found.values()) == 1500
    assert found["read"] > 100
    assert found["refused"] > 100


def test_what_is_read_can_be_analysed(tmp_path: Path) -> None:
    """Numbers may be nonsense afterwards; every analysis answers, or says in one line why not."""
    data = GOLDEN.read_bytes()
    whole = load_snapshot(GOLDEN)
    read = 0
    for seed in range(10_000, 10_024):
        path = tmp_path / "m.pickle"
        path.write_bytes(mutant(data, seed, kinds=2))
        try:
            found = load_snapshot(path)
            read += 1
            found.summary()
            found.fragmentation()
            found.lifetimes()
            compare_snapshots(whole, found)
            for device in found.devices:
                for answer in (found.leaks, found.growth, found.region_instances, found.oom_reports):
                    answer(device)
                found.live_by_layer(device)
                found.live_by_region(device)
        except KitError as error:
            assert "\n" not in str(error)
    assert read > 5
