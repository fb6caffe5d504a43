"""Trees drawn as icicles: boxes below what they are in, as wide as their time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from profiler_kit.render.figures.tree import tree_figure
from profiler_kit.render.icicle import boxes, icicle
from profiler_kit.tables import every_table
from profiler_kit.tables.diff import TREE
from profiler_kit.timeline.palette import HUES
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder


def trace_of(path: Path, times: dict[str, float]) -> Trace:
    """A region "step" with an operator of each name that runs a kernel <b> of so many us."""
    trace, at = TraceBuilder(), 10.0
    trace.region("step", 0, 1000)
    for number, (name, dur) in enumerate(times.items(), 1):
        trace.operator(name, 10 * number, 8)
        trace.launch(number, 10 * number + 1)
        trace.kernel(number, at, dur, name="<b>")
        at += dur
    return load_trace(trace.write(path))


def test_each_is_as_wide_as_its_time_below_what_it_is_in(tmp_path: Path) -> None:
    filled = trace_of(tmp_path / "t.json", {"mm": 300, "add": 100, "tiny": 0.1}).table("call_tree")
    found = {box.path: (round(box.left, 3), round(box.width, 3)) for box in boxes(filled)}
    assert found == {
        ("step",): (0, 1),
        ("step", "mm"): (0, 0.75),
        ("step", "mm", "<b>"): (0, 0.75),
        ("step", "add"): (0.75, 0.25),
        ("step", "add", "<b>"): (0.75, 0.25),
    }
    drawn = str(icicle(filled))
    assert "&lt;b&gt;" in drawn and "<b>" not in drawn and "style=" not in drawn
    assert 'height="54"' in drawn and len(re.findall("<rect", drawn)) == 5
    figure = tree_figure(filled)
    assert figure is not None and dict(zip(figure.data[0].ids, figure.data[0].parents, strict=True)) == {
        "step": "", "step > mm": "step", "step > mm > <b>": "step > mm", "step > add": "step",
        "step > add > <b>": "step > add",
    }  # fmt: skip


def test_of_two_runs_the_colour_says_which_takes_longer(tmp_path: Path) -> None:
    a = trace_of(tmp_path / "a.json", {"mm": 300, "gone": 100})
    b = trace_of(tmp_path / "b.json", {"mm": 300, "new": 200})
    found = {box.path: box for box in boxes(TREE.of_source({"A": a, "B": b}))}
    # as wide as in the longer run: 300 and what either run has beside it
    assert {path[-1]: round(box.width, 3) for path, box in found.items() if len(path) == 2} == {
        "mm": 0.5, "gone": 0.167, "new": 0.333,
    }  # fmt: skip
    assert found["step", "new"].colour == HUES[6] and found["step", "gone"].colour == HUES[0]
    assert found["step", "gone"].said == "operator, A 100.00 µs, B 0 ns, 100.00 µs less"


@pytest.mark.parametrize("name", ["call_tree", "python_tree", "kernels"])
def test_what_is_empty_or_no_tree_has_no_picture(tmp_path: Path, name: str) -> None:
    empty = every_table()[name].holding(every_table()[name].schema.empty())
    assert boxes(empty) == [] and not icicle(empty) and tree_figure(empty) is None
