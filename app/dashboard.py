"""The script Streamlit runs: sidebar, navigation, and the chosen page."""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st

_HERE = Path(__file__).resolve().parent
if str(_HERE.parent) not in sys.path:
    sys.path.insert(0, str(_HERE.parent))

from app import cache, query_params, state  # noqa: E402
from app.loading import give_back_memory  # noqa: E402
from app.parts import widgets  # noqa: E402

# Section of the sidebar -> its pages: file in app_pages/ and title.
PAGES = {
    "": {"overview": "Overview"},
    "Where time goes": {
        "timeline": "Timeline",
        "regions": "Regions",
        "kernels": "Kernels",
        "operators": "Operators",
        "requests": "Requests",
    },
    "Model": {"layers": "Layers", "memory": "Memory"},
    "Several runs": {"compare": "Compare", "ladder": "Ladder", "ranks": "Ranks"},
    "Everything": {"tables": "Tables", "perfetto": "Perfetto", "doctor": "Doctor"},
}

st.set_page_config(page_title="profiler_kit", page_icon=str(_HERE / "parts" / "icon.svg"), layout="wide")
st.html(_HERE / "parts" / "page.html")
page = st.navigation(
    {
        section: [
            st.Page(_HERE / "app_pages" / f"{name}.py", title=title, url_path=name, default=name == "overview")
            for name, title in pages.items()
        ]
        for section, pages in PAGES.items()
    },
    position="hidden",  # drawn below the choice of the run, with links that keep it
)
query_params.keep("token", "")  # a cookie has it from now on: links that are sent around do not give it away
with widgets.one_line_errors():
    widgets.pick_run()
    widgets.pages(PAGES)
    if page.url_path == "ladder":  # it is of no run
        page.run()
    elif cache.runs():
        widgets.files(state.run())
        page.run()
    else:
        st.title("No runs yet")
        widgets.empty(
            f"Nothing to show in {widgets.plain(str(cache.root()))}",
            "Record a run there; it appears here when it is whole. Reload the page to look again.",
            f"profiler-kit capture --out {widgets.in_root('first')} --model vit_b --device cpu",
        )
give_back_memory()
