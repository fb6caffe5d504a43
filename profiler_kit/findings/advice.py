"""What is most worth fixing: frames of a trace in, causes ranked by the time they could give back out.

Every cause is found in the events and says how much time it holds; nothing is guessed from what is not there. A gain
is an upper bound for that cause alone: two causes may hold the same time.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.compare.kernel_keys import kernel_kind
from profiler_kit.analyses.gpu.batch_load import BatchLoad
from profiler_kit.analyses.gpu.copies import COPIES
from profiler_kit.analyses.gpu.idle import HOST_BOUND, KERNEL_WAIT, idle_gaps, waiting_calls
from profiler_kit.analyses.gpu.intervals import covered_ns
from profiler_kit.analyses.gpu.timeline import gpu_timeline, is_communication
from profiler_kit.analyses.layers.totals import LAYER_TOTALS
from profiler_kit.attribute.frames import KERNEL_DETAILS, LAUNCH_CALLS, OPERATORS
from profiler_kit.attribute.regions import NO_REGION, UNLINKED, Path
from profiler_kit.load.trace.categories import KERNEL

I64 = npt.NDArray[np.int64]
Kind = Literal[
    "host-bound",
    "synchronising",
    "exposed copies",
    "exposed communication",
    "elementwise chains",
    "fp32 products",
    "one kernel",
    "kernel gaps",
    "one operator",
    "batch scaling",
]

MIN_SHARE: Final = 0.01  # of the whole: less is not worth a line
DOMINATES_FROM: Final = 0.2  # of all kernel (operator) time in one name
FASTER: Final = 2.0  # what a faster kernel is taken to gain: tensor cores in TF32 or bf16 promise more than this
SCALES_BELOW: Final = 0.9  # efficiency from which down a layer is said to scale badly
HOLDS: Final = 0.5  # a nested region that holds this share of the one around it is the better answer
# Nobody's own names: what was not attributed, and regions torch.compile makes up.
UNNAMED: Final = (NO_REGION[0], UNLINKED[0], "## Call CompiledFxGraph", "Torch-Compiled Region", "CompiledFunction")
# Matrix products on CUDA cores in fp32, as cuBLAS, cuDNN and CUTLASS name them; `tf32` and `s1688` are tensor cores.
_FP32: Final = re.compile(r"(?:^|_)ffma(?:_|$)|simt_sgemm|(?:maxwell|volta|ampere|turing)_sgemm|convolve_sgemm|scudnn_")
_TENSOR_CORES_SINCE: Final = 7  # compute capability


@dataclass(frozen=True)
class Whole:
    """What gains are shares of. ns: all of it; rounds: how many batches or steps that is, 1 when not known.

    unit: "batch", "step", "recording", or "forward". unrecorded: idle time was scaled to what it is without the
    profiler (see `advise`).
    """

    ns: float
    rounds: int = 1
    unit: str = "recording"
    unrecorded: bool = False


@dataclass(frozen=True)
class Advice:
    """One cause. gain_ns: what it could give back at most, over the whole. path: the region that holds most of it.

    inside_ns: of gain_ns, in that region. count: gaps, calls, copies, kernels or runs, as the kind says; of: of how
    many. names: calls, operators, kernels or layers concerned, the largest first. value, other: see _FACTS in
    views/advice.py for what they are for each kind.
    """

    kind: Kind
    gain_ns: float
    whole: Whole
    path: Path = ()
    inside_ns: float = 0.0
    count: int = 0
    of: int = 0
    names: tuple[str, ...] = ()
    value: float = 0.0
    other: float = 0.0
    mean_ns: float = 0.0

    @property
    def share(self) -> float:
        """Of the whole."""
        return self.gain_ns / self.whole.ns if self.whole.ns else 0.0


def advise(
    details: pd.DataFrame,
    launch_calls: pd.DataFrame,
    copies: pd.DataFrame,
    operators: pd.DataFrame,
    *,
    steps: int = 0,
    load: BatchLoad | None = None,
    compute_major: int | None = None,
) -> list[Advice]:
    """What holds at least MIN_SHARE of the time, the most first. Empty for a trace without GPU events.

    Takes KERNEL_DETAILS, LAUNCH_CALLS, COPIES and OPERATORS. steps: ProfilerSteps in the trace. compute_major: of the
    GPU, when the trace says.

    Recording slows the host, so that the recorded GPU waits more than it does otherwise. With `load` (latency samples
    taken without the profiler) idle time is scaled down to the idle time of an unrecorded batch, each cause by the same
    factor; the whole is busy time plus that. Without it, the whole is the recorded span.
    """
    details, launch_calls = KERNEL_DETAILS.check(details), LAUNCH_CALLS.check(launch_calls)
    copies, operators = COPIES.check(copies), OPERATORS.check(operators)
    if details.empty:
        return []
    time = gpu_timeline(details)
    scale, whole = 1.0, Whole(time["total_ns"], max(steps, 1), "step" if steps else "recording")
    if load is not None:
        idle = max(0.0, load.latency_ns - load.gpu_ns) * load.batches
        scale = min(1.0, idle / time["idle_ns"]) if time["idle_ns"] else 0.0
        whole = Whole(time["busy_ns"] + scale * time["idle_ns"], load.batches, "batch", unrecorded=True)
    found = [
        *_waits(idle_gaps(details, launch_calls, scope="all"), details, launch_calls, operators, scale, whole),
        *_copies(details, copies, whole),
        *_communication(details, whole),
        *_chains(details, whole),
        *_slow_kernels(details, whole, compute_major),
    ]
    return _ranked(found)


def advise_host(operators: pd.DataFrame) -> list[Advice]:
    """The operator that holds most of the host's time, for a trace without GPU events. Takes OPERATORS."""
    operators = OPERATORS.check(operators)
    whole = Whole(float(operators["self_ns"].sum()))
    by_name = operators.groupby("name", observed=True)["self_ns"].sum()
    if by_name.empty or by_name.max() < DOMINATES_FROM * whole.ns:
        return []
    name = str(by_name.idxmax())
    mine = operators[operators["name"] == name]
    total, calls = int(mine["self_ns"].sum()), len(mine)
    path, inside = _holder(mine["path"], mine["self_ns"].to_numpy(np.int64))
    gain = total * (1 - 1 / FASTER)
    return [Advice("one operator", gain, whole, path, inside * (1 - 1 / FASTER), calls, len(operators), (name,), total)]


