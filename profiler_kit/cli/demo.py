"""`profiler-kit demo`: record SAM on this machine, show where its time went beside a real H200, and serve both."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Final

import typer

from profiler_kit.cli.output import open_trace, print_table
from profiler_kit.cli.table_command import print_filled
from profiler_kit.errors import OptionError
from profiler_kit.formats.run_record import RunRecord, read_record

DEMO_PREFIX: Final = "demo-"  # the folder of the fresh run, which every demo replaces
MODEL: Final = "vit_b"
LAYER_BATCHES: Final = "1"  # on a CPU a vit_b forward takes some ten seconds; the samples have 1 to 8


def command(
    folder: Annotated[
        Path | None,
        typer.Option("--dir", help="Folder for the fresh run, beside the samples. Default: ./traces."),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", help="vit_b, vit_l, vit_h, vit_small (trained) or vit_tiny (quick).")
    ] = MODEL,
    device: Annotated[
        str | None, typer.Option("--device", help="cpu or cuda. Default: cuda when there is one.")
    ] = None,
    serving: Annotated[bool, typer.Option("--serve/--no-serve", help="Show the dashboard at the end.")] = True,
    port: Annotated[int | None, typer.Option("--port", help="Port of the dashboard.")] = None,
) -> None:
    """Record SAM on this machine, print where the time went, and open the dashboard."""
    root = _root_with_samples(folder)
    run = _record(root, model=model, device=device)
    for sample in sorted(root.iterdir()):
        if sample != run and (sample / "run.json").is_file():
            _print_run(sample, regions=False)
    _print_run(run, regions=True)
    if serving:
        from profiler_kit.cli.serve import serve

        serve(root, port=port, show=run.name)


def _root_with_samples(folder: Path | None) -> Path:
    """The folder to serve, with the recorded samples copied into it unless it is theirs."""
    from profiler_kit.load.discover.runs import samples_root

    root = folder if folder is not None else Path("traces")
    if root.exists() and not root.is_dir():
        raise OptionError(f"--dir {root}: this is a file, expected a folder. Choose another --dir.")
    samples = samples_root()
    if samples is not None and root.resolve() != samples.resolve():
        for sample in sorted(samples.iterdir()):
            if sample.is_dir() and not sample.name.startswith((DEMO_PREFIX, ".")):
                shutil.copytree(sample, root / sample.name, dirs_exist_ok=True)
    return root


def _record(root: Path, *, model: str, device: str | None) -> Path:
    import torch

    from profiler_kit.models.sam.workload import SamWorkload
    from profiler_kit.progress import progress_bar
    from profiler_kit.workload.capture import CaptureOptions, capture_run

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = chosen.startswith("cuda")
    options = CaptureOptions(
        device=chosen,
        batch_size=2 if on_gpu else 1,
        warmup=3 if on_gpu else 1,
        iterations=10 if on_gpu else 1,
        trace_batches=2 if on_gpu else 1,
        layers="1,2,4,8" if on_gpu else LAYER_BATCHES,
        out=root / f"{DEMO_PREFIX}{chosen.replace(':', '')}",
        overwrite=True,
    )
    typer.echo(f"Recording {model} on {chosen}: timings, trace, memory, layers ...", err=True)
    with progress_bar("Recording") as report:
        return capture_run(SamWorkload(model, count=2), options, report=report)


def _print_run(run: Path, *, regions: bool) -> None:
    """One run: what ran, how fast, and (for the fresh one) where the time went."""
    from profiler_kit.text import fmt_ns

    record = read_record(run)
    latency = _median(record.latency_ns)
    rows = [
        ("what", describe(record)),
        ("on", f"{record.device_name}, torch {record.versions.get('torch', '?')}"),
        ("peak memory", _peak(record)),
    ]
    if latency is not None:  # a server's run has requests in place of timed batches
        samples = _samples(len(record.latency_ns), record.batch_size)
        rows.insert(2, ("latency", f"{fmt_ns(latency / record.batch_size)} per image ({samples})"))
    print_table(record.name, ("", ""), rows, left=2)
    if regions:
        print_filled(open_trace(run).table("regions"), run)


def _samples(batches: int, size: int) -> str:
    """What the latency was taken from."""
    of = f"of {size} image" if size == 1 else f"of {size} images"
    return f"one batch {of}" if batches == 1 else f"median of {batches} batches {of}"


def _peak(record: RunRecord) -> str:
    """The peak torch counted in the timed batches; on a CPU, where it counts nothing, that of the snapshot."""
    from profiler_kit.text import fmt_bytes

    of_snapshot = record.peak_memory_bytes is None and record.peak_bytes is not None
    return fmt_bytes(record.peak_bytes) + " (CPU tensors, from the snapshot)" * of_snapshot


def describe(record: RunRecord) -> str:
    """One line of what ran: model, weights, optimizations, dtype, batch size, image size."""
    weights = record.weights if record.weights.startswith("random") else record.weights[: len("checkpoint:") + 12]
    steps = ", ".join(record.optimizations) or "as published"
    return f"{record.model} ({weights}), {steps}, {record.dtype}, batch of {record.batch}"


def _median(values: tuple[int, ...]) -> float | None:
    import statistics

    return statistics.median(values) if values else None
