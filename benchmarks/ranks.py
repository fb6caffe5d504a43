"""How long the ranks of a job take, and how much memory: python benchmarks/ranks.py OUT.json JOB... [--hta]

Each is a process of its own: cold without a store, warm with it, both as `profiler-kit ranks JOB --json`; and HTA's
temporal breakdown and straggler question of the same folder in turn (it may raise: then what it raised). CPU seconds
and the peak are of all processes that it started; jobs come from a simulator or a cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from profiler_kit.version import __version__

HTA: Final = """
import re, sys
from pathlib import Path
from hta.trace_analysis import TraceAnalysis
files = {int(re.search(r"rank(\\d+)", path.name)[1]): str(path) for path in Path(sys.argv[1]).glob("rank*.json*")}
found = TraceAnalysis(trace_files=files)
print(len(found.get_temporal_breakdown(visualize=False)), "ranks")
print("stragglers", found.get_potential_stragglers())
"""


def resident_mib(root: int) -> float:
    """Memory of a process and of all below it, shared pages in each."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(after[1]), []).append(int(entry.name))
    held, found = [root], 0
    while held:
        one = held.pop()
        held += children.get(one, [])
        try:
            found += int(Path(f"/proc/{one}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return found / 2**20


def run(command: list[str], limit_s: float) -> dict[str, Any]:
    """Wall and CPU seconds, the peak of all its processes together, and how it ended."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    since = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(command, stdout=out, stderr=err)
        peak = [0.0]
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(0.02):
                peak[0] = max(peak[0], resident_mib(child.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            code: int | None = child.wait(limit_s)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            code = None
        ended.set()
        watcher.join()
        wall = time.perf_counter() - since
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        texts = []
        for handle in (out, err):
            handle.seek(0)
            texts.append(handle.read().decode("utf-8", "replace"))
    found: dict[str, Any] = {
        "wall_s": round(wall, 3),
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 3),
        "peak_mib": round(peak[0]),
    }
    if code != 0:
        found["ended"] = "stopped: too long" if code is None else texts[1].strip().splitlines()[-1:]
    found["said"] = texts[0][:400]
    return found


def measure(job: Path, repeats: int, hta: bool, limit_s: float) -> dict[str, Any]:
    """Cold, warm and HTA in turn."""
    command = [sys.executable, "-m", "profiler_kit.cli", "ranks", str(job), "--json"]
    store = Path(f"{job}.ranks")
    found: dict[str, Any] = {"job": job.name, "files": len(list(job.rglob("*.json*"))), "cold": [], "warm": []}
    found["bytes"] = sum(path.stat().st_size for path in job.rglob("*.json*"))
    for _ in range(repeats):
        shutil.rmtree(store, ignore_errors=True)
        found["cold"].append(run(command, limit_s))
        found["warm"].append(run(command, limit_s))
        if hta:
            found.setdefault("hta", []).append(run([sys.executable, "-W", "ignore", "-c", HTA, str(job)], limit_s))
    found["store_bytes"] = sum(path.stat().st_size for path in store.rglob("*.parquet"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("jobs", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hta", action="store_true")
    parser.add_argument("--limit-s", type=float, default=300)
    options = parser.parse_args()
    record = {
        "command": " ".join(sys.argv),
        "version": __version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg(),
        "jobs": [],
    }
    for job in options.jobs:
        record["jobs"].append(measure(job, options.repeats, options.hta, options.limit_s))
        options.out.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record["jobs"][-1]))


if __name__ == "__main__":
    main()