def advise_layers(totals: pd.DataFrame) -> list[Advice]:
    """The layer that loses most by batching: its time per image grows with the batch, by more than its spread.

    Takes LAYER_TOTALS. The gain is what the largest batch would take less if the layer took, per image, what it takes
    in the smallest. Of a layer and the one around it, the inner one is named when it holds half of the loss.
    """
    totals = LAYER_TOTALS.check(totals)
    last = int(totals["batch_size"].max()) if len(totals) else 0
    first = totals.sort_values("batch_size").drop_duplicates("layer").set_index("layer")
    rows = totals[(totals["batch_size"] == last) & (totals["depth"] > 0)].set_index("layer")
    whole = Whole(float(totals.loc[(totals["batch_size"] == last) & (totals["depth"] == 0), "median_ns"].sum()))
    whole = dataclasses.replace(whole, unit="forward")
    start = first.loc[rows.index]
    grown = (rows["q1_ns"] / rows["batch_size"] > start["q3_ns"] / start["batch_size"]) & (
        rows["efficiency"] < SCALES_BELOW
    )
    loss = ((rows["per_image_ns"] - start["per_image_ns"]) * last)[grown]
    if loss.empty or not whole.ns:
        return []
    layer = str(loss.idxmax())
    while True:
        inner = loss[rows.loc[loss.index, "parent"] == layer]
        if inner.empty or inner.max() < HOLDS * loss[layer]:
            break
        layer = str(inner.idxmax())
    found = Advice(
        "batch scaling",
        float(loss[layer]),
        whole,
        count=last,
        of=int(start["batch_size"][layer]),
        names=(layer,),
        value=float(rows["per_image_ns"][layer]),
        other=float(start["per_image_ns"][layer]),
    )
    return _ranked([found])


def _ranked(found: Sequence[Advice]) -> list[Advice]:
    return sorted((one for one in found if one.share >= MIN_SHARE), key=lambda one: -one.share)


