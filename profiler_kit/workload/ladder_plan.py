"""What a ladder is to measure: the options of the command line, checked and filled in (text in, a LadderPlan out)."""

from __future__ import annotations

import datetime
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from profiler_kit.errors import InputError, OptionError
from profiler_kit.formats.ladder_record import BASELINE, ROWS, Setup, climb, slug
from profiler_kit.models.sam.layers import LARGEST_BATCH
from profiler_kit.models.sam.models import check_model, shipped_checkpoint
from profiler_kit.models.sam.optimizations import LADDER, Rung, parse_optimizations
from profiler_kit.models.sam.tasks import Source, check_task
from profiler_kit.workload.capture_plan import LARGEST_SEED, RUNS, choose_device
from profiler_kit.workload.row import RowPlan

_FEWEST_IMAGES: Final = 8

_CPU_EXACT: Final = ("nosync", "patch_linear", "sdpa", "rel_pos", "window_pad", "batched_decoder")
# What a CPU climbs in minutes: bfloat16 gains nothing on most of them, compiling takes the longest.
CPU_LADDER: Final = (
    Rung(BASELINE),
    Rung("bf16", ("bf16",), alternative=True),
    *(Rung(_CPU_EXACT[count - 1], _CPU_EXACT[:count]) for count in (3, 5, 6)),
    Rung("compile", (*_CPU_EXACT, "compile")),
)


@dataclass(frozen=True, kw_only=True)
class LadderOptions:
    """The options of `profiler-kit ladder`, which describes them. rows: as typed, the default ladder when empty."""

    model: str = "vit_b"
    checkpoint: Path | None = None
    seed: int = 0
    rows: str = ""
    batch_size: int = 1
    device: str | None = None
    images: Path | None = None
    coco: Path | None = None
    num_images: int | None = None
    task: str = "points"
    points_per_side: int = 32
    points_per_batch: int = 64
    warmup: int | None = None
    iterations: int | None = None
    min_miou: float | None = None
    traces: bool = False
    warm_compile: bool = True
    timeout_s: float = 1800.0
    out: Path | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class LadderPlan:
    """The options, checked and filled in. rows: technique and optimizations as typed, the baseline first."""

    options: LadderOptions
    setup: Setup
    source: Source
    rows: tuple[tuple[str, str], ...]
    device: str
    out: Path

    @property
    def steps(self) -> tuple[str, ...]:
        """The rows that the waterfall climbs over: as the device's ladder says when all are of it, else see `climb`."""
        known = {(_technique(rung), str(rung)): rung.alternative for rung in _ladder_of(self.device)}
        if all(row in known for row in self.rows):
            return tuple(row[0] for row in self.rows if not known[row])
        rows = [row for row in self.rows if not known.get(row)]
        return climb([(name, tuple(o.name for o in parse_optimizations(text))) for name, text in rows])

    def row_plan(self, technique: str, optimizations: str) -> RowPlan:
        """What the process of a row is told."""
        options = self.options
        return RowPlan(
            technique=technique,
            optimizations=optimizations,
            model=options.model,
            checkpoint=None if options.checkpoint is None else str(options.checkpoint),
            source=self.source,
            device=self.device,
            task=options.task,
            batch_size=options.batch_size,
            points_per_side=options.points_per_side,
            points_per_batch=options.points_per_batch,
            warmup=self.setup.warmup,
            iterations=self.setup.iterations,
            folder=str(self.out / ROWS / slug(technique)),
            seed=options.seed,
            traces=options.traces,
            is_baseline=technique == BASELINE,
        )


