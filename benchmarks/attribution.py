"""Measure attribution: every GPU event's full region path, against a plain Python stack, side by side in one run.

    python benchmarks/attribution.py TRACE.json.gz --events 1000000 10000000 --out attribution.json

The trace's columns are repeated in memory, ids and times shifted, until they hold that many events; with
--attributed-only only what attribution reads is kept first (regions, launches, GPU events, operators with a sequence
number), so that as many events weigh more. The stack sorts the regions, launches and backward operators of each
thread and walks them once; it gets its lists for free, and must give every GPU event the same paths.
Samples are taken in turn; the ratio is of medians.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).absolute().parents[1]))  # a checkout works without being installed

from profiler_kit.attribute.autograd_threads import EVALUATE
from profiler_kit.attribute.regions import NO_REGION, UNLINKED, attribute
from profiler_kit.files import write_json
from profiler_kit.load.integers import MISSING
from profiler_kit.load.trace.categories import REGION, is_gpu_work, is_launch
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.trace import load_trace

LIMITS_S = {1_000_000: 0.3, 10_000_000: 5.0}
Step = tuple[int, int, int, int, int, str]  # thread, start, -end, kind, correlation or sequence number, name
Path_ = tuple[str, ...]


def repeated(columns: EventColumns, events: int) -> EventColumns:
    """The columns, again and again on later times and higher ids, until there are that many events."""
    times = max(1, -(-events // len(columns)))
    span = int((columns.start_ns + columns.dur_ns).max() - columns.start_ns.min()) + 1_000_000

    def shifted(values: np.ndarray, step: int) -> np.ndarray:
        copies = np.tile(values, times)
        copies += np.where(copies == MISSING, 0, np.repeat(np.arange(times, dtype=np.int64) * step, len(values)))
        return copies[:events]

    def again(values: np.ndarray) -> np.ndarray:
        return np.tile(values, times)[:events]

    def flows(rows: np.ndarray) -> np.ndarray:
        copies = np.tile(rows, (times, 1))
        turn = np.repeat(np.arange(times, dtype=np.int64), len(rows))
        copies[:, 0] += turn * (int(rows[:, 0].max()) + 1 if len(rows) else 0)
        copies[:, 2] += turn * span
        return copies

    integers = {}
    for name, values in columns.integers.items():
        counted = name in {"correlation", "external_id", "sequence_number"}
        integers[name] = shifted(values, int(values.max()) + 1 if counted else 0)
    return replace(
        columns,
        name=again(columns.name),
        category=again(columns.category),
        thread=again(columns.thread),
        start_ns=shifted(columns.start_ns, span),
        dur_ns=again(columns.dur_ns),
        integers=integers,
        forward_flows=flows(columns.forward_flows),
        backward_flows=flows(columns.backward_flows),
    )


def what_attribution_reads(columns: EventColumns) -> EventColumns:
    """Only regions, launches, GPU events and operators with a sequence number."""
    kept = columns.of_category(lambda c: c == REGION or is_launch(c) or is_gpu_work(c))
    kept |= columns.integers["sequence_number"] != MISSING
    return replace(
        columns,
        name=columns.name[kept],
        category=columns.category[kept],
        thread=columns.thread[kept],
        start_ns=columns.start_ns[kept],
        dur_ns=columns.dur_ns[kept],
        integers={name: values[kept] for name, values in columns.integers.items()},
    )


@dataclass(frozen=True)
class StackInput:
    """What the stack walks, as plain lists."""

    walk: list[Step]
    kernels: list[int]  # correlation of each GPU event, by start
    begins: dict[int, int]  # flow -> forward thread
    ends: dict[tuple[int, int], int]  # (backward thread, start) -> flow
    forward: dict[tuple[int, int], int]  # (thread, sequence number) -> last start


def stack_input(columns: EventColumns) -> StackInput:
    """Regions, launches, backward operators and the forward operators they point at."""
    region, launch = columns.of_category(lambda c: c == REGION), columns.of_category(is_launch)
    sequence, tag = columns.integers["sequence_number"], columns.integers["forward_thread"]
    evaluates = np.array([name.startswith(EVALUATE) for name in columns.names])[columns.name]
    backward = np.zeros(len(columns.threads), dtype=bool)
    backward[columns.thread[evaluates]] = True
    operator = backward[columns.thread] & (evaluates | (tag > 0))
    rows = np.flatnonzero(region | launch | operator)
    step_name = ["ProfilerStep" if name.startswith("ProfilerStep#") else name for name in columns.names]
    kind = np.where(region, 0, np.where(operator, 1, 2))[rows]
    number = np.where(operator, sequence, columns.integers["correlation"])[rows]
    code = zip(columns.name[rows].tolist(), kind.tolist(), strict=True)
    walk = zip(
        columns.thread[rows].tolist(),
        columns.start_ns[rows].tolist(),
        (-columns.start_ns[rows] - columns.dur_ns[rows]).tolist(),
        kind.tolist(),
        number.tolist(),
        [step_name[name] if kind == 0 else "" for name, kind in code],
        strict=True,
    )
    forward = np.flatnonzero((sequence >= 0) & ~(tag > 0) & ~operator)
    forward = forward[np.argsort(columns.start_ns[forward], kind="stable")]
    keys = zip(columns.thread[forward].tolist(), sequence[forward].tolist(), strict=True)
    gpu = np.flatnonzero(columns.of_category(is_gpu_work))
    gpu = gpu[np.argsort(columns.start_ns[gpu], kind="stable")]
    return StackInput(
        list(walk),
        columns.integers["correlation"][gpu].tolist(),
        {flow: thread for flow, thread, _ in columns.forward_flows.tolist()},
        {(thread, start): flow for flow, thread, start in columns.backward_flows.tolist()},
        dict(zip(keys, columns.start_ns[forward].tolist(), strict=True)),
    )


def python_stack(given: StackInput) -> tuple[list[Path_], list[Path_]]:
    """Path and forward path of each GPU event: a walk over a stack for each thread, backward threads last."""
    changes: dict[int, tuple[list[int], list[Path_]]] = {}  # by thread: when the path changes, and to what

    def open_at(thread: int, time: int) -> Path_:
        times, paths = changes.get(thread, ((), ()))
        at = bisect_right(times, time) - 1
        return paths[at] if at >= 0 else ()

    path_of: dict[int, Path_] = {}
    forward_of: dict[int, Path_] = {}
    backward = {thread for thread, _ in given.ends}
    by_thread: dict[int, list[Step]] = {}
    for step in sorted(given.walk):
        by_thread.setdefault(step[0], []).append(step)
    for thread in sorted(by_thread, key=lambda thread: thread in backward):
        times, paths = changes.setdefault(thread, ([], []))
        regions: list[tuple[int, Path_]] = []
        operators: list[tuple[int, int, int]] = []  # end, forward thread, forward start
        caller = -1
        for _, start, minus_end, kind, number, name in by_thread[thread]:
            while regions and regions[-1][0] <= start:
                times.append(regions.pop()[0])
                paths.append(regions[-1][1] if regions else ())
            if kind == 1:
                flow = given.ends.get((thread, start))
                caller = given.begins.get(flow, caller) if flow is not None else caller
                operators = [open_ for open_ in operators if open_[0] > start]
                operators.append((-minus_end, caller, given.forward.get((caller, number), -1)))
                continue
            path = regions[-1][1] if regions else open_at(caller, start) if caller >= 0 else ()
            if kind == 0:
                regions.append((-minus_end, (*path, name)))
                times.append(start)
                paths.append(regions[-1][1])
            else:
                path_of[number] = path or NO_REGION
                operators = [open_ for open_ in operators if open_[0] > start]
                if operators and operators[-1][2] >= 0:
                    forward_of[number] = open_at(operators[-1][1], operators[-1][2]) or NO_REGION
    found = [path_of.get(correlation, UNLINKED) for correlation in given.kernels]
    return found, [forward_of.get(correlation, ()) for correlation in given.kernels]


def equal(columns: EventColumns, walked: tuple[list[Path_], list[Path_]]) -> bool:
    """Whether the stack gave every GPU event the paths that attribute gives it."""
    found = attribute(columns)
    ours = [found.paths[code] for code in found.path.tolist()]
    forward = [found.paths[code] for code in found.forward_path.tolist()]
    return (ours, forward) == walked


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def spread(samples: Sequence[float]) -> dict[str, object]:
    """Median, fastest, slowest, and all samples, in seconds."""
    kept = [round(sample, 4) for sample in samples]
    return {"median_s": round(statistics.median(samples), 4), "min_s": min(kept), "max_s": max(kept), "samples_s": kept}


def measure(columns: EventColumns, repeats: int) -> dict[str, object]:
    """Both ways in turn."""
    given = stack_input(columns)
    ours: list[float] = []
    stack: list[float] = []
    for _ in range(repeats):
        ours.append(seconds(lambda: attribute(columns)))
        stack.append(seconds(lambda: python_stack(given)))
    found = attribute(columns)
    return {
        "events": len(columns),
        "gpu_events": len(found.event),
        "regions": len(found.instances.event),
        "paths": len(found.paths),
        "equal": equal(columns, python_stack(given)),
        "attribute": spread(ours),
        "python_stack": spread(stack),
        "ratio": round(statistics.median(stack) / statistics.median(ours), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--attributed-only", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    columns = load_trace(chosen.trace).columns
    if chosen.attributed_only:
        columns = what_attribution_reads(columns)
    rows = []
    for events in chosen.events:
        row = measure(repeated(columns, events), chosen.repeats)
        row["limit_s"] = LIMITS_S.get(events)
        rows.append(row)
        print(
            f"{row['events']:>10,} events, {row['gpu_events']:>9,} on the GPU: "
            f"{row['attribute']['median_s']} s, Python stack {row['python_stack']['median_s']} s, "
            f"ratio {row['ratio']}, {'the same paths' if row['equal'] else 'OTHER PATHS'}"
        )
    if chosen.out:
        machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__}
        how = {"trace": chosen.trace.name, "attributed_only": chosen.attributed_only, "repeats": chosen.repeats}
        result = {**how, "machine": machine, "results": rows}
        write_json(chosen.out, result)


if __name__ == "__main__":
    main()
