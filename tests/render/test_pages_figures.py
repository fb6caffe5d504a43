"""Figures and tables of the pages: what is drawn is what was measured, whatever a name holds."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from profiler_kit.analyses.compare.measurements import Side
from profiler_kit.analyses.compare.side_by_side import (
    COMPARED,
    common_batches,
    compared,
    compared_layers,
)
from profiler_kit.analyses.compare.traces import compare
from profiler_kit.analyses.layers.totals import LAYER_TOTALS
from profiler_kit.names import fit_names
from profiler_kit.render.compare import compared_bars, latency_boxes
from profiler_kit.render.figures.kernels import POINTS, duration_histogram, durations_over_time
from profiler_kit.render.figures.style import standalone
from profiler_kit.tables import every_table
from profiler_kit.tables.diff import of_letter
from profiler_kit.trace import Trace, load_trace
from tests.app.samples import gpu_trace
from tests.builders import TraceBuilder


def side(trace: Trace) -> Side:
    return trace.side()


def test_of_many_events_the_longest_are_drawn(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for number in range(3 * POINTS):
        builder.kernel(None, number * 10.0, 9.0 if number == 77 else 1.0)
    events = load_trace(builder.write(tmp_path / "trace.json")).gpu_events()
    figure = durations_over_time(events, [])
    drawn = [value for trace in figure.data for value in trace.y]
    assert len(drawn) <= POINTS and max(drawn) == 9.0
    assert sum(duration_histogram(events).data[0].y) == 3 * POINTS


def test_names_with_html_are_escaped_in_figures(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.region("<script>x</script>", 0, 50)
    builder.launch(1, 10)
    builder.kernel(1, 20, 5)
    figure = durations_over_time(load_trace(builder.write(tmp_path / "trace.json")).gpu_events(), [])
    assert figure.data[0].name == "&lt;script&gt;x&lt;/script&gt;"
    page = standalone(figure, "<b>run</b>")
    assert "<title>&lt;b&gt;run&lt;/b&gt;</title>" in page and "cdn." not in page.split("<body>")[0]


def test_runs_side_by_side(tmp_path: Path) -> None:
    slower = gpu_trace()
    slower.events[-1]["dur"] = 300.0
    slower.region("new region", 600, 10)
    a = side(load_trace(gpu_trace().write(tmp_path / "a.json")))
    b = side(load_trace(slower.write(tmp_path / "b.json")))
    rows = compared({"B": compare(a, a), "C": compare(a, b)})
    regions = rows[(rows["kind"] == "region") & (rows["metric"] == "gpu")].reset_index(drop=True)
    table = every_table()["diff_regions"]
    of_b, of_c = (table.of_source({"B": compare(a, a), "C": compare(a, b)}, run=run).frame for run in "BC")
    paths = ["timed region", "image encoder", "mask decoder", "new region"]
    assert [path[-1] for path in of_c["path"]] == paths and [path[-1] for path in of_b["path"]] == paths[:3]
    assert of_c["a_ns"].tolist()[:3] == [1e6, 9e5, 1e5] and of_b["change"].tolist() == [0.0] * 3
    assert of_c["status"].tolist() == ["slower", "same", "slower", "added"]
    assert of_c["change"].round(3).tolist()[:3] == [0.2, 0.0, 2.0] and math.isnan(of_c["change"].iloc[3])
    labels = of_letter(table, "C").schema.columns
    assert (labels["a_ns"].label, labels["b_ns"].label, labels["host_b_ns"].label) == ("A", "C", "host C")
    figure = compared_bars(regions)
    assert [bar.name for bar in figure.data] == ["A", "B", "C"]
    assert figure.data[2].x[figure.data[2].y.index("mask decoder")] == pytest.approx(0.3)
    assert compared({}).empty and compared_bars(COMPARED.empty()).data


def layer(name: str, median: float, spread: float) -> dict[str, object]:
    return {
        "layer": name, "type": "T", "variant": "", "parent": "", "depth": 0, "batch_size": 2, "iterations": 4,
        "calls": 1, "median_ns": median, "q1_ns": median - spread, "q3_ns": median + spread, "self_median_ns": median,
        "per_image_ns": median / 2, "efficiency": 1.0, "share": 1.0,
    }  # fmt: skip


def test_layers_side_by_side_know_their_noise() -> None:
    a = LAYER_TOTALS.check(pd.DataFrame([layer("x", 100.0, 10.0), layer("gone", 10.0, 0.0)]))
    b = LAYER_TOTALS.check(pd.DataFrame([layer("x", 110.0, 10.0)]))
    assert common_batches({"A": a, "B": b}) == [2]
    rows = compared_layers({"A": a, "B": b}, 2)
    first, second = rows.to_dict("records")
    # notch 1.57 * 20 / sqrt(4) / 2 = 7.85 ns per image to either side: 5 ns apart is nothing
    assert (first["a_ns"], first["b_ns"], first["status"]) == (50.0, 55.0, "same")
    assert first["a_notch_ns"] == pytest.approx(7.85) and first["noise_ns"] == pytest.approx(15.7)
    assert second["status"] == "removed"
    assert compared_layers({"B": b}, 2).empty and common_batches({}) == []


def test_latency_shows_every_sample() -> None:
    figure = latency_boxes({"A": [1_000_000, 2_000_000], "B": [3_000_000]})
    assert [list(box.x) for box in figure.data] == [[1.0, 2.0], [3.0]]
    assert fit_names(["a" * 50], 10)[0] == "aaaaa…aaaa"
