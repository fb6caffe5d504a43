"""Where the time of a run went, what the GPU waited for, and what bounds the regions that hold most of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from profiler_kit.analyses.gpu.batch_load import BatchLoad
from profiler_kit.analyses.gpu.gpu_presence import Presence
from profiler_kit.analyses.gpu.grouping import names_parts
from profiler_kit.analyses.gpu.idle import CAUSES, NO_REQUEST
from profiler_kit.analyses.gpu.regions import deepest, innermost
from profiler_kit.analyses.gpu.timeline import DeviceTimeline, GpuTimeline, within
from profiler_kit.analyses.gpu.utilization import NAMES, NO_GPU_WORK, STARVED
from profiler_kit.analyses.gpu.window import operator_sums
from profiler_kit.finding import Evidence, Finding, Path, Piece, bold, counted, say
from profiler_kit.names import gpu_name
from profiler_kit.run import Run
from profiler_kit.text import fmt_count, fmt_ns, fmt_percent
from profiler_kit.trace import Trace

# Who wrote a trace that Kineto of today did not, as the end of "a trace of".
FORMS: Final[dict[str, str]] = {
    "kineto": "",
    "kineto-2021": "Kineto as in torch 1.8 to 1.12",
    "autograd": "the legacy torch.autograd.profiler",
    "ascend": "torch_npu (Ascend)",
    "xla": "TensorFlow or JAX (XLA)",
    "paddle": "Paddle",
    "onnxruntime": "ONNX Runtime",
}
REGION_BARS: Final = (
    "Solid: time in which a kernel launched in the region ran, overlaps counted once. Pale: the sum of their "
    "durations. A region includes the regions nested in it."
)
EXPOSED_FROM: Final = 0.1  # share of the recorded span from which exposed communication is worth a sentence
MOST_GPUS: Final = 8  # drawn one by one
EACH_UP_TO: Final = 4  # GPUs whose shares are said one by one
WORTH_A_WORD: Final = 0.005  # of all idle time: a cause with less would read 0 %
SLOWED_FROM: Final = 0.03  # of the busy share: below, recording made no difference worth a word


def headline(run: Run) -> Finding | None:
    """Where the time of the run's trace went; None without a trace."""
    if run.trace is None or run.presence is None:
        return None
    if run.presence.ran == "gpu":
        return _on_gpu(run.trace, run.load)
    return nothing_read(run.trace) or _on_host(run.trace, run.presence)


def nothing_read(trace: Trace) -> Finding | None:
    """Why there is nothing to show of a trace; None where there is."""
    if any(map(len, (trace.gpu_events(), trace.operators(), trace.region_instances(), trace.launch_calls()))):
        return None
    if len(trace.python_calls()):
        return None
    if trace.presence.ran != "host":
        return missing_gpu(trace.presence)
    return Finding("nothing-read", "lost", say("The trace holds no events that took time."), "warning", page="doctor")


