"""The parts of the ladder page: which ladder, what it says in one sentence, its table, overlays and facts."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import pandas as pd
import streamlit as st

from app import cache, query_params
from app.parts import tables, widgets
from profiler_kit.errors import KitError
from profiler_kit.findings.records import NO_OVERLAYS, NO_ROOFLINE, ladder_setup, no_ladder_of, of_ladder, of_study
from profiler_kit.formats.ladder_record import RESULTS, LadderRecord
from profiler_kit.formats.study_file import StudyRecord
from profiler_kit.load.discover.runs import LadderFolder
from profiler_kit.render import bars
from profiler_kit.render.figures import ladder as figures_ladder
from profiler_kit.render.figures import study as figures_study
from profiler_kit.render.ladder_style import ladder_facts, study_model
from profiler_kit.render.overlays import sample_count, with_masks
from profiler_kit.table import Filled
from profiler_kit.tables import every_table

PARETO_HELP = (
    "Right is faster, up is closer to the masks of the published model. The dotted line joins the rows that no other "
    "row beats in both."
)
ROOFLINE_HELP = (
    "How much of the device each row uses: work of the published model over the median time, under the matrix rate and "
    "the copy bandwidth that were measured in the same run. Bytes are those that the published model's operators read "
    "and write; a row that fuses kernels moves fewer, so its real place is further right."
)


def pick() -> LadderFolder | None:
    """The ladder to show: the one in the address, else that of the run; a choice when there are several."""
    found = {folder.key: folder for folder in cache.ladders()}
    if not found:
        return None
    asked = query_params.asked("ladder")
    if asked and asked not in found:
        widgets.problem(f"{asked}: no ladder here (moved or deleted?). A different one is shown.")
    keys = list(found)
    chosen = asked if asked in found else _of_run(found) or keys[0]
    if len(keys) > 1:
        chosen = st.selectbox("Ladder", keys, index=keys.index(chosen)) or chosen
    query_params.keep("ladder", chosen)
    run = cache.find(str(st.session_state.get("run", "")))
    if run is not None and _of_run(found) is None:
        out = widgets.in_root(f"{run.path.name.partition('.')[0]}-ladder")
        missing = no_ladder_of(run.record, run.label, _model(found[chosen]) or chosen, out)
        st.warning(widgets.sentence(missing), icon="⚠️")
        st.code(missing.attempt, language="bash")
    return found[chosen]


def _of_run(found: Mapping[str, LadderFolder]) -> str | None:
    """The ladder that the address calls a run or that the run is a part of, else one of its model; None without any."""
    asked = str(st.session_state.get("run", ""))
    run = cache.find(asked)
    if run is None:
        return asked if asked in found else None
    for key, folder in found.items():
        if folder.path == run.path or folder.path in run.path.parents:
            return key
    model = run.record.model if run.record is not None else None
    return next((key for key, folder in found.items() if model is not None and _model(folder) == model), None)


def _model(folder: LadderFolder) -> str | None:
    """What was measured; None where the file is broken."""
    with contextlib.suppress(KitError):
        if folder.results is not None:
            return cache.ladder(folder.results)[0].setup.model
        if folder.study is not None:
            return cache.study(folder.study)[0].model
    return None


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


def roofline(record: LadderRecord, rows: pd.DataFrame) -> None:
    """The roofline, or why there is none."""
    if record.ceilings is None or rows["tflops"].isna().all():
        widgets.note(NO_ROOFLINE)
        return
    ceilings = record.ceilings
    chart = figures_ladder.roofline(rows, ceilings.matrix_tflops, ceilings.copy_gb_per_s)
    widgets.figure(chart, "ladder-roofline")


def overlays(folder: LadderFolder, rows: pd.DataFrame) -> None:
    """Masks of one row beside the baseline's, on an image that the ladder kept."""
    count = sample_count(folder.path)
    names = with_masks(folder.path, [str(name) for name in rows.loc[rows["status"] == "ok", "technique"]])
    if not count or not names:
        widgets.note(NO_OVERLAYS)
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
        st.image(cache.overlay(folder.path / RESULTS, technique, number), width="content")


def facts(record: LadderRecord) -> None:
    """What ran."""
    st.subheader("What ran")
    st.html(bars.facts(ladder_setup(record)))


_STUDY_HELP = {
    "components": "Each dot is one forward; the parts are timed by events around their modules, with no wait in "
    "between.",
    "batching": "The same images one by one and in one batch, each divided by the number of images. Medians; "
    "whiskers are the interquartile range.",
    "image-size": "The whole forward with the position embedding resampled to the side of the input.",
    "table": "Whole forwards, medians; a fresh model each.",
}


def studies(record: StudyRecord, samples: pd.DataFrame, totals: pd.DataFrame) -> None:
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
        ("table", "Device, dtype, torch.compile", lambda: every_table()["study_speeds"].of_source(record)),
    )
    columns = st.columns(2, gap="large")
    for number, (name, title, make) in enumerate(part for part in parts if part[0] in made):
        with columns[number % 2]:
            st.subheader(title, help=_STUDY_HELP[name])
            shown = make()
            if isinstance(shown, Filled):
                tables.show(shown, "study-table")
            else:
                widgets.figure(shown, f"study-{name}")
