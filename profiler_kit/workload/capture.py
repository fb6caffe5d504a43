"""Capture one run of a workload into a run folder: timings, trace, memory snapshot, layers."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch

from profiler_kit.capture.device import choose_device, free_memory, is_out_of_memory, synchronize
from profiler_kit.capture.layer_sweep import SweepPlan, parse_batch_sizes, sweep_layers
from profiler_kit.capture.memory import memory_runner
from profiler_kit.capture.phases import Phases, drive, numerics
from profiler_kit.capture.run_folder import whole_folder
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.formats.layer_file import LayerFile, write_layers
from profiler_kit.formats.run_record import GRAPH_TRACE, LAYERS, MEMORY, MEMORY_TRACE, TRACE
from profiler_kit.progress import Report, Ticks, silent
from profiler_kit.workload.optimizations import (
    Optimization,
    graphs_recorded,
    layer_optimizations,
    optimized,
    parse_optimizations,
    without_graphs,
)
from profiler_kit.workload.protocol import LARGEST_SEED, Bench, Workload, make_model

RUNS: Final = Path("traces")  # where a run goes unless --out says otherwise: what `profiler-kit serve` shows


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """What to record of a workload; the options of `profiler-kit capture` that are not the model's own.

    device: cpu, cuda or cuda:N, a GPU when there is one if None. warmup, iterations: 3 and 10 on a GPU, 1 and 3 on a
    CPU if None. optimizations, layers: as typed ("bf16,compile", "1,2,4,8"). out: the run folder to make, a name of
    its own under RUNS if None.
    """

    batch_size: int = 1
    device: str | None = None
    optimizations: str = ""
    warmup: int | None = None
    iterations: int | None = None
    trace_batches: int = 2
    layers: str = ""
    record_shapes: bool = False
    with_stack: bool = False
    out: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class CapturePlan:
    """The options, checked and filled in."""

    workload: Workload
    options: CaptureOptions
    device: torch.device
    optimizations: tuple[Optimization, ...]
    warmup: int
    iterations: int
    sweep: SweepPlan | None
    out: Path

    @property
    def compiles(self) -> bool:
        return any(optimization.compiles for optimization in self.optimizations)

    @property
    def ticks(self) -> int:
        """Units of work for the progress bar: forwards, and one each for loading and compiling."""
        forwards = self.warmup + self.iterations + self.options.trace_batches + 1
        return 2 + forwards + (self.sweep.forwards if self.sweep else 0)


def require_count(option: str, value: int | None, least: int, most: int | None = None) -> None:
    """Raise OptionError for a number outside of what an option takes; None is not given."""
    if value is not None and (value < least or (most is not None and value > most)):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise OptionError(f"{option} {value}: expected {limit}.")


def timing_of(
    device: torch.device, warmup: int | None, iterations: int | None, usual: tuple[int, int]
) -> tuple[int, int]:
    """Warm-up and timed iterations, as chosen or as usual; usual: how many iterations on a GPU and on a CPU.

    Raises OptionError.
    """
    require_count("--warmup", warmup, 0)
    require_count("--iterations", iterations, 1)
    on_gpu = device.type == "cuda"
    return (
        warmup if warmup is not None else (3 if on_gpu else 1),
        iterations if iterations is not None else usual[0 if on_gpu else 1],
    )


def make_plan(workload: Workload, options: CaptureOptions) -> CapturePlan:
    """Check every option but `out` before anything is loaded; raises OptionError, InputError or WorkloadError."""
    require_count("--trace-batches", options.trace_batches, 1)
    require_count("--seed", workload.seed, 0, LARGEST_SEED)
    workload.check(options.batch_size)
    optimizations = parse_optimizations(options.optimizations, workload.optimizations)
    sizes = parse_batch_sizes(options.layers, option="--layers") if options.layers.strip() else ()
    device = choose_device(options.device)
    warmup, iterations = timing_of(device, options.warmup, options.iterations, (10, 3))
    out = options.out or RUNS / run_name(workload.name, optimizations, device)
    sweep = SweepPlan(sizes, warmup, iterations) if sizes else None
    return CapturePlan(workload, options, device, optimizations, warmup, iterations, sweep, out)


def run_name(model: str, optimizations: Sequence[Optimization], device: torch.device) -> str:
    """A folder name that says what ran and when: vit_b-bf16-compile-cuda-20260131-120501 (UTC)."""
    now = datetime.datetime.now(datetime.UTC)
    names = [optimization.name for optimization in optimizations] or ["eager"]
    return "-".join([model, *names, device.type, f"{now:%Y%m%d-%H%M%S}"])


def capture_run(workload: Workload, options: CaptureOptions, *, report: Report = silent) -> Path:
    """Run the workload as the options say and return the run folder that was made.

    In this order: load, first call when something is compiled, warm-up, timed iterations (nothing is recorded
    while they run), then the trace, the memory snapshot of one batch (on a GPU with a trace of that batch beside it),
    and the layer sweep. The folder appears whole at the end; when anything fails nothing is left under its name.

    Raises OptionError for options that cannot be used, CheckpointError and InputError for files, WorkloadError
    when the machine cannot run it. When a GPU runs out of memory, one batch is run again under the memory
    recorder, and the error names the snapshot that is left beside the folder.
    """
    plan = make_plan(workload, options)
    with whole_folder(plan.out, overwrite=options.overwrite) as folder:
        try:
            _capture(plan, folder, Ticks(report, plan.ticks))
            return plan.out
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # out of the except block: the exception's frames held the tensors that filled the memory
        raise WorkloadError(_out_of_memory(plan))


def measure_layers(plan: CapturePlan, *, report: Report = silent) -> LayerFile:
    """Time the layers of a freshly loaded model at the batch sizes of `plan.sweep`, without compile.

    Raises as `capture_run`; a batch size that does not fit ends the sweep, see `sweep_layers`.
    """
    assert plan.sweep is not None
    kept, notes = layer_optimizations(plan.optimizations)
    with optimized(make_model(plan.workload, plan.device), kept, plan.device) as model:
        bench = Bench(plan.workload, model, plan.device, 1)
        said = numerics(bench.dtype, plan.device)
        select, label = plan.workload.layers(bench.program)
        layers = sweep_layers(
            bench.program, bench.run, bench.of_size, plan.device, plan.sweep, select=select, label=label, report=report
        )
    return replace(layers, notes=(*notes, *said, *layers.notes))


def _capture(plan: CapturePlan, folder: Path, ticks: Ticks) -> None:
    workload, options = plan.workload, plan.options
    phases = Phases(plan.device, ticks)
    dtype, notes = _run(plan, folder, phases)
    free_memory(plan.device)  # the layers start from an empty device
    if plan.sweep is not None:
        done = ticks.done
        layers = measure_layers(plan, report=lambda count, _, note="": ticks.show(done + count, note))
        write_layers(folder / LAYERS, layers)
        notes += [note for note in layers.notes if note not in notes]
    phases.record(
        plan.out.name,
        model=workload.name,
        weights=workload.weights,
        optimizations=[optimization.name for optimization in plan.optimizations],
        batch_size=options.batch_size,
        image_size=workload.image_size,
        dtype=dtype,
        workload=workload.facts(),
        notes=notes,
    ).write(folder)


def _run(plan: CapturePlan, folder: Path, phases: Phases) -> tuple[str, list[str]]:
    """Everything but the layers; returns the dtype and notes. Nothing holds the model afterwards."""
    workload, options, device = plan.workload, plan.options, plan.device
    with phases.phase("load", f"load {workload.name}"):
        model = make_model(workload, device)
        synchronize(device)
    phases.ticks.tick()
    with optimized(model, plan.optimizations, device) as model:
        bench = Bench(workload, model, device, options.batch_size)
        notes = numerics(bench.dtype, device)
        if plan.compiles:
            with _compiler_errors(plan):
                drive(phases.first(bench.item, compiles=True), bench.run)
        phases.ticks.tick()
        drive(phases.warm_up(bench.item, plan.warmup), bench.run)
        drive(phases.timed(bench.item, plan.iterations), bench.run)
        shapes, stacks, count = options.record_shapes, options.with_stack, options.trace_batches
        drive(phases.traced(bench.item, folder / TRACE, count, record_shapes=shapes, with_stack=stacks), bench.run)
        record_unrolled(phases, bench, folder)
        output = drive(phases.remembered(bench.item, folder / MEMORY, folder / MEMORY_TRACE), bench.run)
        if device.type == "cpu" and torch.cuda.is_available():
            notes.append("memory: the snapshot is of the GPU's allocator, which this run on the CPU did not use")
        notes += workload.finish(bench.batches[0], output, folder)
    return bench.dtype, notes


def record_unrolled(phases: Phases, bench: Bench, folder: Path) -> None:
    """Where CUDA graphs are replayed, also trace a batch with the same kernels launched one by one.

    The graphs hold their memory meanwhile: where there is no room for another batch beside them, there is no trace.
    """
    if not graphs_recorded():
        return
    try:
        with without_graphs():
            drive(phases.unrolled(bench.item, folder / GRAPH_TRACE), bench.run)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        (folder / GRAPH_TRACE).unlink(missing_ok=True)


@contextlib.contextmanager
def _compiler_errors(plan: CapturePlan) -> Iterator[None]:
    """Turn a compiler that is missing or fails into one line."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WorkloadError(
            f"--optimizations {plan.options.optimizations}: torch.compile failed on {plan.device} ({reason}). "
            "Install a C++ compiler, or leave compile out."
        ) from error


def _out_of_memory(plan: CapturePlan) -> str:
    """The message for a run that did not fit; on a GPU after recording how the memory filled up."""
    size, workload = plan.options.batch_size, plan.workload
    message = (
        f"--batch-size {size}: {workload.name} ran out of memory on {plan.device}, expected a run that fits. "
        f"Try {'a smaller --batch-size, ' if size > 1 else ''}{workload.smaller} or --optimizations bf16."
    )
    free_memory(plan.device)
    if plan.device.type != "cuda":
        return message
    path = plan.out.with_name(f"{plan.out.name}.oom.pickle")
    try:
        model = make_model(workload, plan.device)
        kept, _ = layer_optimizations(plan.optimizations)
        with optimized(model, kept, plan.device) as model, memory_runner(path, rank="none"):
            bench = Bench(workload, model, plan.device, size)
            bench.run(bench.item(0))
            synchronize(plan.device)
    except RuntimeError as error:  # what was expected: the snapshot of the moment is saved by the runner
        if not is_out_of_memory(error):
            return message
    return f"{message} How the memory filled up is recorded in {path}." if path.is_file() else message
