"""What a load test saw at each load: latency from the scheduled time, with its counts, and what the server said."""

from __future__ import annotations

from typing import Final

import pandas as pd

from profiler_kit.formats.ladder_ratios import tail
from profiler_kit.formats.load_file import LoadFile, Sample
from profiler_kit.schema import Column, Schema
from profiler_kit.units import NS_PER_MS, NS_PER_S

LOAD: Final = Schema(
    "LOAD",
    "load",
    {
        "step": Column(
            "str", "Requests a second (open loop), or clients at once (closed loop); first: one by one before.", "load"
        ),
        "requests": Column("int64", "Sent."),
        "answered": Column("int64", "Answered with status 200; the latencies are of these."),
        "refused": Column("int64", "Answered with another status."),
        "lost": Column("int64", "Without any answer."),
        "answers_per_s": Column("float64", "From the first request to the last answer.", "answers/s"),
        "p50_ns": Column("Int64", "Half of the answers took less, counted from when the request was due.", "p50"),
        "p95_ns": Column("Int64", "Of all answers 95 % took less; missing below 20.", "p95"),
        "p99_ns": Column("Int64", "Of all answers 99 % took less; missing below 100.", "p99"),
        "max_ns": Column("Int64", "The slowest answer."),
        "batch_size": Column("float64", "Requests in the batch of an answer, on average.", "batch"),
        **{
            f"{stage}_ns": Column("Int64", f"Median of what the server says: {what}.", label)
            for stage, what, label in (
                ("queue", "waiting for the batch to begin", "queue"),
                ("gpu", "the batch in the model", "model"),
                ("encode", "encoding the answer", "encode"),
            )
        },
        "allocated_bytes": Column(
            "Int64", "Peak of the server's allocator at the end of the step.", "allocated", "room"
        ),
        "reserved_bytes": Column("Int64", "Peak of what it held from the driver.", "reserved", "room"),
    },
)


def load_steps(found: LoadFile) -> pd.DataFrame:
    """LOAD, in the order of the file."""
    steps: dict[str, list[Sample]] = {}
    for sample in found.samples:
        steps.setdefault(sample.step, []).append(sample)
    rows = [_row(step, samples, found) for step, samples in steps.items()]
    return LOAD.of(rows)


def _row(step: str, samples: list[Sample], found: LoadFile) -> dict[str, object]:
    good = [one for one in samples if one.status == 200]
    latency = pd.Series([one.latency_ns for one in good], dtype="float64")
    span_s = (max(one.done_ns for one in samples) - min(one.scheduled_ns for one in samples)) / NS_PER_S
    stages = {
        name: [one.timing_ms[name] for one in good if name in one.timing_ms] for name in ("queue", "gpu", "encode")
    }
    sizes, peaks = [one.batch_size for one in good if one.batch_size], found.peaks.get(step)
    return {
        "step": step,
        "requests": len(samples),
        "answered": len(good),
        "refused": sum(one.status not in (0, 200) for one in samples),
        "lost": sum(not one.status for one in samples),
        "answers_per_s": len(good) / span_s if span_s > 0 else 0.0,
        "p50_ns": _ns(latency.median()),
        **{f"p{share}_ns": _ns(tail(latency.tolist(), share / 100)) for share in (95, 99)},
        "max_ns": _ns(latency.max()),
        "batch_size": sum(sizes) / len(sizes) if sizes else float("nan"),
        **{f"{name}_ns": _ns(pd.Series(ms, dtype="float64").median() * NS_PER_MS) for name, ms in stages.items()},
        "allocated_bytes": pd.NA if peaks is None else peaks.peak_allocated_bytes,
        "reserved_bytes": pd.NA if peaks is None else peaks.peak_reserved_bytes,
    }


def _ns(value: float | None) -> object:
    return pd.NA if pd.isna(value) else round(value)
