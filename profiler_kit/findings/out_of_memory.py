"""Why an allocation failed, and what would have helped: the one explanation, for every surface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler_kit.analyses.memory.allocator_rules import Rules
from profiler_kit.analyses.memory.oom import Advice, OomReport, is_private
from profiler_kit.analyses.memory.stack_names import calls_text
from profiler_kit.finding import Evidence, Finding, Piece, bold, counted, say
from profiler_kit.findings.devices import id_of, on
from profiler_kit.snapshot import Failure, Snapshot
from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns, fmt_percent
from profiler_kit.units import BYTES_PER_MIB, NS_PER_US

FAILURES: Final = 3  # allocations that failed, of which each is explained; the rest are counted
CONFIG: Final = "PYTORCH_CUDA_ALLOC_CONF"


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
    rest = [Finding(id_of("out-of-memory-more", device), "memory", said, "error")] if more > 0 else []
    return failed[:FAILURES] + rest


def _unexplained(snapshot: Snapshot, device: int, number: int, failed: Failure) -> Finding:
    """An allocation that failed in a history that cannot be followed."""
    free = failed.device_free_bytes
    said = say(
        bold(fmt_bytes(failed.requested_bytes)), f" were requested{on(snapshot, device)}"
        f"{'' if free is None else f'; {fmt_bytes(free)} were free on the device'}. What this process held then is "
        f"unknown, because the history cannot be followed.",
    )  # fmt: skip
    return Finding(
        id_of("out-of-memory", device, number), "memory", said, "error", title="Out of memory",
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
    said.append(f" were requested{on(snapshot, report.device)}{pool}")
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
        id_of("out-of-memory", report.device, number),
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
