"""Iterations: how long each took, and what differs in the long ones."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.intervals import added, covered_by_group
from profiler_kit.analyses.gpu.serving_labels import served
from profiler_kit.attribute.frames import GPU_EVENTS, REGION_INSTANCES
from profiler_kit.attribute.launch_context import codes_of
from profiler_kit.load.integers import I64
from profiler_kit.schema import Column, Schema

NONE: Final = -1
STEP: Final = "ProfilerStep"
FENCE: Final = 1.5  # interquartile ranges above the third quartile (Tukey)
LEAST: Final = 1.05  # of the median: what is nearer is not an outlier, however even the others are
FEWEST: Final = 4  # steps of a kind from which on quartiles say something
COMPARED: Final = 256  # regions or kernels, those that take most

STEPS: Final = Schema(
    "STEPS",
    "iteration, by start: a ProfilerStep, or an instance of another repeated region",
    {
        "step": Column("int64", "The 3 of ProfilerStep#3, else its number from 0.", unit="id"),
        "name": Column("str", "Name of the region.", show="room"),
        "kind": Column("str", "Of LLM serving: prefill, decode, mixed or idle; empty if not told.", show="varied"),
        "tokens": Column("Int64", "Tokens that it works on, of LLM serving.", show="varied"),
        "sequences": Column("Int64", "Requests that it works on, of LLM serving.", show="varied"),
        "start_ns": Column("int64", show="never"),
        "wall_ns": Column("int64", "Time on the host.", "host"),
        "median_share": Column(
            "float64", "Its time over that of the median step of its kind, missing where that took none.", "of median"
        ),
        "outlier": Column(
            "bool", "Longer than the third quartile of its kind by 1.5 interquartile ranges, and 5 % above its median."
        ),
        "gpu_events": Column("int64", show="room"),
        "busy_ns": Column("int64", label="GPU busy"),
        "idle_ns": Column("int64", "First start to last end of what it launched, minus busy time.", "GPU idle"),
        "more_idle_ns": Column("int64", "Idle beyond the median step of its kind.", show="room"),
        "region": Column(
            "str", "The region whose GPU time exceeds that of its median step most, innermost.", show="room"
        ),
        "region_ns": Column("int64", "By how much that region's does.", "region more", show="room"),
        "kernel": Column(
            "str", "The kernel whose time exceeds that of its median step most.", unit="kernel", show="room"
        ),
        "kernel_ns": Column("int64", "By how much that kernel's does.", "kernel more", show="room"),
    },
)  # fmt: skip


def inside_of(instances: pd.DataFrame, chosen: npt.NDArray[np.bool_]) -> I64:
    """The chosen one that each row of REGION_INSTANCES is in, itself counted, the innermost; NONE outside all."""
    found = np.where(chosen, np.arange(len(instances)), NONE)
    above = instances["parent"].fillna(NONE).to_numpy(dtype=np.int64)
    while True:  # what is in none looks at the region above, level by level
        open_ones = np.flatnonzero((found == NONE) & (above != NONE))
        if not len(open_ones):
            return found
        found[open_ones], above[open_ones] = found[above[open_ones]], above[above[open_ones]]


def step_of(instances: pd.DataFrame, instance: pd.Series[Any]) -> pd.Series[Any]:
    """The step of each row whose innermost region is that row of REGION_INSTANCES; missing outside every step."""
    instances = REGION_INSTANCES.check(instances)
    place = _placed(inside_of(instances, instances["step"].notna().to_numpy()), instance)
    step = np.append(instances["step"].fillna(0).to_numpy(dtype=np.int64), NONE)[place]
    return pd.Series(step, index=instance.index).astype("Int64").mask(place == NONE)


def _placed(inside: I64, instance: pd.Series[Any]) -> I64:
    """What each row is inside of, given its innermost region."""
    placed: I64 = np.append(inside, NONE)[instance.fillna(NONE).to_numpy(dtype=np.int64)]
    return placed


def chosen_steps(instances: pd.DataFrame, region: str | None) -> npt.NDArray[np.bool_]:
    """Which instances are the steps: of that region, else ProfilerSteps, steps of LLM serving, or what repeats most."""
    names = instances["name"].to_numpy(dtype=object)
    if region is not None:
        paths = instances["path"].cat
        wanted = [region in (path[-1:] and path[-1], " > ".join(path)) for path in paths.categories]
        return np.array(wanted or [False], dtype=bool)[paths.codes.to_numpy()]
    named = {name: (name == STEP, served(name) is not None) for name in set(names.tolist())}
    for which in (0, 1):
        found = np.array([named[name][which] for name in names], dtype=bool)
        if instances["event"][found].nunique() > 1:
            return found
    top = instances[instances["parent"].isna().to_numpy()]
    took, by = top["end_ns"] - top["start_ns"], [top["name"], top["thread"]]
    often = took.groupby(by).sum()[top["event"].groupby(by).nunique() > 1]
    if often.empty:
        return np.zeros(len(instances), dtype=bool)
    name, thread = list(often.index)[int(often.to_numpy().argmax())]
    found = instances["parent"].isna().to_numpy() & (names == name)
    return np.asarray(found & (instances["thread"] == thread).to_numpy(), dtype=bool)


def steps(gpu_events: pd.DataFrame, instances: pd.DataFrame, region: str | None = None) -> pd.DataFrame:
    """GPU_EVENTS, REGION_INSTANCES -> STEPS. A GPU event is of the step that launched it. Empty if no region repeats.

    instances, and that of each event, are the parts of regions where these straddle (Trace.region_parts).

    What differs is told against the median, over the steps of the same kind, of each region's and kernel's time.
    """
    gpu_events, instances = GPU_EVENTS.check(gpu_events), REGION_INSTANCES.check(instances)
    chosen = chosen_steps(instances, region)
    if not chosen.any():
        return STEPS.empty()
    # the parts of one region that straddles others are one step, which begins with the first of them
    parts = np.flatnonzero(chosen)
    parts = parts[np.argsort(instances["start_ns"].to_numpy()[parts], kind="stable")]
    whole, _ = pd.factorize(instances["event"].to_numpy()[parts])
    rows = parts[np.flatnonzero(~pd.Series(whole).duplicated())]
    number = np.full(len(instances) + 1, NONE, dtype=np.int64)
    number[parts] = whole
    step = number[_placed(inside_of(instances, chosen), gpu_events["instance"])]
    mine = gpu_events[step != NONE]
    step = step[step != NONE]
    start, end = mine["start_ns"].to_numpy(), (mine["start_ns"] + mine["dur_ns"]).to_numpy()
    count = len(rows)
    first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(first, step, start)
    np.maximum.at(last, step, end)
    events = np.bincount(step, minlength=count)
    busy = covered_by_group(step, start, end, count)
    idle = np.where(events > 0, last - first, 0) - busy
    taken = instances.iloc[rows]
    told = [_served(name) for name in taken["name"]]
    kind = np.array([one[0] for one in told], dtype=object)
    wall = added(whole, (instances["end_ns"] - instances["start_ns"]).to_numpy()[parts], count)
    paths = [path[-1] if path else "" for path in mine["path"].cat.categories]
    names, dur = list(mine["name"].cat.categories), mine["dur_ns"].to_numpy()
    median = _medians(wall, kind)
    where, where_ns = _most(step, codes_of(mine["path"]), dur, kind, paths)
    which, which_ns = _most(step, codes_of(mine["name"]), dur, kind, names)
    found = pd.DataFrame(
        {
            "step": taken["step"].astype("Int64").to_numpy(dtype=np.int64, na_value=NONE),
            "name": taken["name"].to_numpy(dtype=object),
            "kind": kind,
            "tokens": pd.array([one[1] for one in told], dtype="Int64"),
            "sequences": pd.array([one[2] for one in told], dtype="Int64"),
            "start_ns": taken["start_ns"].to_numpy(),
            "wall_ns": wall,
            "median_share": np.divide(wall, median, out=np.full(count, np.nan), where=median > 0),
            "outlier": _outliers(wall, kind),
            "gpu_events": events,
            "busy_ns": busy,
            "idle_ns": idle,
            "more_idle_ns": idle - _medians(idle, kind).astype(np.int64),
            "region": where,
            "region_ns": where_ns,
            "kernel": which,
            "kernel_ns": which_ns,
        }
    )
    found.loc[found["step"] == NONE, "step"] = np.flatnonzero(found["step"] == NONE)
    return STEPS.check(found)


def _served(name: str) -> tuple[str, int | None, int | None]:
    """Kind, tokens and sequences of a step of LLM serving."""
    found = served(name)
    if found is None:
        return "", None, None
    prefill, decode = found.prefill, found.decode
    tokens = None if prefill.tokens is None or decode.tokens is None else prefill.tokens + decode.tokens
    return found.kind, tokens, prefill.count + decode.count


def _medians(values: I64, kind: npt.NDArray[np.object_]) -> npt.NDArray[np.float64]:
    """For each value the median of those of its kind."""
    return np.asarray(pd.Series(values).groupby(kind).transform("median"), dtype=np.float64)


def _outliers(wall: I64, kind: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    grouped = pd.Series(wall).groupby(kind)
    low, high, enough = (
        grouped.transform("quantile", 0.25),
        grouped.transform("quantile", 0.75),
        grouped.transform("size"),
    )
    above = wall > np.maximum(high + FENCE * (high - low), LEAST * grouped.transform("median"))
    return np.asarray(above & (enough >= FEWEST), dtype=bool)


def _most(
    step: I64, code: I64, dur: I64, kind: npt.NDArray[np.object_], labels: list[str]
) -> tuple[npt.NDArray[np.object_], I64]:
    """What exceeds its median over the steps of the same kind most, and by how much; "" and 0 where nothing does."""
    total = np.bincount(code, dur, minlength=max(1, len(labels)))
    kept = np.argsort(-total, kind="stable")[:COMPARED]
    column = np.full(len(total), NONE)
    column[kept] = np.arange(len(kept))
    known = column[code] != NONE
    sums = np.zeros((len(kind), len(kept)), dtype=np.int64)  # a row for each step, a column for each label
    np.add.at(sums, (step[known], column[code[known]]), dur[known])
    for one in set(kind.tolist()):
        sums[kind == one] -= np.median(sums[kind == one], axis=0).astype(np.int64)
    best = sums.argmax(axis=1)
    more = np.maximum(sums[np.arange(len(kind)), best], 0)
    names = np.array(
        [labels[kept[at]] if ns else "" for at, ns in zip(best.tolist(), more.tolist(), strict=True)], object
    )
    return names, more