def _on_gpu(trace: Trace, load: BatchLoad | None) -> Finding:
    """With `load` the busy share is that of a batch without the profiler, and the recorded share is beside it."""
    summary, regions = trace.summary(), trace.regions()
    time, devices = summary["gpu_timeline"], gpus(trace)
    total, absent = max(1, time["total_ns"]), without_requests(trace)
    share, served = time["busy_ns"] / total, max(1, time["total_ns"] - absent)
    said: list[str | Piece]
    if len(devices) > 1:
        said = [
            f"{fmt_count(len(devices))} GPUs were busy ",
            bold(busy_shares(trace)),
            f" of the recorded {fmt_ns(total)}",
        ]
        said.append(f", at least one of them {fmt_percent(share, 0)}")
    elif load is None:
        said = ["The GPU was busy ", bold(fmt_percent(share, 0)), f" of the recorded {fmt_ns(total)}"]
    else:
        slowed = " because recording slows the host" if share < load.busy_share - SLOWED_FROM else ""
        said = [
            f"The GPU works {fmt_ns(load.gpu_ns)} of each {fmt_ns(load.latency_ns)} batch: ",
            bold(f"{fmt_percent(load.busy_share, 0)} busy"),
            f" without the profiler, {fmt_percent(share, 0)} while recorded{slowed}",
        ]
    if absent:
        said += [", ", bold(fmt_percent(time["busy_ns"] / served, 0)), f" of the {fmt_ns(served)} in which the server "]
        said.append("had a request")
    where, held = deepest([tuple(path) for path in regions["path"]], regions["busy_ns"].tolist())
    whose = "their" if len(devices) > 1 else "its"
    whole = int(regions.loc[regions["path"].map(len) == 1, "busy_ns"].sum())
    if whole and where and names_parts(regions):
        said += ["; ", bold(fmt_percent(held / whole, 0)), f" of {whose} work came from ", bold(where[-1])]
    elif whole:  # else all that ran took no time
        by, groups = trace.work_groups()
        rows = zip(groups["name"], groups["sum_ns"], strict=True)
        most, taken = next((row for row in rows if not row[0].startswith("(")), ("", 0))
        said += ["; ", bold(fmt_percent(taken / max(1, int(groups["sum_ns"].sum())), 0)), f" of {whose} work "]
        said += ["is ", bold(most)] if by == "kind" else [f"came from the {by} ", bold(most)]
    said.append(".")
    if len(devices) > 1:
        idle = sum(served - device["busy_ns"] for device in devices)
        if idle > STARVED * served * len(devices):
            said.append(f" Together they were idle for {fmt_ns(idle)} of {fmt_ns(served * len(devices))}.")
    elif load is not None and 1 - load.busy_share > STARVED:
        waits = fmt_ns(load.latency_ns - load.gpu_ns)
        said.append(f" It is idle for {waits} of each batch: look at launches and copies first.")
    elif load is None and time["idle_ns"] - absent > STARVED * served:
        said.append(
            f" It was idle for {fmt_ns(time['idle_ns'] - absent)}{' of that' if absent else ''}, some of it because of "
            "the recording: look at launches and copies first."
        )
    elif time["exposed_communication_ns"] > EXPOSED_FROM * total:
        said.append(f" Exposed communication took {fmt_ns(time['exposed_communication_ns'])}.")
    evidence = Evidence("regions", {"path": (where,)} if where else {})
    return Finding("where-the-time-went", "headline", say(*said), where=where, evidence=evidence, page="regions")


def without_requests(trace: Trace) -> int:
    """Nanoseconds in which nothing ran on any GPU because the server had no request; 0 of what is no server's run."""
    idle = trace.idle(scope="all")
    return int(idle.loc[idle["cause"] == NO_REQUEST, "idle_ns"].sum())


def gpus(trace: Trace) -> list[DeviceTimeline]:
    """The timeline of each GPU; work without a device is of no other where its process has one with a number."""
    every = trace.summary()["devices"]
    named = {device["process"] for device in every if device["device"] is not None}
    return [device for device in every if device["device"] is not None or device["process"] not in named]


def busy_shares(trace: Trace) -> str:
    """Busy share of the recorded span of each GPU, the first few; the range of many."""
    summary = trace.summary()
    total = max(1, summary["gpu_timeline"]["total_ns"])
    shares = [device["busy_ns"] / total for device in gpus(trace)]
    if len(shares) <= EACH_UP_TO:
        *first, last = (fmt_percent(share, 0) for share in shares)
        return " and ".join(filter(None, (", ".join(first), last)))
    return f"{fmt_percent(min(shares), 0)} to {fmt_percent(max(shares), 0)}"


def activities(trace: Trace) -> list[tuple[str, GpuTimeline]]:
    """What to call the GPU and its timeline; of several GPUs first all together, then the first few over that span."""
    summary = trace.summary()
    whole, devices = summary["gpu_timeline"], gpus(trace)
    if len(devices) < 2:
        return [("the GPU", whole)]
    several = len({device["process"] for device in devices}) > 1
    names = [gpu_name(device["device"], device["process"] if several else "") for device in devices]
    each = [(name, within(device, whole["total_ns"])) for name, device in zip(names, devices, strict=True)]
    return [(f"at least one of {fmt_count(len(devices))} GPUs", whole), *each[:MOST_GPUS]]


def of_gpu(trace: Trace, several: str = "every GPU") -> str:
    """ "the GPU", and what to say instead where the trace holds several."""
    return "the GPU" if len(gpus(trace)) < 2 else several


# What GPU time is added up by where no region names the parts of the code: a heading, and what that means.
GROUPS: Final = {
    "region": ("Where GPU time went", REGION_BARS),
    "module": (
        "GPU time by module",
        "The trace has no regions, so the work is shown by the module whose forward launched it.",
    ),
    "operator": (
        "GPU time by operator",
        "The trace has no regions, so the work is shown by the innermost operator that launched it.",
    ),
    "kind": (
        "GPU time by kind of kernel",
        "The trace has no regions, and most launches are in no operator, so the work is shown by kind, as the kernels' "
        "names tell.",
    ),
}


