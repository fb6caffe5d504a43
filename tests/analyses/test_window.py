"""What ran in a range or under a region, with the numbers on the page."""

from __future__ import annotations

from pathlib import Path

from profiler_kit.analyses.gpu.kernels import kernel_totals
from profiler_kit.analyses.gpu.window import events_between, events_under, name_sums, operator_sums
from profiler_kit.trace import load_trace
from tests.app.samples import gpu_trace, host_trace


def test_events_are_cut_to_the_range(tmp_path: Path) -> None:
    events = load_trace(gpu_trace().write(tmp_path / "t.json")).gpu_events()
    inside = events_between(events, 600_000, 1_000_000)  # 100 us of gemm, all 300 of softmax
    assert inside["dur_ns"].tolist() == [100_000, 300_000]
    assert inside["start_ns"].tolist() == [600_000, 700_000]
    assert events_between(events, 1_000_000, 1_200_000).empty  # it only touches
    assert events["dur_ns"].tolist() == [600_000, 300_000, 100_000]  # the argument stays as it was
    instant = events.assign(dur_ns=0)  # one without a duration is in one of two stretches side by side
    moment = int(instant["start_ns"].iloc[1])
    assert len(events_between(instant, 0, moment)) + len(events_between(instant, moment, 2_000_000)) == len(instant)


def test_nested_regions_are_under_the_one_around_them(tmp_path: Path) -> None:
    events = load_trace(gpu_trace().write(tmp_path / "t.json")).gpu_events()
    assert len(events_under(events, ("timed region",))) == 3
    assert len(events_under(events, ("timed region", "image encoder"))) == 2
    assert events_under(events, ("image encoder",)).empty
    assert events_under(events.head(0), ("timed region",)).empty


def test_operator_self_times_add_up(tmp_path: Path) -> None:
    sums = operator_sums(load_trace(host_trace().write(tmp_path / "t.json")).operators())
    assert sums.to_dict("list") == {
        "name": ["aten::addmm", "aten::linear", "aten::sigmoid"],
        "count": [1, 1, 1],
        "sum_ns": [600_000, 700_000, 100_000],
        "self_ns": [600_000, 100_000, 100_000],
    }


def test_names_over_all_streams(tmp_path: Path) -> None:
    builder = gpu_trace()
    builder.launch(9, 50)
    builder.kernel(9, 2_000, 50, name="gemm", stream=9)
    sums = name_sums(kernel_totals(load_trace(builder.write(tmp_path / "t.json")).gpu_events()))
    assert sums.iloc[0].tolist() == ["gemm", 2, 650_000]
