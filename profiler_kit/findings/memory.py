"""What a memory snapshot says: its peak, what stays behind, what its history lacks."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.memory.leaks import LEAST_STEPS
from profiler_kit.analyses.memory.regions import MAX_DEPTH, MAX_LETTERS
from profiler_kit.analyses.memory.replay import FREE, KINDS
from profiler_kit.analyses.memory.stack_names import stack_name
from profiler_kit.finding import Evidence, Finding, Gain, Piece, bold, counted, say
from profiler_kit.findings.devices import holds_memory, id_of, on, row_of
from profiler_kit.findings.out_of_memory import CONFIG, failures
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.snapshot import DeviceRow, Snapshot
from profiler_kit.text import fmt_bound, fmt_bytes, fmt_count, fmt_percent
from profiler_kit.units import BYTES_PER_MIB

LEAKS: Final = 3
FRAGMENTED_FROM: Final = 0.25  # share of reserved memory in no active block that is worth a sentence
LEAST_BYTES: Final = 64 * BYTES_PER_MIB  # less idle memory does no harm


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


def of_device(snapshot: Snapshot, device: int) -> list[Finding]:
    """Everything about one device: its peak, then what went wrong."""
    failed = failures(snapshot, device)
    others = (
        *(history(snapshot, device), completed(snapshot, device), stopped(snapshot, device)),
        resized(snapshot, device),
        *(doubted(snapshot, device), reserved_least(snapshot, device)),
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
    row = row_of(snapshot, device)
    if not row["history_followed"]:
        held = say(
            "At the end ", bold(fmt_bytes(row["end_allocated_bytes"])), f" were allocated{on(snapshot, device)}."
        )
        evidence = Evidence("memory_devices", {"device": (device,)})
        return Finding(id_of("held-memory", device), "memory", held, evidence=evidence, page="memory")
    where = snapshot.peak_region(device)
    said: list[str | Piece] = ["At its peak ", bold(fmt_bound(row["peak_bound"], row["peak_allocated_bytes"]))]
    said.append(f" were allocated{on(snapshot, device)}")
    said += [*((" inside ", bold(where[-1])) if where else ()), "."]
    evidence = Evidence("memory_regions", {"device": (device,), "path": (where,)} if where else {"device": (device,)})
    return Finding(id_of("peak-memory", device), "memory", say(*said), where=where, evidence=evidence, page="memory")


def history(snapshot: Snapshot, device: int) -> Finding | None:
    """What the history of a device lacks; None when it is whole."""
    row = row_of(snapshot, device)
    if row["history_truncated"]:
        missing, ring = snapshot.missing(device), snapshot.ring.max_entries
        lost = missing.unmatched_frees + missing.recorded_before
        known = f"at least {fmt_count(lost)} recorded allocations are" if lost else "what was recorded before it is"
        what = f"The history{on(snapshot, device)} lost its beginning"
        said = f"{what}: {known} missing, and an earlier, higher peak may be missing too."
        detail = (
            f"{fmt_count(missing.unmatched_frees)} of them were freed later, {fmt_count(missing.recorded_before)} were "
            "live to the end."
        ) + (f" The ring buffer held {fmt_count(ring)} events." if ring else "")
        return Finding(
            id_of("history-cut-off", device), "lost", say(said), "warning", details=(detail,),
            attempt="Record with a larger max_entries.", page="memory",
        )  # fmt: skip
    if row["history_followed"]:
        return _may_be_cut(snapshot, device) if snapshot.missing(device).untold else None
    if row["events"]:
        return _contradicts(snapshot, device)
    if not holds_memory(row):
        said = "Nothing was allocated on this device, and no event was recorded."
        return Finding(id_of("unused-device", device), "missing", say(said), page="memory")
    name = snapshot.device_name(device) if on(snapshot, device) else "this device"
    said = f"No history of {name}: only the state at the end is known."
    attempt = "Record with memory_runner, or call torch.cuda.memory._record_memory_history() before the run."
    return Finding(id_of("no-history", device), "missing", say(said), "warning", attempt=attempt, page="memory")


def _may_be_cut(snapshot: Snapshot, device: int) -> Finding:
    """That nothing says whether the recorder dropped events."""
    said = (
        f"The history{on(snapshot, device)} begins with memory already held, and the file does not say how many events "
        "its recorder keeps: it may have lost its beginning, and with it an earlier peak."
    )
    attempt = "Record with memory_runner, which writes max_entries into the file."
    return Finding(id_of("history-may-be-cut", device), "lost", say(said), attempt=attempt, page="memory")


def _contradicts(snapshot: Snapshot, device: int) -> Finding:
    """Why the history of a device cannot be followed."""
    found = snapshot.contradictions(device)
    parts = (
        (found.lost_allocations, "allocation", "whose free or memory is recorded"),
        (found.lost_frees, "free", "as their address was allocated again"),
        (found.left_open, "free", "as their memory is not held at the end"),
    )
    lost = "; ".join(
        [f"it lacks {counted(count, what)} {why}" for count, what, why in parts if count]
        or [f"to end at the recorded total, the history would have to begin {fmt_bytes(found.below_bytes)} below zero"]
    )
    none = " and ".join(f"no {name}" for name in found.absent)
    said = (
        f"The history{on(snapshot, device)} contradicts itself or the state at its end: "
        f"{f'it holds {none} event; ' if none else ''}{lost}. Only the state at the end is shown."
    )
    attempt = "Record every kind of event: leave out torch's skip_actions."
    return Finding(id_of("history-contradicts", device), "lost", say(said), "warning", attempt=attempt, page="memory")


def completed(snapshot: Snapshot, device: int) -> Finding | None:
    """That frees count from their request, where the history does not say when they were done."""
    found, row = snapshot.contradictions(device), row_of(snapshot, device)
    if not found.by_request or not row["history_followed"]:
        return None
    lacks = "no free_completed event" if FREE in found.absent else "no free_completed for some frees"
    said = (
        f"The history{on(snapshot, device)} holds {lacks}: {counted(found.by_request, 'free')} count from when they "
        "were requested, which is too early if another stream still used the memory."
    )
    return Finding(id_of("frees-by-request", device), "lost", say(said), "warning", page="memory")


def resized(snapshot: Snapshot, device: int) -> Finding | None:
    """That frees say another size than their allocations."""
    found, row = snapshot.contradictions(device), row_of(snapshot, device)
    if not found.resized or not row["history_followed"]:
        return None
    said = (
        f"{counted(found.resized, 'free')}{on(snapshot, device)} with a different size from the allocation at that "
        f"address: the allocation's size is used."
    )
    return Finding(id_of("frees-resized", device), "odd", say(said), "warning", page="memory")


def stopped(snapshot: Snapshot, device: int) -> Finding | None:
    """That the history ends before the snapshot was taken."""
    found, row = snapshot.contradictions(device), row_of(snapshot, device)
    if not found.unheld or not row["history_followed"]:
        return None
    said = (
        f"The history{on(snapshot, device)} ends before the snapshot: {counted(found.unheld, 'allocation')} without a "
        "free were no longer held when it was saved. Figures for the end are those of the history, and memory that it "
        "does not allocate counts as held before it."
    )
    return Finding(id_of("history-stopped", device), "lost", say(said), "warning", page="memory")


def reserved_least(snapshot: Snapshot, device: int) -> Finding | None:
    """That the history lacks segment events, so that what was reserved is known at the end only."""
    if not snapshot.replay(device).reserved_least:
        return None
    said = (
        f"The history{on(snapshot, device)} lacks segment events: at times more was allocated than reserved. Before "
        f"the end, at least the allocated total is shown as reserved."
    )
    return Finding(id_of("segments-missing", device), "lost", say(said), "warning", page="memory")


def doubted(snapshot: Snapshot, device: int) -> Finding | None:
    """What of the state at the end cannot be so."""
    found = snapshot.doubts(device)
    parts = (
        (found.segments, "segment", "in no total: overlapping another, or of an impossible size"),
        (found.blocks, "block", "in no total: listed twice, overlapping another, outside the segment or of an "
         "impossible size"),
        (found.sizes, "block", "counted whole: the requested size is negative or larger than the block"),
        (found.unfilled, "segment", f"not filled by blocks: {fmt_bytes(found.unfilled_bytes)} in none"),
        (found.unlisted, "segment", f"without any block: {fmt_bytes(found.unlisted_bytes)} are held by their own "
         "figures, each counted as one allocation"),
        (found.unlike, "segment", "with figures of its own that contradict the blocks: the blocks are used"),
    )  # fmt: skip
    said = "; ".join(f"{counted(count, what)} {why}" for count, what, why in parts if count)
    said = f"The state at the end{on(snapshot, device)} holds entries that no allocator produces: {said}."
    return Finding(id_of("state-doubted", device), "odd", say(said), "warning", page="memory") if found.any else None


def no_times(snapshot: Snapshot, device: int) -> Finding | None:
    """That the events have no times, so that only their order is known."""
    one = snapshot.replay(device)
    if one.timed or not one.followed:
        return None
    said = f"The events{on(snapshot, device)} have no times: they are shown in order, and belong to no region."
    attempt = "Record with torch 2.2 or newer."
    return Finding(id_of("no-times", device), "missing", say(said), attempt=attempt, page="memory")


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
    where = f"device {device}" if on(snapshot, device) else "this device"
    said = (
        f"The regions on {where} were opened while device {', '.join(map(str, sorted(named)))} was current on the "
        f"thread, and torch records only that device: they count on every device of the process."
    )
    return Finding(id_of("regions-of-thread", device), "odd", say(said), page="memory")


def odd_regions(snapshot: Snapshot, device: int) -> Finding | None:
    """Which annotations open and close no region, which regions do not stand where they were opened, and which events
    are of no known kind."""
    raised, odd = snapshot.nested_regions(device).raised, snapshot.data.odd_annotations
    higher = f"stand{'s' if raised == 1 else ''} higher than opened, as a path holds at most {MAX_DEPTH} names and all"
    kinds = snapshot.events.loc[snapshot.events["device"] == device, "action"]
    unknown = kinds[~kinds.isin(KINDS)].astype(str)
    listed = ", ".join(repr(kind[:40]) for kind in sorted(set(unknown))[:3])
    parts = (
        (len(unknown), f"{counted(len(unknown), 'event')} of unknown kind ({listed}): not counted"),
        (odd, f"{counted(odd, 'annotation')} left out: no START, END or time"),
        (raised, f"{counted(raised, 'region')} {higher} paths together {fmt_bytes(MAX_LETTERS)}"),
    )
    said = "; ".join(text for count, text in parts if count)
    return Finding(id_of("odd-regions", device), "odd", say(f"{said}."), "warning", page="memory") if said else None


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
        bold(fmt_bytes(whole)), f" allocated in the history{on(snapshot, device)} are live at its end, of them ",
        bold(fmt_bytes(int(first["size_bytes"]))), f" in {counted(int(first['count']), 'allocation')} by ", bold(stack),
        ". Without regions, a leak cannot be told from memory that is meant to stay.",
    )  # fmt: skip
    evidence = Evidence("memory_leaks", {"stack": (int(first["stack"]),), "device": (device,)})
    return Finding(id_of("stays", device), "memory", said, evidence=evidence, names=(stack,), page="memory")


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
        share = size / max(1, row_of(snapshot, device)["end_allocated_bytes"])
        found.append(
            Finding(
                id_of("leak", device, number),
                "memory",
                said,
                "warning",
                title="Memory that grows",
                gain=Gain(size, "bytes", "bound", share, "what is allocated at the end"),
                where=where,
                attempt="Drop references to it when the region ends: detach losses, clear lists and caches.",
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
        f" of the {fmt_bytes(reserved)} reserved from the driver{on(snapshot, device)} ({fmt_bytes(idle)}) were in no "
        "active block.",
    )
    return Finding(
        id_of("fragmentation", device),
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
    said = "On a CPU, a line may be the first line of its function: not every operator can be placed more exactly."
    return Finding(id_of("cpu-lines", device), "odd", say(said), page="memory")


def measured_peak(row: DeviceRow, record: RunRecord | None) -> Finding | None:
    """Why the peak of run.json is another number than that of the snapshot; None where they agree."""
    measured, here = record.peak_memory_bytes if record else None, row["peak_allocated_bytes"]
    if measured is None or measured == here:
        return None
    said = (
        f"run.json says {fmt_bytes(measured)}: torch.cuda.max_memory_allocated of the timed iterations, which counts "
        f"blocks as the allocator rounds them up. {fmt_bytes(here)} are the bytes requested in the recorded batch."
    )
    return Finding(id_of("measured-peak", row["device"]), "odd", say(said), page="memory")
