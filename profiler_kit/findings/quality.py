"""How far a trace can be trusted: what was lost, what was not recorded, what is odd, and how to do better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler_kit.analyses.gpu.quality import Flaw, Key, Recorded, find_flaws, not_linked, unbelievable, unread_work
from profiler_kit.finding import Finding, Level, Piece, bold, say
from profiler_kit.load.trace.file_facts import FileFacts
from profiler_kit.text import fmt_count, fmt_ns
from profiler_kit.trace import Trace

_CUDA: Final = "profiler_runner(path, activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])"
_STEPS: Final = "with profiler_runner(path, wait=1, warmup=1, active=3) as prof: ...; prof.step()"
_NAMES: Final = 'with region("plain name"): ...  # region() replaces quotes and control characters in names'
# Flaw -> (what was found, with {count}, {of}, {names} and {largest} filled in; what it affects; how to do better)
WORDS: Final[dict[str, tuple[str, str, str]]] = {
    "truncated": (
        "the file is cut off before its end",
        "everything after the last whole event",
        'with profiler_runner("trace.json.gz"): ...  # the file is written completely or not at all',
    ),
    "dropped": ("events that could not be read: {count}", "every sum they belong to", _NAMES),
    "of no use": (
        "events without a phase, without a time, or with an impossible one (negative, not a number): {count}",
        "every sum they belong to",
        "",
    ),
    "unmatched": (
        "span begins without an end, or span ends without a begin: {count}",
        "those spans: how long they took is not in the file, so they are in no sum",
        "",
    ),
    "no category": (
        "{count} of {of} spans have no category and are not read (in {names})",
        "those spans: no analysis counts them",
        "",
    ),
    "corrupt gzip": (
        "the compressed data is damaged or ends early",
        "everything after the damage; what is before it was not verified by its checksum",
        "gzip -t trace.json.gz  # or zstd -t, xz -t, bzip2 -t, on the machine it comes from; then copy it again",
    ),
    "repaired": (
        "events that were malformed JSON and were repaired: {count}",
        "their names and arguments may not be exactly what was written",
        _NAMES,
    ),
    "overlapping regions": (
        "regions that overlap in a way that cannot be resolved: {count}",
        "their ends: they are closed with the region they began in",
        "",
    ),
    "interleaved regions": (
        "{count} of {of} regions begin inside another region of their thread and end up to {largest} after it, as "
        "regions of asyncio tasks do: {names}",
        "the tree of regions: neither contains the other, though one is shown inside the other while both are open",
        'with region("decode"): ...  # around code without await: tasks take turns on one thread',
    ),
    "unknown categories": (
        "events of unknown categories: {count} ({names})",
        "those events: no analysis counts them",
        "profiler_kit/load/trace/categories.py  # where a category gets its role; please report it",
    ),
    "no GPU activity": ("no GPU events and no launches", "GPU timeline, kernels, regions on GPUs", _CUDA),
    "GPU work without events": (
        "runtime and driver calls: {count}, GPU events: none",
        "GPU timeline, kernels, regions on GPUs",
        "torch.cuda.synchronize()  # last line of the recorded block; and no other profiler on that GPU",
    ),
    "no host activity": (
        "no operators and no launches on the host",
        "regions, operators, why GPUs idle",
        _CUDA,
    ),
    "unlinked": (
        "{count} of {of} GPU events have no launch in the file: most likely launched before recording started",
        "their regions; they count as (unlinked)",
        _STEPS,
    ),
    "by External id": (
        "{count} of {of} GPU events have no launch call in the file; the External id of their operator links them",
        "launch delays, queue times and why GPUs idle: when they were launched is not known",
        "profiler_runner(path)  # and a torch whose profiler records the runtime calls of this device",
    ),
    "no launches": (
        "{count} of {of} GPU events have no launch: the file has no launch calls of a known kind",
        "their regions; they count as (unlinked)",
        _CUDA,
    ),
    "launch not recorded": (
        "{count} of {of} GPU events have no launch in the file, though an operator has their External id",
        "their regions; they count as (unlinked)",
        _CUDA,
    ),
    "launch not clear": (
        "{count} of {of} GPU events have a correlation id that several launches share: which one is theirs is unknown",
        "their regions; they count as (unlinked)",
        "profiler-kit ranks FOLDER  # with one file for each rank; or merge with a mark in each pid: [rank1] 4711",
    ),
    "launch not certain": (
        "{count} of {of} GPU events have a correlation id that several launches before them share: the nearest one "
        "is used",
        "their regions, operators and launch delays: some may be another launch's",
        "",
    ),
    "several processes": (
        "{count} processes in one file: {names}",
        "totals over all devices; devices and streams are counted for each process",
        "profiler-kit ranks FOLDER  # compares ranks, from one file for each",
    ),
    "no regions": ("no regions", "time and memory by part of the code", 'with region("image encoder"): ...'),
    "steps only": (
        "no regions beside the profiler steps",
        "time and memory by part of the code",
        'with region("image encoder"): ...',
    ),
    "outside regions": (
        "{count} of {of} GPU events were launched outside every region",
        "which part of the code they belong to; they count as (no region)",
        'with region("the rest"): ...  # around what is not marked yet',
    ),
    "no steps": ("no profiler steps", "comparing iterations", _STEPS),
    "steps missing": (
        "steps missing between the first and the last: {count} (from step {names} on)",
        "trends over iterations",
        "profiler_runner(path, wait=1, warmup=1, active=10, repeat=1)",
    ),
    "no shapes": ("no input shapes", "operators by shape, FLOPs", "profiler_runner(path, record_shapes=True)"),
    "no stacks": (
        "no Python stacks",
        "which line of code called an operator",
        "profiler_runner(path, with_stack=True)",
    ),
    "no modules": (
        "no nn.Module names",
        "GPU time by module",
        "profiler_runner(path, with_stack=True, with_modules=True)",
    ),
    "no memory": (
        "no memory events",
        "memory over time from the trace",
        'profiler_runner(path, profile_memory=True)  # or a snapshot: memory_runner("memory.pickle")',
    ),
    "no rank": (
        "communication kernels, but no distributedInfo",
        "which rank this is, and which others it waits for",
        "torch.distributed.init_process_group(...)  # before the profiler starts",
    ),
    "no base time": (
        "no base time",
        "placing the traces of several ranks on one clock",
        "pip install -U torch  # 2.4 and later write baseTimeNanoseconds",
    ),
    "no time": (
        "{count} of {of} GPU events have no time: the trace says 0, -1, nothing, or a moment days away from the others",
        "sums, counts and idle time: they are in none (table left_out)",
        "",
    ),
    "impossible durations": (
        "{count} of {of} GPU events have an impossible duration: up to {largest} past the next event of their stream",
        "busy and idle time: they are in no total, though they ran up to the next event at most (table left_out)",
        "",
    ),
    "endless": (
        "{count} of {of} GPU events have an impossible duration: longer than a day (up to {largest})",
        "busy and idle time: they are in no total (table left_out)",
        "",
    ),
    "early starts": (
        "{count} of {of} GPU events start before their launch, by up to {largest}: the clocks disagree",
        "launch delays and queue times of that size",
        "",
    ),
    "stream overlap": (
        "{count} of {of} GPU events begin before the previous one on their stream has ended, by up to {largest}",
        "the sum of a stream's events: it exceeds the time the stream was busy",
        "",
    ),
}
SEVERITY: Final = {
    "lost": "Events are gone or damaged.",
    "missing": "Not recorded; the pages that need it say so.",
    "odd": "Recorded, but not fully trustworthy.",
}


def flaws(trace: Trace, facts: FileFacts, *, has_snapshot: bool = False) -> list[Flaw]:
    """What a trace file lacks. has_snapshot: one of memory is beside it, which is better than memory events in it."""
    quality = trace.quality
    recorded = Recorded(
        truncated=quality.truncated,
        repaired_events=quality.repaired_events,
        dropped_events=quality.dropped_events,
        unmatched_events=trace.unmatched_events,
        useless_events=trace.useless_events,
        damaged_compression=facts.damaged_compression,
        counts=facts.counts,
        has_shapes=facts.has_shapes,
        has_stacks=facts.has_stacks,
        metadata=trace.metadata,
    )
    found = find_flaws(
        recorded, trace.columns, trace.links, trace.gpu_events(), trace.region_instances(), trace.left_out()
    )
    return [flaw for flaw in found if not (has_snapshot and flaw.key == "no memory")]


def found_text(flaw: Flaw) -> str:
    """What was found, as the start of a line."""
    return WORDS[flaw.key][0].format(
        count=fmt_count(flaw.count),
        of=fmt_count(flaw.of),
        names=", ".join(map(repr, flaw.names)) if flaw.severity == "lost" else ", ".join(flaw.names),
        largest=fmt_ns(flaw.largest_ns),
    )


def of_flaw(flaw: Flaw, cut_off: Trace | None = None) -> Finding:
    """The finding on one flaw; cut_off: the trace, where its end is missing."""
    _, affects, attempt = WORDS[flaw.key]
    found = found_text(flaw)
    level: Level = "warning" if flaw.severity == "lost" else "note"
    name = flaw.key.lower().replace(" ", "-")
    said = say(f"{found[:1].upper()}{found[1:]}.")
    details: tuple[str, ...] = ()
    if cut_off is not None:
        presence = cut_off.presence
        details = (f"It holds {fmt_count(cut_off.summary()['events'])} events up to that point.",)
        if presence.ran == "gpu" and presence.unanswered:
            launches = f"{fmt_count(presence.unanswered)} of {fmt_count(presence.launches)}"
            details = (*details, f"{launches} calls that launch GPU work have no GPU event.")
    return Finding(
        name,
        flaw.severity,
        said,
        level,
        details=details,
        affects=affects,
        attempt=attempt,
        names=flaw.names,
        page="doctor",
    )


def file_verdict(found: Sequence[Flaw], events: int) -> Finding:
    """How good the file is, in one sentence. events: entries of traceEvents."""
    by = [flaw.severity for flaw in found]
    whole = "lost" not in by
    said: list[str | Piece] = [bold("Whole" if whole else "Not whole")]
    said.append(
        f": all {fmt_count(events)} events could be read" if whole else f": {fmt_count(events)} events could be read"
    )
    missing, odd = by.count("missing"), by.count("odd")
    if missing:
        said += ["; ", bold(fmt_count(missing)), f" {'thing was' if missing == 1 else 'things were'} not recorded"]
    if odd:
        said += ["; ", bold(fmt_count(odd)), f" {'is' if odd == 1 else 'are'} odd"]
    return Finding("file", "headline", say(*said, "."), "note" if whole else "warning", page="doctor")


def losses(trace: Trace) -> list[Finding]:
    """What was lost while loading the trace, and what cannot be attributed; empty when nothing was."""
    found = trace.quality
    counts: dict[Key, int] = {
        "truncated": int(found.truncated),
        "dropped": found.dropped_events - trace.unmatched_events - trace.useless_events,
        "of no use": trace.useless_events,
        "unmatched": trace.unmatched_events,
        "repaired": found.repaired_events,
        "overlapping regions": trace.shortened_regions,
    }
    doubted = found.untimed_gpu_events + found.impossible_durations
    # the table of what is left out makes a frame: not without need
    doubts = unbelievable(trace.left_out(), len(trace.links.launch)) if doubted else []
    unread = unread_work(trace.columns)
    if unread.count:
        doubts.append(unread)
    lost = [of_flaw(Flaw(key, count), trace if key == "truncated" else None) for key, count in counts.items() if count]
    return [*map(of_flaw, doubts), *lost, *map(of_flaw, not_linked(trace.links))]
