"""Layers against the batch size: a heat map of time per item, lines for chosen layers, and kinds of layers."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import layer_parts as parts
from app.parts import tables, widgets
from profiler_kit.analyses.layers.totals import layer_kinds, layers_at_depth
from profiler_kit.findings import layers as findings
from profiler_kit.render.figures import layers as figures

folder = state.run()
hint = widgets.record_hint(folder, "layers")
st.title("Layers against batch size")
if folder.layers is None:
    widgets.empty("No layer timings in this run", "They come from a sweep over batch sizes. Record one:", hint)
    st.stop()
layers = cache.layers(folder)
totals = layers.totals
if totals.empty:
    widgets.empty("The layer timings are empty", "No layer was called. Record them again:", hint)
    st.stop()
for one in findings.of_layers(layers, folder.record):
    (widgets.say if one.id == "batching" else widgets.note)(one)
depth = parts.pick_depth(totals)
names = layers_at_depth(totals, depth)
kinds = layer_kinds(totals, names)
shown = widgets.switch("View", list(parts.VIEWS), "view", meaning=parts.VIEW_HELP)
if (said := findings.kinds(kinds)) is not None:
    st.markdown(widgets.sentence(said))
if shown == parts.BY_KIND:
    st.subheader("Share of the forward", help=parts.KINDS_HELP)
    widgets.figure(figures.kind_shares(kinds), "layers-kinds")
    tables.show(cache.table(folder, "layer_kinds", depth=depth), "layer-kinds", rows=8)
    st.stop()
st.subheader("Time per item", help=parts.HEATMAP_HELP)
widgets.figure(figures.layer_heatmap(totals, names, dark=widgets.is_dark()), "layers-heat")

picked = parts.pick_layers(folder.key, totals, names, depth)
st.subheader("Time per item and scaling efficiency", help=parts.LINES_HELP)
widgets.figure(figures.layer_lines(totals, picked), "layers-lines")
st.subheader("Every layer of this depth")
tables.show(cache.table(folder, "layer_totals", depth=depth), "layers", rows=10)
