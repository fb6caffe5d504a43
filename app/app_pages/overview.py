"""Overview: what ran, where the time and the memory went, and what to try."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import overview_parts as parts
from app.parts import widgets
from profiler_kit.finding import of_kind
from profiler_kit.findings.collect import headline
from profiler_kit.findings.numbers import numbers
from profiler_kit.findings.records import record_facts
from profiler_kit.findings.time import nothing_read
from profiler_kit.render import bars

folder = state.run()
parts.heading(folder)
trace = widgets.opened(folder)
run = cache.run(folder)
with widgets.one_line_errors():
    if folder.trace is None or trace is not None:
        widgets.say(headline(run))
        widgets.numbers(numbers(run))
    for one in parts.out_of_memory(run):
        widgets.note(one)
    widgets.problems(run)
if trace is not None and nothing_read(trace) is None:
    parts.quality(trace)
    parts.advice(of_kind(run.findings, "advice"))
    parts.why(run.findings)
    (parts.on_gpu if trace.presence.ran == "gpu" else parts.on_host)(folder, trace)
elif folder.trace is None:
    with widgets.one_line_errors():
        if run.snapshot is not None:
            parts.on_memory(folder, run.snapshot)
        if run.layers is not None:
            parts.on_layers(run.layers, folder.record)
if trace is None:
    parts.latency(folder.record)
parts.missing(folder)
if folder.record is not None:
    st.subheader("What ran")
    st.html(bars.facts(record_facts(folder.record)))
