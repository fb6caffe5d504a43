"""study.json: raw samples of the batching studies, and their medians and quartiles; needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from profiler_kit.files import whole_file, write_json
from profiler_kit.formats.checked import FORMAT, Count, Positive, read_as
from profiler_kit.schema import Column, Schema
from profiler_kit.units import NS_PER_S

if TYPE_CHECKING:
    import pandas as pd

STUDY_SAMPLES: Final = Schema(
    "STUDY_SAMPLES",
    "timed call of a study",
    {
        "study": Column("str", "Which study: components, batching, image-size, table.", show="varied"),
        "label": Column("str", "The component; sequential or batched; the row of the table."),
        "device": Column("str", "Kind of the device, such as cuda or cpu.", show="varied"),
        "dtype": Column("str", "Number format of the model."),
        "compiled": Column("bool", "With torch.compile."),
        "batch_size": Column("int64", "Images that the sample is of."),
        "image_size": Column("int64", "Side of an image in pixels.", show="varied"),
        "iteration": Column("int64", "Number of the call.", unit="id"),
        "latency_ns": Column("int64", "Time for all of these images."),
    },
)

STUDY_TOTALS: Final = Schema(
    "STUDY_TOTALS",
    "label, device, dtype, compiled, batch size and image size of a study",
    {
        **{name: STUDY_SAMPLES.columns[name] for name in list(STUDY_SAMPLES.columns)[:7]},
        "samples": Column("int64", "Timed calls.", show="room"),
        "median_ns": Column("float64"),
        "q1_ns": Column("float64", show="room"),
        "q3_ns": Column("float64", show="room"),
        "per_image_ns": Column("float64", "Median divided by the batch size."),
        "images_per_s": Column("float64", "Batch size divided by the median."),
    },
)

STUDY_SPEEDS: Final = Schema(
    "STUDY_SPEEDS",
    "device and dtype of the study `table`",
    {
        "device": STUDY_SAMPLES.columns["device"],
        "dtype": STUDY_SAMPLES.columns["dtype"],
        "eager_per_s": Column("float64", "Images a second without torch.compile.", "eager"),
        "compiled_per_s": Column("float64", "Images a second with torch.compile.", "compiled"),
        "compile_gain": Column("float64", "Compiled over eager.", "×"),
    },
)


STUDY, STUDY_CSV = "study.json", "study.csv"
HINT: Final = "Measure one with: profiler-kit study --out DIR"
STUDIES: Final = ("components", "batching", "image-size", "table")
_KEYS: Final = ("study", "label", "device", "dtype", "compiled", "batch_size", "image_size")


@dataclass(frozen=True)
class StudySample:
    """One timed call. latency_ns is for all `batch_size` images together."""

    study: str
    label: str
    device: str
    dtype: str
    compiled: bool
    batch_size: Positive
    image_size: Count
    iteration: Count
    latency_ns: Count


@dataclass(frozen=True)
class StudyRecord:
    """The samples of one or more studies of one model. device_names: by device. notes: what could not be measured.

    family: what kind of model, before its name. unit: what a batch is counted in.
    """

    model: str
    weights: str
    optimizations: tuple[str, ...]
    prompts: str
    warmup: Count
    iterations: Count
    device_names: Mapping[str, str]
    versions: Mapping[str, str]
    git_commit: str | None
    command: str
    created: str
    samples: tuple[StudySample, ...]
    notes: tuple[str, ...] = ()
    family: str = "SAM"
    unit: str = "images"
    format: Count = FORMAT


def write_study(folder: Path, record: StudyRecord) -> None:
    """Write study.json and study.csv (STUDY_TOTALS) into the folder, each whole or not at all."""
    with whole_file(folder / STUDY_CSV) as temporary:
        study_totals(study_samples(record)).to_csv(temporary, index=False)
    write_json(folder / STUDY, dataclasses.asdict(record))


def read_study(path: Path) -> StudyRecord:
    """Read study.json, or that of a folder; raises InputError without one, RunFormatError when it is not one."""
    return read_as(path / STUDY if path.is_dir() else path, StudyRecord, "results of profiler-kit study", HINT)


def study_samples(record: StudyRecord) -> pd.DataFrame:
    """STUDY_SAMPLES of a record."""
    return STUDY_SAMPLES.of(dataclasses.astuple(sample) for sample in record.samples)


def study_totals(samples: pd.DataFrame) -> pd.DataFrame:
    """STUDY_SAMPLES to STUDY_TOTALS, in the order of the samples.

    A time per image is the median over the batch that was really run.
    """
    STUDY_SAMPLES.check(samples)
    rows = []
    for key, group in samples.groupby(list(_KEYS), sort=False):
        latency = group["latency_ns"]
        median = float(latency.median())
        facts = dict(zip(_KEYS, key, strict=True))
        size = int(str(facts["batch_size"]))
        rows.append(
            {
                **facts,
                "samples": len(group),
                "median_ns": median,
                "q1_ns": float(latency.quantile(0.25)),
                "q3_ns": float(latency.quantile(0.75)),
                "per_image_ns": median / size,
                "images_per_s": size * NS_PER_S / median if median else float("nan"),
            }
        )
    return STUDY_TOTALS.of(rows)


def study_speeds(totals: pd.DataFrame) -> pd.DataFrame:
    """STUDY_TOTALS -> STUDY_SPEEDS: without and with torch.compile, and the second over the first."""
    STUDY_TOTALS.check(totals)
    rows = []
    for (device, dtype), group in totals[totals["study"] == "table"].groupby(["device", "dtype"], sort=False):
        speeds = dict(zip(group["compiled"], group["images_per_s"], strict=True))
        eager, compiled = speeds.get(False, float("nan")), speeds.get(True, float("nan"))
        rows.append((device, dtype, eager, compiled, compiled / eager))
    return STUDY_SPEEDS.of(rows)
