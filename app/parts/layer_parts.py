"""The parts of the layers page: which layers to show, and what the sweep says in one sentence."""

from __future__ import annotations

import statistics

import pandas as pd
import streamlit as st

from app import address, state
from app.parts import overview_parts, widgets
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.figures import layer_kinds as figures_layer_kinds
from profiler_kit.render.verdict import kinds_verdict, layers_coverage
from profiler_kit.text import fmt_ns

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


def kinds(found: pd.DataFrame) -> None:
    """What each kind of layer (LAYER_KINDS) holds of the forward; windowed and global blocks apart."""
    st.subheader("Share of the forward", help=KINDS_HELP)
    widgets.figure(figures_layer_kinds.kind_shares(found), "layers-kinds")
    widgets.table(figures_layer_kinds.kind_table(found), "layer-kinds", rows=8)


def say_kinds(found: pd.DataFrame) -> None:
    """The kinds that hold most of the forward, in a sentence."""
    said = kinds_verdict(found)
    if said:
        st.markdown(widgets.plain(said))


KINDS_HELP = (
    "Layers of this depth added up by class, blocks with windowed and with global attention apart (hatched). What is "
    "missing to 100 % ran outside these layers."
)


def hint(run: RunFolder) -> str:
    """The command that records layer timings, for the device this run is of."""
    on_cpu = run.record is not None and run.record.device.startswith("cpu")
    how = "--model vit_tiny --batch-sizes 1,2 --device cpu" if on_cpu else "--model vit_b --batch-sizes 1,2,4,8"
    return f"profiler-kit layers {how}{'' if on_cpu else ' --device cuda'} --out {widgets.in_root('my_run')}"


def say_difference(record: RunRecord | None, layers: state.Layers) -> None:
    """That the layers were not timed as the run was, where a note says so; with both times per image."""
    notes = [*layers.notes, *(record.notes if record is not None else ())]
    told = dict.fromkeys(note.removeprefix(_NOTE) for note in notes if note.startswith(_NOTE))
    if not told:
        return
    said = f"Layers are {'; '.join(told)}."
    top = layers.totals[layers.totals["depth"] == 0]
    if record is not None and record.latency_ns:
        mine = top[top["batch_size"] == record.batch_size]
        if len(mine) == 1:
            latency = statistics.median(record.latency_ns) / record.batch_size
            said += (
                f" At batch {record.batch_size} they take {fmt_ns(mine['per_image_ns'].iloc[0])} per image, "
                f"the run itself {fmt_ns(latency)}."
            )
    st.warning(widgets.plain(said), icon="⚠️")


_NOTE = "layers: "


def say_coverage(layers: state.Layers) -> None:
    """How much of the forward the layers explain, and what measuring them cost."""
    if not layers.coverage.empty:
        st.caption(
            layers_coverage(layers.coverage, layers.spread),
            help="The outermost layers added up, against the same forward timed with nothing hooked in. The spread is "
            "the interquartile range of those forwards over their median.",
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
