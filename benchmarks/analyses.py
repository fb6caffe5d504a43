"""Time every analysis of a loaded trace: the frames that all share, then each analysis by itself.

    python benchmarks/analyses.py TRACE [TRACE ...] --repeats 5 --out benchmarks/results/analyses.json

Each repeat loads the trace anew in this process, so that nothing is kept from the one before.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).absolute().parents[1]))  # a checkout works without being installed

from profiler_kit.analyses.gpu.collectives import ARGUMENTS as COLLECTIVES
from profiler_kit.analyses.gpu.roofline import ARGUMENTS as ROOFLINE
from profiler_kit.files import write_json
from profiler_kit.trace import Trace, load_trace

ARGUMENTS = (*ROOFLINE, *COLLECTIVES)
SHARED: dict[str, Callable[[Trace], Any]] = {
    "gpu_events": lambda trace: trace.gpu_events(),
    "kernel_details": lambda trace: trace.kernel_details(),
    "operators": lambda trace: trace.operators(),
    "launch_calls": lambda trace: trace.launch_calls(),
    "region_instances": lambda trace: trace.region_instances(),
}
ANALYSES: dict[str, Callable[[Trace], Any]] = {
    "categories": lambda trace: trace.categories(),
    "roofline": lambda trace: trace.roofline(),
    "roofline by region": lambda trace: trace.roofline_totals("region"),
    "short-kernels": lambda trace: trace.short_kernels(),
    "collectives": lambda trace: trace.collectives(),
    "steps": lambda trace: trace.steps(),
    "graphs": lambda trace: trace.replayed_graphs(),
    "tree": lambda trace: trace.call_tree(),
    "tree --by python": lambda trace: trace.python_tree(),
    "critical-path": lambda trace: trace.critical_path(),
    "whatif": lambda trace: trace.what_if(),
    "regions": lambda trace: trace.regions(),
    "kernels": lambda trace: trace.kernels(),
    "utilization": lambda trace: trace.utilization(),
    "idle": lambda trace: trace.idle(),
    "operators table": lambda trace: trace.operator_work(),
    "launches": lambda trace: trace.launches(),
    "sequences": lambda trace: trace.kernel_sequences(),
    "copies": lambda trace: trace.copy_totals(),
    "overlap": lambda trace: trace.communication_overlap(),
}


def measure(path: Path, repeats: int) -> dict[str, Any]:
    """Seconds of each step, and of the processor, one sample a repeat."""
    samples: dict[str, list[float]] = {name: [] for name in (*SHARED, *ANALYSES)}
    busy: dict[str, list[float]] = {name: [] for name in samples}
    events = 0
    for _ in range(repeats):
        trace = load_trace(path, arguments=ARGUMENTS)
        events = len(trace.columns)
        gc.collect()
        for name, ask in (*SHARED.items(), *ANALYSES.items()):
            since, busy_since = time.perf_counter(), time.process_time()
            ask(trace)
            samples[name].append(time.perf_counter() - since)
            busy[name].append(time.process_time() - busy_since)
    return {"trace": path.name, "events": events, "seconds": samples, "cpu_seconds": busy}


def main() -> None:
    """Measure each trace, print a table, write the record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", nargs="+", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = [measure(path, given.repeats) for path in given.traces]
    for one in found:
        print(f"{one['trace']}: {one['events']:,} events")
        for name, seconds in one["seconds"].items():
            low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
            cpu = statistics.median(one["cpu_seconds"][name])
            print(f"  {name:20} {middle:7.3f} s ({low:.3f} to {high:.3f}), CPU {cpu:.3f} s")
    if given.out is not None:
        git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        environment = {
            "command": " ".join(
                [
                    "python benchmarks/analyses.py",
                    *(Path(word).name if Path(word).is_file() else word for word in sys.argv[1:]),
                ]
            ),
            "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip(),
            "versions": {"python": platform.python_version(), "numpy": np.__version__, "pandas": pd.__version__},
            "cpu": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg(),
        }
        write_json(given.out, {"environment": environment, "repeats": given.repeats, "traces": found})


if __name__ == "__main__":
    main()
