"""What the waterfall looks like wherever it is drawn: colours, headings and the text beside a bar; needs no plotly."""

from __future__ import annotations

import numpy as np
import pandas as pd

from profiler_kit.formats.ladder_file import LADDER_ROWS
from profiler_kit.formats.ladder_record import LadderRecord
from profiler_kit.formats.study_file import StudyRecord
from profiler_kit.text import fmt_factor, fmt_rate, rate_label
from profiler_kit.timeline.palette import HUES, MARK

STEP, ALTERNATIVE, BELOW, MEMORY = HUES[0], HUES[1], MARK, HUES[2]


def titles(rows: pd.DataFrame) -> tuple[str, str, str]:
    """The headings of the waterfall of LADDER_ROWS."""
    unit = rows["unit"].iloc[0] if len(rows) else "images"
    return rate_label(unit), f"{LADDER_ROWS.label('peak_memory_bytes')}, MiB", agreement_title(rows)


def agreement_title(rows: pd.DataFrame) -> str:
    """What `agreement` is of these LADDER_ROWS."""
    return LADDER_ROWS.label("baseline_miou" if rows["cosine"].isna().all() else "cosine")


def speed_text(row: pd.Series) -> str:
    """`148.7 img/s · 4.92×`, or why there is nothing."""
    if np.isnan(row["images_per_s"]):
        return str(row["status"])
    speedup = "" if np.isnan(row["speedup"]) or row["parent"] == "" else f" · {fmt_factor(row['speedup'])}×"
    return f"{fmt_rate(row['images_per_s'])}{speedup}"


def ladder_facts(record: LadderRecord) -> tuple[str, str]:
    """What a ladder is of, in two lines: `SAM vit_b (random:0), points, batch size 8, NVIDIA H200`, then the rest."""
    setup, samples = record.setup, {len(row.latency_ns) for row in record.rows if row.status == "ok"}
    size = f"{setup.points_per_batch} points in a batch" if setup.task == "amg" else f"batch size {setup.batch_size}"
    facts = (_model(setup.family, setup.model, setup.weights), setup.task, size, record.device_name)
    title = ", ".join(filter(None, facts))
    counts = " to ".join(str(count) for count in sorted({min(samples), max(samples)})) if samples else "no"
    versions = ", ".join(f"{name} {record.versions[name]}" for name in ("torch", "driver") if name in record.versions)
    noise = "; random weights: masks are noise" if setup.weights.startswith("random") else ""
    masks = f"; {setup.num_images} images ({setup.images}) for the masks{noise}" if setup.images else ""
    calls = "calls of generate" if setup.task == "amg" else "batches, encoder to masks" if masks else "batches"
    calls = "images, from the host to packed masks there" if setup.task.endswith("-point") else calls
    return title, f"median of {counts} {calls}{masks}; {versions}"


def study_model(record: StudyRecord) -> str:
    """What a study is of: `SAM vit_b (random:0)`."""
    return _model(record.family, record.model, record.weights)


def _model(family: str, model: str, weights: str) -> str:
    short = weights if weights.startswith("random") else weights[: len("checkpoint:") + 12]
    return " ".join(filter(None, (family, model, f"({short})" if short else "")))
