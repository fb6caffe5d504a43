"""Snapshots with bytes changed: the reader refuses or reads them, and what it reads can be analysed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

from tests import snapshots as s
from tests.fuzz.snapshots import corpus, mutate, verdicts

FILES = int(os.environ.get("PROFILER_KIT_FUZZ_SNAPSHOTS", "40"))
GOLDEN = s.ROOT / "tests" / "golden" / "memory_train_h200.pickle"


MANY = """
import collections, io, json, random, resource, sys
sys.path.insert(0, sys.argv[1])
from profiler_kit.load.snapshot.unpickle_child import Refused, convert, unpickle
from tests.fuzz.snapshots import mutant
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


def test_mutated_cases_break_no_rule() -> None:
    """Each case with bytes, values, entries and keys changed, read and analysed in one process."""
    found = list(verdicts(0, FILES))
    assert [one for one in found if one["problems"]] == []
    assert len(found) == FILES
    outcomes = Counter(one["outcome"] for one in found)
    assert min(outcomes["read"], outcomes["refused"]) > FILES // 10, outcomes


def test_the_same_number_is_the_same_snapshot() -> None:
    seeds = corpus()
    assert [mutate(number, seeds) for number in range(40)] == [mutate(number, seeds) for number in range(40)]
