"""Measure loading and replaying memory snapshots, beside pickle.load and torch's own processing.

    python benchmarks/snapshot.py SNAPSHOT [SNAPSHOT ...] --out benchmarks/results/snapshot.json

Each sample is a process of its own (imports not counted), the variants are taken in turn, so that drift of the machine
hits all alike. `pickle` is pickle.load, which runs whatever the file asks for; `torch_page` is what
torch/cuda/_memory_viz.py trace_plot does: load, and write the page (its script replays in the browser). Ours refuses
code: the native reader, and `load_python`, which has a process limited in memory. Peak memory is VmHWM of the process,
imports included; `child_mb` that of the process that unpickles.
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # a checkout works without being installed

from profiler_kit.files import write_json  # noqa: E402

BODY = """
import json, re, resource, sys, time
sys.path.insert(0, {root!r})
from pathlib import Path
path = sys.argv[1]
result = {{}}
def timed(name, run):
    start = time.perf_counter()
    value = run()
    result[name] = time.perf_counter() - start
    return value
{work}
result["peak_mb"] = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3
result["child_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
print(json.dumps(result))
"""
LOADED = "from profiler_kit.snapshot import load_snapshot\ns = load_snapshot(path)\n"
READER = "import pandas\nfrom profiler_kit.load.snapshot.reader import load_snapshot_data, read_snapshot\n"
WORK = {
    "pickle": 'import pickle\ntimed("s", lambda: pickle.load(open(path, "rb")))',
    "torch_page": (
        "import pickle\nfrom torch.cuda._memory_viz import trace_plot\n"
        'timed("s", lambda: trace_plot(pickle.load(open(path, "rb"))))'
    ),
    "load": READER + 'timed("s", lambda: read_snapshot(path))',
    "load_python": 'import os\nos.environ["PROFILER_KIT_READER"] = "python"\n'
    + READER
    + 'timed("s", lambda: read_snapshot(path))',
    "reload": READER + 'timed("s", lambda: load_snapshot_data(path))',
    "replay": LOADED + 'timed("s", lambda: [s.replay(device) for device in s.devices])',
    "summary": LOADED + 'timed("s", lambda: s.summary())',
    "blocks": LOADED + '[s.replay(device) for device in s.devices]\ntimed("s", lambda: s.block_spans())',
}


def sample(work: str, path: Path, cache: Path) -> dict[str, float]:
    """Run one variant in a process of its own."""
    environment = {**os.environ, "PROFILER_KIT_CACHE": str(cache)}
    code = BODY.format(root=str(ROOT), work=work)
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    value: dict[str, float] = json.loads(done.stdout)
    return value


def measure(path: Path, repeats: int, cache: Path, only: list[str]) -> dict[str, Any]:
    """Every variant on one snapshot, or those whose name holds one of the words."""
    work_of = {name: work for name, work in WORK.items() if not only or any(word in name for word in only)}
    facts = sample(LOADED + 'result["events"] = len(s.events)', path, cache)  # fills the cache
    samples: dict[str, list[dict[str, float]]] = {name: [] for name in work_of}
    for number in range(repeats):
        for name, work in work_of.items():
            samples[name].append(sample(work, path, cache))
        print(f"{path.name}: round {number + 1} of {repeats}", file=sys.stderr)
    return {
        "snapshot": path.name,
        "bytes": path.stat().st_size,
        "events": facts["events"],
        "variants": {name: summary(values) for name, values in samples.items()},
    }


def summary(values: list[dict[str, float]]) -> dict[str, float]:
    seconds = sorted(value["s"] for value in values)
    return {
        "median_s": statistics.median(seconds),
        "min_s": seconds[0],
        "max_s": seconds[-1],
        "peak_mb": max(value["peak_mb"] for value in values),
        "child_mb": max(value["child_mb"] for value in values),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("snapshots", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        rows = [measure(path.resolve(), args.repeats, Path(cache), args.only) for path in args.snapshots]
    print(f"{'snapshot':<22}{'variant':>12}{'median s':>10}{'min':>9}{'max':>9}{'peak MB':>9}{'child MB':>10}")
    for row in rows:
        for name, value in row["variants"].items():
            times = f"{value['median_s']:>10.3f}{value['min_s']:>9.3f}{value['max_s']:>9.3f}"
            print(f"{row['snapshot'][:21]:<22}{name:>12}{times}{value['peak_mb']:>9.0f}{value['child_mb']:>10.0f}")
    if args.out:
        write_json(args.out, {"environment": describe(), "repeats": args.repeats, "snapshots": rows})


def describe() -> dict[str, object]:
    """Where this was measured."""
    import torch

    return {
        "python": sys.version.split()[0],
        "torch": str(torch.__version__),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
