"""`profiler-kit doctor TRACE`: what a trace file is, what of it was lost, and how to record what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from profiler_kit.cli.output import AsJson, print_json, print_table
from profiler_kit.errors import InputError

if TYPE_CHECKING:
    from profiler_kit.analyses.gpu.quality import Finding
    from profiler_kit.formats.run_record import RunRecord
    from profiler_kit.load.cache.file_facts import FileFacts
    from profiler_kit.trace import Trace

Source = Annotated[
    Path, typer.Argument(metavar="TRACE", help="A chrome trace (.json, .json.gz) or a run folder that holds one.")
]

# Finding -> (what was found, with {count}, {of}, {names} and {largest} filled in; what it affects; what to do)
ADVICE: Final[dict[str, tuple[str, str, str]]] = {
    "truncated": (
        "the file is cut off: it has no end",
        "everything after the last whole event",
        'with profiler_runner("trace.json.gz"): ...  # the file appears whole or not at all',
    ),
    "dropped": (
        "events that could not be read: {count}",
        "every sum they belong to",
        'with region("plain name"): ...  # region() replaces quotes and control characters in names',
    ),
    "corrupt gzip": (
        "the gzip data is damaged or ends early",
        "what stands behind the damage; what stands before it was not verified by its checksum",
        "gzip -t trace.json.gz  # on the machine it comes from; then copy it again",
    ),
    "repaired": (
        "events that were malformed JSON and were mended: {count}",
        "their names and arguments may not be exactly what was written",
        'with region("plain name"): ...  # region() replaces quotes and control characters in names',
    ),
    "unknown categories": (
        "events of categories nobody knows: {count} ({names})",
        "those events: no analysis counts them",
        "profiler_kit/load/trace/categories.py  # where a category gets its role; please report it",
    ),
    "no GPU activity": (
        "no GPU events and no launches",
        "GPU timeline, kernels, regions on the GPU",
        "profiler_runner(path, activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])",
    ),
    "GPU work without events": (
        "runtime and driver calls: {count}, GPU events: none",
        "GPU timeline, kernels, regions on the GPU",
        "torch.cuda.synchronize()  # last line of the recorded block; and no other profiler on that GPU",
    ),
    "no host activity": (
        "no operators and no launches on the host",
        "regions, operators, why the GPU idles",
        "profiler_runner(path, activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])",
    ),
    "unlinked": (
        "{count} of {of} GPU events have no launch in the file: most likely launched before recording started",
        "their regions; they count as (unlinked)",
        "with profiler_runner(path, wait=1, warmup=1, active=3) as prof: ...; prof.step()",
    ),
    "no regions": (
        "no regions",
        "time and memory by part of the code",
        'with region("image encoder"): ...',
    ),
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
    "no steps": (
        "no profiler steps",
        "comparing iterations",
        "with profiler_runner(path, wait=1, warmup=1, active=3) as prof: ...; prof.step()",
    ),
    "steps missing": (
        "steps missing between the first and the last: {count} (from step {names} on)",
        "trends over iterations",
        "profiler_runner(path, wait=1, warmup=1, active=10, repeat=1)",
    ),
    "no shapes": (
        "no input shapes",
        "operators by shape, FLOPs",
        "profiler_runner(path, record_shapes=True)",
    ),
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
    "early starts": (
        "{count} of {of} GPU events start before their launch, by up to {largest}: the clocks disagree",
        "launch delays and queue times of that order",
        "",
    ),
    "stream overlap": (
        "{count} of {of} GPU events begin before the one before them on their stream has ended, by up to {largest}",
        "the sum of a stream's events: it exceeds the time the stream was busy",
        "",
    ),
}
OPTIONS: Final = ("record_shapes", "with_stack", "profile_memory", "with_modules", "with_flops")
VERSIONS: Final = {
    "cuda_runtime_version": "CUDA runtime",
    "cuda_driver_version": "CUDA driver",
    "cupti_version": "CUPTI",
    "hip_runtime_version": "HIP runtime",
    "hip_driver_version": "HIP driver",
    "roctracer_version": "roctracer",
}
LAYOUTS: Final = {"kineto": "Kineto's layout", "indented": "indented JSON", "compact": "compact JSON"}


def command(trace: Source, as_json: AsJson = False) -> None:
    """Say what a trace is, what was repaired or dropped and where, and what to record next time."""
    file, record = _find(trace)
    found = examine(file, record)
    if as_json:
        print_json(found)
        return
    _print_report(file, found)
    print_categories(found["categories"])


def examine(
    file: Path, record: RunRecord | None, trace: Trace | None = None, facts: FileFacts | None = None
) -> dict[str, Any]:
    """What `--json` prints: the file, how it was recorded, what it holds, what was lost where, and the findings.

    record: that of the run the trace belongs to. trace, facts: of the file, if they are known already. Raises
    InputError when the file is missing or is no trace.
    """
    from profiler_kit.analyses.gpu.quality import Recorded, find_all
    from profiler_kit.formats.run_record import MEMORY
    from profiler_kit.load.cache.store import load_file_facts
    from profiler_kit.load.trace.chrome import read_chrome_trace
    from profiler_kit.progress import progress_bar
    from profiler_kit.trace import Trace

    if trace is None:
        with progress_bar(f"Loading {file.name}") as report:
            trace = Trace(read_chrome_trace(file, report=report))
    if facts is None:
        with progress_bar(f"Looking at {file.name}") as report:
            facts = load_file_facts(file, report=report)
    quality = trace.quality
    recorded = Recorded(
        truncated=quality.truncated,
        repaired_events=quality.repaired_events,
        dropped_events=quality.dropped_events,
        damaged_compression=facts.damaged_compression,
        counts=facts.counts,
        has_shapes=facts.has_shapes,
        has_stacks=facts.has_stacks,
        metadata=trace.metadata,
    )
    findings = find_all(recorded, trace.columns, trace.gpu_events(), trace.region_instances())
    if record is not None and (file.parent / MEMORY).is_file():  # better than memory events in the trace
        findings = [finding for finding in findings if finding.key != "no memory"]
    return {
        "trace": str(file),
        **describe(trace, facts, record),
        "quality": {
            "truncated": quality.truncated,
            "repaired_events": quality.repaired_events,
            "dropped_events": quality.dropped_events,
            "incidents": [{"kind": i.kind, "offset": i.offset, "text": i.text} for i in trace.incidents],
        },
        "findings": [_finding(finding) for finding in findings],
        "categories": _categories(facts, trace),
    }


def _find(path: Path) -> tuple[Path, RunRecord | None]:
    """The trace that `path` is or holds, and the run it belongs to."""
    from profiler_kit.errors import KitError
    from profiler_kit.formats.run_record import MEMORY, RECORD, TRACE, read_record

    if not path.is_dir():
        return path, None
    if not (path / TRACE).is_file():
        found = f"{MEMORY}, a memory snapshot" if (path / MEMORY).is_file() else "no trace"
        hint = f"Try: profiler-kit memory {path}" if (path / MEMORY).is_file() else "Name the trace file itself."
        raise InputError(f"{path}: this folder holds {found}, want a run folder with {TRACE}. {hint}")
    try:
        return path / TRACE, read_record(path) if (path / RECORD).is_file() else None
    except KitError as error:
        typer.echo(f"profiler-kit: {error}", err=True)
        return path / TRACE, None


def describe(trace: Trace, facts: FileFacts, record: RunRecord | None) -> dict[str, Any]:
    """What the file is, how it was recorded and what it holds, as plain values."""
    columns, metadata = trace.columns, trace.metadata
    start, end = columns.start_ns, columns.start_ns + columns.dur_ns
    gpu = trace.gpu_events()
    steps = trace.region_instances()["step"].dropna()
    hosts = {thread for thread, host in zip(columns.threads, _on_host(trace), strict=True) if host}
    properties = metadata.get("deviceProperties")
    devices = (
        [str(d.get("name", "?")) for d in properties if isinstance(d, dict)] if isinstance(properties, list) else []
    )
    distributed = metadata.get("distributedInfo")
    return {
        "file": {
            "size_bytes": facts.size_bytes,
            "text_bytes": facts.text_bytes,
            "compressed": facts.compressed,
            "encoding": facts.encoding,
            "layout": facts.layout,
            "bare_list": facts.bare_list,
        },
        "recording": {
            "torch": dict(record.versions).get("torch") if record else None,
            "versions": {key: metadata[key] for key in VERSIONS if key in metadata},
            "devices": devices,
            "distributed": {k: distributed.get(k) for k in ("backend", "rank", "world_size", "nccl_version")}
            if isinstance(distributed, dict)
            else None,
            "options": _options(trace, facts),
        },
        "contents": {
            "events": sum(facts.counts.values()),
            "base_ns": trace.base_ns,
            "start_ns": int(start.min()),
            "span_ns": int(end.max() - start.min()),
            "steps": int(steps.nunique()),
            "regions": len(trace.region_instances()) - len(steps),
            "host_threads": len(hosts),
            "streams": int(gpu[["device", "stream"]].drop_duplicates().dropna().shape[0]),
            "gpu_events": len(gpu),
        },
    }


def _options(trace: Trace, facts: FileFacts) -> dict[str, bool]:
    """The recording options, by the metadata or by what the events hold (older torch does not say)."""
    from profiler_kit.load.trace.categories import MEMORY, STACK

    evidence = {
        "record_shapes": facts.has_shapes,
        "with_stack": facts.has_stacks or facts.of_category(STACK) > 0,
        "profile_memory": facts.of_category(MEMORY) > 0,
    }
    return {name: trace.metadata.get(name) in (1, True, "1", "true") or evidence.get(name, False) for name in OPTIONS}


def _on_host(trace: Trace) -> list[bool]:
    """Per thread of the columns: whether operators, launches, regions or Python functions ran on it."""
    import numpy as np

    from profiler_kit.load.trace.categories import role_of

    columns = trace.columns
    host = columns.of_category(lambda category: role_of(category) in ("operator", "launch", "region", "stack"))
    return [bool(on) for on in np.isin(np.arange(len(columns.threads)), columns.thread[host])]


def _categories(facts: FileFacts, trace: Trace) -> list[dict[str, Any]]:
    """One row per category and phase, most events first: how many, our role for it, and why it is left out."""
    from profiler_kit.load.trace.categories import IGNORED, role_of

    rows = [
        {"category": category, "phase": phase, "events": count, "role": role_of(category), "why": IGNORED.get(category)}
        for (category, phase), count in facts.counts.items()
    ]
    return sorted(rows, key=lambda row: (-int(str(row["events"])), str(row["category"]), str(row["phase"])))


def _finding(finding: Finding) -> dict[str, Any]:
    """A finding with its words."""
    from profiler_kit.text import fmt_count, fmt_ns

    what, affects, fix = ADVICE[finding.key]
    words = what.format(
        count=fmt_count(finding.count),
        of=fmt_count(finding.of),
        names=", ".join(map(repr, finding.names)) if finding.severity == "lost" else ", ".join(finding.names),
        largest=fmt_ns(finding.largest_ns),
    )
    return {
        "key": finding.key,
        "severity": finding.severity,
        "count": finding.count,
        "of": finding.of,
        "names": list(finding.names),
        "largest_ns": finding.largest_ns,
        "found": words,
        "affects": affects,
        "next_time": fix or None,
    }


def _print_report(file: Path, found: dict[str, Any]) -> None:
    rows = about(found)
    width = max(len(name) for name, _ in rows)
    typer.echo(str(file))
    for name, text in rows:
        typer.echo(f"  {name:<{width}}  {text}")
    from profiler_kit.render.doctor import INCIDENTS

    incidents, findings = found["quality"]["incidents"], found["findings"]
    if incidents:
        typer.echo("\nwhere (bytes of the uncompressed text)")
        offsets = [f"{incident['offset']:,}" for incident in incidents]
        for offset, incident in zip(offsets, incidents, strict=True):
            said = f"{INCIDENTS[incident['kind']]}: {incident['text']}".rstrip(": ")
            typer.echo(f"  {offset:>{max(map(len, offsets))}}  {said}")
    typer.echo(f"\nfindings: {len(findings)}")
    for finding in findings:
        typer.echo(f"  {finding['severity']:<7}  {finding['found']}")
        typer.echo(f"  {'':<7}    affects: {finding['affects']}")
        if finding["next_time"]:
            typer.echo(f"  {'':<7}    next time: {finding['next_time']}")
    typer.echo("")


def about(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The report's head: one line for the file, the recording and the contents each."""
    from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns

    file, recording, contents = summary["file"], summary["recording"], summary["contents"]
    packed = f"gzip {fmt_bytes(file['size_bytes'])} of " if file["compressed"] else ""
    kind = ", a bare list" if file["bare_list"] else ""
    encoding = ", UTF-16" if file["encoding"] != "utf-8" else ""
    versions = [f"torch {recording['torch']}"] if recording["torch"] else []
    versions += [f"{VERSIONS[key]} {_version(key, value)}" for key, value in recording["versions"].items()]
    rows = [
        ("file", f"{LAYOUTS[file['layout']]}{kind}{encoding}, {packed}{fmt_bytes(file['text_bytes'])}"),
        ("recorded with", ", ".join(versions) or "not said"),
        ("options", ", ".join(f"{name} {'on' if on else 'off'}" for name, on in recording["options"].items())),
        ("devices", _counted(recording["devices"]) or "none named"),
    ]
    if recording["distributed"]:
        rank = recording["distributed"]
        rows.append(("rank", f"{rank['rank']} of {rank['world_size']}, {rank['backend']} {rank['nccl_version'] or ''}"))
    steps = f"; steps: {fmt_count(contents['steps'])}" if contents["steps"] else ""
    return [
        *rows,
        ("time", f"{fmt_ns(contents['span_ns'])}{steps}"),
        (
            "contents",
            f"{fmt_count(contents['events'])} events, {fmt_count(contents['gpu_events'])} of them on the GPU; "
            f"host threads: {contents['host_threads']}, streams: {contents['streams']}, "
            f"regions: {fmt_count(contents['regions'])}",
        ),
    ]


def _version(key: str, value: object) -> str:
    """12040 is CUDA 12.4, 60443483 is HIP 6.4; others as they are."""
    if not isinstance(value, int) or value < 1000:
        return str(value)
    if key.startswith("cuda"):
        return f"{value // 1000}.{value % 1000 // 10}"
    return f"{value // 10_000_000}.{value // 100_000 % 100}" if key.startswith("hip") else str(value)


def _counted(names: list[str]) -> str:
    """Equal names once, with how many there are."""
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names))


def print_categories(rows: list[dict[str, Any]]) -> None:
    """The table of categories."""
    from profiler_kit.text import fmt_count

    cells = [
        (
            str(row["category"]) or "(none)",
            str(row["phase"]),
            f"ignored: {row['why']}" if row["role"] == "ignored" else str(row["role"]),
            fmt_count(int(row["events"])),
        )
        for row in rows
    ]
    print_table("categories", ("category", "phase", "used as", "events"), cells, left=3)
