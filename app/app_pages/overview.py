"""Overview: what ran, and where the time went."""

from __future__ import annotations

from app import state
from app.components import overview_parts as parts
from app.components import widgets
from profiler_kit.analyses.window import operator_sums
from profiler_kit.views import tables, verdict

run = state.run()
parts.heading(run)
if run.problem:
    widgets.problem(run.problem)
trace = parts.load(run)
if trace is not None:
    on_gpu = len(trace.gpu_events()) > 0
    if on_gpu:
        parts.say(verdict.gpu_verdict(trace.summary()["gpu_timeline"], trace.regions()))
    else:
        parts.say(verdict.host_verdict(trace.regions(), operator_sums(trace.operators())))
    parts.quality(trace)
parts.numbers(run, trace)
if trace is not None:
    (parts.on_gpu if on_gpu else parts.on_host)(trace, run.record)
elif run.trace is None:
    widgets.empty(
        "No trace in this run",
        "A memory snapshot is here: see Memory." if run.memory else "Record one:",
        parts.RECORD_HINT,
    )
if trace is None:
    parts.latency(run.record)
if run.record is not None:
    widgets.table(tables.record_table(run.record), "record", rows=14)
