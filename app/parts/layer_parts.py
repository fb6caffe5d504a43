"""The parts of the layers page: which layers to show, and what kinds there are."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import query_params
from profiler_kit.analyses.layers.totals import best_depth, telling_layers

VIEWS = BY_LAYER, BY_KIND = "By layer", "By kind"
VIEW_HELP = (
    "By layer: each layer of the chosen depth at each batch size. By kind: what each kind of layer holds of the "
    "forward, blocks with windowed and with global attention apart."
)
HEATMAP_HELP = (
    "Median time of a layer divided by the batch size; the further its colour is from that of the page, the longer. "
    "A row "
    "that fades to the right gains from batching. 'window' and 'global' tell the two kinds of attention block apart."
)
LINES_HELP = (
    "Left: median over the iterations, whiskers are the interquartile range. Right: time per item at the smallest "
    "batch divided by time per item here: 1 means batching neither helps nor hurts, above 1 each item is cheaper in "
    "the larger batch. Dashed lines with diamonds are global attention blocks."
)
KINDS_HELP = (
    "Layers of this depth added up by class, blocks with windowed and with global attention apart (hatched). What is "
    "missing to 100 % ran outside these layers."
)


def pick_depth(totals: pd.DataFrame) -> int:
    """How deep into the module tree to look; starts at the deepest level that still fits a picture."""
    depths = sorted(int(d) for d in totals["depth"].unique())
    start = best_depth(totals)
    chosen = st.segmented_control(
        "Depth in the module tree",
        depths,
        default=start,
        key="depth",
        bind="query-params",
        help="0 is the module that was timed, 1 the modules inside it, and so on.",
    )
    return start if chosen is None else int(chosen)


def pick_layers(run_key: str, totals: pd.DataFrame, names: list[str], depth: int) -> list[str]:
    """The layers whose lines are drawn: those in the address, else one of each kind; a choice of its own per depth."""
    asked = [name for name in st.query_params.get_all("layer") if name in names]
    start = telling_layers(totals, names)
    picked = st.multiselect("Layers to compare", names, default=asked or start, key=f"layers-picked-{run_key}-{depth}")
    query_params.keep_all("layer", [] if picked == start else picked)
    return picked
