"""What a memory snapshot says: its peak, why it ran out, what stays behind, what its history lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler_kit.analyses.memory.oom import Advice, OomReport
from profiler_kit.analyses.memory.stack_names import stack_name
from profiler_kit.finding import Evidence, Finding, Gain, Piece, bold, counted, say
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.snapshot import DeviceRow, Snapshot
from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns, fmt_percent
from profiler_kit.units import BYTES_PER_MIB, NS_PER_US

FAILURES: Final = 3  # allocations that failed, of which each is explained; the rest are counted
LEAKS: Final = 3
FRAGMENTED_FROM: Final = 0.25  # share of reserved memory in no active block that is worth a sentence
LEAST_BYTES: Final = 64 * BYTES_PER_MIB  # less idle memory does no harm
CONFIG: Final = "PYTORCH_CUDA_ALLOC_CONF"


def of_snapshot(snapshot: Snapshot) -> list[Finding]:
    """Everything about every device that did anything."""
    found = raised(snapshot)
    used = [row for row in snapshot.summary()["devices"] if holds_memory(row)]
    if not used:
        said = say("The snapshot holds no event and no memory.")
        found.append(Finding("no-memory-held", "missing", said, page="memory"))
    return found + [one for row in used for one in of_device(snapshot, row["device"])]


def raised(snapshot: Snapshot) -> list[Finding]:
    """That the recorded function did not end as it should."""
    error = snapshot.recording.error
    said = say(f"The recorded function raised: {' '.join(error.split())}") if error else ()
    return [Finding("raised", "problem", said, "error", page="memory")] if error else []


def holds_memory(row: DeviceRow) -> bool:
    """Whether a device did anything at all."""
    return bool(row["events"] or row["reserved_bytes"] or row["end_allocated_bytes"])


def of_device(snapshot: Snapshot, device: int) -> list[Finding]:
    """Everything about one device: its peak, then what went wrong."""
    failed = failures(snapshot, device)
    others = (history(snapshot, device), fragmentation(snapshot, device), cpu_lines(snapshot, device))
    return [peak(snapshot, device), *failed, *leaks(snapshot, device), *(one for one in others if one is not None)]


def fullest(snapshot: Snapshot) -> int | None:
    """The device with the highest peak; None where there is no device."""
    rows = snapshot.summary()["devices"]
    return max(rows, key=lambda row: row["peak_allocated_bytes"])["device"] if rows else None


def peak(snapshot: Snapshot, device: int) -> Finding:
    """How high the peak of one device was, and inside which region."""
    where = snapshot.peak_region(device)
    said: list[str | Piece] = ["At its peak ", bold(fmt_bytes(_row(snapshot, device)["peak_allocated_bytes"]))]
    said.append(f" were allocated{_on(snapshot, device)}")
    said += [*((" inside ", bold(where[-1])) if where else ()), "."]
    evidence = Evidence("memory_regions", {"device": (device,), "path": (where,)} if where else {"device": (device,)})
    return Finding(_id("peak-memory", device), "memory", say(*said), where=where, evidence=evidence, page="memory")


def out_of_memory(snapshot: Snapshot, device: int) -> list[Finding]:
    """Why each allocation that failed did so, and what would have helped."""
    if not _row(snapshot, device)["oom"]:
        return []
    return [_failure(snapshot, number, report) for number, report in enumerate(snapshot.oom_reports(device), 1)]


def failures(snapshot: Snapshot, device: int) -> list[Finding]:
    """The first of them, and how many more there are."""
    failed = out_of_memory(snapshot, device)
    more = len(failed) - FAILURES
    said = say(f"{counted(more, 'more allocation')} failed.")
    rest = [Finding(_id("out-of-memory-more", device), "memory", said, "error")] if more > 0 else []
    return failed[:FAILURES] + rest


def _failure(snapshot: Snapshot, number: int, report: OomReport) -> Finding:
    since = fmt_ns((report.time_us - snapshot.origin_us(report.device)) * NS_PER_US)
    cached, free = fmt_bytes(_usable(report)), report.device_free_bytes
    said: list[str | Piece] = [f"At {since}, ", bold(fmt_bytes(report.requested_bytes))]
    said.append(f" were requested{_on(snapshot, report.device)}")
    if free is None:
        said.append("; how much was free on the device was not recorded.")
    elif report.advice[0].setting == "limit":
        said += [" while ", bold(fmt_bytes(free)), " were free on the device: a limit of this process "]
        said.append("refused the allocation.")
    elif not (short := next(one.numbers["short"] for one in report.advice if one.setting == "batch")):
        said.append(
            f"; {fmt_bytes(free)} free on the device and {cached} cached would have been enough, but not in one piece: "
            f"the largest free block is {fmt_bytes(report.largest_free_bytes)}."
        )
    else:
        said.append(f"; {fmt_bytes(free)} free on the device and {cached} cached fall short by ")
        said += [bold(fmt_bytes(short)), "."]
    reserved = (
        f"This process had reserved {fmt_bytes(report.reserved_bytes)}, of which {fmt_bytes(report.allocated_bytes)} "
        "were allocated"
    )
    if report.cached_bytes:
        parts = ((report.split_bytes, "beside blocks in use"), (report.private_bytes, "in pools of CUDA graphs"))
        texts = [
            f"{fmt_bytes(size)} {where}"
            for size, where in (*parts, (report.other_stream_bytes, "on other streams"))
            if size
        ]
        reserved += f" and {fmt_bytes(report.cached_bytes)} were in no active block"
        reserved += f" ({', '.join(texts)})" if texts else ""
        reserved += f"; its largest free block was {fmt_bytes(report.largest_free_bytes)}"
    return Finding(
        _id("out-of-memory", report.device, number),
        "memory",
        say(*said),
        "error",
        title="Out of memory",
        details=(f"{reserved}.", *(advice_text(one) for one in report.advice if one.setting != "limit")),
        attempt=_attempt([one for one in report.advice if one.helps]),
        evidence=Evidence("out_of_memory", {"device": (report.device,), "time_us": (report.time_us,)}),
        page="memory",
    )


def _usable(report: OomReport) -> int:
    """Cached memory that the allocation could have had: not that of other pools and streams."""
    return report.cached_bytes - report.private_bytes - report.other_stream_bytes


def _attempt(helps: Sequence[Advice]) -> str:
    """The settings that would have helped, the best first."""
    words = {
        "limit": "raise the limit (torch.cuda.set_per_process_memory_fraction)",
        "expandable_segments": f"{CONFIG}=expandable_segments:True",
        "max_split_size_mb": f"{CONFIG}=max_split_size_mb:{{limit_mb}}",
        "pools": "one pool for all CUDA graphs, or fewer streams",
        "batch": "a batch {smaller} smaller",
    }
    texts = []
    for one in helps:
        smaller = fmt_percent(one.numbers.get("missing", 0) / max(one.numbers.get("scales", 0), 1))
        texts.append(words[one.setting].format(limit_mb=one.numbers.get("limit_mb"), smaller=smaller))
    said = "; or ".join(texts)
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def advice_text(one: Advice) -> str:
    """Whether a setting would have helped, and the numbers that say so."""
    n = {name: fmt_bytes(value) for name, value in one.numbers.items() if name != "limit_mb"}
    would = "would have helped" if one.helps else "would not have helped"
    if one.setting == "expandable_segments":
        enough = "enough for {need}, which then need not be one piece" if one.helps else "less than {need}"
        made = f"{n['free']} free on the device and {n['cached']} cached make {n['room']}"
        return f"expandable_segments:True {would}: {made}, {enough.format(**n)}."
    if one.setting == "max_split_size_mb":
        where = f"a segment of {n['room']} holds only {n['used']}, in blocks of at most {n['largest_used']}"
        if one.helps:
            return f"max_split_size_mb:{one.numbers['limit_mb']} {would}: {where}, and would have stayed whole."
        return f"max_split_size_mb is set already, and still {where}: choose a smaller one."
    if one.setting == "pools":
        held = f"{n['private']} are free in pools of CUDA graphs and {n['streams']} on other streams"
        rest = "where nothing else may use it" if one.helps else "together too little"
        return f"One pool for all CUDA graphs, or fewer streams, {would}: {held}, {rest}."
    if one.setting == "garbage_collection_threshold":
        return (
            f"garbage_collection_threshold {would}: it returns whole cached segments earlier, which the allocator does "
            f"anyway before it fails ({n['whole']} of them were left)."
        )
    if one.setting == "batch":
        missing, scales = one.numbers["missing"], max(one.numbers["scales"], 1)
        grown = f"what was allocated since the recording began ({n['scales']}, the failed allocation included)"
        if one.helps:
            return f"A batch {fmt_percent(missing / scales)} smaller would have fitted, if {grown} grows with it."
        return f"A smaller batch {would}: {n['missing']} were missing, more than {grown} could give up."
    return f"A higher limit {would}: the device had {n['room']} free, enough for {n['need']}."


def history(snapshot: Snapshot, device: int) -> Finding | None:
    """What the history of a device lacks; None when it is whole."""
    row = _row(snapshot, device)
    if row["history_truncated"]:
        missing, ring = snapshot.missing(device), snapshot.recording.max_entries
        lost = fmt_count(missing.unmatched_frees + missing.recorded_before)
        said = (
            f"The history{_on(snapshot, device)} lost its beginning: at least {lost} recorded allocations are "
            "missing, so that an earlier peak may be too."
        )
        detail = (
            f"{fmt_count(missing.unmatched_frees)} of them were freed later, {fmt_count(missing.recorded_before)} were "
            "live to the end."
        ) + (f" The ring buffer held {fmt_count(ring)} events." if ring else "")
        return Finding(
            _id("history-cut-off", device), "lost", say(said), "warning", details=(detail,),
            attempt="Record with a larger max_entries.", page="memory",
        )  # fmt: skip
    if row["events"]:
        return None
    if not holds_memory(row):
        said = "Nothing was allocated on this device, and no event was recorded."
        return Finding(_id("unused-device", device), "missing", say(said), page="memory")
    name = f"device {device}" if _on(snapshot, device) else "this device"
    said = f"No history of {name}: only the state at the end is known."
    attempt = "Record with memory_runner, or call torch.cuda.memory._record_memory_history() before the run."
    return Finding(_id("no-history", device), "missing", say(said), "warning", attempt=attempt, page="memory")


def leaks(snapshot: Snapshot, device: int) -> list[Finding]:
    """What instance after instance of a region leaves behind, the largest first."""
    frame = snapshot.leaks(device)
    rows = frame[frame["growing"]].sort_values("size_bytes", ascending=False, kind="stable").head(LEAKS)
    found = []
    for number, row in enumerate(rows.to_dict("records"), 1):
        where, stack = tuple(row["path"]), stack_name(snapshot.stacks[int(row["stack"])])
        left, of = fmt_count(int(row["instances_left"])), fmt_count(int(row["instances"]))
        size = int(row["size_bytes"])
        said = say(
            bold(fmt_bytes(size)), " that ", bold(stack), f" allocated in {where[-1]} are live at the end, left by "
            f"{left} of {of} instances of the region.",
        )  # fmt: skip
        share = size / max(1, _row(snapshot, device)["end_allocated_bytes"])
        found.append(
            Finding(
                _id("leak", device, number),
                "memory",
                said,
                "warning",
                title="Memory that grows",
                gain=Gain(size, "bytes", "bound", share, "what is allocated at the end"),
                where=where,
                attempt="Keep no reference to it after the region: detach losses, clear lists and caches.",
                evidence=Evidence("memory_leaks", {"stack": (int(row["stack"]),), "path": (where,)}),
                names=(stack,),
                page="memory",
            )
        )
    return found


def fragmentation(snapshot: Snapshot, device: int) -> Finding | None:
    """How much reserved memory no active block held at the peak; None where that is little, or unknown."""
    if snapshot.device_type(device) == "cpu" or snapshot.source == "trace":
        return None
    one, blocks = snapshot.replay(device), snapshot.block_replay(device)
    reserved = int(one.reserved_bytes[one.peak])
    idle = reserved - int(blocks.active_bytes[one.peak])
    share = idle / max(1, reserved)
    if share < FRAGMENTED_FROM or idle < LEAST_BYTES:
        return None
    said = say(
        "At the peak ",
        bold(fmt_percent(share, 0)),
        f" of the {fmt_bytes(reserved)} reserved from the driver{_on(snapshot, device)} ({fmt_bytes(idle)}) were in no "
        "active block.",
    )
    return Finding(
        _id("fragmentation", device),
        "memory",
        said,
        title="Fragmentation",
        gain=Gain(idle, "bytes", "bound", share, "what was reserved"),
        attempt="" if blocks.rules.expandable else f"{CONFIG}=expandable_segments:True.",
        evidence=Evidence("memory_fragmentation", {"device": (device,)}),
        page="memory",
    )


def cpu_lines(snapshot: Snapshot, device: int) -> Finding | None:
    """What line numbers mean on a CPU, where they are not always those of the call."""
    if snapshot.device_type(device) != "cpu":
        return None
    said = "On a CPU a line may be where its function begins: not every operator can be placed inside it."
    return Finding(_id("cpu-lines", device), "odd", say(said), page="memory")


def measured_peak(row: DeviceRow, record: RunRecord | None) -> Finding | None:
    """Why the peak of run.json is another number than that of the snapshot; None where they agree."""
    measured, here = record.peak_memory_bytes if record else None, row["peak_allocated_bytes"]
    if measured is None or measured == here:
        return None
    said = (
        f"run.json says {fmt_bytes(measured)}: torch.cuda.max_memory_allocated of the timed iterations, which counts "
        f"blocks as the allocator rounds them up. {fmt_bytes(here)} are the bytes asked for in the recorded batch."
    )
    return Finding(_id("measured-peak", row["device"]), "odd", say(said), page="memory")


def _row(snapshot: Snapshot, device: int) -> DeviceRow:
    return snapshot.summary(device)["devices"][0]


def _on(snapshot: Snapshot, device: int) -> str:
    """Which device, where several hold memory."""
    used = [row["device"] for row in snapshot.summary()["devices"] if holds_memory(row)]
    return f" on device {device}" if len(used) > 1 else ""


def _id(name: str, device: int, number: int = 1) -> str:
    """Unique in a snapshot: device 0 and the first of several need no number."""
    return name + (f"-{number}" if number > 1 else "") + (f"-device-{device}" if device else "")
