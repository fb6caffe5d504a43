"""Measure the cache: first load, reload, spill and queries, and from which size on a cached trace pays.

    python benchmarks/cache.py TRACE [TRACE ...] --out benchmarks/results/cache.json

Give traces of several sizes, made with a tool that grows real ones. Each sample is a process of its own (imports not
counted) with a cache folder of its own; the samples of the variants are taken in turn, so that drift of the machine
hits all alike. Peak memory is VmHWM of that process, imports included. `equal` says that every column that came from
the cache and from the spilled file equals the one loaded from JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from profiler_kit.files import write_json

ROOT = Path(__file__).resolve().parents[1]
COUNTS = "SELECT category, count(*) AS n, sum(dur_ns) AS ns FROM events GROUP BY category"
KERNELS = "SELECT name, count(*) AS n, sum(dur_ns) AS ns FROM gpu_events GROUP BY name ORDER BY ns DESC LIMIT 20"
BODY = """
import json, re, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
import duckdb
from profiler_kit.load.trace import cached
from profiler_kit.load.trace.cached import TRACES, find_trace, load_chrome_trace, spilled_trace
from profiler_kit.load.trace.chrome import read_chrome_trace
from profiler_kit.tables.query import select_spilled
from profiler_kit.trace import load_trace
cached.SMALLEST_JSON_BYTES = 0
path = sys.argv[1]
result = {{}}
def timed(name, run):
    start = time.perf_counter()
    value = run()
    result[name] = time.perf_counter() - start
    return value
{work}
status = Path("/proc/self/status").read_text()
result["peak_mb"] = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1e3
print(json.dumps(result))
"""
# variant -> what it runs; "warm" variants find the trace in the cache
WORK = {
    "json": 'timed("s", lambda: read_chrome_trace(path))',
    "json_and_keep": 'timed("s", lambda: load_chrome_trace(path))',
    "reload": 'timed("s", lambda: load_chrome_trace(path))',
    "spill": 'timed("s", lambda: spilled_trace(path).__enter__())',
    "query_spilled": f'timed("s", lambda: select_spilled({COUNTS!r}, spilled_trace(path).__enter__()))',
    "query_counts": f't = load_trace(path)\ntimed("s", lambda: t.sql({COUNTS!r}))',
    "query_kernels": f't = load_trace(path)\nt.kernel_details()\ntimed("s", lambda: t.sql({KERNELS!r}))',
}
WARM = ("reload", "query_spilled", "query_counts", "query_kernels")
EQUAL = """
import dataclasses
import numpy as np
def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b
fresh = read_chrome_trace(path)
load_chrome_trace(path)
result["equal"] = same(fresh, load_chrome_trace(path))
find_trace(TRACES, Path(path)).file.unlink()
with spilled_trace(path) as spilled:
    result["file_bytes"] = spilled.file.stat().st_size
result["equal"] = result["equal"] and same(fresh, load_chrome_trace(path))
result["rows"] = len(fresh.columns)
"""


def sample(work: str, path: Path, cache: Path) -> dict[str, float]:
    """Run one variant in a process of its own."""
    code = BODY.format(root=str(ROOT), work=work)
    environment = {**os.environ, "PROFILER_KIT_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    value: dict[str, float] = json.loads(done.stdout)
    return value


def measure(path: Path, repeats: int, folder: Path) -> dict[str, Any]:
    """Every variant on one trace."""
    warm = folder / "warm"
    facts = sample(EQUAL, path, warm)
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in WORK}
    for number in range(repeats):
        for name, work in WORK.items():
            with tempfile.TemporaryDirectory(dir=folder) as cold:
                samples[name].append(sample(work, path, warm if name in WARM else Path(cold)))
        print(f"{path.name}: round {number + 1} of {repeats}", file=sys.stderr)
    return {
        "trace": path.name,
        "trace_bytes": path.stat().st_size,
        "json_bytes": json_bytes(path),
        "events": facts["rows"],
        "cache_bytes": facts["file_bytes"],
        "equal": facts["equal"],
        "variants": {name: summary(values) for name, values in samples.items()},
    }


def summary(values: list[dict[str, float]]) -> dict[str, float]:
    seconds = sorted(value["s"] for value in values)
    return {
        "median_s": statistics.median(seconds),
        "min_s": seconds[0],
        "max_s": seconds[-1],
        "peak_mb": max(value["peak_mb"] for value in values),
    }


def json_bytes(path: Path) -> int:
    from profiler_kit.load.trace.decompress import Blocks

    return sum(map(len, Blocks(path)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(path.resolve(), args.repeats, Path(folder)) for path in args.traces]
    print(f"{'trace':<28}{'JSON MB':>9}{'variant':>16}{'median s':>10}{'min':>9}{'max':>9}{'peak MB':>9}")
    for row in rows:
        for name, value in row["variants"].items():
            head = f"{row['trace'][:27]:<28}{row['json_bytes'] / 1e6:>9.1f}{name:>16}"
            times = "".join(
                f"{value[key]:>{width}.4f}" for key, width in (("median_s", 10), ("min_s", 9), ("max_s", 9))
            )
            print(f"{head}{times}{value['peak_mb']:>9.0f}")
        print(f"{row['trace']}: cache file {row['cache_bytes'] / 1e6:.1f} MB, equal: {row['equal']}")
    if args.out:
        write_json(args.out, {"environment": describe(), "repeats": args.repeats, "traces": rows})


def describe() -> dict[str, Any]:
    """Where this was measured."""
    import duckdb
    import pyarrow

    return {
        "python": sys.version.split()[0],
        "duckdb": duckdb.__version__,
        "pyarrow": pyarrow.__version__,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
