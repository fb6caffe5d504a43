"""`profiler-kit capture`: run Segment Anything or a user's workload and record the run into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler_kit.cli.workloads import Checkpoint, Device, Images, Model, Prompts, Seed, Warmup, choose_workload
from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    from profiler_kit.formats.run_record import RunRecord


def command(
    workload: Annotated[
        Path | None,
        typer.Argument(
            metavar="[WORKLOAD]", help="Your own: mine.py:workload or package.module:workload. [default: SAM]"
        ),
    ] = None,
    model: Model = None,
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Images in one batch.")] = 1,
    images: Images = None,
    scenes: Annotated[int | None, typer.Option(help="How many scenes to generate. [default: one batch]")] = None,
    prompts: Prompts = None,
    device: Device = None,
    optimizations: Annotated[
        str, typer.Option(help="Names in the order to apply them, such as bf16,compile; also tf32, fp16.")
    ] = "",
    warmup: Warmup = None,
    iterations: Annotated[int | None, typer.Option(help="Timed batches. [default: 10 on a GPU, 3 on a CPU]")] = None,
    trace_batches: Annotated[int, typer.Option(help="Batches in the trace.")] = 2,
    layers: Annotated[str, typer.Option(help="Batch sizes to time every layer at, such as 1,2,4,8.")] = "",
    record_shapes: Annotated[bool, typer.Option(help="Record operator shapes in the trace.")] = False,
    with_stack: Annotated[bool, typer.Option(help="Record Python stacks in the trace.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to make. [default: traces/MODEL-OPTIMIZATIONS-DEVICE-TIME]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run at --out.")] = False,
) -> None:
    """Run Segment Anything, or a workload of your own, and record the run into a folder.

    The folder gets run.json (what ran, latencies), trace.json.gz, memory.pickle and, with --layers, layers.parquet;
    of Segment Anything also masks.json. Look at it with: profiler-kit serve
    """
    from profiler_kit.formats.run_record import read_record
    from profiler_kit.workload.capture import CaptureOptions, capture_run

    chosen = choose_workload(
        workload, seed=seed, model=model, checkpoint=checkpoint, images=images, scenes=scenes, prompts=prompts
    )
    options = CaptureOptions(
        batch_size=batch_size,
        device=device,
        optimizations=optimizations,
        warmup=warmup,
        iterations=iterations,
        trace_batches=trace_batches,
        layers=layers,
        record_shapes=record_shapes,
        with_stack=with_stack,
        out=out,
        overwrite=overwrite,
    )
    with progress_bar("capture") as report:
        folder = capture_run(chosen, options, report=report)
    for line in describe_run(read_record(folder)):
        typer.echo(line)
    typer.echo(f"written to {folder}")


def describe_run(record: RunRecord) -> list[str]:
    """A few lines on a run: what ran, its latency, its peak memory, its notes."""
    import statistics

    from profiler_kit.text import fmt_bytes, fmt_ns
    from profiler_kit.units import ns_to_s

    how = " + ".join(record.optimizations) or "eager"
    median_ns = statistics.median(record.latency_ns)
    low, high = fmt_ns(min(record.latency_ns)), fmt_ns(max(record.latency_ns))
    lines = [
        f"{record.model} {how} {record.dtype}, batch size {record.batch_size}, {record.device_name}",
        f"latency {fmt_ns(median_ns)} a batch (median of {len(record.latency_ns)}, {low} to {high}), "
        f"{record.batch_size / ns_to_s(median_ns):.2f} {record.unit}/s",
    ]
    if record.peak_memory_bytes is not None:
        lines.append(f"peak memory {fmt_bytes(record.peak_memory_bytes)}")
    return lines + [f"note: {note}" for note in record.notes]
