"""`profiler-kit sam`: serve a mask generator over HTTP, compile it ahead of time, put it under load, compare two
loads.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from profiler_kit.cli import sam_student
from profiler_kit.cli.output import AsJson, hanging, print_json
from profiler_kit.cli.serve import Host, take_port
from profiler_kit.cli.workloads import Checkpoint, Device, Images, choose_workload
from profiler_kit.errors import OptionError, ThresholdError
from profiler_kit.units import BYTES_PER_MIB

if TYPE_CHECKING:
    from profiler_kit.workload.protocol import Workload

PORT: Final = 8600
BATCH: Final = 8
RESULT: Final = "result.csv"
MODEL: Final = "vit_small"
Samples = Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="What sam load wrote.")]
ServedModel = Annotated[
    str | None,
    typer.Argument(metavar="[MODEL]", help="As capture --model: vit_b, sam2_large, ... [default: vit_small]"),
]
Mode = Annotated[
    str | None,
    typer.Option(help="baseline, ao, fast, furious, graphs or fp8. [default: furious on a GPU, baseline on a CPU]"),
]
BatchSize = Annotated[int | None, typer.Option(help=f"Most images in one batch. [default: {BATCH}]")]
PointsPerSide = Annotated[
    int | None, typer.Option(help="Points on each side of the grid asked of each image. [default: 32]")
]
PointsPerBatch = Annotated[
    int | None, typer.Option(help="Points decoded at once, in modes that do not take all of them. [default: 64]")
]


def serve(
    model: ServedModel = None,
    checkpoint: Checkpoint = None,
    mode: Mode = None,
    load: Annotated[
        Path | None,
        typer.Option("--load", help="Folder that sam export wrote on this machine: starts without compiling."),
    ] = None,
    device: Device = None,
    batch_size: BatchSize = None,
    max_wait_ms: Annotated[float, typer.Option(help="How long the first request of a batch waits for others.")] = 5.0,
    queue: Annotated[int, typer.Option(help="Requests that may wait; any more get 503.")] = 256,
    points_per_side: PointsPerSide = None,
    points_per_batch: PointsPerBatch = None,
    pred_iou_thresh: Annotated[float | None, typer.Option(help="Lowest predicted IoU to keep. [0.88]")] = None,
    stability_score_thresh: Annotated[float | None, typer.Option(help="Lowest stability to keep. [0.95]")] = None,
    max_mib: Annotated[float, typer.Option(help="Largest image file, MiB.")] = 20.0,
    max_pixels: Annotated[int, typer.Option(help="Largest picture, pixels.")] = 40_000_000,
    profiles: Annotated[Path, typer.Option(help="Folder for the runs of POST /profile.")] = Path("traces"),
    host: Host = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help=f"Port. [default: {PORT}, or the next free one]")] = None,
) -> None:
    """Serve all masks of an image: POST /upload (PNG), /upload_rle (JSON), /upload_rle_stream (a line a mask).

    With ?points=120,80;30,40 (pixels) one mask of each point instead. GET /health and /metrics (Prometheus) tell how it
    goes; POST /profile?requests=N records N requests into a run folder, from this machine only. Ctrl+C ends it: the
    running batch is answered, what waits gets 503.
    """
    import contextlib

    from profiler_kit.capture.device import choose_device
    from profiler_kit.models.serving import server as serving
    from profiler_kit.models.serving.images import Limits
    from profiler_kit.models.serving.package import open_package
    from profiler_kit.models.serving.service import make_service

    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(take_port(host, port, first=PORT))
        for option, value in (("--max-mib", max_mib), ("--max-pixels", max_pixels)):
            if not 0 < value < 1e12:
                raise OptionError(f"{option} {value:g}: expected more than 0 and less than 1e12.")
        limits = Limits(int(max_mib * BYTES_PER_MIB), max_pixels)
        options = serving.ServeOptions(batch_size or BATCH, max_wait_ms, queue, limits, profiles)
        package = None
        if load is not None:
            package = open_package(load, choose_device(device))
            package.check(model=model, mode=mode, batch_size=batch_size)
            package.check(points_per_side=points_per_side, points_per_batch=points_per_batch)
            held = package.record
            model, mode = held.model, held.mode
            points_per_side, points_per_batch = held.points_per_side, held.points_per_batch
            options = dataclasses.replace(options, batch_size=held.batch_size)
        thresholds = {"pred_iou_thresh": pred_iou_thresh, "stability_score_thresh": stability_score_thresh}
        workload = _workload(model, checkpoint, points_per_side, points_per_batch, **thresholds)
        chosen = choose_device(device)
        packages = None if package is None else package.packages
        service = make_service(workload, mode, chosen, stack, batch_size=options.batch_size, packages=packages)
        if package is not None:
            package.check(weights=workload.weights)
        url = f"http://{host}:{sock.getsockname()[1]}"
        said = f"{model}, {service.mode}, on {chosen}\n  try   curl -F image=@FILE.jpg {url}/upload_rle\n  stop  Ctrl+C"
        typer.echo(f"loading and warming up {model} ({service.mode})", err=True)
        serving.serve(serving.MaskServer(service, options, host), sock, lambda: typer.echo(f"{url} serves {said}"))


def _workload(
    model: str | None, checkpoint: Path | None, side: int | None, batch: int | None, **thresholds: float | None
) -> Workload:
    """All masks of an image by that model; side, batch: of the grid of points."""
    options = {"task": "amg", "points_per_side": side, "points_per_batch": batch, **thresholds}
    workload = choose_workload(None, seed=0, model=model or MODEL, checkpoint=checkpoint, **options)
    workload.check(1)
    return workload


def export(
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    model: ServedModel = None,
    checkpoint: Checkpoint = None,
    mode: Mode = None,
    device: Device = None,
    batch_size: BatchSize = None,
    points_per_side: PointsPerSide = None,
    points_per_batch: PointsPerBatch = None,
) -> None:
    """Compile what sam serve would, and keep it: sam serve --load DIR then starts without compiling.

    The folder holds AOTInductor packages of the image encoder, tried in a process of their own; where torch cannot load
    them, what its compilers cached alone. They are code: load only what you made, on the same GPU with the same torch.
    """
    from profiler_kit.capture.device import choose_device
    from profiler_kit.models.serving.package import export_package

    workload = _workload(model, checkpoint, points_per_side, points_per_batch)
    typer.echo(f"compiling {workload.name} for batches of up to {batch_size or BATCH}, which takes minutes", err=True)
    record = export_package(workload, mode, choose_device(device), target, batch_size=batch_size or BATCH)
    if record.without:
        typer.echo(f"no AOTInductor packages: {record.without}", err=True)
    typer.echo(f"{target}: {record.model}, {record.mode}, {', '.join(record.sha256)}")
    typer.echo(f"  serve  profiler-kit sam serve --load {target}")


def load(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="As sam serve printed it; /upload_rle unless it has a path.")
    ],
    images: Images = None,
    rate: Annotated[str, typer.Option(help="Requests a second, open loop: 5,10,20.")] = "",
    concurrency: Annotated[str, typer.Option(help="Clients at once, closed loop: 1,4,16.")] = "",
    duration: Annotated[float, typer.Option(help="Seconds that each load lasts.")] = 10.0,
    requests: Annotated[int | None, typer.Option(help="Requests of each load, in place of --duration.")] = None,
    first: Annotated[int, typer.Option(help="Warm-up requests, at most one per image.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the times at which requests are sent.")] = 0,
    out: Annotated[Path, typer.Option(help="File for the samples, one line per request.")] = Path("load.jsonl"),
    baseline: Annotated[
        Path | None, typer.Option(help="Another load of the same images: result.csv then says how masks agree.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send images to a server at each load, one after the other, and print the latencies; the samples are kept.

    Open loop: requests leave at random times however slow the answers are, and latency counts from when they were due.
    The first calls, one an image, come before and are counted apart; the masks of each image are kept once, to compare.
    A row a step is added to result.csv beside the samples, with the columns of sam2's example.
    """
    from profiler_kit.cli.table_command import print_filled
    from profiler_kit.finding import counted
    from profiler_kit.formats.load_csv import add_to_csv, csv_before
    from profiler_kit.formats.load_file import read_load
    from profiler_kit.models.serving.compare import answers_agree
    from profiler_kit.models.serving.load import Plan, read_files, run_load
    from profiler_kit.tables import every_table

    rates, clients = _numbers("--rate", rate), _numbers("--concurrency", concurrency)
    if any(one != int(one) for one in clients):
        raise OptionError(f"--concurrency {concurrency}: expected whole numbers, such as 1,4,16.")
    if not 0 < duration < 1e6:
        raise OptionError(f"--duration {duration:g}: expected seconds, more than 0.")
    for option, value, least in (("--requests", requests, 1), ("--first", first, 0)):
        if value is not None and value < least:
            raise OptionError(f"{option} {value}: expected {least} or more.")
    if not rates and not clients:
        clients = [1.0]
    csv_before(out.with_name(RESULT))
    base = None if baseline is None else read_load(baseline)
    plan = Plan(url, read_files(images), rates, [int(one) for one in clients], duration, requests, first, seed)
    each = f"{duration:g} s" if requests is None else counted(requests, "request")
    run_load(plan, out, lambda step: typer.echo(f"{step}: {each}", err=True))
    found = read_load(out)
    add_to_csv(out.with_name(RESULT), found, None if base is None else answers_agree(base, found).masks)
    filled = every_table()["load"].of_source(found)
    if as_json:
        print_json(filled.records())
    else:
        print_filled(filled, out)


def compare(
    baseline: Samples,
    other: Samples,
    min_miou: Annotated[float | None, typer.Option(help="Fail when matched masks agree less (mean IoU).")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the masks and the median latency of a load test with those of another on the same images."""
    from profiler_kit.findings.serving import agreement
    from profiler_kit.formats.load_file import read_load
    from profiler_kit.models.serving.compare import answers_agree

    found = answers_agree(read_load(baseline), read_load(other))
    if as_json:
        print_json(found.as_json())
    else:
        typer.echo(hanging("", agreement(found).sentence))
    miou = found.masks.miou
    if min_miou is not None and (miou is None or miou < min_miou):
        raise ThresholdError(f"{other}: mean IoU {miou}, expected at least {min_miou} with {baseline}.")


def _numbers(option: str, text: str) -> list[float]:
    try:
        found = [float(one) for one in text.split(",") if one.strip()]
    except ValueError:
        found = [0.0]
    if not all(0 < one <= 10_000 for one in found):
        raise OptionError(f"{option} {text}: expected numbers from above 0 to 10000, such as 5,10,20.")
    return found


COMMANDS: Final = {"serve": serve, "export": export, "load": load, "compare": compare, "student": sam_student}
