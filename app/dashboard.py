"""The script Streamlit runs: sidebar, navigation, and the chosen page."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import streamlit as st

_HERE = Path(__file__).resolve().parent
if str(_HERE.parent) not in sys.path:
    sys.path.insert(0, str(_HERE.parent))

from app import cache, query_params, state  # noqa: E402
from app.loading import give_back_memory  # noqa: E402
from app.parts import note_parts, widgets  # noqa: E402

# Section of the sidebar -> its pages: file in app_pages/ and title.
PAGES = {
    "": {"runs": "Runs", "overview": "Overview"},
    "Where time goes": {
        "timeline": "Timeline",
        "regions": "Regions",
        "steps": "Steps",
        "idle": "Idle time",
        "kernels": "Kernels",
        "operators": "Operators",
        "requests": "Requests",
    },
    "Model": {"layers": "Layers", "memory": "Memory"},
    "Several runs": {"compare": "Compare", "ladder": "Ladder", "ranks": "Ranks"},
    "Everything": {"tables": "Tables", "perfetto": "Perfetto", "doctor": "Doctor"},
}


def explained(name: str) -> str:
    """What the page is for: the first sentence of its file."""
    text = ast.get_docstring(ast.parse((_HERE / "app_pages" / f"{name}.py").read_text(encoding="utf-8"))) or ""
    return widgets.plain(" ".join(text.split()))


st.set_page_config(page_title="profiler_kit", page_icon=str(_HERE / "parts" / "icon.svg"), layout="wide")
st.html(_HERE / "parts" / "page.html")
page = st.navigation(
    {
        section: [
            st.Page(_HERE / "app_pages" / f"{name}.py", title=title, url_path=name, default=name == "runs")
            for name, title in pages.items()
        ]
        for section, pages in PAGES.items()
    },
    position="hidden",  # drawn below the choice of the run, with links that keep it
)
query_params.keep("token", "")  # a cookie has it from now on: links that are sent around do not give it away
with cache.in_use(), widgets.one_line_errors():
    if page.url_path == "":
        if state.lands_on_a_run():
            st.switch_page("app_pages/overview.py", query_params={"run": st.session_state["run"]})
        widgets.pages(PAGES)
        page.run()
    elif page.url_path != "ladder" and not cache.runs() and not st.query_params.get("run"):
        st.switch_page("app_pages/runs.py")
    else:
        widgets.pick_run()
        widgets.pages(PAGES)
        if page.url_path != "ladder":  # it is of no run
            widgets.files(state.run())
        page.run()
        if page.url_path != "ladder":
            note_parts.notes(state.run(), page.url_path)
    with st.sidebar.container(key="about"):
        st.caption(explained(page.url_path or "runs"))
give_back_memory()
