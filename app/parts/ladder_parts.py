"""The parts of the ladder page: which ladder, what it says in one sentence, its table, overlays and facts."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import address, state
from app.parts import widgets
from app.parts.columns import height
from profiler_kit.findings.records import of_ladder
from profiler_kit.formats.ladder_record import LadderRecord
from profiler_kit.load.discover.runs import LadderFolder
from profiler_kit.render import bars, tables_ladder
from profiler_kit.render.figures import ladder as figures_ladder
from profiler_kit.render.ladder_style import ladder_facts
from profiler_kit.render.overlays import sample_count, with_masks

PARETO_HELP = (
    "Right is faster, up is closer to the masks of the published model. The dotted line joins the rows that no other "
    "row beats in both."
)
ROOFLINE_HELP = (
    "How much of the device each row uses: work of the published model over the median time, under the matrix rate and "
    "the copy bandwidth that were measured in the same run. Bytes are those that the published model's operators read "
    "and write; a row that fuses kernels moves fewer, so its real place is further right."
)
_COLUMNS: dict[str, tuple[str, str | None, str]] = {
    "technique": ("Technique", None, "Rows that are alternatives to a step are indented."),
    "optimizations": ("Optimizations", None, "In the order they were applied."),
    "images_per_s": ("Images/s", "%,.2f", "Batch size over the median time of a batch."),
    "speedup": ("× fp32", "%.2f", "Images a second over those of the published model."),
    "gain": ("× step", "%.2f", "Images a second over those of the step below it."),
    "median_ms": ("Median ms", "%,.3f", "Of one batch, between events around the timed region."),
    "iqr_ms": ("IQR ms", "%,.3f", "Interquartile range of the samples."),
    "p90_ms": ("p90 ms", "%,.3f", "90 % of the batches took less."),
    "p95_ms": ("p95 ms", "%,.3f", "95 % of the batches took less."),
    "p99_ms": ("p99 ms", "%,.3f", "99 % of the batches took less."),
    "max_ms": ("Max ms", "%,.3f", "The slowest batch."),
    "first_s": ("First s", "%,.2f", "The first call of the process."),
    "load_s": ("Load s", "%,.2f", "Building the model, reading weights, moving them to the device."),
    "compile_cold_s": ("Cold compile s", "%,.1f", "First call of a compiled row, caches empty."),
    "compile_warm_s": ("Warm compile s", "%,.1f", "First call of a second process that finds the caches of the first."),
    "peak_mib": ("Peak MiB", "%,.0f", "After a reset before the timed batches."),
    "miou": ("mIoU", "%.4f", "With the true masks, where they are known."),
    "miou_small": ("small", "%.4f", "True masks below 32² pixels."),
    "miou_medium": ("medium", "%.4f", "From 32² to below 96² pixels."),
    "miou_large": ("large", "%.4f", "From 96² pixels on."),
    "baseline_miou": ("mIoU fp32", "%.4f", "With the masks of the published model."),
    "mask_count_mismatch": ("Counts differ", "%d", "Images with another number of masks (how the sam2 server counts)."),
    "mask_match_mismatch": ("Without partner", "%d", "Images with a mask that has no partner of IoU 0.5 or more."),
    "relative_error": ("Rel. error", "%.2e", "Of the outputs of one batch, against those of the fp32 row."),
    "cosine": ("Cosine", "%.4f", "Between the outputs of one batch and those of the fp32 row."),
    "tflops": ("TFLOP/s", "%.3g", "Work of the published model over the median time."),
    "rate_share": ("% of rate", "%.1f", "Of the device's measured matrix rate at that dtype."),
    "samples": ("Samples", "%d", "Timed batches."),
    "status": ("Status", None, "ok, or why there are no numbers."),
}


def pick() -> LadderFolder | None:
    """The ladder to show: the one in the address, or the first; a choice when there are several."""
    found = {folder.key: folder for folder in state.ladders()}
    if not found:
        return None
    asked = address.asked("ladder")
    if asked and asked not in found:
        widgets.problem(f"{asked}: no ladder here (moved or deleted?). Another one is shown.")
    keys = list(found)
    chosen = asked if asked in found else keys[0]
    if len(keys) > 1:
        chosen = st.selectbox("Ladder", keys, index=keys.index(chosen)) or chosen
    address.keep("ladder", chosen)
    return found[chosen]


STEPS, TRADE_OFFS, MASKS = "Steps", "Trade-offs", "Masks"
VIEW_HELP = (
    "Steps: images a second, memory and agreement of every row, one on top of the other. Trade-offs: speed against "
    "agreement, and how near each row comes to what the device can do. Masks: those of a row beside the published "
    "model's, where the ladder kept them."
)


def views(folder: LadderFolder) -> list[str]:
    """The views of that ladder; masks are not always kept."""
    return [STEPS, TRADE_OFFS, *([MASKS] if sample_count(folder.path) else [])]


def empty() -> None:
    """How to make a ladder."""
    widgets.empty(
        "No ladder here yet",
        "A ladder measures SAM as published and under named combinations of optimizations, each in a fresh process. "
        "On a CPU with a small model it takes minutes. Measure one:",
        f"profiler-kit ladder --out {widgets.in_root('ladder')}",
    )


def heading(record: LadderRecord) -> None:
    """What was measured."""
    st.caption("  \n".join(widgets.plain(line) for line in ladder_facts(record)))


def say(record: LadderRecord, rows: pd.DataFrame) -> None:
    """The fastest row; then rows without numbers, and rows whose masks agree too little."""
    for one in of_ladder(record, rows):
        (widgets.say if one.id == "fastest-row" else widgets.note)(one)


def table(rows: pd.DataFrame) -> None:
    """All numbers of all rows."""
    shown = tables_ladder.ladder_table(rows)
    st.dataframe(
        shown,
        key="ladder-table",
        hide_index=True,
        placeholder="–",
        column_config={str(name): _column(str(name)) for name in shown.columns},
        height=height(len(shown), 16),
    )
    widgets.csv(shown, "ladder-table")


def roofline(record: LadderRecord, rows: pd.DataFrame) -> None:
    """The roofline, or why there is none."""
    if record.ceilings is None or rows["tflops"].isna().all():
        st.info("No row has both its work counted and the device's rates measured.", icon="ℹ️")
        return
    ceilings = record.ceilings
    chart = figures_ladder.roofline(rows, ceilings.matrix_tflops, ceilings.copy_gb_per_s)
    widgets.figure(chart, "ladder-roofline")


def overlays(folder: LadderFolder, rows: pd.DataFrame) -> None:
    """Masks of one row beside the baseline's, on an image that the ladder kept."""
    count = sample_count(folder.path)
    names = with_masks(folder.path, [str(name) for name in rows.loc[rows["status"] == "ok", "technique"]])
    if not count or not names:
        st.info("This ladder kept no masks.", icon="ℹ️")
        return
    st.subheader("Masks", help="Mask i has the same colour on both sides; the image itself is dimmed.")
    left, right = st.columns([3, 1])
    with left:
        technique = st.segmented_control("Row", names, default=names[-1], key=f"ladder-row-{folder.key}") or names[-1]
    with right:
        numbers = list(range(count))
        number = (
            st.segmented_control("Image", numbers, default=0, format_func=lambda n: str(n + 1), key="ladder-image") or 0
        )
    with widgets.one_line_errors():
        st.image(state.ladder_overlay(folder.path, technique, number), width="content")


def facts(record: LadderRecord) -> None:
    """What ran."""
    st.subheader("What ran")
    st.html(bars.facts(tables_ladder.record_table(record)))


def _column(name: str) -> Any:
    title, shape, meaning = _COLUMNS[name]
    if shape is None:
        is_name = name == "technique"
        return st.column_config.TextColumn(title, help=meaning, pinned=is_name, width=132 if is_name else None)
    return st.column_config.NumberColumn(title, format=shape, help=meaning)
