"""How far the work on the GPU is from what it can do, and of what kinds it is."""

from __future__ import annotations

import dataclasses
from typing import Final

from profiler_kit.analyses.gpu.roofline import NO_DTYPE, NO_LENGTHS, NO_NONZEROS, NO_SHAPES, UNFIT
from profiler_kit.analyses.gpu.steps import FEWEST
from profiler_kit.finding import Evidence, Finding, Piece, bold, counted, say
from profiler_kit.table import Filled
from profiler_kit.text import fmt_ns, fmt_percent
from profiler_kit.trace import Trace

NAMED: Final = 3  # categories in a sentence
_RECORD: Final = "profiler_runner(path, record_shapes=True)"
_CAPTURE: Final = (
    "--captures PATH, with a trace of the capture, or of the same step without graphs, recorded with record_shapes=True"
)
MOST: Final = 0.9  # known operators that need no more
LEAST_REPLAYED: Final = 0.01  # of the GPU time
_WORK: Final = {
    "matrix product": "matrix products",
    "norm": "norms",
    "convolution": "convolutions",
    "copy": "copies",
    "reduction": "reductions",
    "elementwise": "elementwise operators",
    "other": "other work",
}


def by_category(trace: Trace) -> Finding | None:
    """Which kinds of work take the GPU's time."""
    totals = trace.categories()
    whole = int(totals["sum_ns"].sum())
    if not whole:
        return None
    said: list[str | Piece] = []
    for name, ns in zip(totals["category"].head(NAMED), totals["sum_ns"].head(NAMED), strict=True):
        said += [", " if said else "", _WORK.get(name, name) + " ", bold(fmt_percent(int(ns) / whole, 0))]
    said[0] = ""
    evidence = Evidence("categories", {"category": tuple(totals["category"].head(NAMED))})
    return Finding("categories", "why", say("Most GPU time goes to: ", *said, "."), evidence=evidence, page="operators")


def of_roofline(filled: Filled) -> Finding:
    """How much of the time is modelled, how near to the peaks, and what could not be. Takes ROOFLINE, not empty."""
    frame = filled.frame
    whole, known = int(frame["gpu_ns"].sum()), frame["modelled"]
    mine = int(frame["gpu_ns"][known].sum())
    share = bold(fmt_percent(mine / max(1, whole), 0))
    said: list[str | Piece] = ["Operators with a model take ", share, f" of {fmt_ns(whole)} of GPU time"]
    attempt = ""
    rated = frame[frame["peak_share"].notna()]
    if len(rated):
        least = float((rated["peak_share"] * rated["gpu_ns"]).sum())
        reached = bold(fmt_percent(least / max(1, int(rated["gpu_ns"].sum())), 0))
        said += ["; they reach ", reached, f" of the peaks of {_where(filled)}."]
    else:
        said += ["."]
        given = filled.options.get("peaks")
        file = None if given is None else str(given)
        peaks = filled.source.peaks(file=file) if isinstance(filled.source, Trace) else None
        if mine and (peaks is None or not frame["why"][known].eq(NO_DTYPE).all()):
            what = f"The peaks of {_where(filled)} are" if peaks is None else f"A peak of {_where(filled)} for them is"
            said += [f" {what} not known."]
            attempt = '--peaks FILE, with {"bf16": 989, "fp32": 67, "tb_per_s": 3.35} in it'
    counts = frame.groupby("why")["count"].sum()
    lost = [f"{counted(int(counts[why]), 'call')} {what}" for why, what in _LOST.items() if counts.get(why, 0)]
    if lost:
        said += [f" Not modelled: {', '.join(lost)}."]
    assumed = frame[known & ~frame["why"].isin(["", *_LOST])].groupby("why")["count"].sum()
    said += [f" Assumed in {counted(int(count), 'call')}: {what}." for what, count in assumed.items()]
    if counts.get(NO_SHAPES, 0) and not mine:
        attempt = _RECORD
    return Finding("roofline", "table", say(*said), attempt=attempt, evidence=Evidence("roofline"), page="operators")


_LOST: Final = {
    NO_SHAPES: "without recorded shapes",
    UNFIT: "whose shapes do not fit the operator",
    NO_DTYPE: "with an unknown dtype",
    NO_LENGTHS: "whose sequences' lengths are not recorded",
    NO_NONZEROS: "with a sparse matrix, whose nonzeros are not recorded",
}


def _where(filled: Filled) -> str:
    """What the peaks are of."""
    peaks = filled.options.get("peaks")
    names = filled.source.gpu_names if isinstance(filled.source, Trace) else []
    return str(peaks) if peaks else ", ".join(name or "a GPU without a name" for name in names) or "this GPU"


def of_steps(filled: Filled) -> Finding:
    """How long a step takes, and what is with those that take longer. Takes STEPS, not empty."""
    frame = filled.frame
    kinds = [
        f"{kind} " * bool(kind) + fmt_ns(float(rows["wall_ns"].median()))
        for kind, rows in frame.groupby("kind", sort=True)
    ]
    said: list[str | Piece] = [f"{counted(len(frame), 'step')}, the median takes ", bold(", ".join(kinds)), "; "]
    out = frame[frame["outlier"]]
    if out.empty:
        said += ["none is an outlier." if len(frame) >= FEWEST else "too few to tell which are outliers."]
        return Finding("steps", "table", say(*said), evidence=Evidence("steps"), page="regions")
    worst = out.loc[out["wall_ns"].idxmax()]
    said += [bold(counted(len(out), "outlier")), ". Longest: step ", bold(str(int(worst["step"])))]
    said += [f", {fmt_ns(int(worst['wall_ns']))}"]
    more = [(int(worst["more_idle_ns"]), "of idle GPU"), (int(worst["region_ns"]), f"in {worst['region']}")]
    more = [(ns, what) for ns, what in more if ns > 0]
    said += [f", with {' and '.join(f'{fmt_ns(ns)} more {what}' for ns, what in more)} than the median" if more else ""]
    evidence = Evidence("steps", {"step": tuple(int(step) for step in out["step"])})
    return Finding("steps", "table", say(*said, "."), evidence=evidence, page="regions")


def of_graphs(filled: Filled) -> Finding:
    """How much of the GPU's time is replayed, and of how much the operators are known. Takes REPLAYED_GRAPHS."""
    frame = filled.frame
    whole, share = int(frame["sum_ns"].sum()), float(frame["share"].sum())
    known = float((frame["sum_ns"] * frame["matched"]).sum()) / max(1, whole)
    replays = int(frame["launches"].sum())
    said: list[str | Piece] = [counted(replays, "replay"), " of ", counted(len(frame), "CUDA graph")]
    said += [" takes " if replays == 1 else " take ", bold(fmt_percent(share, 0)), " of the GPU time, "]
    said += [
        fmt_ns(whole),
        "; the operators are known of ",
        bold(fmt_percent(known, 0) if known else "none"),
        " of it.",
    ]
    attempt = "" if known > MOST else _CAPTURE
    return Finding(
        "graphs", "table", say(*said), attempt=attempt, evidence=Evidence("replayed_graphs"), page="operators"
    )


def replayed(trace: Trace) -> Finding | None:
    """The same of a trace, where graphs take much of the time."""
    filled = trace.table("replayed_graphs")
    if float(filled.frame["share"].sum()) <= LEAST_REPLAYED:
        return None
    return dataclasses.replace(of_graphs(filled), kind="why")


OF_TABLES: Final = {"roofline": of_roofline, "steps": of_steps, "replayed_graphs": of_graphs}
