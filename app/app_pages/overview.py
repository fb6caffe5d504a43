"""Overview: what ran, and where the time went."""

from __future__ import annotations

import streamlit as st

from app import answers, state
from app.parts import advice_parts, widgets
from app.parts import overview_parts as parts
from profiler_kit.finding import of_kind
from profiler_kit.findings import time
from profiler_kit.render import bars, tables
from profiler_kit.run import Run

run = state.run()
parts.heading(run)
if run.problem:
    widgets.problem(run.problem)
trace = parts.load(run)
if trace is not None:
    whole = answers.loaded(run)
    on_gpu = trace.presence.ran == "gpu"
    widgets.say(time.headline(whole))
    parts.quality(trace)
else:
    whole = Run(run.label, run.path, run.record)
parts.numbers(whole)
if trace is not None:
    advice_parts.show(run)
    for one in of_kind(answers.findings(run), "why"):
        st.markdown(widgets.sentence(one))
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
