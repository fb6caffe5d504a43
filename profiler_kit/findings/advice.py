"""What is most worth fixing in a run: causes found in its events, each with the time that it could give back.

Nothing is guessed from what is not there. A gain is an upper bound for that cause alone: two causes may hold the same
time. For a kernel or an operator that takes long, only its own time is known, not what a faster one would take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.compare.kernel_keys import kernel_kind
from profiler_kit.analyses.gpu.batch_load import BatchLoad
from profiler_kit.analyses.gpu.idle import HOST_BOUND, KERNEL_WAIT, NO_REQUEST, SYNCHRONISED
from profiler_kit.analyses.gpu.intervals import covered_ns
from profiler_kit.analyses.gpu.regions import HOLDS, deepest, innermost
from profiler_kit.analyses.gpu.replay import Change, gone
from profiler_kit.analyses.gpu.timeline import GpuTimeline, is_communication
from profiler_kit.analyses.layers.totals import LAYER_TOTALS
from profiler_kit.finding import (
    Basis,
    Evidence,
    Finding,
    Gain,
    Path,
    Piece,
    counted,
    say,
)
from profiler_kit.findings.time import of_gpu, without_requests
from profiler_kit.load.trace.categories import KERNEL
from profiler_kit.names import fit_names, kernel_names
from profiler_kit.run import Run
from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns, fmt_percent
from profiler_kit.trace import Trace

MIN_SHARE: Final = 0.01  # of the whole: less is not worth a line
DOMINATES_FROM: Final = 0.2  # of all kernel (operator) time in one name
SCALES_BELOW: Final = 0.9  # a layer with a lower efficiency is said to scale badly
REPLAYED_FROM: Final = 0.9  # of the recorded idle time that a batch without the profiler has too
LONG_GAP_NS: Final = 1_000_000  # no launch takes that long: the host was doing something else
NAME_LETTERS: Final = 40
# Matrix products on CUDA cores in fp32, as cuBLAS, cuDNN and CUTLASS name them; `tf32` and `s1688` are tensor cores.
_FP32: Final = re.compile(r"(?:^|_)ffma(?:_|$)|simt_sgemm|(?:maxwell|volta|ampere|turing)_sgemm|convolve_sgemm|scudnn_")
_TENSOR_CORES_SINCE: Final = 7  # compute capability
_LAST: Final = ("one-kernel", "one-operator")  # what only holds time follows what could give time back

NOTHING: Final = "No single cause accounts for 1 % of the time or more."
HELP: Final = (
    "Causes found in the events, the largest possible gain first. Each gain is an upper bound for that cause alone, "
    "and causes may overlap. It is what a replay of the trace without the cause saves, or else the time that the "
    "cause takes; for an operator it is the operator's own time."
)


@dataclass(frozen=True)
class _Whole:
    """What gains are shares of. ns: all of it; rounds: how many batches or steps that is; each: one of them.

    scale: from recorded idle time to what it is without the profiler, where latency samples tell.
    """

    ns: float
    rounds: int = 1
    each: str = "the recording"
    scale: float = 1.0
    unrecorded: bool = False
    trace: Trace | None = None

    def gain(self, ns: float, basis: Basis = "bound", change: Change | None = None) -> Gain:
        """The gain of a cause that takes `ns`; what a replay with `change` saves where that is less.

        What only holds time stays that where a replay without it is as long: something else then holds the time.
        Where the profiler made the host much slower the recording is no batch without it, and is not replayed.
        """
        if change is not None and self.trace is not None and self.scale >= REPLAYED_FROM:
            saved = self.trace.would_save(change)
            if saved is not None and saved <= ns and (basis != "held" or saved >= MIN_SHARE * self.ns):
                ns, basis = saved, "replayed"
        return Gain(ns / self.rounds, "ns", basis, ns / self.ns if self.ns else 0.0, self.each)


def advice(run: Run) -> list[Finding]:
    """What holds at least MIN_SHARE of the time of trace and layers, the largest gain first."""
    found: list[Finding] = []
    if run.trace is not None:
        found += _of_trace(run.trace, run.load) if len(run.trace.gpu_events()) else _of_host(run.trace)
    if run.layers is not None:
        found += of_layers(run.layers.totals)
    worth = [one for one in found if one.gain is not None and one.gain.share >= MIN_SHARE]
    return sorted(worth, key=lambda one: (one.id in _LAST, -(one.gain.share if one.gain else 0.0)))


def _of_trace(trace: Trace, load: BatchLoad | None) -> Iterator[Finding]:
    """Recording slows the host, so that the recorded GPU waits more than it does otherwise. With `load` (latency
    samples taken without the profiler) idle time is scaled down to the idle time of an unrecorded batch, each cause by
    the same factor; the whole is busy time plus that. Without it, the whole is the recorded span.
    """
    time = trace.summary()["gpu_timeline"]
    steps = int(trace.region_instances()["step"].nunique())
    # of the recording, which may begin before the first step and end after the last
    each = f"the recorded {fmt_ns(time['total_ns'] / steps)} a step" if steps else "the recording"
    whole = _Whole(time["total_ns"], max(steps, 1), each, trace=trace)
    if absent := without_requests(trace):
        served = time["total_ns"] - absent
        whole = _Whole(served, 1, f"the {fmt_ns(served)} with requests", trace=trace)
    if load is not None:
        idle = max(0.0, load.latency_ns - load.gpu_ns) * load.batches
        scale = min(1.0, idle / time["idle_ns"]) if time["idle_ns"] else 0.0
        whole = _Whole(time["busy_ns"] + scale * time["idle_ns"], load.batches, "each batch", scale, True, trace)
    details = trace.kernel_details()
    yield from _waits(trace, details, whole)
    yield from _copies(details, trace.copies(), whole)
    yield from _communication(details, time, whole)
    yield from _chains(details, whole)
    yield from _slow_kernels(details, whole, _compute_major(trace.metadata))


def _compute_major(metadata: dict[str, Any]) -> int | None:
    """Compute capability of the first GPU, where the trace says."""
    devices = metadata.get("deviceProperties")
    first = devices[0] if isinstance(devices, list) and devices and isinstance(devices[0], dict) else {}
    major = first.get("computeMajor")
    return major if isinstance(major, int) else None


def _waits(trace: Trace, details: pd.DataFrame, whole: _Whole) -> Iterator[Finding]:
    """Idle time by what ended it: a late launch, a launch after waiting for the GPU, or the way to the next kernel."""
    gaps, calls = trace.idle_gaps(scope="all"), trace.launch_calls()
    gaps = gaps[gaps["cause"] != NO_REQUEST]
    late, synchronised, short = ((gaps["cause"] == one).to_numpy() for one in (HOST_BOUND, SYNCHRONISED, KERNEL_WAIT))
    kernels = details.loc[details["category"] == KERNEL, "dur_ns"]
    gpu = of_gpu(trace)
    typical = f"; half of the kernels take less than {fmt_ns(float(kernels.median()))}" if len(kernels) else ""
    launching = calls.loc[calls["gpu_events"] > 0, "dur_ns"]
    regions = trace.utilization()
    paths: list[Path] = [tuple(path) for path in regions["path"]]

    def finding(
        one: str,
        title: str,
        sentence: str,
        attempt: str,
        rows: pd.DataFrame,
        column: str,
        evidence: dict[str, Any],
        change: Change | None = None,
    ) -> Finding:
        where, held = deepest(paths, regions[column].tolist())
        inner, longest = next(iter(innermost(paths, regions[column].tolist())), (where, 0))
        # a region is open before the first work of a GPU too
        beyond = held > rows["dur_ns"].sum()
        outside = ", including before the first GPU event and after the last" if beyond else ""
        most = f" In the recording {gpu} was idle this way for {fmt_ns(held)} while " if where else ""
        most += f"{where[-1]} was open{outside}" if where else ""
        most += f", longest in {inner[-1]} ({fmt_ns(longest)})" if where and inner != where else ""
        return Finding(
            one,
            "advice",
            say(sentence, f"{most}." if most else ""),
            title=title,
            gain=whole.gain(float(rows["dur_ns"].sum()) * whole.scale, change=change),
            where=where,
            attempt=attempt,
            evidence=Evidence("idle_gaps", evidence, {"scope": "all"}),
            page="regions",
        )

    if late.any():
        rows = gaps[late]
        count, every = rows["event"].nunique(), gaps["event"].nunique()  # requests of a server cut a gap into parts
        mean = float(rows["dur_ns"].sum()) / count
        scaled = " while recorded (the gain is scaled to a batch without the profiler)" if whole.unrecorded else ""
        said = (
            f"{fmt_count(count)} of {fmt_count(every)} gaps between GPU events end with a launch that came "
            f"late, after {fmt_ns(mean)} on average{scaled}"
        )
        evidence = {"cause": (HOST_BOUND,)}
        if mean >= LONG_GAP_NS:
            title, attempt = f"Host-bound: {gpu} waits for the host", _PREPARE
        else:
            title, attempt = f"Launch-bound: {gpu} waits for launches", _GRAPHS
            call = fmt_ns(float(launching.median()) if len(launching) else 0.0)
            said += f"{typical}{', and' if typical else ';'} a launch call takes {call}"
        yield finding("host-bound", title, f"{said}.", attempt, rows, "host_ns", evidence)
    if synchronised.any():
        rows, waiting = gaps[synchronised], calls[calls["waits"]]
        waited_for = of_gpu(trace, "a GPU")
        said = (
            f"{counted(len(rows), 'gap')} began while the host was waiting for {waited_for}. The trace holds "
            f"{counted(len(waiting), 'call that waits', 'calls that wait')}, {fmt_ns(int(waiting['dur_ns'].sum()))} in "
            "all, mostly in "
            f"{', '.join(_callers(waiting, trace.operators()))}."
        )
        title = f"Synchronization-bound: the host waits for {waited_for}, then {gpu} for the host"
        evidence = {"cause": (SYNCHRONISED,)}
        yield finding("synchronization-bound", title, said, _NO_SYNC, rows, "synchronised_ns", evidence)
    if short.any():
        rows = gaps[short]
        launched = details.loc[details["launch"].notna(), "event"]
        in_time = " that were launched in time" if rows["event"].isin(launched).all() else ""
        said = (
            f"{counted(count := rows['event'].nunique(), 'short gap')} between kernels{in_time}, "
            f"{fmt_ns(float(rows['dur_ns'].sum()) * whole.scale / count)} each on average{typical}."
        )
        title, attempt = "Gaps between back-to-back kernels", "Fewer kernels (torch.compile), or CUDA graphs."
        yield finding("kernel-gaps", title, said, attempt, rows, "kernel_wait_ns", {"cause": (KERNEL_WAIT,)})


_GRAPHS: Final = (
    'torch.compile(mode="reduce-overhead") or CUDA graphs, which launch without the host; or a larger batch.'
)
_PREPARE: Final = (
    "Do the host's work there (loading, preparing, Python) ahead of time: in worker processes, or while GPUs work."
)
_NO_SYNC: Final = (
    "Remove .item(), .cpu(), nonzero() and print from the loop; copy pinned memory with non_blocking=True."
)


def _copies(details: pd.DataFrame, copies: pd.DataFrame, whole: _Whole) -> Iterator[Finding]:
    """Copies between host and device while the GPU did nothing else."""
    mine = copies[copies["kind"].isin(["HtoD", "DtoH"])]
    if mine.empty:
        return
    start, end = details["start_ns"].to_numpy(), (details["start_ns"] + details["dur_ns"]).to_numpy()
    rest = ~details["event"].isin(mine["event"]).to_numpy()
    exposed = covered_ns(start, end) - covered_ns(start[rest], end[rest])  # what the copies add to the union
    pageable, pinned = (
        int(((mine["source"] == kind) | (mine["target"] == kind)).sum()) for kind in ("Pageable", "Pinned")
    )
    how = "of memory that the trace marks as neither pinned nor pageable"
    if pageable:
        how = f"{fmt_count(pageable)} of them from or to pageable memory"
    elif pinned:
        how = f"{'all' if pinned == len(mine) else fmt_count(pinned)} of them of pinned memory"
    known = mine["size_bytes"].dropna()
    least = "at least " if len(known) < len(mine) else ""
    size = f"{least}{fmt_bytes(int(known.sum()))} in all" if len(known) else "unknown size"
    where, inside = _held(mine["path"], mine["dur_ns"])
    yield Finding(
        "exposed-copies",
        "advice",
        say(f"{counted(len(mine), 'copy', 'copies')} of {size}, {how}.", *inside),
        title="Exposed copies between host and GPU",
        gain=whole.gain(exposed, change=gone(~rest)),
        where=where,
        attempt="Pin the memory (pin_memory=True) and copy with non_blocking=True on a stream of its own."
        if pinned < len(mine)
        else "Copy the next batch on a stream of its own while this one computes.",
        evidence=Evidence("copies", {"kind": ("HtoD", "DtoH")}),
        page="regions",
    )


def _communication(details: pd.DataFrame, time: GpuTimeline, whole: _Whole) -> Iterator[Finding]:
    """Communication that no computation hides."""
    mine = details[is_communication(details)]
    if mine.empty:
        return
    exposed, total = time["exposed_communication_ns"], time["communication_ns"]
    where, inside = _held(mine["path"], mine["dur_ns"])
    hidden = fmt_percent(1 - exposed / total if total else 0.0)
    takes = "takes" if len(mine) == 1 else "take"
    yield Finding(
        "exposed-communication",
        "advice",
        say(
            f"{counted(len(mine), 'collective')} {takes} {fmt_ns(total)}, {hidden} of it hidden by computation.",
            *inside,
        ),
        title="Exposed communication",
        gain=whole.gain(exposed, change=gone(is_communication(details))),
        where=where,
        attempt="Find the rank that the others wait for. Use larger buckets, or start communication earlier.",
        evidence=Evidence("communication_overlap"),
        names=_by_time(mine),
        page="ranks",
    )


def _chains(details: pd.DataFrame, whole: _Whole) -> Iterator[Finding]:
    """Elementwise kernels one right after another on a stream: fused, a chain takes as long as its longest."""
    kinds = np.array([kernel_kind(str(name)) == "elementwise" for name in details["name"].cat.categories] or [False])
    # every event in the order of its stream
    rows = np.lexsort(
        (details["start_ns"], details["stream"].fillna(-1).to_numpy(), details["device"].fillna(-1).to_numpy())
    )
    lane = details[["device", "stream"]].fillna(-1).to_numpy(np.int64)[rows]
    place = details["instance"].fillna(-1).to_numpy(np.int64)[rows]
    fuses = kinds[details["name"].cat.codes.to_numpy()][rows]
    duration = details["dur_ns"].to_numpy(np.int64)[rows]
    # a chain goes on while stream and region instance stay the same and both neighbours are elementwise
    same = (lane[1:] == lane[:-1]).all(axis=1) & (place[1:] == place[:-1]) & fuses[1:] & fuses[:-1]
    chain = np.concatenate(([0], np.cumsum(~same)))
    chains = int(chain[-1]) + 1
    size = np.bincount(chain, weights=fuses, minlength=chains)
    total, longest = np.zeros(chains, dtype=np.int64), np.zeros(chains, dtype=np.int64)
    np.add.at(total, chain, np.where(fuses, duration, 0))
    np.maximum.at(longest, chain, np.where(fuses, duration, 0))
    many = size > 1
    saved = np.where(many, total - longest, 0)
    if not saved.any():
        return
    head = np.concatenate(([True], ~same))  # the first event of each chain says where the chain is
    where, inside = _held(details["path"].iloc[rows[head]], pd.Series(saved))
    said = (
        f"{fmt_count(int(size[many].sum()))} elementwise kernels in {counted(int(many.sum()), 'chain')} take "
        f"{fmt_ns(int(total[many].sum()))}; fused, each chain would take as long as its longest kernel."
    )
    names = _by_time(details.iloc[rows[many[chain] & fuses]])
    # all of a chain but the first of its longest
    place_in = np.flatnonzero(many[chain] & fuses)
    longest_first = place_in[np.lexsort((place_in, -duration[place_in], chain[place_in]))]
    kept = np.append(True, chain[longest_first][1:] != chain[longest_first][:-1])
    shorter = np.zeros(len(details), dtype=bool)
    shorter[rows[longest_first[~kept]]] = True
    yield Finding(
        "elementwise-chains",
        "advice",
        say(said, *inside),
        title="Chains of elementwise kernels",
        gain=whole.gain(float(saved.sum()), change=gone(shorter)),
        where=where,
        attempt="torch.compile, which fuses them; or one custom kernel.",
        evidence=Evidence("kernels", {"name": names}),
        names=names,
        page="kernels",
    )


def _slow_kernels(details: pd.DataFrame, whole: _Whole, compute_major: int | None) -> Iterator[Finding]:
    """Matrix products in fp32 without tensor cores, and one kernel that holds much of the time."""
    all_ns = float(details["dur_ns"].sum())
    if not all_ns:
        return
    fp32 = np.array([bool(_FP32.search(str(name))) for name in details["name"].cat.categories] or [False])
    is_fp32 = fp32[details["name"].cat.codes.to_numpy()]

    def finding(one: str, title: str, sentence: str, attempt: str, mine: pd.DataFrame) -> Finding:
        without = gone(details["event"].isin(mine["event"]).to_numpy())
        where, inside = _held(mine["path"], mine["dur_ns"])
        total, names = int(mine["dur_ns"].sum()), _by_time(mine)
        said = f"{sentence} {fmt_ns(total)}, {fmt_percent(total / all_ns)} of all GPU time."
        return Finding(
            one,
            "advice",
            say(said, *inside),
            title=title,
            gain=whole.gain(total, "held", without),
            where=where,
            attempt=attempt,
            evidence=Evidence("kernels", {"name": names}),
            names=names,
            page="kernels",
        )

    if is_fp32.any() and (compute_major is None or compute_major >= _TENSOR_CORES_SINCE):
        mine = details[is_fp32]
        said = f"{counted(len(mine), 'kernel')} in fp32 on CUDA cores {'takes' if len(mine) == 1 else 'take'}"
        attempt = 'torch.set_float32_matmul_precision("high") for TF32; or bf16.'
        yield finding("fp32-matmul", "Matrix products in fp32 without tensor cores", said, attempt, mine)
    others = details[~is_fp32 & ~is_communication(details) & (details["category"] == KERNEL).to_numpy()]
    by_name = others.groupby("name", observed=True)["dur_ns"].sum()
    if len(by_name) and by_name.max() >= DOMINATES_FROM * all_ns:
        name = str(by_name.idxmax())
        mine = others[others["name"] == name]
        title = f"One kernel: {fit_names(kernel_names([name]), NAME_LETTERS)[0]}"
        attempt = "Another algorithm for it: fused attention, another layout or tile size, a lower precision."
        yield finding(
            "one-kernel",
            title,
            f"It ran {'once' if len(mine) == 1 else counted(len(mine), 'time')} and takes",
            attempt,
            mine,
        )


def _of_host(trace: Trace) -> Iterator[Finding]:
    """The operator that holds most of the host's time, of a trace without GPU events."""
    operators = trace.operators()
    whole = _Whole(float(operators["self_ns"].sum()))
    by_name = operators.groupby("name", observed=True)["self_ns"].sum()
    if by_name.empty or by_name.max() < DOMINATES_FROM * whole.ns:
        return
    name = str(by_name.idxmax())
    mine = operators[operators["name"] == name]
    where, inside = _held(mine["path"], mine["self_ns"])
    total = int(mine["self_ns"].sum())
    said = f"It was called {counted(len(mine), 'time')}; {fmt_ns(total)} of host time are its own."
    yield Finding(
        "one-operator",
        "advice",
        say(said, *inside),
        title=f"One operator: {name}",
        gain=whole.gain(total, "held"),
        where=where,
        attempt="Fewer calls, another algorithm or a lower precision"
        + ("; or a GPU." if trace.presence.ran == "host" and not trace.presence.devices else "."),
        evidence=Evidence("operator_sums", {"name": (name,)}),
        names=(name,),
        page="operators",
    )


