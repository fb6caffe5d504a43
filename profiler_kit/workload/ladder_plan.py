"""What a ladder is to measure: the options of the command line, checked and filled in."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from profiler_kit.capture.device import choose_device
from profiler_kit.errors import OptionError
from profiler_kit.formats.ladder_record import BASELINE, ROWS, Setup, climb, slug
from profiler_kit.workload.capture import RUNS, require_count, timing_of
from profiler_kit.workload.optimizations import LadderRow, parse_optimizations
from profiler_kit.workload.protocol import LARGEST_SEED, Workload
from profiler_kit.workload.row import RowPlan

AGAIN: Final = f".{BASELINE}"  # in a ladder's rows, while the baseline is measured once more


@dataclass(frozen=True, kw_only=True)
class LadderOptions:
    """The options of `profiler-kit ladder`, which describes them. rows: as typed, the default ladder when empty.

    baseline_every: rows between two measurements of the baseline, which is measured at the end too; 0: once only.
    """

    rows: str = ""
    batch_size: int = 1
    device: str | None = None
    warmup: int | None = None
    iterations: int | None = None
    min_miou: float | None = None
    baseline_every: int = 4
    traces: bool = False
    warm_compile: bool = True
    timeout_s: float = 1800.0
    out: Path | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class LadderPlan:
    """The options, checked and filled in. rows: technique and optimizations as typed, the baseline first."""

    workload: Workload
    options: LadderOptions
    setup: Setup
    rows: tuple[tuple[str, str], ...]
    device: torch.device
    out: Path

    def names(self, optimizations: str) -> tuple[str, ...]:
        """The optimizations of a row, one by one."""
        return tuple(o.name for o in parse_optimizations(optimizations, self.workload.optimizations))

    @property
    def steps(self) -> tuple[str, ...]:
        """The rows that the waterfall climbs over: as the device's ladder says when all are of it, else see `climb`."""
        ladder = self.workload.ladder(self.device)
        known = {(_technique(row), str(row)): row.alternative for row in ladder}
        if all(row in known for row in self.rows):
            return tuple(row[0] for row in self.rows if not known[row])
        rows = [row for row in self.rows if not known.get(row)]
        return climb([(name, self.names(text)) for name, text in rows])

    def row_plan(self, technique: str, optimizations: str) -> RowPlan:
        """What the process of a row is told."""
        return RowPlan(
            technique=technique,
            optimizations=optimizations,
            workload=self.workload.spec,
            options=self.workload.options,
            device=str(self.device),
            batch_size=self.options.batch_size,
            warmup=self.setup.warmup,
            iterations=self.setup.iterations,
            folder=str(self.out / ROWS / slug(technique)),
            traces=self.options.traces,
            is_baseline=technique == BASELINE,
        )

    @property
    def round_plan(self) -> RowPlan:
        """The baseline once more; its folder is named as no row's is."""
        folder = str(self.out / ROWS / AGAIN)
        return replace(self.row_plan(BASELINE, ""), folder=folder, traces=False, is_baseline=False, timed_only=True)


def make_ladder_plan(workload: Workload, options: LadderOptions) -> LadderPlan:
    """Check everything that can be checked before the first process starts; raises OptionError or WorkloadError."""
    require_count("--seed", workload.seed, 0, LARGEST_SEED)
    require_count("--baseline-every", options.baseline_every, 0)
    workload.check(options.batch_size)
    least = options.min_miou
    if least is not None and not 0 <= least <= 1:
        raise OptionError(f"--min-miou {least}: expected a share from 0 to 1. Try --min-miou 0.99.")
    if least is not None and workload.compares != "masks":
        raise OptionError(f"--min-miou {least}: {workload.name} makes no masks to compare. Leave it out.")
    if not options.timeout_s > 0:
        raise OptionError(f"--timeout {options.timeout_s:g}: expected more than 0 seconds.")
    device = choose_device(options.device)
    warmup, iterations = timing_of(device, options.warmup, options.iterations, (20, 5))
    none: dict[str, Any] = {"task": "", "images": "", "num_images": 0, "points_per_side": 0, "points_per_batch": 0}
    setup = none | dict(workload.setup())
    rows = parse_rows(options.rows, workload, device)
    out = options.out or RUNS / f"ladder-{workload.name}-{device.type}-{_stamp()}"
    return LadderPlan(
        workload,
        options,
        Setup(
            **setup,
            model=workload.name,
            weights=workload.weights,
            seed=workload.seed,
            batch_size=options.batch_size,
            device=str(device),
            warmup=warmup,
            iterations=iterations,
            traces=options.traces,
            workload="" if workload.family else workload.spec,
            family=workload.family,
            unit=workload.unit,
        ),
        rows,
        device,
        out,
    )


def _stamp() -> str:
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"


def _technique(row: LadderRow) -> str:
    """What a row of a default ladder is called."""
    return row.label if row.optimizations else BASELINE


def parse_rows(text: str, workload: Workload, device: torch.device) -> tuple[tuple[str, str], ...]:
    """Read rows separated by semicolons: `[NAME=]OPTIMIZATION,...`, or the name of a row of the device's ladder.

    Without a name a row is called as its optimizations. The device's ladder when the text is empty. The baseline (fp32,
    no optimizations) is always there and always first. Raises OptionError for an unknown optimization or order, and for
    a name that is listed twice.
    """
    known = {_technique(row): str(row) for row in workload.ladder(device)}
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
            raise OptionError(f"--rows {text}: {name or 'a row without a name'!r} is listed twice; list it once.")
        try:
            parse_optimizations(optimizations, workload.optimizations)
        except OptionError as error:
            raise OptionError(str(error).replace("--optimizations", f"--rows, {name}:", 1)) from error
        found[name] = optimizations
    return tuple(found.items())
