"""`profiler-kit ladder`: measure named combinations of optimizations, each in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from profiler_kit.cli.output import AsJson, hanging, print_json, records
from profiler_kit.cli.table_command import print_filled
from profiler_kit.cli.workloads import Checkpoint, Device, Images, Model, Seed, Warmup, choose_workload, is_workload
from profiler_kit.errors import OptionError, ThresholdError
from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    from profiler_kit.formats.ladder_record import LadderRecord

MODEL_ON_CPU: Final = "vit_small"  # it ships with weights that segment
FEWEST_IMAGES: Final = 8  # to tell accuracy by


def command(
    recorded: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LADDER|WORKLOAD]",
            help="A ladder's folder to show; or your own workload to measure: mine.py:workload.",
        ),
    ] = None,
    model: Model = None,
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    rows: Annotated[
        str,
        typer.Option(help='Rows separated by semicolons, [NAME=]OPTIMIZATION,...: "bf16;mine=bf16,compile". '),
    ] = "",
    batch_size: Annotated[int | None, typer.Option(help="Images in a batch. [default: 8 on a GPU, 1 on a CPU]")] = None,
    device: Device = None,
    images: Images = None,
    coco: Annotated[
        Path | None, typer.Option(help="COCO folder (annotations/instances_*.json and the images), or its json.")
    ] = None,
    num_images: Annotated[
        int | None, typer.Option(help="Images to segment for accuracy. [default: two batches, at least 8]")
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="points, boxes; or from one image to packed masks: amg (all of them), single-point (of the largest "
            "object), multi-point (of each object). [default: points]"
        ),
    ] = None,
    points_per_side: Annotated[
        int | None, typer.Option(help="Points on each side of the grid of --task amg. [default: 32]")
    ] = None,
    points_per_batch: Annotated[
        int | None, typer.Option(help="Prompts decoded at once by --task amg. [default: 64]")
    ] = None,
    multimask: Annotated[
        bool,
        typer.Option(
            "--multimask", help="Predict three masks for each box, and keep the one with the highest predicted IoU."
        ),
    ] = False,
    annotated: Annotated[
        bool,
        typer.Option("--annotated", help="With --coco: take boxes and areas as annotated, not from the masks' pixels."),
    ] = False,
    crowds: Annotated[bool, typer.Option("--crowds", help="With --coco: count crowds as objects.")] = False,
    baseline_every: Annotated[
        int, typer.Option(help="Measure the baseline again after so many rows, and at the end; 0: only once.")
    ] = 4,
    pred_iou_thresh: Annotated[
        float | None,
        typer.Option(
            help="Lowest predicted IoU that --task amg keeps (use 0 with random weights). [default: the generator's]"
        ),
    ] = None,
    stability_score_thresh: Annotated[
        float | None, typer.Option(help="Lowest stability that --task amg keeps. [default: the generator's]")
    ] = None,
    warmup: Warmup = None,
    iterations: Annotated[int | None, typer.Option(help="Timed batches. [default: 20 on a GPU, 5 on a CPU]")] = None,
    min_miou: Annotated[
        float | None, typer.Option(help="Fail when masks agree with the baseline's by less than this (mean IoU).")
    ] = None,
    traces: Annotated[
        bool, typer.Option("--traces", help="Add a trace and a memory snapshot of a few batches to each row.")
    ] = False,
    warm_compile: Annotated[
        bool,
        typer.Option(
            "--warm-compile/--no-warm-compile", help="Also time a second process, which finds the compiler's caches."
        ),
    ] = True,
    timeout: Annotated[float, typer.Option(help="Seconds that one row's process may take.")] = 1800.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. [default: traces/ladder-MODEL-DEVICE-TIME]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the rows of --out that were measured, run the others.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the ladder at --out.")] = False,
    png: Annotated[
        Path | None, typer.Option("--png", help="With LADDER: draw its waterfall into this file as well.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure SAM or your own workload, as published and under named combinations of optimizations; or show a ladder.

    Every row runs in a fresh process: load, cold compile, warm compile, warm-up and steady state are told apart, and
    what it answers is compared with the baseline's: masks (and the truth), or outputs by relative error and cosine.
    Writes results.json, results.csv, waterfall.png and a folder for each row. Look at it with: profiler-kit serve
    """
    if recorded is not None and not is_workload(recorded):
        from profiler_kit.formats.ladder_record import read_ladder

        if out is not None:
            raise OptionError(f"--out {out}: {recorded} is shown, not measured, so there is nothing to write.")
        record, folder = read_ladder(recorded), None
        if png is not None:
            _draw_waterfall(png, record)
    else:
        from profiler_kit.capture.device import choose_device
        from profiler_kit.workload.ladder import run_ladder
        from profiler_kit.workload.ladder_plan import LadderOptions

        on_gpu = choose_device(device).type == "cuda"
        size = batch_size or (8 if on_gpu and task in (None, "points", "boxes") else 1)
        if recorded is None:
            model, task = model or ("vit_b" if on_gpu else MODEL_ON_CPU), task or "points"
            num_images = num_images if num_images is not None else max(2 * size, FEWEST_IMAGES)
        workload = choose_workload(
            recorded,
            seed=seed,
            model=model,
            checkpoint=checkpoint,
            images=images,
            coco=coco,
            num_images=num_images,
            task=task,
            points_per_side=points_per_side,
            points_per_batch=points_per_batch,
            multimask=multimask or None,
            annotated=annotated or None,
            crowds=crowds or None,
            pred_iou_thresh=pred_iou_thresh,
            stability_score_thresh=stability_score_thresh,
        )
        options = LadderOptions(
            rows=rows,
            batch_size=size,
            device=device,
            warmup=warmup,
            iterations=iterations,
            min_miou=min_miou,
            baseline_every=baseline_every,
            traces=traces,
            warm_compile=warm_compile,
            timeout_s=timeout,
            out=out,
            resume=resume,
            overwrite=overwrite,
        )
        with progress_bar("ladder") as report:
            folder, record = run_ladder(workload, options, report=report)
        draw_ladder(folder, record)
    _print(record, as_json=as_json)
    if folder is not None:
        typer.echo(f"written to {folder}", err=as_json)
    _check(record, min_miou if recorded is not None and min_miou is not None else record.min_miou)


