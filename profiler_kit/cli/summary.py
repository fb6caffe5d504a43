"""`profiler-kit summary TRACE`: how busy the GPU was, and with what."""

from __future__ import annotations

from profiler_kit.cli.output import AsJson, LinkedOnly, TraceFile, open_trace, print_json, print_table


def command(trace: TraceFile, as_json: AsJson = False, linked_only: LinkedOnly = False) -> None:
    """Say how busy the GPU was: computation, communication, copies, idle."""
    loaded = open_trace(trace)
    summary = loaded.summary(linked_only=linked_only)
    if as_json:
        print_json(summary)
        return
    from profiler_kit.text import fmt_count, fmt_ns, fmt_percent

    timeline = summary["gpu_timeline"]
    total = timeline["total_ns"]
    what = f"{fmt_count(summary['gpu_events'])} GPU events of {fmt_count(summary['events'])}"
    if not summary["gpu_events"]:
        print_table(
            f"{loaded.path}: {what}", ("host operators", "calls", "self time"), host_rows(loaded.operator_totals())
        )
        return
    names = {
        "total": timeline["total_ns"],
        "busy": timeline["busy_ns"],
        "  computation": timeline["computation_ns"],
        "  communication, exposed": timeline["exposed_communication_ns"],
        "  memory copies, exposed": timeline["exposed_memcpy_ns"],
        "idle": timeline["idle_ns"],
        "communication, all": timeline["communication_ns"],
        "memory copies, all": timeline["memcpy_ns"],
    }
    rows = [(name, fmt_ns(value, "ms"), fmt_percent(value / total if total else None)) for name, value in names.items()]
    print_table(f"{loaded.path}: {what}", ("GPU timeline", "time", "of total"), rows)


def host_rows(totals: object, most: int = 15) -> list[tuple[str, str, str]]:
    """The operators with the longest self time on the host, for a trace without GPU events."""
    import pandas as pd

    from profiler_kit.text import fmt_count, fmt_ns

    assert isinstance(totals, pd.DataFrame)
    by_name = totals.groupby("name")[["count", "self_ns"]].sum().sort_values("self_ns", ascending=False).head(most)
    return [
        (str(name), fmt_count(int(count)), fmt_ns(int(self_ns), "ms"))
        for name, count, self_ns in zip(by_name.index, by_name["count"], by_name["self_ns"], strict=True)
    ]
