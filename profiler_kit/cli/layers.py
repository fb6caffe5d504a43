"""`profiler-kit layers`: time every layer of a model at several batch sizes, or show such timings of a recorded run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler_kit.cli.output import AsJson, hanging, print_json, print_lines, records
from profiler_kit.cli.table_command import print_filled
from profiler_kit.cli.workloads import (
    Checkpoint,
    Device,
    Images,
    Model,
    Prompts,
    Seed,
    WarmupForwards,
    choose_workload,
    is_workload,
)
from profiler_kit.errors import OptionError
from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    from profiler_kit.formats.layer_file import LayerFile


def command(
    recorded: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|WORKLOAD]",
            help="A run folder or layers.parquet to show; or your own workload to measure: mine.py:workload.",
        ),
    ] = None,
    model: Model = None,
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    batch_sizes: Annotated[str, typer.Option(help="Batch sizes to measure, separated by commas.")] = "1,2,4,8",
    images: Images = None,
    prompts: Prompts = None,
    device: Device = None,
    optimizations: Annotated[str, typer.Option(help="Names in the order to apply them, such as bf16.")] = "",
    warmup: WarmupForwards = None,
    iterations: Annotated[
        int | None, typer.Option(help="Timed forwards, with and without hooks. [default: 10 on a GPU, 3 on a CPU]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write layers.parquet: a folder, or a name ending in .parquet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file at --out.")] = False,
    depth: Annotated[
        int, typer.Option(help="Deepest layers in the table: 1 parts, 2 blocks, 3 what is in a block. --json has all.")
    ] = 2,
    as_json: AsJson = False,
) -> None:
    """Time every layer of Segment Anything, or of your own workload, at several batch sizes; or show a recorded run's.

    Median and interquartile range over the iterations; efficiency is the time per image at the smallest batch size
    over the time per image here; share is of the whole forward.
    """
    from profiler_kit.formats.layer_file import read_layers, write_layers

    if depth < 0:
        raise OptionError(f"--depth {depth}: expected 0 or more.")
    if recorded is not None and not is_workload(recorded):
        if out is not None:
            raise OptionError(f"--out {out}: {recorded} is shown, not measured, so there is nothing to write.")
        layers = read_layers(recorded)
    else:
        from profiler_kit.capture.layer_sweep import parse_batch_sizes
        from profiler_kit.workload.capture import CaptureOptions, make_plan, measure_layers

        parse_batch_sizes(batch_sizes)
        target = None if out is None else _target(out, overwrite=overwrite)
        options = CaptureOptions(
            device=device, optimizations=optimizations, warmup=warmup, iterations=iterations, layers=batch_sizes
        )
        workload = choose_workload(
            recorded, seed=seed, model=model, checkpoint=checkpoint, images=images, prompts=prompts
        )
        plan = make_plan(workload, options)
        with progress_bar("layers") as report:
            layers = measure_layers(plan, report=report)
        if target is not None:
            write_layers(target, layers)
            typer.echo(f"written to {target}", err=True)
    if as_json:
        _print_json(layers)
    else:
        _print(layers, depth)


def _target(out: Path, *, overwrite: bool) -> Path:
    """The file to write; raises OptionError, before anything is measured, when it exists or cannot be written."""
    from profiler_kit.capture.run_folder import check_place
    from profiler_kit.formats.run_record import LAYERS

    target = out if out.suffix == ".parquet" else out / LAYERS
    if target.is_dir():
        raise OptionError(f"--out {target}: this is a folder, expected a file name. Choose another --out.")
    if target.exists() and not overwrite:
        raise OptionError(f"--out {out}: {target} exists already. Choose another --out, or add --overwrite.")
    check_place(out, target)
    return target


def _print(layers: LayerFile, depth: int) -> None:
    """The layers down to that depth, each with its batch sizes, and what the layers explain of the whole forward."""
    from profiler_kit.render.text_table import filled_lines
    from profiler_kit.run import layers_of
    from profiler_kit.tables import every_table

    found = layers_of(layers)
    shown = every_table()["layer_totals"].of_source(found, deepest=depth)
    names, every = shown.frame["layer"].nunique(), found.totals["layer"].nunique()
    print_lines(f"{names} of {every} layers", lambda width: filled_lines(shown, width=width))
    if names < every:
        typer.echo(hanging("", f"--depth {found.totals['depth'].max()} shows all layers, and so does --json.") + "\n")
    print_filled(every_table()["layer_coverage"].of_source(found))
    for note in layers.notes:
        typer.echo(hanging("note: ", note))


def _print_json(layers: LayerFile) -> None:
    """All layers at all batch sizes, and how much of the whole forward they explain."""
    from profiler_kit.analyses.layers.totals import explained, layer_totals

    totals, coverage = layer_totals(layers.calls), explained(layers.calls, layers.forwards)
    print_json({"layers": records(totals), "explained": records(coverage), "notes": list(layers.notes)})