def _waits(
    gaps: pd.DataFrame,
    details: pd.DataFrame,
    launch_calls: pd.DataFrame,
    operators: pd.DataFrame,
    scale: float,
    whole: Whole,
) -> list[Advice]:
    """Idle time by what ended it: a late launch, a launch after waiting for the GPU, or the way to the next kernel.

    value: median of the kernels in ns, other: median of the launch calls; of synchronising, how long all waiting calls
    took, and how many there are.
    """
    synchronised = gaps["synchronised"].to_numpy()
    late = (gaps["cause"] == HOST_BOUND).to_numpy() & ~synchronised
    short = (gaps["cause"] == KERNEL_WAIT).to_numpy()
    kernels = details[details["category"] == KERNEL]
    typical = float(kernels["dur_ns"].median()) if len(kernels) else 0.0
    calls = launch_calls[launch_calls["gpu_events"] > 0]
    launching = float(calls["dur_ns"].median()) if len(calls) else 0.0
    found = []
    kinds: tuple[tuple[Kind, npt.NDArray[np.bool_]], ...] = (
        ("host-bound", late),
        ("synchronising", synchronised),
        ("kernel gaps", short),
    )
    for kind, chosen in kinds:
        rows = gaps[chosen]
        if rows.empty:
            continue
        length = rows["dur_ns"].to_numpy(np.int64)
        path, inside = _holder(rows["path"], length)
        names: tuple[str, ...] = ()
        value, other = typical, launching
        if kind == "synchronising":
            waiting = waiting_calls(launch_calls)
            names = _callers(waiting, operators)
            value, other = float(waiting["dur_ns"].sum()), float(len(waiting))
        total = float(length.sum()) * scale
        mean = float(length.mean())
        found.append(Advice(kind, total, whole, path, inside * scale, len(rows), len(gaps), names, value, other, mean))
    return found


def _copies(details: pd.DataFrame, copies: pd.DataFrame, whole: Whole) -> list[Advice]:
    """Copies between host and device while the GPU did nothing else. value: bytes; other: copies of pageable memory."""
    mine = copies[copies["kind"].isin(["HtoD", "DtoH"])]
    if mine.empty:
        return []
    start, end = details["start_ns"].to_numpy(), (details["start_ns"] + details["dur_ns"]).to_numpy()
    rest = ~details["event"].isin(mine["event"]).to_numpy()
    exposed = covered_ns(start, end) - covered_ns(start[rest], end[rest])
    pageable = int(((mine["source"] == "Pageable") | (mine["target"] == "Pageable")).sum())
    length = mine["dur_ns"].to_numpy(np.int64)
    path, inside = _holder(mine["path"], length)
    size = float(mine["size_bytes"].fillna(0).sum())
    inside *= exposed / max(1, int(length.sum()))
    names = tuple(mine["kind"].value_counts().index)
    return [Advice("exposed copies", exposed, whole, path, inside, len(mine), len(copies), names, size, pageable)]


def _communication(details: pd.DataFrame, whole: Whole) -> list[Advice]:
    """Communication that no computation hides. value: all of it in ns."""
    mine = details[is_communication(details)]
    if mine.empty:
        return []
    time = gpu_timeline(details)
    path, inside = _holder(mine["path"], mine["dur_ns"].to_numpy(np.int64))
    exposed, total = time["exposed_communication_ns"], time["communication_ns"]
    inside *= exposed / max(1, int(mine["dur_ns"].sum()))
    names = _by_time(mine)
    return [Advice("exposed communication", exposed, whole, path, inside, len(mine), len(details), names, total)]


def _chains(details: pd.DataFrame, whole: Whole) -> list[Advice]:
    """Elementwise kernels one right after another on a stream: fused, a run takes as long as its longest.

    count: kernels in such runs; of: runs. value: their time in ns.
    """
    kinds = np.array([kernel_kind(str(name)) == "elementwise" for name in details["name"].cat.categories] or [False])
    rows = np.lexsort(
        (details["start_ns"], details["stream"].fillna(-1).to_numpy(), details["device"].fillna(-1).to_numpy())
    )
    lane = details[["device", "stream"]].fillna(-1).to_numpy(np.int64)[rows]
    place = details["instance"].fillna(-1).to_numpy(np.int64)[rows]
    fuses = kinds[details["name"].cat.codes.to_numpy()][rows]
    duration = details["dur_ns"].to_numpy(np.int64)[rows]
    same = (lane[1:] == lane[:-1]).all(axis=1) & (place[1:] == place[:-1]) & fuses[1:] & fuses[:-1]
    run = np.concatenate(([0], np.cumsum(~same)))
    runs = int(run[-1]) + 1
    size = np.bincount(run, weights=fuses, minlength=runs)
    total, longest = np.zeros(runs, dtype=np.int64), np.zeros(runs, dtype=np.int64)
    np.add.at(total, run, np.where(fuses, duration, 0))
    np.maximum.at(longest, run, np.where(fuses, duration, 0))
    saved = np.where(size > 1, total - longest, 0)
    if not saved.any():
        return []
    head = np.concatenate(([True], ~same))
    path, inside = _holder(details["path"].iloc[rows[head]], saved)
    names = _by_time(details.iloc[rows[(size[run] > 1) & fuses]])
    many = size > 1
    return [
        Advice(
            "elementwise chains",
            float(saved.sum()),
            whole,
            path,
            inside,
            int(size[many].sum()),
            int(many.sum()),
            names,
            float(total[many].sum()),
        )
    ]


