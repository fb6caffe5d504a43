"""Ladder results as a frame and as results.csv; needs no torch."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from profiler_kit.files import whole_file
from profiler_kit.formats.ladder_ratios import (
    NAN,
    Ratio,
    baseline_medians,
    drift,
    over_baseline,
    over_step,
    quantile,
    tail,
)
from profiler_kit.formats.ladder_record import (
    Agreement,
    LadderRecord,
    RowResult,
    Truth,
    as_one_compiler,
    is_compiled,
    too_few_masks,
)
from profiler_kit.schema import Column, Schema
from profiler_kit.units import NS_PER_S, ns_to_ms, ns_to_s

if TYPE_CHECKING:
    import pandas as pd

_VERDICT: Final = (
    "Against {}: faster, slower, or within the noise (the interval holds 1, or the baseline's own medians differ by "
    "more)."
)
LADDER_ROWS: Final = Schema(
    "LADDER_ROWS",
    "technique, in the order they were listed; the first is the baseline",
    {
        "technique": Column("str", "Name of the row; ↳ is an alternative to the step above it."),
        "optimizations": Column(
            "str", "In the order they were applied, separated by commas; empty as published.", show="room"
        ),
        "status": Column("str", "Whether it was measured: ok, failed, timeout, oom, skipped."),
        "error": Column("str", "Why there are no numbers, in one line.", show="never"),
        "is_step": Column("bool", "Each step has all optimizations of the one below it.", "a step", "never"),
        "parent": Column("str", "The step that it is compared with; empty for the baseline.", "compared with", "room"),
        "dtype": Column("str", "Number format of the model."),
        "batch_size": Column("int64", show="room"),
        "samples": Column("int64", "Timed batches, which median, quartiles and tails are of.", "n"),
        "images_per_s": Column("float64", "Items of a batch (images, sequences) over its median time.", "speed"),
        "median_ns": Column("float64", "Of one batch, between events around the timed region."),
        "q1_ns": Column("float64", show="room"),
        "q3_ns": Column("float64", show="room"),
        "p90_ns": Column("float64", "The 90th percentile, of 10 batches or more.", "p90", "room"),
        "p95_ns": Column("float64", "The 95th percentile, of 20 batches or more.", "p95", "room"),
        "p99_ns": Column("float64", "The 99th percentile, of 100 batches or more.", "p99", "room"),
        "max_ns": Column("float64", "The slowest batch.", show="room"),
        "mean_ns": Column("float64", show="never"),
        "first_ns": Column("float64", "The first call of the process.", show="room"),
        "load_ns": Column("float64", "Building the model, reading weights, moving them to the device.", show="room"),
        "compile_cold_ns": Column(
            "float64", "First call of a compiled row, caches empty.", "cold compile", "room", where="compile_cold_ns"
        ),
        "compile_warm_ns": Column(
            "float64",
            "First call of a second process that finds the caches of the first.",
            "warm compile",
            "room",
            where="compile_warm_ns",
        ),
        "warmup_ns": Column("float64", "The calls before the timed ones.", "warm-up", "never"),
        "peak_memory_bytes": Column("float64", "Peak after a reset before the timed batches.", "peak memory"),
        "peak_reserved_bytes": Column(
            "float64",
            "Peak of what torch's allocator held from the driver, with the pools of CUDA graphs and what it kept free.",
            "peak reserved",
            "room",
        ),
        "memory_share": Column("float64", "Peak as a share of the device's memory.", "of memory", "room"),
        "masks": Column("int64", "Found in all images together.", show="never"),
        "masks_judged": Column(
            "str", "Whether metrics rest on 5 masks an image or more; empty where they do.", "masks"
        ),
        "miou": Column("float64", "Mean IoU with the true masks, where they are known.", "mIoU", unit="score"),
        "miou_small": Column("float64", "Of true masks below 32² pixels.", "small", "room", "score"),
        "miou_medium": Column("float64", "Of true masks from 32² to below 96² pixels.", "medium", "room", "score"),
        "miou_large": Column("float64", "Of true masks from 96² pixels on.", "large", "room", "score"),
        "baseline_miou": Column(
            "float64", "Mean IoU with the masks of the baseline.", "mIoU with fp32", "never", "score"
        ),
        "baseline_miou_strict": Column(
            "float64", "The same without images with another number of masks.", "mIoU strict", "never", "score"
        ),
        "mask_count_mismatch": Column(
            "float64",
            "Images with another number of masks than the baseline's (how the sam2 server counts).",
            "counts differ",
            "room",
            "count",
        ),
        "mask_match_mismatch": Column(
            "float64",
            "Images with a mask that has no partner of IoU 0.5 or more.",
            "without partner",
            "room",
            "count",
        ),
        "relative_error": Column(
            "float64", "Of the outputs of one batch against the baseline's.", "relative error", unit="per_s"
        ),
        "cosine": Column(
            "float64",
            "Between the outputs of one batch and the baseline's, as one vector.",
            "cosine with fp32",
            "never",
            "score",
        ),
        "agreement": Column("float64", "With the baseline: mean IoU of masks, or the cosine of outputs.", unit="score"),
        "unit": Column("str", "What a batch is counted in.", show="never"),
        "speedup": Column("float64", "Speed over that of the baseline, measured before and after the row.", "× fp32"),
        "speedup_low": Column(
            "float64", "Lower end of its 95 % interval (bootstrap of both medians).", "× fp32 from", "room"
        ),
        "speedup_high": Column("float64", "Upper end of it.", "× fp32 to", "room"),
        "speedup_verdict": Column("str", _VERDICT.format("the baseline"), "verdict"),
        "gain": Column("float64", "Speed over that of the step below it.", "× step"),
        "gain_low": Column(
            "float64", "Lower end of its 95 % interval (bootstrap of both medians).", "× step from", "room"
        ),
        "gain_high": Column("float64", "Upper end of it.", "× step to", "room"),
        "gain_verdict": Column("str", _VERDICT.format("the step below it"), "verdict on step", "room"),
        "tflops": Column("float64", "Work of the published model over the median time.", "TFLOP/s"),
        "intensity": Column(
            "float64", "FLOP per byte that the published operators move, at this row's dtype.", "FLOP/byte", "never"
        ),
        "peak_tflops": Column("float64", "The device's measured matrix rate at that dtype.", "device TFLOP/s"),
        "rate_share": Column("float64", "Of the device's measured matrix rate at that dtype.", "of rate", "room"),
        "below_min_miou": Column("bool", "Masks agree less with the baseline's than was asked for.", show="never"),
    },
)


_ITEM_BYTES: Final = {"bfloat16": 2, "float16": 2}
_S_PER_MINUTE: Final = 60
HALF: Final = {"bf16": "torch.bfloat16", "fp16": "torch.float16"}
COMPRESSED: Final = ("int8", "fp8", "sparse")  # what segment-anything-fast calls compress


def images_per_s(row: RowResult) -> float:
    """Images a second at the median batch; NaN when nothing was measured."""
    median = quantile(row.latency_ns, 0.5)
    return row.batch_size * NS_PER_S / median if median > 0 else NAN


def ladder_rows(record: LadderRecord) -> pd.DataFrame:
    """LADDER_ROWS of a record."""
    return LADDER_ROWS.of(_frame_row(record, row) for row in record.rows)


def parent_of(record: LadderRecord, row: RowResult) -> RowResult | None:
    """The measured step below a row: the one before it, for an alternative the last of which it has all optimizations.

    None for the baseline.
    """
    below = None
    for name in record.steps:
        step = record.row(name)
        if name == row.technique:
            break
        if step is None or step.status != "ok":
            continue
        if row.technique in record.steps or as_one_compiler(step.optimizations) <= as_one_compiler(row.optimizations):
            below = step
    return below


def below_min_miou(record: LadderRecord, row: RowResult) -> bool:
    """Whether the masks of a measured row agree less with the baseline's than was asked for."""
    if record.min_miou is None or row.status != "ok" or row.agreement is None or row.agreement.miou is None:
        return False
    return row.agreement.miou < record.min_miou


