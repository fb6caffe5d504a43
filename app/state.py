"""The chosen run and the selected range: the address says them, the session keeps them from page to page."""

from __future__ import annotations

import streamlit as st

from app import cache
from app.query_params import Range
from profiler_kit.errors import InputError
from profiler_kit.load.discover.listing import UNKNOWN, WHOLE, health
from profiler_kit.load.discover.runs import RunFolder, confined


def lands_on_a_run() -> bool:
    """Whether the start of a visit is that of one run: the address names it, or there is no other."""
    asked, is_first = st.query_params.get("run"), "landed" not in st.session_state
    st.session_state["landed"] = True
    if asked is None and is_first:
        found = cache.runs()
        asked = found[0].key if len(found) == 1 else None
    if asked is not None:
        st.session_state["run"] = asked
    return asked is not None


def follow_address(keys: list[str]) -> None:
    """Set the picker to the run in the address; without one keep the choice, or take the newest that can be read."""
    asked = st.query_params.get("run")
    if asked is not None:
        st.session_state["run"] = asked
        st.session_state["run_picker"] = asked if asked in keys else None
    elif st.session_state.get("run") is None and keys:
        whole = (run.key for run in cache.runs() if health(run) in (WHOLE, UNKNOWN))
        st.session_state["run"] = st.session_state["run_picker"] = next(whole, keys[0])


def choose_picked() -> None:
    """The picker changed: that is the run now, and what else the address says was of the other one."""
    if st.session_state["run_picker"] is not None:
        st.session_state["run"] = st.session_state["run_picker"]
        st.query_params.from_dict({"run": st.session_state["run"]})


def keep_in_address() -> None:
    """Write the run into the address, so that the page is a link that can be sent."""
    if st.session_state.get("run") and st.query_params.get("run") != st.session_state["run"]:
        st.query_params["run"] = st.session_state["run"]


def run() -> RunFolder:
    """The chosen run; raises InputError when it is not there."""
    key = str(st.session_state.get("run", ""))
    found = cache.find(key)
    if found is None and key and confined(cache.root(), key) is not None:
        raise InputError(
            f"{cache.root() / key}: found a file or folder whose name is not that of a run, expected a run folder, "
            "*.json, *.json.gz or *.pickle. Rename it, or choose another one on the left."
        )
    if found is None:
        raise InputError(f"{cache.root() / key}: no run here (moved or deleted?). Choose another one on the left.")
    return found


def selected_range(
    run_key: str, region: tuple[str, ...] | None, drawn: Range | None, number: int
) -> tuple[Range | None, int]:
    """The range that counts, and the number of the selection it answers.

    Takes the latest selection of the timeline. Picking a region in the table drops it, because the view moves to that
    region; unpicking one does not.
    """
    held = st.session_state
    if held.get("range_of", (run_key, None)) != (run_key, region) and region is not None:
        held["range_dropped"] = (run_key, number)
    held["range_of"] = (run_key, region)
    of_run, dropped = held.get("range_dropped", (run_key, 0))
    dropped = dropped if of_run == run_key else 0
    return (drawn if number > dropped else None), max(number, dropped)
