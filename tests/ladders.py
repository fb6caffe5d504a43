"""A ladder with known numbers, as `profiler-kit ladder` would write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from profiler_kit.formats.ladder_file import write_csv
from profiler_kit.formats.ladder_record import (
    RESULTS,
    RESULTS_CSV,
    Agreement,
    Ceilings,
    LadderRecord,
    RowResult,
    Setup,
    Truth,
    Work,
    write_record,
)
from profiler_kit.models.sam.accuracy import encode, image_masks, write_masks_file

MS, MIB = 1_000_000, 1 << 20


def a_row(
    technique: str, optimizations: str, scale: float, *, agrees: float, dtype: str = "bfloat16", compile_s: float = 0
) -> RowResult:
    """Samples of 80, 90, 100, 100, 120 ms times `scale`; 4,000 MiB times `scale`."""
    return RowResult(
        technique,
        tuple(name for name in optimizations.split(",") if name),
        "ok",
        dtype=dtype,
        weights="random:0",
        batch_size=8,
        image_size=1024,
        phases_ns={"load": 2_000 * MS, "compile_cold": round(compile_s * 1e9), "warmup": 300 * MS, "steady": 500 * MS},
        latency_ns=tuple(round(scale * ms * MS) for ms in (80, 90, 100, 100, 120)),
        first_ns=round(max(1.0, compile_s) * 1e9),
        peak_memory_bytes=round(scale * 4000 * MIB),
        total_memory_bytes=140_000 * MIB,
        masks=64,
        truth=Truth(64, round(0.8 * agrees, 2), 0.5, 0.75, 0.9, (4, 20, 40)),
        agreement=Agreement(8, 64, agrees, agrees, 0 if agrees == 1 else 1, 0),
        work=Work(6_000_000_000_000, 60_000_000_000) if technique == "fp32" else None,
        wall_s=12.5,
    )


def a_ladder() -> LadderRecord:
    """fp32 80 img/s, bf16 160, compile 320, int8 400 (an alternative, mIoU 0.9), one out of memory."""
    rows = (
        a_row("fp32", "", 1, agrees=1, dtype="float32"),
        a_row("bf16", "bf16", 0.5, agrees=0.99),
        a_row("compile", "bf16,compile", 0.25, agrees=0.985, compile_s=41),
        a_row("int8", "bf16,int8,compile", 0.2, agrees=0.9, compile_s=60),
        RowResult("oom", ("fp16",), "oom", "--batch-size 8: too much", batch_size=8, fitted_batch_size=4),
    )
    return LadderRecord(
        setup=Setup("vit_b", "random:0", 0, "points", 8, "cuda", "generated:0", 8, 3, 5, 32, 64, traces=False),
        rows=rows,
        steps=("fp32", "bf16", "compile"),
        device_name="NVIDIA H200",
        versions={"torch": "2.12.1", "segment_anything": "1.0"},
        git_commit="0" * 40,
        command="profiler-kit ladder",
        created="2026-01-01T00:00:00+00:00",
        ceilings=Ceilings({"float32": 50.0, "tf32": 400.0, "bfloat16": 790.0, "float16": 790.0}, 4000.0),
    )


def write_ladder(folder: Path, record: LadderRecord | None = None) -> Path:
    """A ladder's folder with an image of 64 x 48 and two masks of it for fp32 and bf16."""
    record = record or a_ladder()
    (folder / "samples").mkdir(parents=True)
    write_record(folder / RESULTS, record)
    write_csv(folder / RESULTS_CSV, record)
    pixels = np.full((48, 64, 3), 120, dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "samples" / "0.jpg")
    masks = np.zeros((2, 48, 64), dtype=np.bool_)
    masks[0, 4:30, 4:30] = masks[1, 10:40, 35:60] = True
    for technique in ("fp32", "bf16"):
        (folder / "rows" / technique).mkdir(parents=True)
        image = image_masks("scene-0", (48, 64), encode(masks), [0.9, 0.8], encode(masks), paired=True)
        write_masks_file(folder / "rows" / technique / "masks.json", [image])
    return folder
