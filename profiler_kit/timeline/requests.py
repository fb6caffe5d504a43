"""Requests to a server as lanes: the stages of each in a row of its own while others are under way."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.serving.requests import REQUESTS, STAGES
from profiler_kit.load.integers import I64
from profiler_kit.timeline.build import Codes, Layout, stack_rows
from profiler_kit.timeline.index import Row, Timeline, Track

LABEL: Final = "Requests"


def request_lanes(requests: pd.DataFrame) -> pd.DataFrame:
    """The stages of REQUESTS, a row each, by lane and start: item (row of REQUESTS), lane, stage, start_ns, dur_ns.

    Requests of one lane do not overlap; a stage that is missing or took no time has no row.
    """
    REQUESTS.check(requests)
    spans = _spans(requests)
    start, dur = requests["arrival_ns"].to_numpy(np.int64), spans.sum(axis=1)
    order = np.lexsort((-dur, start))
    lane = np.zeros(len(requests), np.int64)
    lane[order] = stack_rows(start[order], dur[order])
    begins = start[:, None] + np.cumsum(spans, axis=1) - spans
    rows = pd.DataFrame(
        {
            "item": np.repeat(np.arange(len(requests)), len(STAGES)),
            "lane": np.repeat(lane, len(STAGES)),
            "stage": np.tile([REQUESTS.label(f"{stage}_ns") for stage in STAGES], len(requests)),
            "start_ns": begins.ravel(),
            "dur_ns": spans.ravel(),
        }
    )
    return rows[rows["dur_ns"] > 0].sort_values(["lane", "start_ns"], kind="stable", ignore_index=True)


def _spans(requests: pd.DataFrame) -> I64:
    """The time of each stage of REQUESTS, a row each; 0 where it is missing."""
    return requests[[f"{stage}_ns" for stage in STAGES]].fillna(0).to_numpy(np.int64)


def with_requests(timeline: Timeline, requests: pd.DataFrame) -> Timeline:
    """The timeline with the lanes of REQUESTS above all others; requests of another time are not drawn."""
    lanes = request_lanes(requests)
    start = requests["arrival_ns"].to_numpy(np.int64)
    dur = _spans(requests).sum(axis=1)  # of one that was not answered, what is known
    during = (start <= timeline.end_ns) & (start + dur >= timeline.start_ns)
    lanes = lanes[during[lanes["item"].to_numpy()]].reset_index(drop=True)
    if lanes.empty:
        return timeline
    codes, layout = Codes(timeline.labels), Layout()
    number = requests["id"].to_numpy()[lanes["item"].to_numpy()]
    names = pd.Series([f"request {one}: {stage}" for one, stage in zip(number, lanes["stage"], strict=True)])
    lanes["code"] = codes.of("request", names, pd.Series([(stage,) for stage in lanes["stage"]]))
    columns = ("start_ns", "dur_ns", "code", "item")
    rows = [Row.of(*(rows[name].to_numpy(np.int64) for name in columns)) for _, rows in lanes.groupby("lane")]
    layout.keep(Track(LABEL, "request", -1, 0, len(rows), len(lanes), depths=False), rows)
    for track in timeline.tracks:
        layout.keep(track, timeline.rows[track.first_row : track.first_row + track.rows])
    whole = layout.timeline(tuple(codes.labels))
    return replace(whole, start_ns=timeline.start_ns, earlier_ns=max(0, timeline.start_ns - whole.start_ns))