def masks_judged(record: LadderRecord, row: RowResult) -> str:
    """What to say beside the metrics of a row's masks, when they are too few in an image, its own or the baseline's."""
    if row.status != "ok" or not record.setup.task:
        return ""
    images = record.setup.num_images if row.agreement is None else row.agreement.images
    return too_few_masks(row.masks if row.agreement is None else min(row.masks, row.agreement.masks), images)


def intensity(record: LadderRecord, row: RowResult) -> float:
    """FLOP per byte that the published model's operators read and write, in the row's dtype; NaN when not counted."""
    work = None if record.baseline is None else record.baseline.work
    if work is None or not work.bytes or not row.dtype:
        return NAN
    return work.flop / (work.bytes * _ITEM_BYTES.get(row.dtype, 4) / 4)


def rate_name(row: RowResult) -> str:
    """Which of the measured matrix rates is the limit of a row."""
    return "tf32" if "tf32" in row.optimizations and row.dtype == "float32" else row.dtype


def _frame_row(record: LadderRecord, row: RowResult) -> dict[str, Any]:
    speed, parent, base = images_per_s(row), parent_of(record, row), record.baseline
    truth, agreement = None if row.masks == 0 else row.truth, row.agreement  # of no masks there is nothing to score
    samples = row.latency_ns
    median = quantile(samples, 0.5)
    speedup, gain, noise = over_baseline(record, row), over_step(record, row, parent), drift(record)
    work = None if base is None else base.work
    phases = {name: float(row.phases_ns.get(name, NAN)) for name in ("load", "compile_cold", "compile_warm", "warmup")}
    rate = None if record.ceilings is None else record.ceilings.matrix_tflops.get(rate_name(row))
    return {
        "technique": row.technique,
        "optimizations": ",".join(row.optimizations),
        "status": row.status,
        "error": row.error,
        "is_step": row.technique in record.steps,
        "parent": "" if parent is None else parent.technique,
        "dtype": row.dtype,
        "batch_size": row.batch_size,
        "samples": len(samples),
        "images_per_s": speed,
        "median_ns": median,
        **{f"{name}_ns": quantile(samples, share) for name, share in QUARTILES.items()},
        **{f"{name}_ns": tail(samples, share) for name, share in TAILS.items()},
        "max_ns": quantile(samples, 1.0),
        "mean_ns": sum(samples) / len(samples) if samples else NAN,
        "first_ns": _number(row.first_ns),
        **{f"{name}_ns": value for name, value in phases.items()},
        "peak_memory_bytes": _number(row.peak_memory_bytes),
        "peak_reserved_bytes": _number(row.peak_reserved_bytes),
        "memory_share": _share(row.peak_memory_bytes, row.total_memory_bytes),
        "masks": row.masks,
        "masks_judged": masks_judged(record, row),
        "miou": _field(truth, "miou"),
        "miou_small": _field(truth, "small"),
        "miou_medium": _field(truth, "medium"),
        "miou_large": _field(truth, "large"),
        "baseline_miou": _field(agreement, "miou"),
        "baseline_miou_strict": _field(agreement, "strict_miou"),
        "mask_count_mismatch": _field(agreement, "count_mismatch"),
        "mask_match_mismatch": _field(agreement, "match_mismatch"),
        "relative_error": _number(row.scores.get("relative_error")),
        "cosine": _number(row.scores.get("cosine")),
        "agreement": _number(row.scores.get("cosine") if agreement is None else agreement.miou),
        "unit": record.setup.unit,
        **_ratio_columns("speedup", speedup, "" if row is base else speedup.verdict(noise)),
        **_ratio_columns("gain", gain, gain.verdict(noise)),
        "tflops": NAN if work is None or not samples else work.flop / median / 1e3,
        "intensity": intensity(record, row),
        "peak_tflops": _number(rate),
        "rate_share": NAN if work is None or not samples or not rate else work.flop / median / 1e3 / rate,
        "below_min_miou": below_min_miou(record, row),
    }