def draw_ladder(folder: Path, record: LadderRecord) -> None:
    """The waterfall, and masks of each row over the first image, as PNG."""
    from profiler_kit.formats.ladder_record import WATERFALL
    from profiler_kit.render.overlays import write_overlays

    _draw_waterfall(folder / WATERFALL, record)
    write_overlays(folder, [row.technique for row in record.rows if row.status == "ok"])


def _draw_waterfall(path: Path, record: LadderRecord) -> None:
    from profiler_kit.files import whole_file
    from profiler_kit.formats.ladder_file import ladder_rows
    from profiler_kit.render.ladder_style import ladder_facts
    from profiler_kit.render.pictures import waterfall_png

    with whole_file(path) as temporary:
        temporary.write_bytes(waterfall_png(ladder_rows(record), *ladder_facts(record)))


def _print(record: LadderRecord, *, as_json: bool) -> None:
    import dataclasses

    from profiler_kit.findings.records import of_ladder
    from profiler_kit.formats.ladder_file import ladder_rows

    if as_json:
        table = ladder_rows(record)
        rows = records(table)
        facts = dataclasses.asdict(record)
        samples = {row.technique: list(row.latency_ns) for row in record.rows}
        for row in rows:
            row["latency_ns"] = samples[str(row["technique"])]
        said = [one.to_json() for one in of_ladder(record, table)]
        print_json({**{key: value for key, value in facts.items() if key != "rows"}, "rows": rows, "findings": said})
        return
    print_ladder(record)


def print_ladder(record: LadderRecord, table: str = "ladder") -> None:
    """Print a table of a ladder, and what is to be said of it."""
    from profiler_kit.findings.records import of_ladder
    from profiler_kit.formats.ladder_file import ladder_rows
    from profiler_kit.render.ladder_style import ladder_facts
    from profiler_kit.tables import every_table

    print_filled(every_table()[table].of_source(record), ladder_facts(record)[0])
    for one in of_ladder(record, ladder_rows(record)):
        typer.echo(hanging("", one.line))


def _check(record: LadderRecord, least: float | None) -> None:
    """Raise ThresholdError, one line, when a measured row agrees too little with the baseline."""
    if least is None:
        return
    poor = [
        f"{row.technique} {'(no masks)' if row.agreement.miou is None else format(row.agreement.miou, '.4f')}"
        for row in record.rows
        if row.status == "ok" and row.agreement is not None and (row.agreement.miou or 0) < least
    ]
    if poor:
        raise ThresholdError(
            f"--min-miou {least:g}: mean IoU with the baseline's masks is lower for {', '.join(poor)}. Leave out the "
            "optimization that costs it, or ask for less."
        )
