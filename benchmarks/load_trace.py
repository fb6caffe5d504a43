"""Time and memory of loading a chrome trace: profiler_kit, HTA, and json.load + pandas, side by side in one run.

"profiler_kit" is what a user calls: `load_trace(path)` with its frame of events, the cache cold at first and written
behind the answer by a thread (`kept_s`: when that was done). "columns only" is the reader alone, without frame and
cache; "from the cache" the second call. "without a compiler" is the decoder in Python (PROFILER_KIT_READER=python).
"one core busy" shares one of the two cores with a process that counts. HTA's parser alone is `parse_trace_dataframe`,
and HTA what its users call, `TraceAnalysis`. TraceLens is in no registry of packages (the one of that name is another
project), so it is not here.

    python benchmarks/load_trace.py TRACE [TRACE ...] --cores 0,1 --out benchmarks/results/load_trace.json

Grow the traces from real ones first (`grow_trace.py BASE OUT.json.gz 500 --few-steps`); `capture_large.py` records one
that is not a short one repeated. Every sample is a process of its own; the clock starts after the imports. The tools
take turns, so that drift of the machine hits all alike. Peak memory is the largest resident size of the process, plus
that of its largest child for profiler_kit, which uses one where the native reader is not compiled.

    --seconds N         begin no round later than that
    --slow-repeats N    rounds in which the others take part too
    --cores A,B         run all on these cores
    --only WORD ...     just the tools whose name holds one of the words, and with --skip none of those; results already
                        in --out for the same file and other tools are kept, for a long table in several sittings

Beside what others call, n = 5: 500 MB takes some 8 minutes, 2,000 MB with one of the others each 10, 15 and 5:

    WITHOUT="--skip columns busy compiler"
    python benchmarks/load_trace.py T500.json.gz --cores 0,1 --only profiler_kit HTA json $WITHOUT --out F
    python benchmarks/load_trace.py T2000.json.gz --cores 0,1 --only profiler_kit alone $WITHOUT --out F  # HTA's parser
    python benchmarks/load_trace.py T2000.json.gz --cores 0,1 --only profiler_kit HTA $WITHOUT alone --out F
    python benchmarks/load_trace.py T2000.json.gz --cores 0,1 --only profiler_kit json $WITHOUT --out F
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
HTA = "import logging, warnings; warnings.simplefilter('ignore'); logging.disable(logging.CRITICAL)\n"


@dataclass(frozen=True)
class Tool:
    """What to run: imports first, then the timed statement; `loaded` is how many rows came out."""

    imports: str
    statement: str
    environment: dict[str, str] = field(default_factory=dict)
    busy: bool = False
    warm: bool = False  # the statement runs once before, in a process of its own


AS_CALLED = ("import pandas, pyarrow\nfrom profiler_kit import load_trace", "loaded = len(load_trace(path).events)")
COLUMNS = (
    "from profiler_kit.load.trace.chrome import read_chrome_trace",
    "loaded = len(read_chrome_trace(path).columns)",
)
PLAIN = {"PROFILER_KIT_READER": "python"}
TOOLS = {
    "profiler_kit": Tool(*AS_CALLED),
    "profiler_kit, HTA's default columns": Tool(
        AS_CALLED[0],
        "loaded = len(load_trace(path, arguments=('input_dims', 'input_type', 'input_strides')).events)",
    ),
    "profiler_kit, columns only": Tool(*COLUMNS),
    "profiler_kit, from the cache": Tool(*AS_CALLED, warm=True),
    "profiler_kit, one core busy": Tool(*AS_CALLED, busy=True),
    "profiler_kit, without a compiler": Tool(*AS_CALLED, PLAIN),
    "profiler_kit, without a compiler, one core busy": Tool(*AS_CALLED, PLAIN, busy=True),
    "HTA's parser alone": Tool(
        HTA + "from hta.common.trace_parser import parse_trace_dataframe\n"
        "from hta.configs.parser_config import ParserConfig",
        "loaded = len(parse_trace_dataframe(path, ParserConfig.get_default_cfg())[1])",
    ),
    "HTA": Tool(
        HTA + "from hta.trace_analysis import TraceAnalysis",
        "loaded = len(TraceAnalysis(trace_files={0: path}, trace_dir='').t.get_trace(0))",
    ),
    "json.load + pandas": Tool(
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
cache = sys.modules.get("profiler_kit.load.cache")
if cache is not None:
    cache.finish()
kept_s = time.perf_counter() - since
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(dict(seconds=seconds, peak_mib=(max(own, peak) + child) / 1024, kept_s=kept_s, rows=loaded)))
"""