def of_layers(totals: pd.DataFrame) -> list[Finding]:
    """The layer that loses most by batching: its time per image grows with the batch, by more than its spread.

    Takes LAYER_TOTALS. The gain is what the largest batch would take less if the layer took, per image, what it takes
    in the smallest. Of a layer and the one around it, the inner one is named when it holds half of the loss.
    """
    totals = LAYER_TOTALS.check(totals)
    last = int(totals["batch_size"].max()) if len(totals) else 0
    first = totals.sort_values("batch_size").drop_duplicates("layer").set_index("layer")
    rows = totals[(totals["batch_size"] == last) & (totals["depth"] > 0)].set_index("layer")
    whole = _Whole(
        float(totals.loc[(totals["batch_size"] == last) & (totals["depth"] == 0), "median_ns"].sum()), each="a forward"
    )
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
    said = (
        f"One item takes {fmt_ns(float(start['per_image_ns'][layer]))} at batch "
        f"{int(start['batch_size'][layer])} and "
        f"{fmt_ns(float(rows['per_image_ns'][layer]))} at batch {last}."
    )
    return [
        Finding(
            "batch-scaling",
            "advice",
            say(said),
            title=f"{layer} scales poorly with the batch size",
            gain=whole.gain(float(loss[layer])),
            attempt="Run it once for the whole batch instead of once per item.",
            evidence=Evidence("layer_totals", {"layer": (layer,)}),
            names=(layer,),
            page="layers",
        )
    ]


