"""Layers against the batch size: a heat map of time per image, and lines for chosen layers."""

from __future__ import annotations

import streamlit as st

from app import state
from app.parts import layer_parts, widgets
from profiler_kit.analyses.layers.totals import layer_kinds
from profiler_kit.findings import layers as findings
from profiler_kit.render.figures import layers as figures_layers

run = state.run()
hint = layer_parts.hint(run)
st.title("Layers against batch size")
if run.layers is None:
    widgets.empty("No layer timings in this run", "They come from a sweep over batch sizes. Record one:", hint)
    st.stop()
layers = state.layers(run.layers)
totals = layers.totals
if totals.empty:
    widgets.empty("The layer timings are empty", "No layer was called. Record them again:", hint)
    st.stop()
for one in findings.of_layers(layers, run.record):
    (widgets.say if one.id == "batching" else widgets.note)(one)
chosen_depth = layer_parts.pick_depth(totals)
names = layer_parts.at_depth(totals, chosen_depth)
kinds = layer_kinds(totals, names)
shown = widgets.switch("View", list(layer_parts.VIEWS), "view", meaning=layer_parts.VIEW_HELP)
if (said := findings.kinds(kinds)) is not None:
    st.markdown(widgets.sentence(said))
if shown == layer_parts.BY_KIND:
    layer_parts.kinds(kinds)
    st.stop()
st.subheader("Time per image", help=layer_parts.HEATMAP_HELP)
widgets.figure(figures_layers.layer_heatmap(totals, names, dark=widgets.is_dark()), "layers-heat")

picked = layer_parts.pick_layers(run.key, totals, names, chosen_depth)
st.subheader("Time per image and scaling efficiency", help=layer_parts.LINES_HELP)
widgets.figure(figures_layers.layer_lines(totals, picked), "layers-lines")
st.subheader("Every layer of this depth")
widgets.table(figures_layers.layer_table(totals[totals["layer"].isin(names)]), "layers", rows=10)