def _slow_kernels(details: pd.DataFrame, whole: Whole, compute_major: int | None) -> list[Advice]:
    """Matrix products in fp32 without tensor cores, and one kernel that holds much of the time.

    Both gains assume FASTER times the speed. value: their time in ns; other: of all GPU time.
    """
    all_ns = float(details["dur_ns"].sum())
    fp32 = np.array([bool(_FP32.search(str(name))) for name in details["name"].cat.categories] or [False])
    is_fp32 = fp32[details["name"].cat.codes.to_numpy()]
    found = []
    if compute_major is None or compute_major >= _TENSOR_CORES_SINCE:
        found += _half_of("fp32 products", details[is_fp32], details, whole)
    others = details[~is_fp32 & ~is_communication(details) & (details["category"] == KERNEL).to_numpy()]
    by_name = others.groupby("name", observed=True)["dur_ns"].sum()
    if len(by_name) and by_name.max() >= DOMINATES_FROM * all_ns:
        found += _half_of("one kernel", others[others["name"] == by_name.idxmax()], details, whole)
    return found


def _half_of(kind: Kind, mine: pd.DataFrame, details: pd.DataFrame, whole: Whole) -> list[Advice]:
    if mine.empty:
        return []
    length = mine["dur_ns"].to_numpy(np.int64)
    total, less = float(length.sum()), 1 - 1 / FASTER
    path, inside = _holder(mine["path"], length)
    share = total / float(details["dur_ns"].sum())
    return [
        Advice(kind, total * less, whole, path, inside * less, len(mine), len(details), _by_time(mine), total, share)
    ]


def _by_time(events: pd.DataFrame) -> tuple[str, ...]:
    """The names that hold most of these events' time, three at most."""
    sums = events.groupby("name", observed=True)["dur_ns"].sum().sort_values(ascending=False)
    return tuple(str(name) for name in sums.index[:3])


def _holder(paths: pd.Series, values: I64) -> tuple[Path, float]:
    """The innermost region that holds at least half of what the one around it holds, and how much; ((), all) if none.

    Regions nobody named are no answer; what they hold counts for the region around them.
    """
    code, distinct = pd.factorize(paths)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, code, values)
    total: dict[Path, int] = {}
    for path, value in zip(distinct, sums.tolist(), strict=True):
        for depth in range(1, len(path) + 1):
            if str(path[depth - 1]).startswith(UNNAMED):
                break
            total[tuple(path[:depth])] = total.get(tuple(path[:depth]), 0) + value
    best: Path = ()
    held = int(values.sum())
    while True:
        inner = {path: value for path, value in total.items() if len(path) == len(best) + 1 and path[:-1] == best}
        if not inner or max(inner.values()) < HOLDS * held or not held:
            return best, float(held)
        best = max(inner, key=lambda path: inner[path])
        held = inner[best]


def _callers(calls: pd.DataFrame, operators: pd.DataFrame) -> tuple[str, ...]:
    """The operators (else the calls themselves) inside which the host waited, the longest first, three at most."""
    waited: dict[str, int] = {}
    parent = operators["parent"].fillna(-1).to_numpy(np.int64)
    start, end = operators["start_ns"].to_numpy(), (operators["start_ns"] + operators["dur_ns"]).to_numpy()
    thread = operators["thread"].to_numpy()
    for number in np.unique(calls["thread"]).tolist():
        mine = calls[calls["thread"] == number]
        low, high = np.searchsorted(thread, [number, number + 1])  # OPERATORS are by thread and start
        time = mine["start_ns"].to_numpy()
        at = np.searchsorted(start[low:high], time, "right") - 1
        node = np.where(at >= 0, at + low, -1)
        while (outside := (node >= 0) & (end[node] <= time)).any():
            node = np.where(outside, parent[node], node)
        for where, name, length in zip(node.tolist(), mine["name"], mine["dur_ns"].tolist(), strict=True):
            key = str(operators["name"].iloc[where]) if where >= 0 else str(name)
            waited[key] = waited.get(key, 0) + length
    return tuple(sorted(waited, key=lambda name: -waited[name])[:3])
