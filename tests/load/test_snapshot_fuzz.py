"""Snapshots with bytes changed: the readers refuse or read them alike, and what they read can be analysed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter

from tests import snapshots as s
from tests.fuzz.snapshots import corpus, mutate, verdicts
from tests.readers import HAVE_NATIVE

FILES = int(os.environ.get("PROFILER_KIT_FUZZ_SNAPSHOTS", "40"))
GOLDEN = s.ROOT / "tests" / "golden" / "memory_train_h200.pickle"


MANY = """
import collections, json, resource, sys
sys.path.insert(0, sys.argv[1])
from profiler_kit.load.snapshot.unpickle_child import Refused
from tests.fuzz.snapshots import columns_of, mutant
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
data = open(sys.argv[2], "rb").read()
found = collections.Counter()
for seed in range(int(sys.argv[3])):
    broken = mutant(data, seed)
    try:
        _, _, native = columns_of(broken)
        found["read"] += 1
        found["native"] += native
    except Refused as refused:
        assert len(str(refused)) < 400, refused
        found["refused"] += 1
    except MemoryError:
        found["too large"] += 1
print(json.dumps(found))
"""


def test_the_readers_refuse_or_read_whatever_the_bytes_and_alike() -> None:
    """In one process, as the child runs it; anything but a refusal would end it."""
    done = subprocess.run(
        [sys.executable, "-c", MANY, s.ROOT, GOLDEN, "1500"], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["read"] + found["refused"] + found.get("too large", 0) == 1500
    assert found["read"] > 100
    assert found["native"] > 100 or not HAVE_NATIVE
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
