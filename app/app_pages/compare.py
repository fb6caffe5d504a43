"""Two or more runs side by side: latency, regions, kernels, layers and memory, with the noise of each."""

from __future__ import annotations

import streamlit as st

from app import cache, state
from app.parts import compare_parts as parts
from app.parts import widgets
from profiler_kit.render import compare

folder = state.run()
st.title("Compare")
others = parts.pick_others(folder)
if not others:
    widgets.empty(
        "Nothing to compare with",
        parts.NO_PARTNER if len(cache.runs()) > 1 else parts.ALONE,
        widgets.record_hint(folder),
    )
    st.stop()
sides = dict(zip(compare.LETTERS, [folder, *others], strict=False))
parts.legend(sides)
found = parts.comparisons(sides)
parts.verdicts(sides, found)
parts.latency(sides)
views = parts.views(sides, found)
if not views:
    widgets.empty(
        "No trace, memory or layers to compare", "Pick another run above, or record one:", widgets.record_hint(folder)
    )
    st.stop()
shown = widgets.switch("What to compare", list(views), "view", meaning=parts.VIEW_HELP)
with widgets.one_line_errors():
    views[shown](sides, found)
