"""What a capture is to do: the options of the command line, checked and filled in (text in, a CapturePlan out)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from profiler_kit.capture.environment import resolve_device
from profiler_kit.errors import OptionError
from profiler_kit.models.sam.layers import LARGEST_BATCH, SweepPlan, parse_batch_sizes
from profiler_kit.models.sam.models import check_model
from profiler_kit.models.sam.optimizations import Optimization, parse_optimizations
from profiler_kit.models.sam.prompts import PromptChoice, parse_prompts
from profiler_kit.models.sam.scenes import Scene, generate_scenes, load_images

RUNS: Final = Path("traces")  # where a run goes unless --out says otherwise: what `profiler-kit serve` shows
LARGEST_SEED: Final = (1 << 63) - 1  # numpy's generator takes no negative one, torch's none beyond 64 bits
DISTINCT_BATCHES: Final = 4  # batches prepared; iterations take them round and round


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """What to run and what to record; the fields are the options of `profiler-kit capture`.

    scenes: how many to generate, one batch when None; not used with `images`. device: cpu, cuda or cuda:N, a GPU
    when there is one if None. warmup, iterations: 3 and 10 on a GPU, 1 and 3 on a CPU if None. optimizations,
    layers, prompts: as typed ("bf16,compile", "1,2,4,8", "grid:8"). out: the run folder to make, a name of its
    own under RUNS if None.
    """

    model: str = "vit_b"
    checkpoint: Path | None = None
    seed: int = 0
    batch_size: int = 1
    images: Path | None = None
    scenes: int | None = None
    prompts: str = "centers"
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

    options: CaptureOptions
    device: torch.device
    prompts: PromptChoice
    optimizations: tuple[Optimization, ...]
    warmup: int
    iterations: int
    sweep: SweepPlan | None
    out: Path

    @property
    def compiled(self) -> bool:
        return any(optimization.compiles for optimization in self.optimizations)

    @property
    def ticks(self) -> int:
        """Units of work for the progress bar: forwards, and one each for loading and compiling."""
        forwards = self.warmup + self.iterations + self.options.trace_batches + 1
        return 2 + forwards + (self.sweep.forwards if self.sweep else 0)


def make_plan(options: CaptureOptions) -> CapturePlan:
    """Check every option but `out` before anything is loaded; raises OptionError or WorkloadError."""
    check_model(options.model)
    _require("--batch-size", options.batch_size, 1, LARGEST_BATCH)
    _require("--trace-batches", options.trace_batches, 1)
    _require("--seed", options.seed, 0, LARGEST_SEED)
    for name, value, least in (
        ("--scenes", options.scenes, 1),
        ("--warmup", options.warmup, 0),
        ("--iterations", options.iterations, 1),
    ):
        if value is not None:
            _require(name, value, least)
    if options.images is not None and options.scenes is not None:
        raise OptionError("--scenes and --images: want one of them, --scenes generates images.")
    prompts = parse_prompts(options.prompts)
    optimizations = parse_optimizations(options.optimizations)
    sizes = parse_batch_sizes(options.layers, option="--layers") if options.layers.strip() else ()
    device = choose_device(options.device)
    on_gpu = device.type == "cuda"
    warmup = options.warmup if options.warmup is not None else (3 if on_gpu else 1)
    iterations = options.iterations if options.iterations is not None else (10 if on_gpu else 3)
    out = options.out or RUNS / run_name(options.model, optimizations, device)
    sweep = SweepPlan(sizes, warmup, iterations) if sizes else None
    return CapturePlan(options, device, prompts, optimizations, warmup, iterations, sweep, out)


def choose_device(text: str | None) -> torch.device:
    """The device called `text`; None is the GPU when there is one, else the CPU."""
    return resolve_device(text if text is not None else "cuda" if torch.cuda.is_available() else "cpu")


def run_name(model: str, optimizations: Sequence[Optimization], device: torch.device) -> str:
    """A folder name that says what ran and when: vit_b-bf16-compile-cuda-20260131-120501 (UTC)."""
    now = datetime.datetime.now(datetime.UTC)
    names = [optimization.name for optimization in optimizations] or ["eager"]
    return "-".join([model, *names, device.type, f"{now:%Y%m%d-%H%M%S}"])


def gather_scenes(options: CaptureOptions, image_size: int) -> tuple[Scene, ...]:
    """The images of the folder, or generated scenes as wide as the model's input and three quarters as high."""
    if options.images is not None:
        return load_images(options.images, limit=options.batch_size * DISTINCT_BATCHES)
    count = options.scenes or options.batch_size
    return generate_scenes(count, height=image_size * 3 // 4, width=image_size, seed=options.seed)


def _require(option: str, value: int, least: int, most: int | None = None) -> None:
    if value < least or (most is not None and value > most):
        limit = f"{least} or more" if most is None else f"{least} to {most}"
        raise OptionError(f"{option} {value}: want {limit}.")
