"""One row of the ladder in its own process: `python -m profiler_kit.workload.row PLAN.json`.

The process says on stdout what it is doing (`stage: ...`), and ends with 0 whenever row.json was written: a row that
fails is a result.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from profiler_kit.capture.device import free_memory, is_out_of_memory, synchronize
from profiler_kit.capture.phases import Phases, drive
from profiler_kit.errors import KitError
from profiler_kit.formats.checked import read_as
from profiler_kit.formats.ladder_record import HINT, ROW, SHARED, RowResult, is_compiled, write_record
from profiler_kit.formats.run_record import MEMORY, TRACE
from profiler_kit.workload.capture import record_unrolled
from profiler_kit.workload.ceilings import count_work
from profiler_kit.workload.optimizations import optimized, parse_optimizations, unmet
from profiler_kit.workload.protocol import Bench, Workload, load_workload, make_model

_TRACED: Final = 2


@dataclass(frozen=True)
class RowPlan:
    """What to run. workload, options: as `load_workload` takes them. optimizations: as typed. folder: for row.json and
    the rest.

    is_baseline: also count the work of the model. first_call_only: load, run once and stop; with the compiler's caches
    of an earlier process that is a warm compile. timed_only: stop after the timed batches: the baseline once more.
    """

    technique: str
    optimizations: str
    workload: str
    device: str
    batch_size: int
    warmup: int
    iterations: int
    folder: str
    options: Mapping[str, Any] = field(default_factory=dict)
    traces: bool = False
    is_baseline: bool = False
    first_call_only: bool = False
    timed_only: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The optimizations, one by one."""
        return tuple(name.strip() for name in self.optimizations.split(",") if name.strip())


def run_row(plan: RowPlan) -> RowResult:
    """Measure the row; whatever goes wrong becomes its status and one line of error."""
    since = time.monotonic()
    failed = RowResult(plan.technique, plan.names, "failed", batch_size=plan.batch_size)
    device = torch.device(plan.device)
    try:
        row = _measure(plan, device)
    except KitError as error:
        if error.__cause__ is not None:  # of the user's own code, say
            traceback.print_exc()
        row = replace(failed, error=str(error))
    except Exception as error:  # any failure of a rewrite or a compiler is this row's result, the others go on
        if is_out_of_memory(error):
            row = replace(failed, status="oom")
        else:
            traceback.print_exc()
            row = replace(failed, error=one_line(error))
    if row.status == "oom":  # out of the except block: the exception's frames held the tensors
        row = _after_out_of_memory(plan, device, row)
    return replace(row, wall_s=time.monotonic() - since)


