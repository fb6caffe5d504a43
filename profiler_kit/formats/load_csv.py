"""A load test as rows of result.csv, the table of sam2's example server: its columns, its way to write values.

A row is a step of the load; the first calls, which are part of every average there, are a row of their own. A value
that is not known is empty; p95, p99 and p999 need 20, 100 and 1,000 answers. A flag that is on says None, as there.
"""

from __future__ import annotations

import csv
import io
import math
import statistics
from pathlib import Path
from typing import Final

from profiler_kit.errors import OptionError
from profiler_kit.files import whole_file
from profiler_kit.formats.ladder_ratios import tail
from profiler_kit.formats.ladder_record import Agreement
from profiler_kit.formats.load_file import LoadFile, Sample
from profiler_kit.units import BYTES_PER_MIB, NS_PER_MS, NS_PER_S

HEAD: Final = (
    "furious,batch_size,p99,first,third,likely_failed_stderr,total_img_s,median,load-exported-model,"
    "experiment_name,task,bytes_MiB,torch_version,fast,fifth,torchvision_version,export-model,environ,argmax,"
    "gpu-preproc,total_time,p999,fourth,allow-recompiles,bytes,num-images,total_ms_per_img,p95,fail_count,"
    "meta-folder,run_script_time,mean,percentage,batch-size,baseline,max,points-per-batch,second,miou"
)
COLUMNS: Final = tuple(HEAD.split(","))
_ON: Final = "None"
_FLAGS: Final = {"baseline": ("baseline",), "fast": ("fast",), "furious": ("fast", "furious", "gpu-preproc")}


def add_to_csv(path: Path, found: LoadFile, agreement: Agreement | None = None) -> None:
    """Add a row for each step; raises as `csv_before`."""
    before = csv_before(path)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    for step in dict.fromkeys(one.step for one in found.samples):
        writer.writerow(_row(step, [one for one in found.samples if one.step == step], found, agreement))
    with whole_file(path) as temporary:
        temporary.write_text(before + text.getvalue(), encoding="utf-8")


def csv_before(path: Path) -> str:
    """What the file holds, the heading alone where there is none; raises OptionError for another table."""
    before = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else f"{HEAD}\n"
    if before.partition("\n")[0].rstrip("\r") != HEAD:
        raise OptionError(f"{path}: holds another table, expected the columns of sam2's example. Move it away.")
    return before


def _row(step: str, samples: list[Sample], found: LoadFile, agreement: Agreement | None) -> dict[str, object]:
    """What is known of one step."""
    server, peaks = found.server, found.peaks.get(step)
    good = [one.latency_ns for one in samples if one.status == 200]
    span_s = (max(one.done_ns for one in samples) - min(one.scheduled_ns for one in samples)) / NS_PER_S
    row: dict[str, object] = dict.fromkeys(_FLAGS.get(server.mode, ()), _ON)
    row |= {
        "experiment_name": " ".join(filter(None, (server.model, server.mode, step))),
        "task": {0: "amg", 1: "sps"}.get(server.points, "mps"),
        "batch_size": server.batch_size or "",
        "batch-size": server.batch_size or "",
        "points-per-batch": server.points_per_batch or "",
        "torch_version": server.torch,
        "torchvision_version": server.torchvision,
        "num-images": len(samples),
        "likely_failed_stderr": next((one.error for one in samples if one.error), ""),
    }
    if good:
        row |= {
            "total_time": f"{span_s}s",
            "total_img_s": f"{len(good) / max(span_s, 1e-9)}img/s",
            "total_ms_per_img": f"{1e3 * span_s / len(good)}ms",
            "argmax": good.index(max(good)),
            "mean": _ms(statistics.fmean(good)),
            "median": _ms(statistics.median(good)),
            "max": _ms(max(good)),
            **{name: _ms(tail(good, share)) for name, share in (("p95", 0.95), ("p99", 0.99), ("p999", 0.999))},
            **dict(zip(("first", "second", "third", "fourth", "fifth"), map(_ms, good), strict=False)),
        }
    if peaks is not None and peaks.peak_allocated_bytes is not None:
        held = peaks.peak_allocated_bytes
        row |= {"bytes": held, "bytes_MiB": held // BYTES_PER_MIB}
        row["percentage"] = 100 * held // server.device_memory_bytes if server.device_memory_bytes else ""
    if agreement is not None:
        row |= {"miou": "" if agreement.strict_miou is None else agreement.strict_miou}
        row["fail_count"] = agreement.count_mismatch
    return row


def _ms(value_ns: float) -> str:
    return "" if math.isnan(value_ns) else f"{int(value_ns / NS_PER_MS)}ms"
