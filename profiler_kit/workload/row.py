"""One row of the ladder in its own process: `python -m profiler_kit.workload.row PLAN.json` (a RowPlan in).

The process says on stdout what it is doing (`stage: ...`), and ends with 0 whenever row.json was written: a row that
fails is a result.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from profiler_kit.capture.environment import describe_environment
from profiler_kit.capture.memory import memory_runner
from profiler_kit.capture.runners import profiler_runner
from profiler_kit.errors import KitError
from profiler_kit.formats.ladder_record import ROW, SAMPLES, SCENES, RowResult, is_compiled, read_as, write_record
from profiler_kit.formats.run_record import MASKS, MEMORY, TRACE, RunRecord
from profiler_kit.models.sam.accuracy import against_truth, write_masks_file
from profiler_kit.models.sam.layers import free_memory, is_out_of_memory, synchronize
from profiler_kit.models.sam.models import LoadedModel, load_model, shipped_checkpoint
from profiler_kit.models.sam.optimizations import encoder_dtype, optimized, parse_optimizations, unmet
from profiler_kit.models.sam.scenes import Scene
from profiler_kit.models.sam.tasks import Source, Task, make_task
from profiler_kit.models.sam.workload import no_garbage_collection
from profiler_kit.workload.ceilings import count_work

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

SAMPLE_IMAGES: Final = 2  # kept as pictures by the baseline, for overlays
_TRACED: Final = 2


@dataclass(frozen=True)
class RowPlan:
    """What to run. optimizations: as typed. folder: where row.json and the rest go.

    is_baseline: also count the work of the model and keep a few images. first_call_only: load, run once and stop; with
    the compiler's caches of an earlier process that is a warm compile.
    """

    technique: str
    optimizations: str
    model: str
    checkpoint: str | None
    source: Source
    device: str
    task: str
    batch_size: int
    points_per_side: int
    points_per_batch: int
    warmup: int
    iterations: int
    folder: str
    seed: int = 0
    traces: bool = False
    is_baseline: bool = False
    first_call_only: bool = False

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


@contextlib.contextmanager
def _phase(phases: dict[str, int], name: str) -> Iterator[None]:
    since = time.perf_counter_ns()
    yield
    phases[name] = time.perf_counter_ns() - since


def _measure(plan: RowPlan, device: torch.device) -> RowResult:
    phases: dict[str, int] = {}
    stage("load")
    chosen = parse_optimizations(plan.optimizations)
    for optimization in chosen:
        lacking = unmet(optimization, device)
        if lacking is not None:
            error = f"{optimization.name} {lacking}."
            return RowResult(plan.technique, plan.names, "skipped", error, batch_size=plan.batch_size)
    with _phase(phases, "load"):
        loaded = _load(plan, device)
        synchronize(device)
    image_size = int(loaded.model.image_encoder.img_size)
    scenes = plan.source.scenes(image_size, _ladder(plan) / SCENES)
    if plan.first_call_only:
        scenes = scenes[: plan.batch_size]
    with optimized(loaded.model, chosen, device) as sam:
        row = RowResult(
            plan.technique,
            plan.names,
            "ok",
            dtype=str(encoder_dtype(sam)).removeprefix("torch."),
            weights=loaded.weights,
            batch_size=1 if plan.task == "amg" else plan.batch_size,
            image_size=image_size,
        )
        task = _task(plan, sam, scenes, device)
        compiled = is_compiled(plan.names)
        stage("compile" if compiled else "first call")
        first_ns = task.timed_step(0)
        phases["compile_cold"] = first_ns if compiled else 0
        row = replace(row, first_ns=first_ns, phases_ns=phases)
        if plan.first_call_only:
            return row
        row = _steady(plan, task, device, phases, row)
        row = _masks(plan, task, scenes, row)
        if plan.is_baseline:
            row = replace(row, work=count_work(lambda: task.step(0)))
        if plan.traces:
            row = _record(plan, task, device, row)
    return row


def _task(plan: RowPlan, sam: Sam, scenes: Sequence[Scene], device: torch.device, *, batch_size: int = 0) -> Task:
    return make_task(
        plan.task,
        sam,
        scenes,
        device,
        batch_size=batch_size or plan.batch_size,
        points_per_side=plan.points_per_side,
        points_per_batch=plan.points_per_batch,
    )


def _steady(plan: RowPlan, task: Task, device: torch.device, phases: dict[str, int], row: RowResult) -> RowResult:
    """Warm-up and timed batches: one at a time, the device idle before each."""
    stage("warm up")
    with _phase(phases, "warmup"):
        for number in range(plan.warmup):
            task.step(number)
            synchronize(device)
    stage("time")
    _reset_peak(device)
    latency_ns = []
    with no_garbage_collection(), _phase(phases, "steady"):
        for number in range(plan.iterations):
            latency_ns.append(task.timed_step(number))
    peak, total = _peak(device)
    return replace(
        row, latency_ns=tuple(latency_ns), phases_ns=dict(phases), peak_memory_bytes=peak, total_memory_bytes=total
    )


def _masks(plan: RowPlan, task: Task, scenes: Sequence[Scene], row: RowResult) -> RowResult:
    """Segment every image once more for masks.json; the baseline keeps the first images as pictures."""
    stage("masks")
    folder = Path(plan.folder)
    images = list(task.masks(scenes))
    write_masks_file(folder / MASKS, images)
    if plan.is_baseline:
        from PIL import Image

        target = _ladder(plan) / SAMPLES
        target.mkdir(exist_ok=True)
        for number, scene in enumerate(itertools.islice(scenes, SAMPLE_IMAGES)):
            Image.fromarray(scene.image).save(target / f"{number}.jpg", quality=88)
    return replace(row, masks=sum(len(image.counts) for image in images), truth=against_truth(images))


def _record(plan: RowPlan, task: Task, device: torch.device, row: RowResult) -> RowResult:
    """A trace of a few batches and a memory snapshot of one, in a run folder that the dashboard lists."""
    stage("trace and memory snapshot")
    folder = Path(plan.folder)
    skipped = 1 if device.type == "cuda" else 0  # the first batch under CUPTI starts it
    with profiler_runner(folder / TRACE, warmup=skipped, active=_TRACED, rank="none") as profiler:
        for number in range(skipped + _TRACED):
            task.step(number)
            synchronize(device)
            profiler.step()
    free_memory(device)
    with memory_runner(folder / MEMORY, stacks="python", rank="none"):
        task.step(0)
        synchronize(device)
    environment = describe_environment(device)
    RunRecord(
        name=plan.technique,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        model=plan.model,
        weights=row.weights,
        optimizations=row.optimizations,
        batch_size=row.batch_size,
        image_size=row.image_size,
        dtype=row.dtype,
        device=plan.device,
        device_name=environment.device_name,
        versions=environment.versions,
        warmup_iterations=plan.warmup,
        timed_iterations=plan.iterations,
        phases_ns=row.phases_ns,
        latency_ns=row.latency_ns,
        peak_memory_bytes=row.peak_memory_bytes if device.type == "cuda" else None,
        command="",
        git_commit=environment.git_commit,
        images=str(plan.source),
        prompts=plan.task,
        notes=("recorded by profiler-kit ladder: a row of its own process",),
    ).write(folder)
    return replace(row, traces=folder.relative_to(_ladder(plan)).as_posix())


def _after_out_of_memory(plan: RowPlan, device: torch.device, row: RowResult) -> RowResult:
    """Halve the batch until one fits, and say so."""
    size = plan.batch_size
    how = ", ".join(plan.names) or "as published"
    fitted = None
    while plan.task != "amg" and size > 1 and fitted is None:
        size //= 2
        stage(f"out of memory, trying batch size {size}")
        free_memory(device)
        if _fits(plan, device, size):
            fitted = size
    if fitted is not None:
        error = (
            f"--batch-size {plan.batch_size}: {plan.model} ({how}) ran out of memory on {device}, a batch of {fitted} "
            f"fitted (found by halving). Try --batch-size {fitted}."
        )
    elif plan.task == "amg":
        error = (
            f"--points-per-batch {plan.points_per_batch}: {plan.model} ({how}) ran out of memory on {device}. "
            "Try fewer points in a batch."
        )
    else:
        error = (
            f"--batch-size {plan.batch_size}: {plan.model} ({how}) ran out of memory on {device}, and so did a batch "
            "of 1. Try a smaller --model."
        )
    return replace(row, error=error, fitted_batch_size=fitted)


def _fits(plan: RowPlan, device: torch.device, size: int) -> bool:
    try:
        loaded = _load(plan, device)
        scenes = plan.source.scenes(int(loaded.model.image_encoder.img_size), _ladder(plan) / SCENES)[:size]
        with optimized(loaded.model, parse_optimizations(plan.optimizations), device) as sam:
            _task(plan, sam, scenes, device, batch_size=size).step(0)
            synchronize(device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
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


def _load(plan: RowPlan, device: torch.device) -> LoadedModel:
    """The model with its checkpoint, the weights it ships with, or random ones."""
    seed = None if shipped_checkpoint(plan.model) else plan.seed  # which is then that of the scenes alone
    checkpoint = None if plan.checkpoint is None else Path(plan.checkpoint)
    return load_model(plan.model, checkpoint=checkpoint, seed=seed, device=device)


def main() -> None:
    """Read the plan, run the row, write row.json."""
    plan = read_as(Path(sys.argv[1]), RowPlan)
    write_record(Path(plan.folder) / ROW, run_row(plan))


if __name__ == "__main__":
    main()
