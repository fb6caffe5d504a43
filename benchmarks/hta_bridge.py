"""Time and memory until HTA's TraceAnalysis can be used: `hta_analysis` and HTA's own parser, side by side in one run.

    python benchmarks/hta_bridge.py TRACE [TRACE ...] --repeats 5 --out benchmarks/results/hta_bridge.json

Grow the traces from real ones first (`grow_trace.py BASE OUT.json.gz 100 --few-steps`; HTA's time grows with the
number of ProfilerSteps). Every sample is a process of its own; the clock starts after the imports. The tools take
turns. `temporal` adds one analysis, get_temporal_breakdown, which HTA computes the same way for both. The kernel time
it finds is kept beside the times: HTA's rounding leaves some of it out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

QUIET = "import logging, warnings; warnings.simplefilter('ignore'); logging.disable(logging.CRITICAL)\n"
TOOLS = {
    "hta_analysis": (
        "from profiler_kit.hta import hta_analysis\nimport hta.trace_analysis",
        "analysis = hta_analysis({0: path})",
    ),
    "hta_analysis, all columns": (
        "from profiler_kit.hta import hta_analysis\nimport hta.trace_analysis",
        "analysis = hta_analysis({0: path}, all_columns=True)",
    ),
    "HTA": (
        "from hta.trace_analysis import TraceAnalysis",
        "analysis = TraceAnalysis(trace_files={0: path}, trace_dir='')",
    ),
}
SAMPLE = """
import json, resource, sys, time
path = sys.argv[1]
{imports}
since = time.perf_counter()
{statement}
ready = time.perf_counter()
try:
    kernel_us = float(analysis.get_temporal_breakdown(visualize=False)["kernel_time(us)"][0])
except AssertionError:
    kernel_us = None
temporal = time.perf_counter()
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps(dict(seconds=ready - since, temporal_s=temporal - ready, peak_mib=(own + child) / 1024,
                      rows=len(analysis.t.traces[0]), kernel_us=kernel_us)))
"""


def sample(tool: str, path: str) -> dict[str, float]:
    """One measurement."""
    imports, statement = TOOLS[tool]
    code = QUIET + SAMPLE.format(imports=imports, statement=statement)
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{tool} on {path}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def summary(values: list[float]) -> dict[str, float]:
    """Median and both ends."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def measure(path: str, repeats: int) -> dict[str, object]:
    """All tools on one trace, taking turns."""
    samples: dict[str, list[dict[str, float]]] = {tool: [] for tool in TOOLS}
    for _ in range(repeats):
        for tool, found in samples.items():
            found.append(sample(tool, path))
    tools = {}
    for tool, found in samples.items():
        seconds = summary([one["seconds"] for one in found])
        peak = summary([one["peak_mib"] for one in found])
        tools[tool] = {
            "seconds": seconds,
            "peak_mib": peak,
            "temporal_s": summary([one["temporal_s"] for one in found]),
            "rows": found[0]["rows"],
            "kernel_us": found[0]["kernel_us"],
        }
        print(f"{Path(path).name} {tool:28} {seconds['median']:7.2f} s  {peak['median']:6.0f} MiB", file=sys.stderr)
    hta = statistics.median(one["seconds"] for one in samples["HTA"])
    ratios = {tool: hta / statistics.median(one["seconds"] for one in found) for tool, found in samples.items()}
    return {"trace": Path(path).name, "bytes": Path(path).stat().st_size, "tools": tools, "times_hta": ratios}


def main() -> None:
    """Measure, print a table, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = {
        "machine": {
            "cpus": len(os.sched_getaffinity(0)),
            "processor": platform.machine(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {"python": platform.python_version(), "traceinsight": version("traceinsight")},
        "repeats": options.repeats,
        "results": [measure(path, options.repeats) for path in options.traces],
    }
    text = json.dumps(results, indent=1) + "\n"
    if options.out:
        options.out.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
