"""Capture one run of SAM: timings, trace, memory snapshot, layers, masks (options in, a run folder out)."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import torch

from profiler_kit.capture.environment import describe_environment
from profiler_kit.capture.memory import memory_runner
from profiler_kit.capture.run_folder import whole_folder
from profiler_kit.capture.runners import profiler_runner
from profiler_kit.errors import WorkloadError
from profiler_kit.formats.layer_file import LayerFile, write_layers
from profiler_kit.formats.run_record import LAYERS, MASKS, MEMORY, MEMORY_TRACE, TRACE, RunRecord
from profiler_kit.models.sam.layers import free_memory, is_out_of_memory, sweep_layers, synchronize
from profiler_kit.models.sam.masks import write_masks
from profiler_kit.models.sam.models import LoadedModel, load_model, shipped_checkpoint
from profiler_kit.models.sam.optimizations import encoder_dtype, layer_optimizations, optimized
from profiler_kit.models.sam.prompts import PromptChoice
from profiler_kit.models.sam.scenes import Scene, load_images
from profiler_kit.models.sam.workload import Batch, Prediction, SamWorkload, no_garbage_collection, prepare_batch
from profiler_kit.progress import Report, silent
from profiler_kit.workload.capture_plan import DISTINCT_BATCHES, CaptureOptions, CapturePlan, gather_scenes, make_plan


def capture_run(options: CaptureOptions, *, report: Report = silent) -> Path:
    """Run the workload as the options say and return the run folder that was made.

    In this order: load, first call when something is compiled, warm-up, timed iterations (nothing is recorded
    while they run), then the trace, the memory snapshot of one batch (on a GPU with a trace of that batch beside it),
    and the layer sweep. The folder appears whole at the end; when anything fails nothing is left under its name.

    Raises OptionError for options that cannot be used, CheckpointError and InputError for files, WorkloadError
    when the machine cannot run it. When a GPU runs out of memory, one batch is run again under the memory
    recorder, and the error names the snapshot that is left beside the folder.
    """
    plan = make_plan(options)
    if options.images is not None:
        load_images(options.images, limit=1)  # before a folder is made and a model loaded
    with whole_folder(plan.out, overwrite=options.overwrite) as folder:
        try:
            _capture(plan, folder, _Ticks(report, plan.ticks))
            return plan.out
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        # out of the except block: the exception's frames held the tensors that filled the memory
        raise WorkloadError(_out_of_memory(plan))


def measure_layers(plan: CapturePlan, *, report: Report = silent) -> LayerFile:
    """Time the layers of a freshly loaded model at the batch sizes of `plan.sweep`, without compile.

    Every batch repeats the first image: what differs between batch sizes is then their size alone, not the number
    of prompts. Raises as `capture_run`; a batch size that does not fit ends the sweep, see `sweep_layers`.
    """
    assert plan.sweep is not None
    loaded = _load(plan)
    kept, notes = layer_optimizations(plan.optimizations)
    scenes = gather_scenes(replace(plan.options, batch_size=1, scenes=None), int(loaded.model.image_encoder.img_size))
    with optimized(loaded.model, kept, plan.device) as sam:
        numerics = _numerics(encoder_dtype(sam), plan.device)
        layers = sweep_layers(sam, scenes[:1], plan.prompts, plan.device, plan.sweep, report=report)
    return replace(layers, notes=(*notes, *numerics, *layers.notes))


def _capture(plan: CapturePlan, folder: Path, ticks: _Ticks) -> None:
    options, device = plan.options, plan.device
    phases = dict.fromkeys(("load", "compile_cold", "warmup", "steady"), 0)
    notes: list[str] = []
    ticks.begin(f"load {options.model}")
    with _phase(phases, "load"):
        loaded = _load(plan)
    ticks.tick()
    image_size = int(loaded.model.image_encoder.img_size)
    scenes = gather_scenes(options, image_size)
    if any(plan.prompts.falls_back(scene) for scene in scenes):
        side = plan.prompts.grid
        notes.append(f"prompts: no object masks are known for the images, a grid of {side} x {side} points instead")
    with optimized(loaded.model, plan.optimizations, device) as sam:
        dtype = encoder_dtype(sam)
        notes += _numerics(dtype, device)
        workload = SamWorkload(sam, _batches(loaded, scenes, plan), device)
        latency_ns, peak = _time(workload, plan, phases, ticks)
        _record_trace(workload, plan, folder / TRACE, ticks)
        predictions = _record_memory(workload, folder, ticks)
        if device.type == "cpu" and torch.cuda.is_available():
            notes.append("memory: the snapshot is of the GPU's allocator, which this run on the CPU did not use")
    weights = loaded.weights
    notes += _save_masks(folder / MASKS, workload.batches[0], predictions, plan.prompts, weights)
    del loaded, sam, workload, predictions  # the layers start from an empty device
    free_memory(device)
    if plan.sweep is not None:
        done = ticks.done
        layers = measure_layers(plan, report=lambda count, _, note="": ticks.show(done + count, note))
        write_layers(folder / LAYERS, layers)
        notes += [note for note in layers.notes if note not in notes]
    environment = describe_environment(device)
    RunRecord(
        name=plan.out.name,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=options.model,
        weights=weights,
        optimizations=tuple(optimization.name for optimization in plan.optimizations),
        batch_size=options.batch_size,
        image_size=image_size,
        dtype=str(dtype).removeprefix("torch."),
        device=environment.device,
        device_name=environment.device_name,
        versions=environment.versions,
        warmup_iterations=plan.warmup,
        timed_iterations=plan.iterations,
        phases_ns=phases,
        latency_ns=latency_ns,
        peak_memory_bytes=peak,
        command=environment.command,
        git_commit=environment.git_commit,
        images=f"generated:{options.seed}" if options.images is None else options.images.as_posix(),
        prompts=str(plan.prompts),
        notes=tuple(notes),
    ).write(folder)


def _load(plan: CapturePlan) -> LoadedModel:
    options = plan.options
    seed = None if shipped_checkpoint(options.model) else options.seed  # which is then that of the scenes alone
    return load_model(options.model, checkpoint=options.checkpoint, seed=seed, device=plan.device)


def _batches(loaded: LoadedModel, scenes: Sequence[Scene], plan: CapturePlan) -> list[Batch]:
    """The scenes in batches, the first ones again to fill the last batch; at most DISTINCT_BATCHES."""
    size = plan.options.batch_size
    count = min(-(-len(scenes) // size), DISTINCT_BATCHES)
    endless = cycle(scenes)
    pin = plan.device.type == "cuda"
    return [prepare_batch(loaded.model, list(islice(endless, size)), plan.prompts, pin=pin) for _ in range(count)]


def _time(
    workload: SamWorkload, plan: CapturePlan, phases: dict[str, int], ticks: _Ticks
) -> tuple[tuple[int, ...], int | None]:
    """The first call, the warm-up and the timed iterations: latency of each, and the peak memory of the last."""
    device = plan.device
    if plan.compiled:
        ticks.begin("compile")
        with _phase(phases, "compile_cold"), _compiler_errors(plan):
            workload.step(0)
            synchronize(device)
    ticks.tick()
    ticks.begin("warm up")
    with _phase(phases, "warmup"):
        for number in range(plan.warmup):
            workload.step(number)
            synchronize(device)
            ticks.tick()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    ticks.begin("time")
    latency_ns = []
    with no_garbage_collection(), _phase(phases, "steady"):
        for number in range(plan.iterations):
            latency_ns.append(workload.timed_step(number))
            ticks.tick()
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return tuple(latency_ns), peak


def _record_trace(workload: SamWorkload, plan: CapturePlan, path: Path, ticks: _Ticks) -> None:
    """Trace a few batches, a ProfilerStep each; on a GPU after one more that starts CUPTI and is thrown away."""
    ticks.begin("trace")
    options, device = plan.options, plan.device
    skipped = 1 if device.type == "cuda" else 0
    with profiler_runner(
        path,
        warmup=skipped,
        active=options.trace_batches,
        record_shapes=options.record_shapes,
        with_stack=options.with_stack,
        profile_memory=False,
        rank="none",
    ) as profiler:
        for number in range(skipped + options.trace_batches):
            workload.step(number)
            synchronize(device)
            profiler.step()
            ticks.tick(0 if number < skipped else 1)


def _record_memory(workload: SamWorkload, folder: Path, ticks: _Ticks) -> list[Prediction]:
    """Record the memory of one batch, and on a GPU its kernels beside it; returns what the model answers.

    Writing the allocator's history down slows the host, so that these kernels have a trace of their own, and the run's
    trace stays undisturbed. On a CPU the snapshot comes from the profiler itself and holds the operators.
    """
    ticks.begin("memory snapshot")
    device = workload.device
    with contextlib.ExitStack() as history, contextlib.ExitStack() as kernels:  # the trace ends before the history
        profiler = None
        if device.type == "cuda":
            profiler = kernels.enter_context(profiler_runner(folder / MEMORY_TRACE, warmup=1, active=1, rank="none"))
            workload.step(0)  # starts CUPTI, and is thrown away
            synchronize(device)
        free_memory(device)
        history.enter_context(memory_runner(folder / MEMORY, stacks="python", rank="none"))
        if profiler is not None:
            profiler.step()
        predictions = workload.step(0)
        synchronize(device)
    ticks.tick()
    return predictions


def _save_masks(
    path: Path, batch: Batch, predictions: Sequence[Prediction], prompts: PromptChoice, weights: str
) -> list[str]:
    """Write masks.json when pycocotools is there; returns notes.

    Random weights make noise, which run-length encoding cannot pack: then the first image stands for the batch.
    """
    noise = weights.startswith("random")
    images = 1 if noise else len(batch.scenes)
    try:
        agreement = write_masks(path, batch.scenes[:images], predictions[:images], prompts)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "pycocotools":
            raise
        return ["masks: not written, pycocotools is not installed"]
    if noise:
        return ["masks: those of the first image only; the weights are random, so the masks are noise"]
    return [] if agreement is None else [f"masks: mean IoU {agreement:.4f} with the true masks of the first batch"]


def _numerics(dtype: torch.dtype, device: torch.device) -> list[str]:
    """What float32 means on this device."""
    if device.type != "cuda" or dtype is not torch.float32:
        return []
    products = "TF32" if torch.get_float32_matmul_precision() != "highest" else "IEEE float32"
    convolutions = "TF32 (torch's default)" if torch.backends.cudnn.allow_tf32 else "IEEE float32"
    return [f"float32: matrix products in {products}, convolutions in {convolutions}"]


@contextlib.contextmanager
def _phase(phases: dict[str, int], name: str) -> Iterator[None]:
    since = time.perf_counter_ns()
    yield
    phases[name] = time.perf_counter_ns() - since


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
    size, name = plan.options.batch_size, plan.options.model
    message = (
        f"--batch-size {size}: {name} ran out of memory on {plan.device}, want a run that fits. "
        f"Try {'a smaller --batch-size, ' if size > 1 else ''}a smaller --model or --optimizations bf16."
    )
    free_memory(plan.device)
    if plan.device.type != "cuda":
        return message
    path = plan.out.with_name(f"{plan.out.name}.oom.pickle")
    try:
        loaded = _load(plan)
        scenes = gather_scenes(plan.options, int(loaded.model.image_encoder.img_size))
        kept, _ = layer_optimizations(plan.optimizations)
        with optimized(loaded.model, kept, plan.device) as sam, memory_runner(path, rank="none"):
            workload = SamWorkload(sam, _batches(loaded, scenes, plan)[:1], plan.device)
            workload.step(0)
            synchronize(plan.device)
    except RuntimeError as error:  # what was wanted: the snapshot of the moment is saved by the runner
        if not is_out_of_memory(error):
            return message
    return f"{message} How the memory filled up is recorded in {path}." if path.is_file() else message


class _Ticks:
    """Counts units of work for a Report."""

    def __init__(self, report: Report, total: int) -> None:
        self._report = report
        self._total = total
        self.done = 0
        self.note = ""

    def begin(self, note: str) -> None:
        """Say what is being done now."""
        self.note = note
        self.show(self.done, note)

    def tick(self, count: int = 1) -> None:
        self.show(self.done + count, self.note)

    def show(self, done: float, note: str) -> None:
        self.done = int(done)
        self._report(done, self._total, note)