QUARTILES: Final = {"q1": 0.25, "q3": 0.75}
TAILS: Final = {"p90": 0.9, "p95": 0.95, "p99": 0.99}


def _ratio_columns(name: str, one: Ratio, verdict: str) -> dict[str, float | str]:
    return {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high, f"{name}_verdict": verdict}


def _number(value: float | None) -> float:
    return NAN if value is None else float(value)


def _field(record: Truth | Agreement | None, name: str) -> float:
    return NAN if record is None else _number(getattr(record, name))


def _share(part: int | None, whole: int | None) -> float:
    return part / whole if part is not None and whole else NAN


def write_csv(path: Path, record: LadderRecord) -> None:
    """Write results.csv, whole or not at all: one line a row of the ladder.

    First the columns of segment-anything-fast's results, then those of the sam2 server's experiments (times as
    "12.345ms", as there), then what neither says: ratios, quantiles in ms, phases, accuracy, device, versions, commit.
    They mean what they mean there: `time` is in minutes, memory is cut to whole MiB and percents, `use_half` is
    torch.bfloat16, torch.float16 or None. Otherwise: what was not measured is empty, and a row that failed has its
    error under `error`, not ERROR; `img_s(avg)` is images over the time of the timed batches alone; `mIoU` is against
    the truth, `miou` against the baseline's masks. `argmax` counts calls as `first` to `fifth` do, and `first` is
    the first call of the process; mean, quantiles, max and argmax leave that one out, which `first_in_argmax` says.
    """
    rows = [csv_row(record, row) for row in record.rows]
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def csv_row(record: LadderRecord, row: RowResult) -> dict[str, object]:
    """One line of results.csv."""
    return {**_columns_of_fast(record, row), **_columns_of_sam2(record, row), **_columns_of_ours(record, row)}


