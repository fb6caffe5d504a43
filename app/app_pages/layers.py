"""Layers against the batch size: a heat map of time per image, and lines for chosen layers."""

from __future__ import annotations

import streamlit as st

from app import state
from app.components import layer_parts, widgets
from profiler_kit.views import figures_layers

HINT = "profiler-kit layers --model vit_b --batch-sizes 1,2,4,8 --device cuda --out traces/my_run"

run = state.run()
st.title("Layers against batch size")
if run.layers is None:
    widgets.empty("No layer timings in this run", "They come from a sweep over batch sizes. Record one:", HINT)
    st.stop()
totals, coverage = state.layers(run.layers)
if totals.empty:
    widgets.empty("The layer timings are empty", "No layer was called. Record them again:", HINT)
    st.stop()
layer_parts.say_scaling(totals)
layer_parts.say_coverage(coverage)
chosen_depth = layer_parts.pick_depth(totals)
names = layer_parts.at_depth(totals, chosen_depth)
st.subheader("Time per image", help=layer_parts.HEATMAP_HELP)
widgets.figure(figures_layers.layer_heatmap(totals, names), "layers-heat")

picked = st.multiselect("Layers to compare", names, default=layer_parts.interesting(totals, names), key="layers-picked")
left, right = st.columns(2, gap="large")
with left:
    st.subheader("Time per image", help="Median over the iterations; whiskers are the interquartile range.")
    widgets.figure(figures_layers.layer_lines(totals, picked), "layers-time")
with right:
    st.subheader("Scaling efficiency", help=layer_parts.EFFICIENCY_HELP)
    widgets.figure(figures_layers.layer_lines(totals, picked, efficiency=True), "layers-efficiency")
