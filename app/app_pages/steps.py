"""Steps: how long each iteration took, which stand out, and what differs in them; the picked one on the timeline."""

from __future__ import annotations

import streamlit as st

from app import state
from app.parts import tables, timeline_parts, widgets
from profiler_kit.findings.work import of_table
from profiler_kit.render.figures.run import step_times

HELP = (
    "One bar a step, outliers in red, the dotted line is the median. Point at a bar to see what takes longer in it "
    "than in the median step."
)

folder = state.run()
st.title("Steps", help=HELP)
trace = widgets.trace_or_stop(folder, "Steps come from a trace.")
steps = tables.with_options(folder, "steps")
if not len(steps):
    widgets.hollow(steps)
    st.stop()
widgets.say(of_table(steps))
widgets.figure(step_times(steps.frame), "steps")
names = [str(number) for number in steps.frame["step"]]
row = tables.pick_row(steps, f"steps-{folder.key}", names=names, param="step", rows=9)
if row is None:  # the longest, as the sentence names it
    row = int(steps.frame["wall_ns"].to_numpy().argmax())
one = steps.frame.iloc[row]
st.caption(widgets.plain(f"Below: step {one['step']}. Pick a row above to see another one."))
start = int(one["start_ns"])
timeline_parts.show(folder, None, (start, start + int(one["wall_ns"])))
