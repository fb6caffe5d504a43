"""Overview: what ran, and where the time went."""

from __future__ import annotations

import streamlit as st

from app import state
from app.parts import advice_parts, widgets
from app.parts import overview_parts as parts
from profiler_kit.analyses.gpu.window import operator_sums
from profiler_kit.render import bars, tables, verdict

run = state.run()
parts.heading(run)
if run.problem:
    widgets.problem(run.problem)
trace = parts.load(run)
if trace is not None:
    presence = parts.presence(trace)
    on_gpu = presence.ran == "gpu"
    if on_gpu:
        load = parts.load_of(trace, run.record)
        parts.say(verdict.gpu_verdict(trace.summary()["gpu_timeline"], trace.regions(), load))
    else:
        parts.say(verdict.host_verdict(trace.regions(), operator_sums(trace.operators()), presence))
    parts.quality(trace)
parts.numbers(run, trace)
if trace is not None:
    advice_parts.show(run)
    (parts.on_gpu if on_gpu else parts.on_host)(trace, run.record)
elif run.trace is None:
    widgets.empty(
        "No trace in this run",
        "A memory snapshot is here: see Memory." if run.memory else "Record one:",
        parts.record_hint(),
    )
if trace is None:
    parts.latency(run.record)
if run.record is not None:
    st.subheader("What ran")
    st.html(bars.facts(tables.record_table(run.record)))