def _by_time(events: pd.DataFrame) -> tuple[str, ...]:
    """The names that hold most of these events' time, three at most."""
    sums = events.groupby("name", observed=True)["dur_ns"].sum().sort_values(ascending=False)
    return tuple(str(name) for name in sums.index[:3])


def _held(paths: pd.Series, values: pd.Series) -> tuple[Path, Sequence[Piece | str]]:
    """The deepest region that holds most of some events' time, and a sentence that says how much; nothing if none does.

    values: of each event, which counts for every region it is in.
    """
    code, distinct = pd.factorize(paths)
    sums = np.zeros(len(distinct), dtype=np.int64)
    np.add.at(sums, code, values.to_numpy(np.int64))
    total: dict[Path, int] = {}
    for path, value in zip(distinct, sums.tolist(), strict=True):
        for depth in range(1, len(path) + 1):
            total[tuple(path[:depth])] = total.get(tuple(path[:depth]), 0) + value
    where, held = deepest(list(total), list(total.values()))
    share = held / max(1, int(sums.sum()))
    if share < HOLDS:
        return (), ()
    return where, (f" {'All' if share > 0.995 else fmt_percent(share, 0)} of it in {where[-1]}.",)


def _callers(calls: pd.DataFrame, operators: pd.DataFrame) -> tuple[str, ...]:
    """The operators (else the calls themselves) inside which the host waited, the longest first, three at most."""
    waited: dict[str, int] = {}
    parent = np.append(operators["parent"].fillna(-1).to_numpy(np.int64), -1)  # -1, so the last: no operator
    start, end = operators["start_ns"].to_numpy(), np.append(operators["start_ns"] + operators["dur_ns"], 0)
    thread = operators["thread"].to_numpy()
    for number in np.unique(calls["thread"]).tolist():
        mine = calls[calls["thread"] == number]
        low, high = np.searchsorted(thread, [number, number + 1])  # OPERATORS are by thread and start
        time = mine["start_ns"].to_numpy()
        at = np.searchsorted(start[low:high], time, "right") - 1  # the last operator that began before each call
        node = np.where(at >= 0, at + low, -1)
        while (outside := (node >= 0) & (end[node] <= time)).any():  # it has ended: the one around it
            node = np.where(outside, parent[node], node)
        for where, name, length in zip(node.tolist(), mine["name"], mine["dur_ns"].tolist(), strict=True):
            key = str(operators["name"].iloc[where]) if where >= 0 else str(name)
            waited[key] = waited.get(key, 0) + length
    return tuple(sorted(waited, key=lambda name: -waited[name])[:3])
