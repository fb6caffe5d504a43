"""The parts of the layers page: which layers to show, and what kinds there are."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import address
from app.parts import widgets
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.figures import layers as figures_layers

VIEWS = BY_LAYER, BY_KIND = "By layer", "By kind"
VIEW_HELP = (
    "By layer: each layer of the chosen depth at each batch size. By kind: what each kind of layer holds of the "
    "forward, blocks with windowed and with global attention apart."
)
HEATMAP_HELP = (
    "Median time of a layer divided by the batch size; the further from the colour of the page the longer. A row "
    "that fades to the right gains from batching. 'window' and 'global' tell the two kinds of attention block apart."
)
LINES_HELP = (
    "Left: median over the iterations, whiskers are the interquartile range. Right: time per image at the smallest "
    "batch divided by time per image here: 1 means batching neither helps nor hurts, above 1 each image is cheaper in "
    "the larger batch. Dashed lines with diamonds are global attention blocks."
)
_ROWS = 40  # a heat map taller than this is no picture any more


def kinds(found: pd.DataFrame) -> None:
    """What each kind of layer (LAYER_KINDS) holds of the forward; windowed and global blocks apart."""
    st.subheader("Share of the forward", help=KINDS_HELP)
    widgets.figure(figures_layers.kind_shares(found), "layers-kinds")
    widgets.table(figures_layers.kind_table(found), "layer-kinds", rows=8)


KINDS_HELP = (
    "Layers of this depth added up by class, blocks with windowed and with global attention apart (hatched). What is "
    "missing to 100 % ran outside these layers."
)


def hint(run: RunFolder) -> str:
    """The command that records layer timings, for the device this run is of."""
    on_cpu = run.record is not None and run.record.device.startswith("cpu")
    how = "--model vit_tiny --batch-sizes 1,2 --device cpu" if on_cpu else "--model vit_b --batch-sizes 1,2,4,8"
    return f"profiler-kit layers {how}{'' if on_cpu else ' --device cuda'} --out {widgets.in_root('my_run')}"


def pick_depth(totals: pd.DataFrame) -> int:
    """How deep into the module tree to look; starts at the deepest level that still fits a picture."""
    depths = sorted(int(d) for d in totals["depth"].unique())
    fitting = [d for d in depths if len(at_depth(totals, d)) <= _ROWS]
    start = max(fitting, default=depths[0], key=lambda d: (min(len(at_depth(totals, d)), 20), -d))
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
    start = interesting(totals, names)
    picked = st.multiselect("Layers to compare", names, default=asked or start, key=f"layers-picked-{run_key}-{depth}")
    address.keep_all("layer", [] if picked == start else picked)
    return picked


def at_depth(totals: pd.DataFrame, depth: int) -> list[str]:
    """The layers of that depth, and those above it that hold no timed layer, in the order of the model."""
    parents = set(totals["parent"])
    layers = totals.drop_duplicates("layer")
    wanted = (layers["depth"] == depth) | ((layers["depth"] < depth) & ~layers["layer"].isin(parents))
    return [str(name) for name in layers.loc[wanted, "layer"]]


def interesting(totals: pd.DataFrame, names: list[str]) -> list[str]:
    """One layer of each kind, the longest first: a windowed block and a global one say more than two of a kind."""
    rows = totals[totals["layer"].isin(names)].sort_values("per_image_ns", ascending=False)
    return [str(name) for name in rows.drop_duplicates(["type", "variant"])["layer"].unique()[:5]]