def make_ladder_plan(options: LadderOptions) -> LadderPlan:
    """Check everything that can be checked before the first process starts; raises OptionError or WorkloadError."""
    check_model(options.model)
    check_task(options.task, options.points_per_side, options.points_per_batch)
    for option, value, least, most in (
        ("--batch-size", options.batch_size, 1, LARGEST_BATCH),
        ("--seed", options.seed, 0, LARGEST_SEED),
        ("--num-images", options.num_images, 1, None),
        ("--warmup", options.warmup, 0, None),
        ("--iterations", options.iterations, 1, None),
    ):
        if value is not None and (value < least or (most is not None and value > most)):
            wanted = f"{least} or more" if most is None else f"{least} to {most}"
            raise OptionError(f"{option} {value}: want {wanted}.")
    if options.task == "amg" and options.batch_size != 1:
        raise OptionError(
            f"--batch-size {options.batch_size}: --task amg takes one image at a time. Its batches are of points: "
            "use --points-per-batch."
        )
    if options.images is not None and options.coco is not None:
        raise OptionError("--images and --coco: want one of them.")
    if options.min_miou is not None and not 0 <= options.min_miou <= 1:
        raise OptionError(f"--min-miou {options.min_miou}: want a share from 0 to 1. Try --min-miou 0.99.")
    if not options.timeout_s > 0:
        raise OptionError(f"--timeout {options.timeout_s:g}: want more than 0 seconds.")
    device = choose_device(options.device)
    on_gpu = device.type == "cuda"
    source = Source(
        options.num_images or max(2 * options.batch_size, _FEWEST_IMAGES),
        options.seed,
        None if options.images is None else str(options.images),
        None if options.coco is None else str(options.coco),
    )
    found = len(source.scenes(64)) if options.images or options.coco else source.count  # bad files end here
    rows = parse_rows(options.rows, str(device))
    stamp = f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"
    setup = Setup(
        model=options.model,
        weights=_weights(options),
        seed=options.seed,
        task=options.task,
        batch_size=options.batch_size,
        device=str(device),
        images=str(source),
        num_images=found,
        warmup=options.warmup if options.warmup is not None else (3 if on_gpu else 1),
        iterations=options.iterations if options.iterations is not None else (20 if on_gpu else 5),
        points_per_side=options.points_per_side,
        points_per_batch=options.points_per_batch,
        traces=options.traces,
    )
    out = options.out or RUNS / f"ladder-{options.model}-{device.type}-{stamp}"
    return LadderPlan(options, setup, source, rows, str(device), out)


def _ladder_of(device: str) -> tuple[Rung, ...]:
    """The default ladder: on a CPU a short one."""
    return CPU_LADDER if device == "cpu" else LADDER


def _technique(rung: Rung) -> str:
    """What a rung is called as a row."""
    return rung.label if rung.optimizations else BASELINE


def parse_rows(text: str, device: str) -> tuple[tuple[str, str], ...]:
    """Read rows separated by semicolons: `[NAME=]OPTIMIZATION,...`, or the name of a row of the device's ladder.

    Without a name a row is called as its optimizations. The device's ladder when the text is empty. The baseline (fp32,
    no optimizations) is always there and always first. Raises OptionError for an unknown optimization or order, and for
    a name that stands there twice.
    """
    known = {_technique(rung): str(rung) for rung in _ladder_of(device)}
    found: dict[str, str] = {BASELINE: ""}
    for part in [p.strip() for p in text.split(";") if p.strip()] if text.strip() else list(known):
        name, equals, optimizations = (piece.strip() for piece in part.partition("="))
        if not equals:
            optimizations = known.get(name, name)
            name = name if name in known else name.replace(",", "+")
        if name == BASELINE:
            if optimizations:
                raise OptionError(f"--rows {part}: {BASELINE} is the model as published. Choose another name.")
            continue
        if not name or slug(name) in {slug(other) for other in found}:
            raise OptionError(f"--rows {text}: {name or 'a row without a name'!r} stands there twice, want it once.")
        try:
            parse_optimizations(optimizations)
        except OptionError as error:
            raise OptionError(str(error).replace("--optimizations", f"--rows, {name}:", 1)) from error
        found[name] = optimizations
    return tuple(found.items())


def _weights(options: LadderOptions) -> str:
    """What the rows will say, known before they run."""
    checkpoint = options.checkpoint or shipped_checkpoint(options.model)
    if checkpoint is None:
        return f"random:{options.seed}"
    try:
        with checkpoint.open("rb") as handle:
            return f"checkpoint:{hashlib.file_digest(handle, 'sha256').hexdigest()}"
    except OSError as error:
        raise InputError(
            f"{checkpoint}: cannot be read ({error.strerror}), want a checkpoint. Leave --checkpoint out for "
            "random weights."
        ) from error