def one_line(error: BaseException) -> str:
    """An exception's class and the first line of what it says."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}"[:500] if said else type(error).__name__


def stage(what: str) -> None:
    """Say what is being done now; the parent shows it."""
    print(f"stage: {what}", flush=True)


def _load(plan: RowPlan) -> Workload:
    workload = load_workload(plan.workload, plan.options)
    workload.scratch = _ladder(plan) / SHARED
    return workload


def _measure(plan: RowPlan, device: torch.device) -> RowResult:
    stage("load")
    workload = _load(plan)
    chosen = parse_optimizations(plan.optimizations, workload.optimizations)
    for optimization in chosen:
        lacking = unmet(optimization, device)
        if lacking is not None:
            error = f"{optimization.name} {lacking}."
            return RowResult(plan.technique, plan.names, "skipped", error, batch_size=plan.batch_size)
    phases = Phases(device)
    with phases.phase("load"):
        model = make_model(workload, device)
        synchronize(device)
    with optimized(model, chosen, device) as model:
        bench = Bench(workload, model, device, plan.batch_size)
        compiled = is_compiled(plan.names)
        stage("compile" if compiled else "first call")
        drive(phases.first(bench.item, compiles=compiled), bench.run)
        row = RowResult(
            plan.technique,
            plan.names,
            "ok",
            dtype=bench.dtype,
            weights=workload.weights,
            batch_size=plan.batch_size,
            image_size=workload.image_size,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            first_ns=phases.first_ns,
            phases_ns=dict(phases.phases_ns),
        )
        if plan.first_call_only:
            return row
        row = _steady(plan, bench, phases, row)
        if plan.timed_only:
            return row
        stage(workload.compares)
        row = workload.answer(bench, row, Path(plan.folder))
        if plan.is_baseline:
            row = replace(row, work=count_work(lambda: bench.run(bench.item(0))))
        return _record(plan, bench, phases, row) if plan.traces else row


def _steady(plan: RowPlan, bench: Bench, phases: Phases, row: RowResult) -> RowResult:
    """Warm-up and timed batches: one at a time, the device idle before each."""
    stage("warm up")
    if plan.warmup:  # which fills the allocator again: what compiling left behind is no part of the peak
        free_memory(bench.device)
    drive(phases.warm_up(bench.item, plan.warmup), bench.run)
    stage("time")
    _reset_peak(bench.device)
    drive(phases.timed(bench.item, plan.iterations), bench.run)
    peak, total = _peak(bench.device)
    return replace(
        row,
        latency_ns=tuple(phases.latency_ns),
        phases_ns=dict(phases.phases_ns),
        peak_memory_bytes=peak,
        peak_reserved_bytes=phases.peak_reserved_bytes,
        total_memory_bytes=total,
    )


def _record(plan: RowPlan, bench: Bench, phases: Phases, row: RowResult) -> RowResult:
    """A trace of a few batches and a memory snapshot of one, in a run folder that the dashboard lists."""
    stage("trace and memory snapshot")
    folder, workload = Path(plan.folder), bench.workload
    drive(phases.traced(bench.item, folder / TRACE, _TRACED), bench.run)
    record_unrolled(phases, bench, folder)
    drive(phases.remembered(bench.item, folder / MEMORY), bench.run)
    record = phases.record(
        plan.technique,
        model=workload.name,
        weights=row.weights,
        optimizations=row.optimizations,
        batch_size=row.batch_size,
        image_size=row.image_size,
        dtype=row.dtype,
        workload=workload.facts(),
        notes=("recorded by profiler-kit ladder: a row of its own process",),
    )
    replace(record, command="").write(folder)
    return replace(row, traces=folder.relative_to(_ladder(plan)).as_posix())


def _after_out_of_memory(plan: RowPlan, device: torch.device, row: RowResult) -> RowResult:
    """Halve the batch until one fits, and say so."""
    workload, size, fitted = _load(plan), plan.batch_size, None
    while size > 1 and fitted is None:
        size //= 2
        stage(f"out of memory, trying batch size {size}")
        free_memory(device)
        if _fits(plan, device, size):
            fitted = size
    how = ", ".join(plan.names) or "as published"
    error = f"--batch-size {plan.batch_size}: {workload.name} ({how}) ran out of memory on {device}"
    if fitted is not None:
        error += f", a batch of {fitted} fitted (found by halving). Try --batch-size {fitted}."
    else:
        error += f"{', and so did a batch of 1' if plan.batch_size > 1 else ''}. Try {workload.smaller}."
    return replace(row, error=error, fitted_batch_size=fitted)


def _fits(plan: RowPlan, device: torch.device, size: int) -> bool:
    workload = _load(plan)  # a new one: an old one may hold on to its model
    chosen = parse_optimizations(plan.optimizations, workload.optimizations)
    try:
        with optimized(make_model(workload, device), chosen, device) as model:
            bench = Bench(workload, model, device, size)
            bench.run(bench.item(0))
            synchronize(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":  # `Phases.timed` does
        return
    with contextlib.suppress(OSError):  # Linux, proc(5): 5 resets the peak resident set
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak(device: torch.device) -> tuple[int | None, int | None]:
    """Peak and total bytes: of torch's allocator and the GPU, or of this process's resident set and the machine."""
    if device.type == "cuda":
        _, total = torch.cuda.mem_get_info(device)
        return torch.cuda.max_memory_allocated(device), int(total)
    try:
        peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        total_kib = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    except OSError:
        return None, None
    return (int(peak[1]) << 10 if peak else None), (int(total_kib[1]) << 10 if total_kib else None)


def _ladder(plan: RowPlan) -> Path:
    """The folder of the ladder that the row is of."""
    return Path(plan.folder).parent.parent


def main() -> None:
    """Read the plan, run the row, write row.json."""
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        threading.Thread(target=_end_with_the_ladder, daemon=True).start()
    plan = read_as(Path(sys.argv[1]), RowPlan, "the plan of a row", HINT)
    write_record(Path(plan.folder) / ROW, run_row(plan))


def _end_with_the_ladder() -> None:
    """End this process and what it started when the ladder is gone, whose end of our input then closes."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
