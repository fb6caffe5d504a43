"""What a memory snapshot says: its peak, why it ran out, what stays behind, what its history lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler_kit.analyses.memory.allocator_rules import Rules
from profiler_kit.analyses.memory.leaks import LEAST_STEPS
from profiler_kit.analyses.memory.oom import Advice, OomReport, is_private
from profiler_kit.analyses.memory.regions import MAX_DEPTH, MAX_LETTERS
from profiler_kit.analyses.memory.replay import FREE
from profiler_kit.analyses.memory.stack_names import calls_text, stack_name
from profiler_kit.finding import Evidence, Finding, Gain, Piece, bold, counted, say
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.snapshot import DeviceRow, Failure, Snapshot
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
    others = (
        *(history(snapshot, device), completed(snapshot, device), stopped(snapshot, device)),
        reserved_least(snapshot, device),
        *(no_times(snapshot, device), regions_of(snapshot, device), odd_regions(snapshot, device)),
        stays(snapshot, device),
        *(fragmentation(snapshot, device), cpu_lines(snapshot, device)),
    )
    return [peak(snapshot, device), *failed, *leaks(snapshot, device), *(one for one in others if one is not None)]


def fullest(snapshot: Snapshot) -> int | None:
    """The device with the highest peak; None where there is no device."""
    rows = snapshot.summary()["devices"]
    return max(rows, key=lambda row: row["peak_allocated_bytes"])["device"] if rows else None


def peak(snapshot: Snapshot, device: int) -> Finding:
    """How high the peak of one device was, and inside which region; what it holds where there is no history."""
    row = _row(snapshot, device)
    if not row["history_followed"]:
        held = say(
            "At the end ", bold(fmt_bytes(row["end_allocated_bytes"])), f" were allocated{_on(snapshot, device)}."
        )
        evidence = Evidence("memory_devices", {"device": (device,)})
        return Finding(_id("held-memory", device), "memory", held, evidence=evidence, page="memory")
    where = snapshot.peak_region(device)
    said: list[str | Piece] = ["At its peak ", bold(fmt_bytes(row["peak_allocated_bytes"]))]
    said.append(f" were allocated{_on(snapshot, device)}")
    said += [*((" inside ", bold(where[-1])) if where else ()), "."]
    evidence = Evidence("memory_regions", {"device": (device,), "path": (where,)} if where else {"device": (device,)})
    return Finding(_id("peak-memory", device), "memory", say(*said), where=where, evidence=evidence, page="memory")


def out_of_memory(snapshot: Snapshot, device: int) -> list[Finding]:
    """Why each allocation that failed did so, and what would have helped."""
    failed = snapshot.failures(device)
    if not snapshot.replay(device).followed:
        return [_unexplained(snapshot, device, number, one) for number, one in enumerate(failed, 1)]
    reports = snapshot.oom_reports(device) if failed else []
    return [
        _failure(snapshot, number, report, one.stack)
        for number, (report, one) in enumerate(zip(reports, failed, strict=True), 1)
    ]


def failures(snapshot: Snapshot, device: int) -> list[Finding]:
    """The first of them, and how many more there are."""
    failed = out_of_memory(snapshot, device)
    more = len(failed) - FAILURES
    said = say(f"{counted(more, 'more allocation')} failed.")
    rest = [Finding(_id("out-of-memory-more", device), "memory", said, "error")] if more > 0 else []
    return failed[:FAILURES] + rest


def _unexplained(snapshot: Snapshot, device: int, number: int, failed: Failure) -> Finding:
    """An allocation that failed in a history that cannot be followed."""
    free = failed.device_free_bytes
    said = say(
        bold(fmt_bytes(failed.requested_bytes)), f" were requested{_on(snapshot, device)}"
        f"{'' if free is None else f'; {fmt_bytes(free)} were free on the device'}. What this process held then cannot "
        "be told, as the history cannot be followed.",
    )  # fmt: skip
    return Finding(
        _id("out-of-memory", device, number), "memory", said, "error", title="Out of memory",
        details=_asked_by(snapshot, failed.stack), page="memory",
        evidence=Evidence("out_of_memory", {"device": (device,), "time_us": (failed.time_us,)}),
    )  # fmt: skip


def _asked_by(snapshot: Snapshot, stack: int) -> tuple[str, ...]:
    calls = calls_text(snapshot.stacks[stack])
    return (f"Asked by {calls}.",) if calls else ()


def _failure(snapshot: Snapshot, number: int, report: OomReport, stack: int) -> Finding:
    since = f"event {fmt_count(report.state)}"
    if snapshot.replay(report.device).timed:
        since = fmt_ns((report.time_us - snapshot.origin_us(report.device)) * NS_PER_US)
    cached, free = fmt_bytes(report.usable_bytes), report.device_free_bytes
    said: list[str | Piece] = [f"At {since}, ", bold(fmt_bytes(report.requested_bytes))]
    pool = f" in {_pool(report.pool)}" if is_private(report.pool) else ""
    said.append(f" were requested{_on(snapshot, report.device)}{pool}")
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
        others = "in other pools" if pool else "in pools of CUDA graphs"
        parts = ((report.split_bytes, "beside blocks in use"), (report.private_bytes, others))
        texts = [
            f"{fmt_bytes(size)} {where}"
            for size, where in (*parts, (report.other_stream_bytes, "on other streams"))
            if size
        ]
        reserved += f" and {fmt_bytes(report.cached_bytes)} were in no active block"
        reserved += f" ({', '.join(texts)})" if texts else ""
        where = f"of the {cached} in {_pool(report.pool)}, the allocation's own, the" if pool else "its"
        reserved += f"; {where} largest free block was {fmt_bytes(report.largest_free_bytes)}"
    return Finding(
        _id("out-of-memory", report.device, number),
        "memory",
        say(*said),
        "error",
        title="Out of memory",
        details=(
            f"{reserved}.",
            *(advice_text(one) for one in report.advice if one.setting != "limit"),
            _settings(snapshot),
            *_asked_by(snapshot, stack),
        ),
        attempt=_attempt([one for one in report.advice if one.helps]),
        evidence=Evidence("out_of_memory", {"device": (report.device,), "time_us": (report.time_us,)}),
        page="memory",
    )


def _pool(pool: str) -> str:
    return f"pool ({pool.replace(',', ', ')})"


def _settings(snapshot: Snapshot) -> str:
    """The settings of the allocator that decide about it, as they are."""
    rules, limit = Rules(snapshot.settings), snapshot.settings.get("garbage_collection_threshold")
    parts = (
        f"expandable_segments is {'on' if rules.expandable else 'off'}",
        f"max_split_size_mb is {rules.max_split // BYTES_PER_MIB if rules.max_split else 'not set'}",
        f"garbage_collection_threshold is {f'{limit:g}' if isinstance(limit, float) and limit > 0 else 'not set'}",
    )
    return f"As recorded: {', '.join(parts)}."


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
        held = f"{n['private']} are free in pools that it may not use and {n['streams']} on other streams"
        rest = "" if one.helps else ", together too little"
        return f"One pool for all CUDA graphs, or fewer streams, {would}: {held}{rest}."
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
        missing, ring = snapshot.missing(device), snapshot.ring.max_entries
        lost = missing.unmatched_frees + missing.recorded_before
        known = f"at least {fmt_count(lost)} recorded allocations are" if lost else "what was recorded before it is"
        what = f"The history{_on(snapshot, device)} lost its beginning"
        said = f"{what}: {known} missing, so that an earlier peak may be too."
        detail = (
            f"{fmt_count(missing.unmatched_frees)} of them were freed later, {fmt_count(missing.recorded_before)} were "
            "live to the end."
        ) + (f" The ring buffer held {fmt_count(ring)} events." if ring else "")
        return Finding(
            _id("history-cut-off", device), "lost", say(said), "warning", details=(detail,),
            attempt="Record with a larger max_entries.", page="memory",
        )  # fmt: skip
    if row["history_followed"]:
        return None
    if row["events"]:
        return _contradicts(snapshot, device)
    if not holds_memory(row):
        said = "Nothing was allocated on this device, and no event was recorded."
        return Finding(_id("unused-device", device), "missing", say(said), page="memory")
    name = snapshot.device_name(device) if _on(snapshot, device) else "this device"
    said = f"No history of {name}: only the state at the end is known."
    attempt = "Record with memory_runner, or call torch.cuda.memory._record_memory_history() before the run."
    return Finding(_id("no-history", device), "missing", say(said), "warning", attempt=attempt, page="memory")


def _contradicts(snapshot: Snapshot, device: int) -> Finding:
    """Why the history of a device cannot be followed."""
    found = snapshot.contradictions(device)
    parts = (
        (found.lost_allocations, "allocation", "whose free or memory is there"),
        (found.lost_frees, "free", "as their address was allocated again"),
        (found.left_open, "free", "as their memory is not held at the end"),
    )
    lost = "; ".join(f"it lacks {counted(count, what)} {why}" for count, what, why in parts if count)
    none = " and ".join(f"no {name}" for name in found.absent)
    said = (
        f"The history{_on(snapshot, device)} does not agree with itself or with the state at its end: "
        f"{f'it holds {none} event; ' if none else ''}{lost}. Only the state at the end is told."
    )
    attempt = "Record every kind of event: leave out torch's skip_actions."
    return Finding(_id("history-contradicts", device), "lost", say(said), "warning", attempt=attempt, page="memory")


def completed(snapshot: Snapshot, device: int) -> Finding | None:
    """That frees count from their request, where the history does not say when they were done."""
    found, row = snapshot.contradictions(device), _row(snapshot, device)
    if not found.by_request or not row["history_followed"]:
        return None
    lacks = "no free_completed event" if FREE in found.absent else "no free_completed for some frees"
    said = (
        f"The history{_on(snapshot, device)} holds {lacks}: {counted(found.by_request, 'free')} count from when they "
        "were requested, which is early where another stream still used the memory."
    )
    return Finding(_id("frees-by-request", device), "lost", say(said), "warning", page="memory")


def stopped(snapshot: Snapshot, device: int) -> Finding | None:
    """That the history ends before the snapshot was taken."""
    found, row = snapshot.contradictions(device), _row(snapshot, device)
    if not found.unheld or not row["history_followed"]:
        return None
    said = (
        f"The history{_on(snapshot, device)} ends before the snapshot: {counted(found.unheld, 'allocation')} without a "
        "free are not held when it was saved. What is told of the end is that of the history."
    )
    return Finding(_id("history-stopped", device), "lost", say(said), "warning", page="memory")


def reserved_least(snapshot: Snapshot, device: int) -> Finding | None:
    """That the history lacks segment events, so that what was reserved is known at the end only."""
    if not snapshot.replay(device).reserved_least:
        return None
    said = (
        f"The history{_on(snapshot, device)} lacks segment events: more was allocated than they say was reserved. "
        "What was reserved before the end is shown as no less than what was allocated."
    )
    return Finding(_id("segments-missing", device), "lost", say(said), "warning", page="memory")


def no_times(snapshot: Snapshot, device: int) -> Finding | None:
    """That the events have no times, so that only their order is known."""
    one = snapshot.replay(device)
    if one.timed or not one.followed:
        return None
    said = f"The events{_on(snapshot, device)} have no times: they are shown in their order, and no region can be told."
    attempt = "Record with torch 2.2 or newer."
    return Finding(_id("no-times", device), "missing", say(said), attempt=attempt, page="memory")


def regions_of(snapshot: Snapshot, device: int) -> Finding | None:
    """That the regions of a device were recorded while another one was current."""
    named = snapshot.annotations["device"].dropna().unique().tolist()
    if (
        snapshot.device_type(device) != "cuda"
        or device in named
        or not named
        or not snapshot.nested_regions(device).paths
    ):
        return None
    on = f"device {device}" if _on(snapshot, device) else "this device"
    said = (
        f"The regions on {on} were opened while device {', '.join(map(str, sorted(named)))} was current on the thread, "
        "which is what torch writes down: they count on every device of the process."
    )
    return Finding(_id("regions-of-thread", device), "odd", say(said), page="memory")


def odd_regions(snapshot: Snapshot, device: int) -> Finding | None:
    """Which annotations open and close no region, and which regions do not stand where they were opened."""
    raised, odd = snapshot.nested_regions(device).raised, snapshot.data.odd_annotations
    higher = f"stand{'s' if raised == 1 else ''} higher than opened, as a path holds at most {MAX_DEPTH} names and all"
    parts = (
        (odd, f"{counted(odd, 'annotation')} of the file left out, which neither START nor END a region"),
        (raised, f"{counted(raised, 'region')} {higher} paths together {fmt_bytes(MAX_LETTERS)}"),
    )
    said = "; ".join(text for count, text in parts if count)
    return Finding(_id("odd-regions", device), "odd", say(f"{said}."), "warning", page="memory") if said else None


def stays(snapshot: Snapshot, device: int) -> Finding | None:
    """What was allocated in the history and is live at its end, where no region says what was meant to stay."""
    if len(snapshot.nested_regions(device).paths):
        return None
    frame = snapshot.leaks(device)
    often = frame[frame["count"] >= LEAST_STEPS]
    if often.empty:
        return None
    first, whole = often.iloc[0], int(frame["size_bytes"].sum())
    stack = stack_name(snapshot.stacks[int(first["stack"])])
    said = say(
        bold(fmt_bytes(whole)), f" allocated in the history{_on(snapshot, device)} are live at its end, of them ",
        bold(fmt_bytes(int(first["size_bytes"]))), f" in {counted(int(first['count']), 'allocation')} by ", bold(stack),
        ". Without regions a leak cannot be told from what is meant to stay.",
    )  # fmt: skip
    evidence = Evidence("memory_leaks", {"stack": (int(first["stack"]),), "device": (device,)})
    return Finding(_id("stays", device), "memory", said, evidence=evidence, names=(stack,), page="memory")


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
    if snapshot.device_type(device) != "cuda" or snapshot.source == "trace" or not snapshot.replay(device).followed:
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
    return f" on {snapshot.device_name(device)}" if len(used) > 1 else ""


def _id(name: str, device: int, number: int = 1) -> str:
    """Unique in a snapshot: device 0 and the first of several need no number."""
    return name + (f"-{number}" if number > 1 else "") + (f"-device-{device}" if device else "")