def _columns_of_fast(record: LadderRecord, row: RowResult) -> dict[str, object]:
    names, samples = row.optimizations, row.latency_ns
    total_s = ns_to_s(sum(samples))
    return {
        "technique": row.technique,
        "time": row.wall_s / _S_PER_MINUTE,
        "sam_commit_name": f"segment_anything {record.versions.get('segment_anything', '?')}",
        "pytorch_version": record.versions.get("torch", ""),
        "sam_model_type": record.setup.model,
        "batch_size": row.batch_size or record.setup.batch_size,
        "memory(MiB)": _whole_mib(row.peak_memory_bytes),
        "memory(%)": _percent(row.peak_memory_bytes, row.total_memory_bytes),
        "img_s(avg)": len(samples) * row.batch_size / total_s if samples else None,
        "batch_ms(avg)/batch_size": ns_to_ms(sum(samples) / len(samples)) / row.batch_size if samples else None,
        "mIoU": None if row.truth is None else row.truth.miou,
        "use_compile": next((name for name in names if is_compiled((name,))), False),
        "use_half": next((HALF[name] for name in names if name in HALF), "None"),
        "compress": "+".join(name for name in names if name.startswith(COMPRESSED)) or "None",
        "epilogue_fusion_first": False,
        "use_compile_decoder": any("decoder" in name for name in names if is_compiled((name,))),
        "use_nested_tensor": any("jagged" in name or "nested" in name for name in names),
        "use_rel_pos": True,
        "pad_input_image_batch": True,
        "num_workers": 0,
        "num_batches": len(samples),
        "num_images": len(samples) * row.batch_size,
        "profile_path": "None" if row.traces is None else f"{row.traces}/trace.json.gz",
        "memory_path": "None" if row.traces is None else f"{row.traces}/memory.pickle",
    }