def grouped_by(trace: Trace) -> str:
    """The key of GROUPS that suits a trace."""
    return "region" if names_parts(trace.regions()) else trace.work_groups()[0]


def wholes(trace: Trace, kernels: pd.DataFrame) -> tuple[str, str, str]:
    """What 100 % is: of what the GPU did, of where it was busy, and of the longest kernels. Takes NAME_SUMS."""
    time, which = trace.summary()["gpu_timeline"], of_gpu(trace, "a GPU")
    return (
        f"100 % is the recorded span, {fmt_ns(time['total_ns'])}",
        f"100 % is the time in which {which} was busy, {fmt_ns(time['busy_ns'])}",
        f"100 % is the sum of all of them, {fmt_ns(int(kernels['sum_ns'].sum()))}",
    )


def _on_host(trace: Trace, presence: Presence) -> Finding:
    regions, operators = trace.regions(), operator_sums(trace.operators())
    said: list[str | Piece] = [missing_gpu(presence).sentence]
    where, held = deepest([tuple(path) for path in regions["path"]], regions["host_ns"].tolist())
    if where:
        whole = int(regions.loc[regions["path"].map(len) == 1, "host_ns"].sum())
        said += [" ", bold(where[-1]), " took ", bold(fmt_percent(held / max(1, whole), 0)), " of the time in regions"]
    whole = int(operators["self_ns"].sum())
    if whole:
        said += ["; the " if where else " The ", "longest operator is ", bold(str(operators["name"].iloc[0]))]
        said += [", ", bold(fmt_percent(int(operators["self_ns"].iloc[0]) / whole, 0)), " of operator time"]
    said += ["."] if where or whole else []
    evidence = Evidence("regions", {"path": (where,)} if where else {})
    return Finding("where-the-time-went", "headline", say(*said), where=where, evidence=evidence, page="regions")


def missing_gpu(presence: Presence) -> Finding:
    """Why a trace holds no GPU events: whether there was a GPU, and why its work is not there."""
    calls = f"{counted(presence.launches, 'call')} {'launches' if presence.launches == 1 else 'launch'}"
    if presence.ran == "without times":
        said = (
            f"The trace holds {counted(presence.left_out, 'GPU event')}, but none has a plausible time: only the "
            "host side is shown."
        )
        return Finding("gpu-without-times", "odd", say(said), "warning", page="doctor")
    if presence.ran == "cut off":
        why = f"{calls} GPU work" if presence.launches else ""
        why = why or (f"it was recorded on a machine with {presence.devices[0]}" if presence.devices else "")
        said = (
            f"The trace is cut off before its GPU events ({why}): only the host side is shown."
            if why
            else "The trace is cut off before any GPU event; the profiler writes them last."
        )
        return Finding("gpu-events-cut-off", "lost", say(said), "warning", page="doctor")
    if presence.ran == "lost":
        lost = counted(presence.dropped, "event")
        said = f"GPU work was launched ({calls} it), but none of its events was read: {lost} of the file could not be."
        return Finding("gpu-events-lost", "lost", say(said), "warning", page="doctor")
    if presence.ran == "not recorded":
        said = f"GPU work was launched ({calls} it), but the GPU was not recorded: only the host side is shown."
        return Finding("gpu-not-recorded", "missing", say(said), "warning", page="doctor")
    if presence.ran == "not read":
        spans = f"{counted(presence.unread, 'span')} of an unknown category"
        where = ", ".join(map(repr, presence.where))
        who = f"This is a trace of {FORMS[presence.form]}. " if FORMS[presence.form] else ""
        said = f"{who}No GPU events were recognised in it, only {spans} (in {where}), which are not analysed."
        return Finding("not-read", "lost", say(said), "warning", page="doctor")
    return Finding("no-gpu", "missing", say("No GPU in this run."), page="doctor")


def idle_causes(run: Run) -> dict[str, int]:
    """Idle time of all GPUs together by cause; adds up to all of it. From the table `idle`."""
    if run.trace is None:
        return {}
    found = run.trace.idle(scope="all").groupby("cause")["idle_ns"].sum().to_dict()
    return {cause: int(found.get(cause, 0)) for cause in CAUSES}


def idle_regions(run: Run) -> list[tuple[Path, int, int]]:
    """Path, idle time and wall time of each innermost region, the longest idle time first.

    Idle time of a region is that of the table `utilization`: nothing ran on any GPU while the region was open, and a
    server had a request.
    """
    if run.trace is None:
        return []
    frame = run.trace.utilization()
    paths: list[Path] = [tuple(path) for path in frame["path"]]
    wall = dict(zip(paths, frame["wall_ns"].tolist(), strict=True))
    idle = (frame["idle_ns"] - frame["no_request_ns"]).tolist()
    return [(path, ns, wall[path]) for path, ns in innermost(paths, idle)]


