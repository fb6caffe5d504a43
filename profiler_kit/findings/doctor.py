"""What a trace file is, how it was recorded, what it holds and what it lacks: what `profiler-kit doctor` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from profiler_kit.analyses.gpu.gpu_presence import unread_spans
from profiler_kit.analyses.gpu.quality import Flaw
from profiler_kit.attribute.believable import without_time
from profiler_kit.findings import quality
from profiler_kit.findings.time import FORMS
from profiler_kit.formats.run_record import MEMORY, RunRecord
from profiler_kit.load.discover.runs import part_file
from profiler_kit.load.trace import categories, native
from profiler_kit.load.trace.categories import SPANS, role_of, role_of_events
from profiler_kit.load.trace.file_facts import FileFacts
from profiler_kit.names import kernel_names
from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns
from profiler_kit.trace import Trace

OPTIONS: Final = ("record_shapes", "with_stack", "profile_memory", "with_modules", "with_flops")
VERSIONS: Final = {
    "cuda_runtime_version": "CUDA runtime",
    "cuda_driver_version": "CUDA driver",
    "cupti_version": "CUPTI",
    "hip_runtime_version": "HIP runtime",
    "hip_driver_version": "HIP driver",
    "roctracer_version": "roctracer",
}
MOST_NAMES: Final = 8  # of communication, of one rule
MIXED: Final = "mixed: by correlation, else by External id"
LAYOUTS: Final = {"kineto": "Kineto's layout", "indented": "indented JSON", "compact": "compact JSON"}


def examine(file: Path, record: RunRecord | None, trace: Trace, facts: FileFacts) -> dict[str, Any]:
    """What `--json` prints: the file, how it was recorded, what it holds, what was lost where, and the findings.

    record: that of the run the trace belongs to.
    """
    lost = trace.quality
    return {
        "trace": str(file),
        "reader": native.found(),
        **describe(trace, facts, record),
        "quality": {
            "truncated": lost.truncated,
            "repaired_events": lost.repaired_events,
            "dropped_events": lost.dropped_events,
            "incidents": [{"kind": i.kind, "offset": i.offset, "text": i.text} for i in trace.incidents],
        },
        "findings": [_plain(flaw) for flaw in flaws(file, record, trace, facts)],
        "categories": _categories(facts, trace),
    }


def flaws(file: Path, record: RunRecord | None, trace: Trace, facts: FileFacts) -> list[Flaw]:
    """What the file lacks; a snapshot beside it is better than memory events in it."""
    return quality.flaws(trace, facts, has_snapshot=record is not None and part_file(file.parent, MEMORY) is not None)


def _plain(flaw: Flaw) -> dict[str, Any]:
    """A flaw with its words."""
    _, affects, fix = quality.WORDS[flaw.key]
    return {
        "key": flaw.key,
        "severity": flaw.severity,
        "count": flaw.count,
        "of": flaw.of,
        "names": list(flaw.names),
        "largest_ns": flaw.largest_ns,
        "found": quality.found_text(flaw),
        "affects": affects,
        "next_time": fix or None,
    }


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
    # a placeholder or an impossible duration would make the recording decades long
    timed = ~without_time(columns)
    timed[trace.left_out()["event"].to_numpy()] = False
    start, end = (start[timed], end[timed]) if timed.any() else (start, end)
    communication = trace.communication()
    return {
        "file": {
            "size_bytes": facts.size_bytes,
            "text_bytes": facts.text_bytes,
            "compressed": facts.compressed,
            "packing": facts.packing,
            "encoding": facts.encoding,
            "layout": facts.layout,
            **({"form": columns.form} if FORMS[columns.form] else {}),
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
            "streams": int(gpu[["process", "device", "stream"]].drop_duplicates().dropna(subset="stream").shape[0]),
            "gpu_events": trace.summary()["gpu_events"],
            "communication": [
                {"name": str(name), "rule": rule, "count": count}
                for name, rule, count, _ in communication.itertuples(index=False)
            ],
            "processes": trace.links.processes.count,
            "linked_by": _linked_by(trace),
        },
    }


def _linked_by(trace: Trace) -> str | None:
    """How launches were found; None where no GPU event has one."""
    external = trace.links.by_external_id
    if len(trace.links.launch) == trace.links.unlinked:
        return None
    if not external:
        return "correlation"
    return "External id" if external == len(trace.links.launch) - trace.links.unlinked else "mixed"


def _options(trace: Trace, facts: FileFacts) -> dict[str, bool]:
    """The recording options, by the metadata or by what the events hold (older torch does not say)."""
    evidence = {
        "record_shapes": facts.has_shapes,
        "with_stack": facts.has_stacks or facts.of_category(categories.STACK) > 0,
        "profile_memory": facts.of_category(categories.MEMORY) > 0,
    }
    return {name: trace.metadata.get(name) in (1, True, "1", "true") or evidence.get(name, False) for name in OPTIONS}


def _on_host(trace: Trace) -> list[bool]:
    """Per thread of the columns: whether operators, launches, regions or Python functions ran on it."""
    columns = trace.columns
    host = columns.of_category(lambda category: role_of(category) in ("operator", "launch", "region", "stack"))
    return [bool(on) for on in np.isin(np.arange(len(columns.threads)), columns.thread[host])]


def _categories(facts: FileFacts, trace: Trace) -> list[dict[str, Any]]:
    """One row per category and phase, most events first: how many, our role for it, and why it is left out."""
    keys = ("category", "phase", "events", "role", "why")
    rows = [
        dict(zip(keys, (category, phase, count, *_role(category, phase, trace)), strict=True))
        for (category, phase), count in facts.counts.items()
    ]
    return sorted(rows, key=lambda row: (-int(str(row["events"])), str(row["category"]), str(row["phase"])))


def _role(category: str, phase: str, trace: Trace) -> tuple[str, str | None]:
    """Our role for such events; spans without a category are read by their process, if that is known."""
    if category or phase not in SPANS:
        return role_of_events(category, phase)
    if phase == "E":
        return "end of a span", None
    unread = unread_spans(trace.columns, ("",))[0]
    return ("unknown", None) if unread else ("by process", None)


def about(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The report's head: one line for the file, the recording and the contents each."""
    file, recording, contents = summary["file"], summary["recording"], summary["contents"]
    packed = f"{file['packing']} {fmt_bytes(file['size_bytes'])} of " if file["compressed"] else ""
    kind = ", a bare list" if file["bare_list"] else ""
    encoding = ", UTF-16" if file["encoding"] != "utf-8" else ""
    versions = [f"torch {recording['torch']}"] if recording["torch"] else []
    versions += [f"{VERSIONS[key]} {_version(key, value)}" for key, value in recording["versions"].items()]
    rows = [
        ("file", f"{LAYOUTS[file['layout']]}{kind}{encoding}, {packed}{fmt_bytes(file['text_bytes'])}"),
        *([("form", FORMS[file["form"]])] if "form" in file else []),
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
        ("reader", summary["reader"]),
        *([("launches", f"by {contents['linked_by']}".replace("by mixed", MIXED))] if contents["linked_by"] else []),
        ("time", f"{fmt_ns(contents['span_ns'])}{steps}"),
        (
            "contents",
            f"{fmt_count(contents['events'])} events, {fmt_count(contents['gpu_events'])} of them on GPUs; "
            f"host threads: {contents['host_threads']}, streams: {contents['streams']}, "
            f"regions: {fmt_count(contents['regions'])}",
        ),
        *_communication(contents["communication"]),
    ]


def _communication(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Which names count as communication and by which rule, the rules in one line each."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row["rule"], []).append(row["name"])
    said = []
    for rule, found in names.items():
        more = f", {len(found) - MOST_NAMES} more" if found[MOST_NAMES:] else ""
        said.append(f"by {rule}: {', '.join(kernel_names(found[:MOST_NAMES]))}{more}")
    return [("communication" if not at else "", text) for at, text in enumerate(said)]


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
