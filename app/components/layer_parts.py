"""The parts of the layers page: which layers to show, and what the sweep says in one sentence."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app.components import overview_parts
from profiler_kit.views.text import fmt_ns, fmt_percent

HEATMAP_HELP = (
    "Median time of a layer divided by the batch size; the darker the longer. A row that gets lighter to the right "
    "gains from batching. 'window' and 'global' tell the two kinds of attention block apart."
)
EFFICIENCY_HELP = (
    "Time per image at the smallest batch divided by time per image here: 1 means batching neither helps nor hurts, "
    "above 1 each image is cheaper in the larger batch. Dashed lines with diamonds are global attention blocks."
)
_ROWS = 40  # a heat map taller than this is no picture any more


def say_scaling(totals: pd.DataFrame) -> None:
    """What the whole model gains from batching."""
    top = totals[totals["depth"] == 0].sort_values("batch_size")
    if top["layer"].nunique() != 1 or len(top) < 2:
        return
    first, last = top.iloc[0], top.iloc[-1]
    overview_parts.say(
        [
            (f"From batch {first['batch_size']} to {last['batch_size']} an image goes from ", False),
            (fmt_ns(first["per_image_ns"]), True),
            (" to ", False),
            (fmt_ns(last["per_image_ns"]), True),
            (f" ({last['efficiency']:.2f} times as fast).", False),
        ]
    )


def say_coverage(coverage: pd.DataFrame) -> None:
    """How much of the forward the layers explain, and what measuring them cost."""
    if coverage.empty:
        return
    least = coverage.loc[coverage["share"].idxmin()]
    st.caption(
        f"The layers explain at least {fmt_percent(least['share'])} of the forward run without hooks "
        f"(batch {int(least['batch_size'])}); the hooks cost {fmt_percent(float(coverage['overhead'].max()))} at most.",
        help="The outermost layers added up, against the same forward timed with nothing hooked in.",
    )


def pick_depth(totals: pd.DataFrame) -> int:
    """How deep into the module tree to look; starts at the deepest level that still fits a picture."""
    depths = sorted(int(d) for d in totals["depth"].unique())
    fitting = [d for d in depths if len(at_depth(totals, d)) <= _ROWS]
    start = max(fitting, default=depths[0], key=lambda d: (min(len(at_depth(totals, d)), 20), -d))
    chosen = st.segmented_control(
        "Depth in the module tree",
        depths,
        default=start,
        key="layers-depth",
        help="0 is the module that was timed, 1 the modules inside it, and so on.",
    )
    return start if chosen is None else int(chosen)


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
