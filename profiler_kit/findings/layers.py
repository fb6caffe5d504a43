"""What a sweep of layers over batch sizes says: the gain of batching, how much the layers explain, kinds of layers."""

from __future__ import annotations

import statistics
from typing import Final

import pandas as pd

from profiler_kit.analyses.layers.totals import LAYER_KINDS
from profiler_kit.finding import Evidence, Finding, bold, say
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.run import Layers
from profiler_kit.text import fmt_ns, fmt_percent

TOO_NOISY: Final = 0.25  # spread of the forwards from which nothing can be said about them
NOTE: Final = "layers: "  # how a note of run.json begins that is about the layers


def of_layers(layers: Layers, record: RunRecord | None = None) -> list[Finding]:
    """Everything about the layers."""
    if layers.totals.empty:
        said = say("The layer timings are empty: no layer was called.")
        return [Finding("no-layers", "missing", said, "warning", page="layers")]
    found = (scaling(layers.totals), difference(layers, record), coverage(layers))
    return [one for one in found if one is not None]


def scaling(totals: pd.DataFrame) -> Finding | None:
    """What the whole model gains from batching; None when it was timed at one batch size. Takes LAYER_TOTALS."""
    top = totals[totals["depth"] == 0].sort_values("batch_size")
    if top["layer"].nunique() != 1 or len(top) < 2:
        return None
    first, last = top.iloc[0], top.iloc[-1]
    said = say(
        f"From batch {first['batch_size']} to {last['batch_size']} the time per item goes from ",
        bold(fmt_ns(first["per_image_ns"])),
        " to ",
        bold(fmt_ns(last["per_image_ns"])),
        f" ({last['efficiency']:.2f} times as fast).",
    )
    return Finding("batching", "layers", said, evidence=Evidence("layer_totals", {"depth": (0,)}), page="layers")


def difference(layers: Layers, record: RunRecord | None) -> Finding | None:
    """That the layers were not timed as the run was, where a note says so; with both times per item."""
    notes = [*layers.notes, *(record.notes if record is not None else ())]
    told = dict.fromkeys(note.removeprefix(NOTE) for note in notes if note.startswith(NOTE))
    if not told:
        return None
    said = f"Layers are {'; '.join(told)}."
    top = layers.totals[layers.totals["depth"] == 0]
    if record is not None and record.latency_ns:
        mine = top[top["batch_size"] == record.batch_size]
        if len(mine) == 1:
            latency = statistics.median(record.latency_ns) / record.batch_size
            said += (
                f" At batch {record.batch_size} they take {fmt_ns(mine['per_image_ns'].iloc[0])} per item, "
                f"the run itself {fmt_ns(latency)}."
            )
    return Finding("layers-differ", "odd", say(said), "warning", page="layers")


def coverage(layers: Layers) -> Finding | None:
    """How much of the forward the layers explain, and what the hooks cost; what is smaller than noise is called noise.

    The outermost layers added up, against the same forward timed with nothing hooked in.
    """
    frame, spread = layers.coverage, layers.spread
    if frame.empty:
        return None
    least = frame.loc[frame["share"].idxmin()]
    share, overhead = float(least["share"]), float(frame["overhead"].max())
    noise, attempt = f"the spread of its samples ({fmt_percent(spread)})", ""
    if spread > TOO_NOISY:
        said = (
            "How much of the forward the layers explain is unknown: without hooks its time varies too much (spread "
            f"{fmt_percent(spread, 0)})."
        )
        attempt = "More --iterations or --warmup."
    else:
        if share >= 1 - spread:
            said = f"The layers explain all of the forward run without hooks, within {noise}"
        else:
            said = (
                f"The layers explain at least {fmt_percent(share)} of the forward run without hooks "
                f"(batch {int(least['batch_size'])}); {noise} is smaller, so the rest ran outside every layer"
            )
        cost = f"cost {fmt_percent(overhead)} at most" if overhead > spread else "cost no more than that spread"
        said += f". The hooks {cost}."
    return Finding("layers-explain", "layers", say(said), attempt=attempt, page="layers")


def kinds(frame: pd.DataFrame) -> Finding | None:
    """How much longer the slowest variant of a type takes than the fastest, at the largest batch; None without any.

    Takes LAYER_KINDS.
    """
    LAYER_KINDS.check(frame)
    last = frame[(frame["batch_size"] == frame["batch_size"].max()) & (frame["variant"] != "")]
    if last.empty:
        return None
    slow = last.loc[last["one_per_image_ns"].idxmax()]
    base = slow["kind"].removesuffix(slow["variant"])
    alike = last[[kind.removesuffix(v) == base for kind, v in zip(last["kind"], last["variant"], strict=True)]]
    fast = alike.loc[alike["one_per_image_ns"].idxmin()]
    if len(alike) < 2 or not fast["one_per_image_ns"]:
        return None
    factor = slow["one_per_image_ns"] / fast["one_per_image_ns"]
    held = [f"{int(row['layers'])} of {row['kind']} hold {fmt_percent(float(row['share']), 0)}" for row in (slow, fast)]
    said = (
        f"At batch {int(slow['batch_size'])} one layer {slow['kind']} takes {fmt_ns(slow['one_per_image_ns'])} per "
        f"item, {factor:.1f} × one layer {fast['kind']} ({fmt_ns(fast['one_per_image_ns'])}). {held[0]} of the "
        f"forward, {held[1]}."
    )
    return Finding("layer-kinds", "layers", say(said), page="layers")