def _columns_of_sam2(record: LadderRecord, row: RowResult) -> dict[str, object]:
    samples, amg = row.latency_ns, record.setup.task == "amg"
    calls = ([] if row.first_ns is None else [row.first_ns]) + list(samples)
    places = ("first", "second", "third", "fourth", "fifth")
    early: dict[str, object] = {
        place: _ms(calls[number]) if number < len(calls) else None for number, place in enumerate(places)
    }
    tails = {name: tail(samples, share) for name, share in (("p95", 0.95), ("p99", 0.99), ("p999", 0.999))}
    total_s = ns_to_s(sum(samples))
    images = len(samples) * row.batch_size
    return {
        "experiment_name": row.technique,
        "task": record.setup.task,
        "batch-size": row.batch_size or record.setup.batch_size,
        "points-per-batch": record.setup.points_per_batch if amg else None,
        "num-images": images,
        **early,
        "mean": _ms(sum(samples) / len(samples)) if samples else None,
        "median": _ms(quantile(samples, 0.5)) if samples else None,
        **{name: None if math.isnan(value) else _ms(value) for name, value in tails.items()},
        "max": _ms(max(samples)) if samples else None,
        "argmax": calls.index(max(samples), len(calls) - len(samples)) if samples else None,
        "total_time": f"{total_s:.6f}s" if samples else None,
        "total_img_s": f"{images / total_s}img/s" if samples else None,
        "total_ms_per_img": f"{total_s * 1e3 / images}ms" if samples else None,
        "bytes": row.peak_memory_bytes,
        "bytes_MiB": _whole_mib(row.peak_memory_bytes),
        "percentage": _percent(row.peak_memory_bytes, row.total_memory_bytes),
        "miou": None if row.agreement is None else row.agreement.strict_miou,
        "fail_count": None if row.agreement is None else row.agreement.count_mismatch,
        "baseline": row.technique == record.rows[0].technique,
        "fast": is_compiled(row.optimizations),
        "furious": any(name in HALF for name in row.optimizations),
        "torch_version": record.versions.get("torch", ""),
        "torchvision_version": record.versions.get("torchvision", ""),
        "run_script_time": round(row.wall_s, 3),
        "likely_failed_stderr": row.error or None,
    }


def _columns_of_ours(record: LadderRecord, row: RowResult) -> dict[str, object]:
    samples, truth, agreement = row.latency_ns, row.truth, row.agreement
    quantiles = {name: quantile(samples, share) for name, share in {**QUARTILES, "median": 0.5, "max": 1.0}.items()}
    quantiles |= {name: tail(samples, share) for name, share in TAILS.items()}
    order = ("q1", "median", "q3", *TAILS, "max")
    speed, noise = images_per_s(row), drift(record)
    over = over_baseline(record, row)
    return {
        "status": row.status,
        "error": row.error,
        "optimizations": ",".join(row.optimizations),
        "step": row.technique in record.steps,
        "dtype": row.dtype,
        "image_size": row.image_size,
        "img_s(median)": _known(speed),
        "speedup": _known(over.value),
        "speedup_low": _known(over.low),
        "speedup_high": _known(over.high),
        "verdict": "" if row is record.baseline else over.verdict(noise),
        "baseline_rounds": len(baseline_medians(record)),
        "baseline_drift": _known(noise),
        "peak_reserved_MiB": _whole_mib(row.peak_reserved_bytes),
        **{f"{name}_ms": _known(ns_to_ms(quantiles[name])) for name in order},
        "first_in_argmax": False,
        "first_ms": None if row.first_ns is None else ns_to_ms(row.first_ns),
        **{
            f"{name}_s": ns_to_s(row.phases_ns[name]) if name in row.phases_ns else None
            for name in ("load", "compile_cold", "compile_warm", "warmup", "steady")
        },
        "masks_judged": masks_judged(record, row),
        "mIoU_small": None if truth is None else truth.small,
        "mIoU_medium": None if truth is None else truth.medium,
        "mIoU_large": None if truth is None else truth.large,
        "baseline_mIoU": None if agreement is None else agreement.miou,
        "mask_count_mismatch": None if agreement is None else agreement.count_mismatch,
        "mask_match_mismatch": None if agreement is None else agreement.match_mismatch,
        "relative_error": row.scores.get("relative_error"),
        "cosine": row.scores.get("cosine"),
        "below_min_miou": below_min_miou(record, row),
        "weights": row.weights or record.setup.weights,
        "device": record.setup.device,
        "device_name": record.device_name,
        "driver_version": record.versions.get("driver"),
        "cuda_version": record.versions.get("cuda"),
        "profiler_kit_version": record.versions.get("profiler_kit"),
        "git_commit": record.git_commit,
    }


def _ms(ns: float) -> str:
    return f"{ns_to_ms(ns):.3f}ms"


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _whole_mib(size_bytes: int | None) -> int | None:
    return None if size_bytes is None else size_bytes >> 20


def _percent(part: int | None, whole: int | None) -> int | None:
    return int(100 * part / whole) if part is not None and whole else None