def why_idle(run: Run) -> Finding | None:
    """Idle time by cause, and the region in which it was longest; None where the GPU never waited."""
    causes = idle_causes(run)
    total = sum(causes.values())
    if not total or run.trace is None:
        return None
    worded = [f"{cause} {fmt_percent(ns / total, 0)}" for cause, ns in causes.items() if ns >= WORTH_A_WORD * total]
    shares = ", ".join(worded)
    gpu = of_gpu(run.trace)
    said: list[str | Piece] = [f"{gpu[:1].upper()}{gpu[1:]} was idle for ", bold(fmt_ns(total))]
    said.append(f" while recorded: {shares}.")
    regions = idle_regions(run)
    where = regions[0][0] if regions else ()
    if where:
        idle = run.trace.idle(scope="all")
        gap, ns = int(idle.loc[idle["cause"] != NO_REQUEST, "longest_ns"].max()), regions[0][1]
        if ns > total - causes[NO_REQUEST]:  # a region is open before the first work of a GPU too
            said += [" While nothing ran, including before the first GPU event and after the last, ", bold(where[-1])]
            said.append(f" was open longest ({fmt_ns(ns)}).")
        elif gap > ns:  # most of it outside of all innermost regions, or with several of them
            said += [" The longest gap took ", bold(fmt_ns(gap)), "; of the innermost regions, "]
            said += [bold(where[-1]), f" was idle longest ({fmt_ns(ns)})."]
        else:
            said += [" Longest in ", bold(where[-1]), f" ({fmt_ns(ns)})."]
    evidence = Evidence("idle", options={"scope": "all"})
    return Finding("why-idle", "why", say(*said), where=where, evidence=evidence, page="regions")


def _terms(trace: Trace, path: Path) -> str:
    """What a verdict rests on: of the wall time of a region, what the GPU did for it, for others, and not at all."""
    row = next(row for row in trace.utilization().to_dict("records") if row["path"] == path)
    row["idle_ns"] -= row["no_request_ns"]
    busy, other, absent, idle = (
        fmt_percent(row[f"{what}_ns"] / max(1, row["wall_ns"]), 0) for what in ("busy", "other", "no_request", "idle")
    )
    elsewhere = f", on other work {other}" if other != fmt_percent(0, 0) else ""
    absent = f"; the server has no request {absent}" if row["no_request_ns"] else ""
    return f"a GPU works on it {busy} of the time{elsewhere}, and is idle {idle}{absent}"


def bound_by(run: Run) -> Finding | None:
    """What bounds the region that holds most GPU time, and the one where the GPU is idle longest."""
    if run.trace is None:
        return None
    regions, bounds = run.trace.regions(), run.bounds
    where, held = deepest([tuple(path) for path in regions["path"]], regions["busy_ns"].tolist())
    if where not in bounds:
        return None
    whole = int(regions.loc[regions["path"].map(len) == 1, "busy_ns"].sum())
    gpu, whose = of_gpu(run.trace), "the GPU's" if of_gpu(run.trace) == "the GPU" else "all GPU"
    said: list[str | Piece] = [bold(where[-1])]
    said.append(f" accounts for {fmt_percent(held / max(1, whole), 0)} of {whose} work and is ")
    said += [bold(NAMES[bounds[where]]), f" ({_terms(run.trace, where)})"]
    idle: Sequence[tuple[Path, int, int]] = idle_regions(run)
    if idle and idle[0][0] != where:
        path, ns, _ = idle[0]
        causes = idle_causes(run)
        # most of it before the first work of a GPU, or after the last
        outside = ns > sum(causes.values()) - causes[NO_REQUEST]
        said += ["; nothing ran longest while " if outside else f"; {gpu} is idle longest in ", bold(path[-1])]
        said += [" was open" if outside else "", f" ({fmt_ns(ns)}), which "]
        said += ["launched " if bounds[path] == NO_GPU_WORK else "is "]
        said += [bold(NAMES[bounds[path]]), f" ({_terms(run.trace, path)})"]
    evidence = Evidence("utilization", {"path": tuple(dict.fromkeys((where, *(row[0] for row in idle[:1]))))})
    return Finding("bound-by", "why", say(*said, "."), where=where, evidence=evidence, page="regions")
