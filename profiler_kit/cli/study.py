"""`profiler-kit study`: what batching, image size, dtype and compiling do to the speed of a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler_kit.cli.output import AsJson, hanging, print_json, records
from profiler_kit.cli.table_command import print_filled
from profiler_kit.cli.workloads import Checkpoint, Model, Prompts, Seed, WarmupForwards, choose_workload, is_workload
from profiler_kit.errors import OptionError
from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    from profiler_kit.formats.study_file import StudyRecord


def command(
    recorded: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY|WORKLOAD]",
            help="A study.json or its folder to show; or your own workload to study: mine.py:workload.",
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            help="Which ones, separated by commas: components, batching, image-size, table. [default: all but the "
            "table; image-size where the workload has at_image_size]"
        ),
    ] = None,
    model: Model = None,
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    batch_sizes: Annotated[
        str, typer.Option(help="Batch sizes for components and batching; the other studies take the first.")
    ] = "1,2,4,8",
    image_sizes: Annotated[
        str, typer.Option(help="Sides in pixels. [default: half of the model's, the model's, one and a half of it]")
    ] = "",
    device: Annotated[
        str, typer.Option(help="cpu, cuda or cuda:N; several for the table. [default: a GPU if there is one]")
    ] = "",
    optimizations: Annotated[
        str, typer.Option(help="Names in the order to apply them; the table does not use them.")
    ] = "",
    prompts: Prompts = None,
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Compiled rows in the table.")] = True,
    warmup: WarmupForwards = None,
    iterations: Annotated[int | None, typer.Option(help="Timed forwards. [default: 20 on a GPU, 5 on a CPU]")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for study.json and study.csv; a ladder's folder shows both.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the study at --out.")] = False,
    as_json: AsJson = False,
) -> None:
    """Study what batching does to Segment Anything or to your own workload, or show such a study.

    components: time of each part of the forward. batching: the same images one by one or in one batch. image-size: the
    side of the input. table: device, dtype, torch.compile. One forward at a time, nothing synchronised inside.
    """
    from profiler_kit.formats.study_file import read_study, write_study

    if recorded is not None and not is_workload(recorded):
        record = read_study(recorded)
    else:
        from profiler_kit.capture.device import choose_device
        from profiler_kit.workload.study import StudyOptions, run_study

        target = None if out is None else _target(out, overwrite=overwrite)
        on_gpu = choose_device(device.split(",")[0].strip() or None).type == "cuda"
        if recorded is None:
            model = model or ("vit_b" if on_gpu else "vit_small")
        workload = choose_workload(recorded, seed=seed, model=model, checkpoint=checkpoint, prompts=prompts)
        options = StudyOptions(
            studies=study or ",".join(("components", "batching", *(["image-size"] if workload.image_step else []))),
            batch_sizes=batch_sizes,
            image_sizes=image_sizes,
            devices=device,
            optimizations=optimizations,
            compiled=compiled,
            warmup=warmup,
            iterations=iterations,
        )

        def save(found: StudyRecord) -> None:
            """Write what there is so far: a study that is cut short keeps it."""
            if target is not None:
                write_study(target, found)

        with progress_bar("study") as report:
            record = run_study(workload, options, report=report, save=save)
        save(record)
        if target is not None:
            typer.echo(f"written to {target}", err=True)
    _print(record, as_json=as_json)


def _target(out: Path, *, overwrite: bool) -> Path:
    """The folder to write into; raises OptionError before anything is measured."""
    from profiler_kit.capture.run_folder import check_place
    from profiler_kit.formats.study_file import STUDY

    if out.is_file():
        raise OptionError(f"--out {out}: this is a file, expected a folder. Choose another --out.")
    if (out / STUDY).exists() and not overwrite:
        raise OptionError(f"--out {out}: there is a study already. Choose another --out, or add --overwrite.")
    check_place(out, out / STUDY)
    return out


def _print(record: StudyRecord, *, as_json: bool) -> None:
    from profiler_kit.formats.study_file import study_samples, study_totals
    from profiler_kit.render.ladder_style import study_model
    from profiler_kit.tables import every_table

    totals = records(study_totals(study_samples(record)))
    if as_json:
        print_json({"model": record.model, "weights": record.weights, "totals": totals, "notes": list(record.notes)})
        return
    how = ", ".join(record.optimizations) or "as published"
    names = ", ".join(dict.fromkeys(record.device_names.values()))
    title = f"{study_model(record)}, {how}, {names}, n = {record.iterations}"
    print_filled(every_table()["study_totals"].of_source(record), title)
    for note in record.notes:
        typer.echo(hanging("note: ", note))
