"""A ladder as people read it (LADDER_ROWS or a LadderRecord in; columns with their units out)."""

from __future__ import annotations

import pandas as pd

from profiler_kit.formats.ladder_file import LADDER_ROWS
from profiler_kit.formats.ladder_record import LadderRecord
from profiler_kit.render.tables import INDENT, printable
from profiler_kit.text import fmt_rate
from profiler_kit.units import bytes_to_mib, ns_to_ms, ns_to_s

_MILLIS = ("median", "p90", "p95", "p99", "max")
_SECONDS = ("first", "load", "compile_cold", "compile_warm")
_LATER = (
    "miou", "miou_small", "miou_medium", "miou_large", "baseline_miou", "mask_count_mismatch", "mask_match_mismatch",
    "relative_error", "cosine",
)  # fmt: skip


def ladder_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a row; columns that are empty throughout are left out, but for the speed."""
    LADDER_ROWS.check(rows)
    names = [
        printable(name) if step else INDENT + printable(name)
        for name, step in zip(rows["technique"], rows["is_step"], strict=True)
    ]
    table = pd.DataFrame({"technique": names, **{name: rows[name] for name in ("images_per_s", "speedup", "gain")}})
    table["peak_mib"] = rows["peak_memory_bytes"].map(bytes_to_mib)
    for name in _LATER:
        table[name] = rows[name]
    table["tflops"] = rows["tflops"]
    table["rate_share"] = 100 * rows["tflops"] / rows["peak_tflops"]
    for name in _MILLIS:
        table[f"{name}_ms"] = rows[f"{name}_ns"].map(ns_to_ms)
    table["iqr_ms"] = (rows["q3_ns"] - rows["q1_ns"]).map(ns_to_ms)
    for name in _SECONDS:
        table[f"{name}_s"] = rows[f"{name}_ns"].map(ns_to_s)
    table.loc[table["compile_cold_s"] == 0, "compile_cold_s"] = float("nan")
    table["samples"] = rows["samples"]
    table["optimizations"] = rows["optimizations"].map(printable)
    table["status"] = rows["status"]
    kept = [name for name in table.columns if table[name].notna().any() or name in ("images_per_s", "speedup")]
    return table[kept]


def record_table(record: LadderRecord) -> pd.DataFrame:
    """What a ladder ran on: one row a fact."""
    setup, ceilings = record.setup, record.ceilings
    rates = ""
    if ceilings is not None:
        parts = [f"{name} {fmt_rate(rate)} TFLOP/s" for name, rate in ceilings.matrix_tflops.items()]
        rates = ", ".join([*parts, f"copy {fmt_rate(ceilings.copy_gb_per_s)} GB/s", *ceilings.notes])
    points = f", grid {setup.points_per_side}, {setup.points_per_batch} at once" if setup.task == "amg" else ""
    facts = {
        "Model": setup.model,
        "Weights": setup.weights,
        "Task": f"{setup.task}{points}",
        "Workload": setup.workload,
        "Images": f"{setup.num_images} ({setup.images})" if setup.images else "",
        "Batch": f"{setup.batch_size}",
        "Batches": f"{setup.iterations} timed after {setup.warmup} of warm-up, each row in a fresh process",
        "Device": f"{record.device_name} ({setup.device})",
        "Measured rates": rates,
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "Recorded": record.created,
        "Commit": record.git_commit or "",
        "Command": record.command,
        "Notes": " · ".join(f"{row.technique}: {note}" for row in record.rows for note in row.notes),
    }
    rows = [(name, printable(value)) for name, value in facts.items() if value]
    return pd.DataFrame(rows, columns=["fact", "value"])
