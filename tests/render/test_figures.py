"""Figures and sentences: the numbers a reader sees are those of the frames, and hostile names stay text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from profiler_kit.analyses.gpu.idle import CAUSES
from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.analyses.gpu.utilization import CAUSE_OF, REGION_UTILIZATION
from profiler_kit.analyses.gpu.window import NAME_SUMS, OPERATOR_SUMS, name_sums, operator_sums
from profiler_kit.analyses.layers.totals import layer_totals
from profiler_kit.analyses.memory.replay import MEMORY_TIMELINE
from profiler_kit.errors import OptionError, SchemaError
from profiler_kit.render import bars
from profiler_kit.render.figures import layers as figures_layers
from profiler_kit.render.figures import memory as figures_memory
from profiler_kit.render.figures import run as figures
from profiler_kit.render.layout import SHARE_OF_WHOLE, layout
from profiler_kit.render.svg import Part, stacked
from profiler_kit.timeline import palette
from profiler_kit.timeline.build import build_timeline, group_gpu_work
from profiler_kit.timeline.palette import IDLE_CAUSE, region_colours
from profiler_kit.timeline.search import find_matches
from profiler_kit.timeline.tiles import BUDGET_BYTES, describe, tile
from profiler_kit.trace import Trace, load_trace
from tests.app.samples import gpu_trace, host_trace, layers
from tests.builders import TraceBuilder


@pytest.fixture
def gpu(tmp_path: Path) -> Trace:
    return load_trace(gpu_trace().write(tmp_path / "gpu.json"))


@pytest.fixture
def host(tmp_path: Path) -> Trace:
    return load_trace(host_trace().write(tmp_path / "host.json"))


def test_the_activity_bar_adds_up_to_the_whole(gpu: Trace) -> None:
    time = gpu.summary()["gpu_timeline"]
    bars = figures.activity_bar(time).data
    assert sum(bar.x[0] for bar in bars) == pytest.approx(time["total_ns"] / 1e6)
    assert [bar.name.split("  ")[0] for bar in bars] == ["Computation", "Idle"]


def drawn(html: str) -> list[tuple[str, list[str], list[str], str]]:
    """Of each row of bars: name, lengths, colours, value."""
    return [
        (
            re.sub("<[^>]+>", "", re.findall(r'class="pk-name"[^>]*>(.*?)</span>', row)[0]),
            re.findall(r"width:([\d.]+%)", row),
            re.findall(r"background:(#\w+)", row),
            re.findall(r'class="pk-value">([^<]*)<', row)[0],
        )
        for row in html.split('<div class="pk-row"')[1:]
    ]


def test_region_bars_use_the_region_colours(gpu: Trace) -> None:
    colour = region_colours(["timed region", "image encoder", "mask decoder"])
    assert drawn(bars.region_bars(gpu.regions())) == [
        ("timed region", ["100.00%"], [colour["timed region"]], "1.000 ms"),
        ("image encoder", ["90.00%"], [colour["image encoder"]], "900.00 µs"),
        ("mask decoder", ["10.00%"], [colour["mask decoder"]], "100.00 µs"),
    ]


def test_overlapping_streams_show_sum_behind_busy(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.region("both", 0, 50)
    for number, stream in ((1, 7), (2, 8)):
        builder.launch(number, number)
        builder.kernel(number, 100, 10, stream=stream)
    ((_, lengths, _, value),) = drawn(bars.region_bars(load_trace(builder.write(tmp_path / "t.json")).regions()))
    assert (lengths, value) == (["100.00%", "50.00%"], "10.00 µs")


def test_host_bars(host: Trace) -> None:
    assert [row[3] for row in drawn(bars.region_bars(host.regions(), host=True))] == ["800.00 µs", "200.00 µs"]
    ranking = drawn(bars.operator_bars(operator_sums(host.operators())))
    assert [(row[0], row[3]) for row in ranking] == [
        ("aten::addmm", "600.00 µs"), ("aten::linear", "100.00 µs"), ("aten::sigmoid", "100.00 µs"),
    ]  # fmt: skip


def test_long_names_stay_whole_in_the_page_with_the_part_that_tells_apart_marked(tmp_path: Path) -> None:
    builder = TraceBuilder()
    start, end = "our80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize", "_stage3_warpsize2x2x1_ffma_aligna4_alignc4_cublas"
    for number, tile_size in enumerate(("128x128x8", "64x64x8")):
        builder.kernel(None, 100 * number, 50, name=start + tile_size + end)
    html = bars.kernel_bars(name_sums(load_trace(builder.write(tmp_path / "t.json")).kernels()))
    assert "<b>ze128x128x8_stage3_war</b>" in html and "<b>ze64x64x8_stage3_warps</b>" in html
    assert [row[0] for row in drawn(html)] == [start + "128x128x8" + end, start + "64x64x8" + end]


def test_names_stay_text(tmp_path: Path) -> None:
    builder = gpu_trace()
    builder.region("<b>bold</b> <a href='http://x'>x</a>", 500, 100)
    builder.launch(8, 510)
    builder.kernel(8, 3_000, 900, name="void f<int>(<script>)")
    trace = load_trace(builder.write(tmp_path / "t.json"))
    for shown in (bars.region_bars(trace.regions()), bars.kernel_bars(name_sums(trace.kernels()))):
        assert "<a href" not in shown and "<script" not in shown
    assert "<script" not in bars.facts([("Notes", "<script>x</script>")])


def test_empty_frames_draw_empty_figures() -> None:
    time = dict.fromkeys(
        ("total_ns", "busy_ns", "idle_ns", "computation_ns", "exposed_communication_ns", "exposed_memcpy_ns"), 0
    )
    figures.activity_bar(time)
    bars.region_bars(REGION_TOTALS.empty())
    bars.operator_bars(OPERATOR_SUMS.empty())
    bars.kernel_bars(NAME_SUMS.empty())
    figures.latency_samples([])


def test_a_wrong_frame_is_refused() -> None:
    with pytest.raises(SchemaError) as error:
        bars.region_bars(pd.DataFrame({"path": [("a",)]}))
    assert str(error.value) == "REGION_TOTALS: column 'instances' is missing, found ['path']"


def test_layers() -> None:
    totals = layer_totals(layers().calls)
    heat = figures_layers.layer_heatmap(totals, ["blocks.0", "blocks.1"]).data[0]
    assert np.asarray(heat.z, float).tolist() == [[10.0, 9.0], [20.0, 18.0]]
    assert list(heat.y) == ["blocks.0 · window 14", "blocks.1 · global"]
    lines = figures_layers.layer_lines(totals, ["blocks.0", "blocks.1"]).data
    assert [line.marker.symbol for line in lines] == ["circle"] * 2 + ["diamond"] * 2
    assert [line.showlegend for line in lines] == [None, False] * 2
    drawn = [figures_layers.layer_heatmap(totals, ["blocks.0"]), figures_layers.layer_lines(totals, ["blocks.0"])]
    assert all("per item" in one.to_json() and "image" not in one.to_json() for one in drawn)  # any model's, not SAM's
    assert list(lines[0].y) == pytest.approx([10.0, 9.0]) and list(lines[1].y) == pytest.approx([1.0, 10 / 9])


def test_layers_named_by_numbers_are_names(tmp_path: Path) -> None:
    totals = layer_totals(layers().calls).replace({"blocks.0": "0", "blocks.1": "1"})
    figure = figures_layers.layer_heatmap(totals, ["0", "1"])
    assert (figure.layout.yaxis.type, figure.layout.xaxis.type) == ("category", "category")
    assert figures_layers.layer_lines(totals, ["0"]).layout.xaxis.type == "category"


@pytest.mark.parametrize("dark", [False, True])
def test_every_cell_can_be_read(dark: bool) -> None:
    totals = layer_totals(layers().calls)
    figure = figures_layers.layer_heatmap(totals, ["(model)", "blocks.0", "blocks.1"], dark=dark)
    texts = [text for trace in figure.data[1:] for text in trace.text]
    assert sorted(texts) == ["10.000 ms", "18.000 ms", "20.000 ms", "27.000 ms", "30.000 ms", "9.000 ms"]
    scale = [colour for _, colour in figure.data[0].colorscale]
    for share in np.linspace(0, 1, 101):
        ink = palette.ink_on(scale, share)
        assert contrast(ink, scale, share) >= 4.5  # what WCAG 2 asks of small text


def contrast(ink: str, scale: list[str], share: float) -> float:
    """Contrast of that ink on the colour at that share, as WCAG 2 defines it."""

    def luminance(rgb: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def channels(colour: str) -> list[float]:
        return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]

    low = min(int(share * (len(scale) - 1)), len(scale) - 2)
    part = share * (len(scale) - 1) - low
    pairs = zip(channels(scale[low]), channels(scale[low + 1]), strict=True)
    values = sorted((luminance([a + (b - a) * part for a, b in pairs]), luminance(channels(ink))))
    return (values[1] + 0.05) / (values[0] + 0.05)


def test_memory_of_a_cpu_has_no_reserve_and_long_times_are_seconds() -> None:
    frame = pd.DataFrame(
        {"device": 0, "time_us": [0, 10_000_000], "allocated_bytes": [1 << 20, 2 << 20], "reserved_bytes": 6 << 30}
    ).astype(MEMORY_TIMELINE.dtypes())
    spans = pd.DataFrame({"device": [0], "path": [("encoder",)], "start_us": [0], "end_us": [9_000_000]})
    figure = figures_memory.memory_over_time(frame, spans, reserves=False)
    assert [trace.name for trace in figure.data if trace.name] == ["Requested by tensors"]
    assert list(figure.data[0].x) == [0.0, 10.0] and list(figure.data[0].y) == [1.0, 2.0]
    assert figure.layout.xaxis2.ticksuffix == " s" and list(figure.data[-1].x) == [9.0]


def test_memory_keeps_the_peak_when_thinned() -> None:
    size = 100_000
    allocated = np.full(size, 1 << 20, np.int64)
    allocated[54_321] = 5 << 20
    frame = pd.DataFrame(
        {"device": 0, "time_us": np.arange(size), "allocated_bytes": allocated, "reserved_bytes": 6 << 20}
    ).astype(MEMORY_TIMELINE.dtypes())
    spans = pd.DataFrame({"device": [0], "path": [("encoder",)], "start_us": [10], "end_us": [90_000]})
    figure = figures_memory.memory_over_time(frame, spans)
    line = figure.data[1]
    assert len(line.x) <= 4_100 and max(line.y) == 5.0
    assert figure.layout.annotations[0].text == "<b>peak 5.0 MiB</b>"
    figures_memory.memory_over_time(MEMORY_TIMELINE.empty(), spans.head(0))


def test_a_latency_axis_counts_whole_iterations() -> None:
    for count, step in ((1, 1), (3, 1), (100, 9)):
        axis = figures.latency_samples([10] * count).layout.xaxis
        assert (axis.tick0, axis.dtick, axis.range) == (1, step, (0.4, count + 0.6))


def test_region_table_is_a_tree_with_shares(gpu: Trace) -> None:
    shown = {one.name: one for one in layout(gpu.table("region_overview"))}
    assert shown["path"].indented("  ") == ["timed region", "  image encoder", "  mask decoder"]
    assert list(shown[SHARE_OF_WHOLE].values) == pytest.approx([1.0, 0.9, 0.1])
    assert list(shown["verdict"].cells) == ["mixed", "GPU-bound", "GPU-bound"]


def test_gpu_work_bears_the_colour_of_its_operators_category(tmp_path: Path) -> None:
    """The same kernel in two operators is work of two categories, and of one kind by its name."""
    builder = TraceBuilder()
    for number, operator in enumerate(("aten::addmm", "aten::_softmax")):
        builder.operator(operator, 100 * number, 50)
        builder.launch(number + 1, 100 * number + 10)
        builder.kernel(number + 1, 100 * number + 60, 20, name="elementwise_kernel")
    trace = load_trace(builder.write(tmp_path / "t.json"))
    frames = (trace.gpu_events(), trace.region_instances(), trace.operators(), trace.launch_calls())
    timeline = build_timeline(*frames, trace.threads, work=trace.event_categories())
    about: Any = describe(timeline)
    by_kind, by_operator = (about["schemes"][name]["groups"] for name in ("work", "operator"))
    of_gpu = [code for code, label in enumerate(about["labels"]) if label[0] == "gpu"]
    assert [by_kind[code] for code in of_gpu] == ["elementwise", "elementwise"]
    assert [by_operator[code] for code in of_gpu] == ["matrix product", "reduction"]
    grouped = group_gpu_work(timeline, trace.gpu_events(), "region", trace.threads, work=trace.event_categories())
    assert grouped.labels == timeline.labels


def test_regions_have_the_colours_of_other_pages_whatever_else_is_drawn(tmp_path: Path) -> None:
    builder = TraceBuilder()
    names = [f"part {number}" for number in range(9)]
    for number, name in enumerate(names):
        builder.region(name, 100 * number, 50)
        builder.launch(number + 1, 100 * number + 10)
        builder.kernel(number + 1, 100 * number + 60, 20, name="gemm")
    trace = load_trace(builder.write(tmp_path / "t.json"))
    frames = (trace.gpu_events(), trace.region_instances(), trace.operators(), trace.launch_calls())
    about: Any = describe(build_timeline(*frames, trace.threads, critical=trace.critical_path()))
    drawn = {
        about["paths"][path][-1]: about["colours"][path] for kind, _, path, _ in about["labels"] if kind == "region"
    }
    assert drawn == region_colours(names)


def test_tiles_stay_within_their_budget(tmp_path: Path) -> None:
    builder = TraceBuilder()
    for number in range(4_000):
        builder.kernel(None, number * 2.0, 1.0, stream=number % 20, name=f"k{number % 7}")
    trace = load_trace(builder.write(tmp_path / "t.json"))
    timeline = build_timeline(
        trace.gpu_events(), trace.region_instances(), trace.operators(), trace.launch_calls(), trace.threads
    )
    matches = find_matches(timeline, "k")
    about = describe(timeline)
    end = about["end"]
    assert isinstance(end, int)
    for pixels in (100, 1_500, 8_000):
        for first, last in ((0, end), (0, end // 100), (-end, 2 * end)):
            assert len(tile(timeline, first, last, pixels)) <= BUDGET_BYTES + 4_000
            assert len(tile(timeline, first, last, pixels, matches=matches)) <= BUDGET_BYTES + 4_000
    with pytest.raises(OptionError) as error:
        tile(timeline, 5, 5, 100)
    assert str(error.value) == "view 5 to 5 ns, 100 pixels: expected an end after its start"


def test_every_cause_of_idle_time_has_a_meaning_a_column_and_a_colour() -> None:
    assert list(CAUSES) == list(CAUSE_OF.values()) == list(IDLE_CAUSE)
    assert REGION_UTILIZATION.columns.keys() >= CAUSE_OF.keys()


@pytest.mark.parametrize("colour", IDLE_CAUSE.values())
def test_shares_can_be_read_on_every_colour_of_a_bar(colour: str) -> None:
    drawn = stacked([Part("cause", "1 s", 1.0, colour, "what it is")], "why")
    ink = re.search(r'<text [^>]*fill="(#[0-9A-Fa-f]{6})"', drawn)
    assert ink is not None and contrast(ink[1], [colour, colour], 0) >= 4.5
