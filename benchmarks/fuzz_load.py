"""Load many mutated traces, or memory snapshots, and tally what became of them.

    nice -n 19 python benchmarks/fuzz_load.py --files 10000 [--snapshots]

Each file is a window of a real capture or of the golden trace in one of four layouts, or a case, broken one to six
times (tests/fuzz/mutations.py); the same number is always the same file. A worker under a limit of memory (RLIMIT_AS)
and of time per file loads it, runs what the commands run (every table and finding on each tenth), and compares the
spans with those a strict reader finds that shares no code with the loader. A snapshot (tests/fuzz/snapshots.py) is a
case or a small capture with bytes, values, entries and keys changed; every table, finding and comparison is asked of
it. Exit code 1 when any rule was broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from profiler_kit.files import write_json
from tests.fuzz import driver, snapshots, worker
from tests.fuzz.seeds import seeds


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--snapshots", action="store_true", help="memory snapshots instead of traces")
    parser.add_argument("--out", type=Path, help="write the tally as JSON")
    options = parser.parse_args()
    started = time.perf_counter()
    found: list[dict[str, Any]] = []
    first, last = options.first, options.first + options.files
    with tempfile.TemporaryDirectory() as folder:
        made = snapshots.verdicts(first, last) if options.snapshots else driver.verdicts(first, last, Path(folder))
        for verdict in made:
            found.append(verdict)
            if verdict["problems"]:
                print(f"file {verdict['file']}: {verdict['outcome']}: {verdict['problems']}", flush=True)
            if len(found) % 1000 == 0:
                print(f"{len(found)} files, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    limits = snapshots if options.snapshots else worker
    tally = {
        "files": len(found),
        "first": first,
        "seeds": len(snapshots.corpus() if options.snapshots else seeds()),
        "outcomes": dict(Counter(verdict["outcome"] for verdict in found).most_common()),
        "rules_broken": sum(bool(verdict["problems"]) for verdict in found),
        "limit_s": limits.SECONDS,
        "limit_memory_bytes": limits.MEMORY_BYTES,
        "seconds": round(time.perf_counter() - started, 1),
    }
    if not options.snapshots:
        tally["spans_loaded"] = sum(verdict.get("spans", 0) for verdict in found)
        tally["events_repaired"] = sum(verdict.get("repaired", 0) for verdict in found)
        tally["events_dropped"] = sum(verdict.get("dropped", 0) for verdict in found)
        tally["slowest_s"] = round(max(verdict["seconds"] for verdict in found), 3)
    for name, value in tally.items():
        print(f"{name:<20} {value}")
    if options.out:
        write_json(options.out, tally)
    return 1 if tally["rules_broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