@contextlib.contextmanager
def one_core_busy(wanted: bool) -> Iterator[None]:
    """Another process counts on the last of our cores."""
    if not wanted:
        yield
        return
    core = max(os.sched_getaffinity(0))
    other = subprocess.Popen([sys.executable, "-c", f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"])
    try:
        time.sleep(0.5)
        yield
    finally:
        other.kill()
        other.wait()


def sample(name: str, path: str, timeout_s: float) -> dict[str, float] | str:
    """One measurement, or what went wrong."""
    tool = TOOLS[name]
    code = SAMPLE.format(imports=tool.imports, statement=tool.statement)
    with tempfile.TemporaryDirectory() as cold, one_core_busy(tool.busy):
        environment = {**os.environ, **tool.environment, "PROFILER_KIT_CACHE": cold}
        for _ in range(2 if tool.warm else 1):
            try:
                done = subprocess.run(
                    [sys.executable, "-c", code, path],
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


def measure(path: Path, tools: list[str], options: argparse.Namespace, until: float) -> dict[str, Any]:
    """All tools on one file, in turns; the slow ones less often."""
    samples: dict[str, list[dict[str, float]]] = {tool: [] for tool in tools}
    failed: dict[str, str] = {}
    for turn in range(options.repeats):
        for tool in tools:
            most = options.repeats if tool.startswith("profiler_kit") else options.slow_repeats
            if tool in failed or turn >= most or time.monotonic() > until:
                continue
            result = sample(tool, str(path), options.timeout)
            if isinstance(result, str):
                failed[tool] = result
            else:
                samples[tool].append(result)
            print(f"\r{path.name}: turn {turn + 1} of {options.repeats}, {tool}".ljust(100), end="", file=sys.stderr)
    print(file=sys.stderr)
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    size = path.stat().st_size
    return {"file": path.name, "size_bytes": size, "sha256": digest, "samples": samples, "failed": failed}


def merged(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The new results in place of the old ones of the same file and tool; the rest stays."""
    found = {str(result["file"]): result for result in old}
    for result in new:
        before = found.get(str(result["file"]), {"samples": {}, "failed": {}})
        kept = {key: {**dict(before[key]), **dict(result[key])} for key in ("samples", "failed")}
        found[str(result["file"])] = {**result, **kept}
    return list(found.values())


def show(result: dict[str, Any]) -> None:
    """A table: median, least and most, memory, ratio to ours."""
    samples = result["samples"]
    print(f"\n{result['file']}")
    ours = statistics.median([s["seconds"] for s in samples.get("profiler_kit", [])] or [float("nan")])
    for tool, taken in samples.items():
        if not taken:
            continue
        seconds = sorted(s["seconds"] for s in taken)
        middle = statistics.median(seconds)
        peak = max(s["peak_mib"] for s in taken)
        print(
            f"  {tool:48s} {middle:8.3f} s ({seconds[0]:.3f} to {seconds[-1]:.3f}, n={len(taken)}) {peak:8.0f} MiB"
            f" {middle / ours:7.1f} x  {taken[0]['rows']:,.0f} rows"
        )
    for tool, why in dict(result["failed"]).items():
        print(f"  {tool:48s} failed: {why}")


def machine() -> dict[str, Any]:
    """Where and with what this was measured."""
    with contextlib.suppress(OSError):
        cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    git = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": sorted(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": {name: found(name) for name in ("pandas", "numpy", "msgspec", "isal", "pyarrow", "traceinsight")},
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
        "command": " ".join(["benchmarks/load_trace.py", *(Path(a).name for a in sys.argv[1:])]),
    }


def found(name: str) -> str | None:
    """The version of a package; None when it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--slow-repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--timeout", type=float, default=600, help="seconds a sample may take")
    parser.add_argument("--cores", help="such as 0,1")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="of the tools' names")
    parser.add_argument("--skip", nargs="+", metavar="WORD", default=())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, [int(core) for core in options.cores.split(",")])
    tools = [t for t in TOOLS if found("traceinsight") or not t.startswith("HTA")]
    if options.only:
        tools = [tool for tool in tools if any(word in tool for word in options.only)]
    tools = [tool for tool in tools if not any(word in tool for word in options.skip)]
    until = time.monotonic() + options.seconds
    results = [measure(path, tools, options, until) for path in options.traces]
    if options.out and options.out.is_file():
        results = merged(json.loads(options.out.read_text(encoding="utf-8"))["results"], results)
    for result in results:
        show(result)
    if options.out:
        options.out.write_text(
            json.dumps({"machine": machine(), "results": results}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
