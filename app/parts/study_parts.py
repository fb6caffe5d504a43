"""The batching studies on the ladder page: a box plot, lines, and a table, each with what it says."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app.parts import widgets
from profiler_kit.findings.records import of_study
from profiler_kit.formats.study_file import StudyRecord
from profiler_kit.render.figures import study as figures_study
from profiler_kit.render.ladder_style import study_model

_HELP = {
    "components": "Each dot is one forward; the parts are timed by events around their modules, nothing waits between.",
    "batching": "The same images one by one, and in one batch; both divided by the images that were in it. Medians, "
    "whiskers are the interquartile range.",
    "image-size": "The whole forward with the position embedding resampled to the side of the input.",
    "table": "Whole forwards, medians; a fresh model each.",
}


def show(record: StudyRecord, samples: pd.DataFrame, totals: pd.DataFrame) -> None:
    """Every study that was made."""
    made = set(totals["study"])
    how = ", ".join(record.optimizations) or "as published"
    devices = ", ".join(dict.fromkeys(record.device_names.values()))
    st.subheader("Batching studies")
    st.caption(
        widgets.plain(
            f"{study_model(record)}, {how}, {devices}, n = {record.iterations} after {record.warmup} of warm-up"
        )
    )
    for one in of_study(record):
        widgets.note(one)
    parts = (
        ("components", "Time by component", lambda: figures_study.component_boxes(samples)),
        ("batching", "Sequential against batched", lambda: figures_study.batching_lines(totals)),
        ("image-size", "Image size", lambda: figures_study.size_lines(totals)),
        ("table", "Device, dtype, torch.compile", lambda: figures_study.speed_table(totals)),
    )
    columns = st.columns(2, gap="large")
    for number, (name, title, make) in enumerate(part for part in parts if part[0] in made):
        with columns[number % 2]:
            st.subheader(title, help=_HELP[name])
            shown = make()
            if isinstance(shown, pd.DataFrame):
                _table(shown)
            else:
                widgets.figure(shown, f"study-{name}")


def _table(speeds: pd.DataFrame) -> None:
    st.dataframe(
        speeds,
        hide_index=True,
        key="study-table",
        placeholder="–",
        column_config={
            "device": "Device",
            "dtype": "dtype",
            "eager_per_s": st.column_config.NumberColumn("Eager img/s", format="%,.1f"),
            "compiled_per_s": st.column_config.NumberColumn("Compiled img/s", format="%,.1f"),
            "compile_gain": st.column_config.NumberColumn("×", format="%.2f", help="Compiled over eager."),
        },
    )
    widgets.csv(speeds, "study-table")
