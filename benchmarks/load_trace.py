"""Time and memory of loading a chrome trace: profiler_kit, HTA, and json.load + pandas, side by side in one run.

"profiler_kit" is what a user calls: `load_trace(path)` with its frame of events, the cache cold at first and written
behind the answer by a thread. "columns only" is the reader alone, without frame and cache. PROFILER_KIT_READER=python
measures what a machine without a C compiler gets.

    python benchmarks/load_trace.py TRACE [TRACE ...] --repeats 5 --out benchmarks/results/load_trace.json

Grow the traces from real ones first (`grow_trace.py BASE OUT.json.gz 500 --few-steps`). Every sample is a process of
its own; the clock starts after the imports. The tools take turns, so that drift of the machine hits all alike. Peak
memory is the largest resident size of the process, plus that of its largest child for profiler_kit, which uses one
where the native reader is not compiled.

    --hta-python PATH   another interpreter with another release of HTA (0.5.0 and 0.6.1 share the module name)
    --only WORD ...     just the tools whose name holds one of the words; results already in --out for the same file
                        and other tools are kept, so that a long table can be measured in several sittings
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# What each tool runs: imports first, then the timed statement; `loaded` is how many rows came out.
TOOLS = {
    "profiler_kit": (
        "import pandas, pyarrow\nfrom profiler_kit import load_trace",
        "loaded = len(load_trace(path).events)",
    ),
    "profiler_kit, HTA's default columns": (
        "import pandas, pyarrow\nfrom profiler_kit import load_trace",
        "loaded = len(load_trace(path, arguments=('input_dims', 'input_type', 'input_strides')).events)",
    ),
    "profiler_kit, columns only": (
        "from profiler_kit.load.trace.chrome import read_chrome_trace",
        "loaded = len(read_chrome_trace(path).columns)",
    ),
    "HTA": (
        "import logging, warnings; warnings.simplefilter('ignore'); logging.disable(logging.CRITICAL)\n"
        "from hta.trace_analysis import TraceAnalysis",
        "loaded = len(TraceAnalysis(trace_files={0: path}, trace_dir='').t.get_trace(0))",
    ),
    "json.load + pandas": (
        "import gzip, json\nimport pandas as pd",
        "loaded = len(pd.DataFrame(json.load(gzip.open(path) if path.endswith('.gz') else open(path))['traceEvents']))",
    ),
}
SAMPLE = """
import json, resource, sys, time
path = sys.argv[1]
{imports}
since = time.perf_counter()
{statement}
seconds = time.perf_counter() - since
own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps(dict(seconds=seconds, peak_mib=(own + child) / 1024, rows=loaded)))
"""


def sample(python: str, tool: str, path: str, timeout_s: float) -> dict[str, float] | str:
    """One measurement, or what went wrong."""
    imports, statement = TOOLS[tool.split(" (")[0]]
    code = SAMPLE.format(imports=imports, statement=statement)
    with tempfile.TemporaryDirectory() as cold:
        environment = {**os.environ, "PROFILER_KIT_CACHE": cold}
        try:
            done = subprocess.run(
                [python, "-c", code, path],
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            return f"more than {timeout_s:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """First quartile, median, third quartile; of one value three times that value."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def measure(path: Path, tools: dict[str, str], repeats: int, slow_repeats: int, timeout_s: float) -> dict[str, Any]:
    """All tools on one file, in turns; the slow ones less often."""
    samples: dict[str, list[dict[str, float]]] = {tool: [] for tool in tools}
    failed: dict[str, str] = {}
    for turn in range(repeats):
        for tool, python in tools.items():
            if tool in failed or (turn >= slow_repeats and not tool.startswith("profiler_kit")):
                continue
            result = sample(python, tool, str(path), timeout_s)
            if isinstance(result, str):
                failed[tool] = result
            else:
                samples[tool].append(result)
            print(f"\r{path.name}: turn {turn + 1} of {repeats}, {tool}".ljust(100), end="", file=sys.stderr)
    print(file=sys.stderr)
    return {"file": path.name, "size_bytes": path.stat().st_size, "samples": samples, "failed": failed}


def release(python: Path) -> str:
    """Name and version of the HTA that interpreter has."""
    name = "HolisticTraceAnalysis"
    code = f"from importlib.metadata import version; print({name!r}, version({name!r}))"
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The new results in place of the old ones of the same file and tool; the rest stays."""
    found = {str(result["file"]): result for result in old}
    for result in new:
        before = found.get(str(result["file"]), {"samples": {}, "failed": {}})
        kept = {key: {**dict(before[key]), **dict(result[key])} for key in ("samples", "failed")}
        found[str(result["file"])] = {**result, **kept}
    return list(found.values())


def show(result: dict[str, Any], baseline: str) -> None:
    """A table: median, quartiles, memory, ratio to ours."""
    samples = result["samples"]
    assert isinstance(samples, dict)
    print(f"\n{result['file']}")
    ours = statistics.median(s["seconds"] for s in samples[baseline]) if samples.get(baseline) else float("nan")
    for tool, taken in samples.items():
        if not taken:
            continue
        low, middle, high = quartiles([s["seconds"] for s in taken])
        peak = max(s["peak_mib"] for s in taken)
        print(
            f"  {tool:40s} {middle:8.2f} s ({low:.2f} to {high:.2f}, n={len(taken)}) {peak:8.0f} MiB"
            f" {middle / ours:7.1f} x  {taken[0]['rows']:,.0f} rows"
        )
    for tool, why in dict(result["failed"]).items():
        print(f"  {tool:40s} failed: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow-repeats", type=int, default=3, help="of the other tools")
    parser.add_argument("--timeout", type=float, default=600, help="seconds a sample may take")
    parser.add_argument("--hta-python", type=Path, help="an interpreter with another release of HTA")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="of the tools' names")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tools = dict.fromkeys(TOOLS, sys.executable)
    try:
        tools = {f"HTA (traceinsight {version('traceinsight')})" if t == "HTA" else t: p for t, p in tools.items()}
    except PackageNotFoundError:
        tools.pop("HTA")
    if options.hta_python:
        tools[f"HTA ({release(options.hta_python)})"] = str(options.hta_python)
    if options.only:
        tools = {tool: python for tool, python in tools.items() if any(word in tool for word in options.only)}
    results = [measure(p, tools, options.repeats, options.slow_repeats, options.timeout) for p in options.traces]
    if options.out and options.out.is_file():
        results = merged(json.loads(options.out.read_text(encoding="utf-8"))["results"], results)
    for result in results:
        show(result, "profiler_kit")
    if options.out:
        machine = {
            "cpu": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in ("pandas", "numpy", "msgspec", "isal")},
            "command": " ".join(["benchmarks/load_trace.py", *(Path(a).name for a in sys.argv[1:])]),
        }
        options.out.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
