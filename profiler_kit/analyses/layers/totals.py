"""Summarise layer calls by layer and batch size, and how much of the forward they explain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from profiler_kit.formats.layer_file import FORWARD_CALLS, LAYER_CALLS
from profiler_kit.schema import Column, Schema

LAYER_TOTALS: Final = Schema(
    "LAYER_TOTALS",
    "layer and batch size",
    {
        "layer": Column("str", "Path of the module in the model."),
        "type": Column("str", "Class of the module.", "class"),
        "variant": Column("str", "What sets layers of one class apart, such as windowed and global attention."),
        "parent": Column("str", "The timed layer around it.", show="never"),
        "depth": Column("int64", "How deep in the model; 0 is the module that was timed.", show="room"),
        "batch_size": Column("int64"),
        "iterations": Column("int64", "Timed forwards.", show="room"),
        "calls": Column("int64", "How often it is called in one forward.", show="room"),
        "median_ns": Column("float64", "Of a whole batch, over the iterations."),
        "q1_ns": Column("float64", show="room"),
        "q3_ns": Column("float64", show="room"),
        "self_median_ns": Column("float64", "The same without the timed layers inside it.", "self", "room"),
        "per_image_ns": Column("float64", "Median time divided by the batch size.", "per item"),
        "efficiency": Column(
            "float64", "Time per item at the smallest batch over that here; above 1 the larger batch is better."
        ),
        "share": Column("float64", "Of the whole forward at that batch size.", "of forward"),
    },
)

LAYER_COVERAGE: Final = Schema(
    "LAYER_COVERAGE",
    "batch size; times are medians over the iterations",
    {
        "batch_size": Column("int64"),
        "forward_ns": Column("float64", "The whole forward without hooks."),
        "hooked_ns": Column("float64", "The whole forward with hooks.", "with hooks"),
        "layers_ns": Column("float64", "The outermost layers inside the module that was timed, added up."),
        "share": Column("float64", "Layers as a share of the forward.", "of forward"),
        "leaves_ns": Column("float64", "The layers inside which no other layer was timed, added up.", show="room"),
        "leaves_share": Column("float64", "Those as a share of the forward.", "leaves of forward", "room"),
        "overhead": Column("float64", "How much longer the forward takes with hooks.", unit="change"),
    },
)

LAYER_KINDS: Final = Schema(
    "LAYER_KINDS",
    "kind of layer (class and variant) and batch size, longest kind first",
    {
        "kind": Column("str", "The class, with what sets layers of one class apart."),
        "variant": Column("str", "What sets layers of one class apart.", show="never"),
        "batch_size": Column("int64"),
        "layers": Column("int64", "How many layers of that kind there are."),
        "median_ns": Column("float64", "Their medians added up.", show="room"),
        "per_image_ns": Column("float64", "That divided by the batch size.", "per item"),
        "one_per_image_ns": Column("float64", "Of one such layer, on average.", "per item, one layer"),
        "share": Column("float64", "Of the whole forward at that batch size.", "of forward"),
    },
)


def layer_totals(calls: pd.DataFrame) -> pd.DataFrame:
    """Time of each layer at each batch size, by batch size and then in the order of the first call.

    Takes LAYER_CALLS, gives LAYER_TOTALS. The calls of one iteration are added up, so a decoder that runs image
    by image counts once for the batch, and a call that a module makes of itself is time of the call around it;
    median and quartiles are over the iterations (an iteration without a call counts 0). Device time where there is
    any, host time otherwise. `efficiency` compares the time per image with that at the smallest batch size the
    layer was called in; `share` is of the layers nothing was timed around.
    Empty in, empty out.

    Raises SchemaError when a column is missing or has another dtype.
    """
    calls = LAYER_CALLS.check(calls)
    if calls.empty:
        return LAYER_TOTALS.empty()
    sums = _per_iteration(calls)
    keys = ["batch_size", "layer"]
    grouped = sums.groupby(keys, sort=False)
    totals = pd.DataFrame(
        {
            "iterations": grouped.size(),
            "calls": grouped["calls"].max(),
            "median_ns": grouped["total_ns"].median(),
            "q1_ns": grouped["total_ns"].quantile(0.25),
            "q3_ns": grouped["total_ns"].quantile(0.75),
            "self_median_ns": grouped["self_ns"].median(),
        }
    ).reset_index()
    first = calls.drop_duplicates("layer")[["layer", "type", "variant", "parent"]].reset_index(drop=True)
    first["order"] = first.index
    first["depth"] = _depths(first)
    totals = totals.merge(first, on="layer").sort_values(["batch_size", "order"], ignore_index=True)
    totals["per_image_ns"] = totals["median_ns"] / totals["batch_size"]
    # rows are by batch size, so that the first of a layer is its smallest batch
    totals["efficiency"] = totals.groupby("layer")["per_image_ns"].transform("first") / totals["per_image_ns"]
    whole = totals["median_ns"].where(totals["depth"] == 0, 0.0).groupby(totals["batch_size"]).transform("sum")
    totals["share"] = totals["median_ns"] / whole
    return LAYER_TOTALS.check(totals.astype({"calls": "int64", "depth": "int64"}))


def layer_kinds(totals: pd.DataFrame, layers: Sequence[str]) -> pd.DataFrame:
    """LAYER_TOTALS -> LAYER_KINDS: those of `layers` added up by type and variant, longest kind first.

    The layers must not hold one another, or time counts twice. Empty in, empty out.
    """
    totals = LAYER_TOTALS.check(totals)
    rows = totals[totals["layer"].isin(list(layers))]
    if rows.empty:
        return LAYER_KINDS.empty()
    kind = rows["type"].where(rows["variant"] == "", rows["type"] + " · " + rows["variant"])
    grouped = rows.assign(kind=kind).groupby(["kind", "batch_size"], sort=False)
    table = grouped.agg(
        variant=("variant", "first"),
        layers=("layer", "size"),
        median_ns=("median_ns", "sum"),
        per_image_ns=("per_image_ns", "sum"),
        share=("share", "sum"),
    ).reset_index()
    table["one_per_image_ns"] = table["per_image_ns"] / table["layers"]
    longest = table.groupby("kind")["share"].transform("max")
    order = table.assign(longest=longest).sort_values(["longest", "kind", "batch_size"], ascending=[False, True, True])
    return LAYER_KINDS.check(order.reset_index(drop=True))


def explained(calls: pd.DataFrame, forwards: pd.DataFrame) -> pd.DataFrame:
    """How much of the whole forward, run without hooks, the layers account for.

    Takes LAYER_CALLS and FORWARD_CALLS of the same sweep, gives LAYER_COVERAGE for the batch sizes in both.
    What is missing from `share` runs outside every layer (for SAM: the dense position encoding);
    what is missing from `leaves_share` besides is what layers do around the layers inside them (residual
    additions, window partition). `overhead` is what the hooks cost.
    Empty in, empty out.

    Raises SchemaError when a column is missing or has another dtype.
    """
    calls, forwards = LAYER_CALLS.check(calls), FORWARD_CALLS.check(forwards)
    if calls.empty or forwards.empty:
        return LAYER_COVERAGE.empty()
    sums = _per_iteration(calls).merge(_levels(calls), on="layer")
    forward = forwards.groupby("batch_size")["forward_ns"].median()
    table = pd.DataFrame(
        {
            "forward_ns": forward,
            "hooked_ns": _median_of_sums(sums[sums["depth"] == 0]),
            "layers_ns": _median_of_sums(sums[sums["depth"] == 1]),
            "leaves_ns": _median_of_sums(sums[sums["leaf"]]),
        }
    ).dropna(subset=["forward_ns", "hooked_ns"])
    table = table.fillna({"layers_ns": 0.0}).rename_axis("batch_size").reset_index()
    table["share"] = table["layers_ns"] / table["forward_ns"]
    table["leaves_share"] = table["leaves_ns"] / table["forward_ns"]
    table["overhead"] = table["hooked_ns"] / table["forward_ns"] - 1
    return LAYER_COVERAGE.check(table)


def forward_spread(forwards: pd.DataFrame) -> float:
    """How much the whole forward varies by itself: interquartile range over median, of the batch size where it is most.

    Takes FORWARD_CALLS; 0 when there are none. What differs from the forward by less than this share is noise.

    Raises SchemaError when a column is missing or has another dtype.
    """
    forwards = FORWARD_CALLS.check(forwards)
    if forwards.empty:
        return 0.0
    times = forwards.groupby("batch_size")["forward_ns"]
    return float(((times.quantile(0.75) - times.quantile(0.25)) / times.median()).max())


def _per_iteration(calls: pd.DataFrame) -> pd.DataFrame:
    """One row per batch size, layer and iteration of that batch size: calls, total_ns, self_ns; 0 where none ran."""
    outer = calls["layer"] != calls["parent"]  # a module that calls itself: the time is in the call around it
    timed = pd.DataFrame(
        {
            "batch_size": calls["batch_size"],
            "layer": calls["layer"],
            "iteration": calls["iteration"],
            "calls": 1,
            "total_ns": calls["device_ns"].fillna(calls["host_ns"]).astype("int64").where(outer, 0),
            "self_ns": calls["self_device_ns"].fillna(calls["self_host_ns"]).astype("int64"),
        }
    )
    sums = timed.groupby(["batch_size", "layer", "iteration"], as_index=False).sum()
    iterations = sums[["batch_size", "iteration"]].drop_duplicates()
    every = sums[["batch_size", "layer"]].drop_duplicates().merge(iterations, on="batch_size")
    filled = every.merge(sums, how="left", on=["batch_size", "layer", "iteration"])
    return filled.fillna({"calls": 0, "total_ns": 0, "self_ns": 0})


def _depths(layers: pd.DataFrame) -> list[int]:
    """Number of layers around each layer, by the parent of its first call. A module that calls itself ends the walk."""
    parent = dict(zip(layers["layer"], layers["parent"], strict=True))
    depths = []
    for layer in layers["layer"]:
        seen = {layer}
        while (layer := parent.get(layer, "")) and layer not in seen:
            seen.add(layer)
        depths.append(len(seen) - 1)
    return depths


def _levels(calls: pd.DataFrame) -> pd.DataFrame:
    """Of each layer its depth, and whether nothing was timed inside it."""
    first = calls.drop_duplicates("layer")
    inside = set(calls.loc[calls["parent"] != calls["layer"], "parent"])
    return pd.DataFrame(
        {"layer": first["layer"], "depth": _depths(first), "leaf": [layer not in inside for layer in first["layer"]]}
    )


def _median_of_sums(sums: pd.DataFrame) -> pd.Series:
    """By batch size, the median over iterations of the time added over layers."""
    each = sums.groupby(["batch_size", "iteration"])["total_ns"].sum()
    return each.groupby("batch_size").median()


ROWS: Final = 40  # a heat map taller than this is no picture any more
_ENOUGH: Final = 20


def layers_at_depth(totals: pd.DataFrame, depth: int) -> list[str]:
    """The layers of that depth, and those above it that hold no timed layer, in the order of the model."""
    LAYER_TOTALS.check(totals)
    parents = set(totals["parent"])
    layers = totals.drop_duplicates("layer")
    wanted = (layers["depth"] == depth) | ((layers["depth"] < depth) & ~layers["layer"].isin(parents))
    return [str(name) for name in layers.loc[wanted, "layer"]]


def best_depth(totals: pd.DataFrame) -> int:
    """The depth whose layers make the fullest picture that still is one; 0 when there are no layers."""
    depths = sorted(int(depth) for depth in totals["depth"].unique())
    count = {depth: len(layers_at_depth(totals, depth)) for depth in depths}
    fitting = [depth for depth in depths if count[depth] <= ROWS]
    return max(fitting, default=depths[0] if depths else 0, key=lambda depth: (min(count[depth], _ENOUGH), -depth))


def telling_layers(totals: pd.DataFrame, names: list[str], most: int = 5) -> list[str]:
    """One layer of each kind, the longest first: a windowed block and a global one say more than two of a kind."""
    rows = totals[totals["layer"].isin(names)].sort_values("per_image_ns", ascending=False)
    return [str(name) for name in rows.drop_duplicates(["type", "variant"])["layer"].unique()[:most]]
