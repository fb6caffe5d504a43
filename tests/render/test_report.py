"""The report page: what is on it, what it says of missing parts, and that names cannot break out of it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler_kit.formats.run_record import TRACE
from profiler_kit.render.html import digest
from profiler_kit.render.report.markdown import report_markdown
from profiler_kit.render.report.page import report_page
from profiler_kit.render.report.timeline import BINS, timeline_picture
from profiler_kit.render.svg import line, marks, percent, ticks
from profiler_kit.run import Run, load_run, load_runs
from profiler_kit.tables import tables_of
from profiler_kit.timeline.build import build_timeline
from profiler_kit.trace import load_trace
from tests.app.samples import gpu_trace, host_trace, make_runs, record
from tests.builders import TraceBuilder

ROOT = Path(__file__).parents[2]
SAMPLES = (ROOT / "traces" / "h200-vit_b-eager-fp32", ROOT / "traces" / "h200-vit_b-bf16-compile")
EVIL = "</style><script>alert(1)</script><img src=x onerror=alert(2)>{{body}}\"'`|"
VOID = {"meta", "br", "img", "input", "link"}


class Page(HTMLParser):
    """Checks that every element is closed by itself, and collects text, anchors and what could load something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.tags.append(tag)
        self.loads += [
            f"{name}={value}" for name, value in attrs if name in ("src", "srcset", "data", "action", "style")
        ]
        self.loads += [str(value) for name, value in attrs if name in ("href", "xlink:href") and value[:1] != "#"]
        self.ids += [str(value) for name, value in attrs if name == "id"]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def says(self, text: str) -> bool:
        shown = " ".join(" ".join(self.text).split())
        return text in re.sub(r" (?=[.,;:](?: |$))", "", shown)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("runs") / "runs")


@pytest.fixture(scope="module")
def samples() -> list[Run]:
    return load_runs(SAMPLES)


@pytest.fixture(scope="module")
def both(samples: list[Run]) -> str:
    return report_page(samples)


def test_a_run_is_shown_with_every_part(root: Path) -> None:
    page = Page(report_page([load_run(root / "gpu")]))
    assert page.ids == ["overview", "regions", "timeline", "kernels", "operators", "layers", "memory", "what", "tables"]
    assert page.loads == [] and page.handlers == []
    # kernels of 600, 300 and 100 us in 1,200: 200 us idle before mask decoder's, which was launched long before
    assert page.says("Computation 83.3 % 1.000 ms Idle 16.7 % 200.00 µs")
    assert page.says("Other 100.0 % 200.00 µs")
    assert page.says("image encoder 900.00 µs 90.0 %") and page.says("mask decoder 100.00 µs 10.0 %")
    assert page.says("From batch 1 to 2 the time per item goes from 30.000 ms to 27.000 ms (1.11 times as fast).")
    assert page.says("At its peak 2.0 MiB were allocated inside image encoder.")
    assert page.says("The GPU works 1.000 ms of each 20.000 ms batch: 5 % busy without the profiler")


def test_the_page_may_load_nothing_and_runs_only_its_own_script(both: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', both)
    style, script = re.search(r"<style>(.*?)</style>", both, re.S), re.search(r"<script>(.*?)</script>", both, re.S)
    assert policy and style and script
    assert policy[1] == (
        f"default-src 'none'; script-src '{digest(script[1])}'; style-src '{digest(style[1])}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://|url\(|@import", both)
    assert Page(both).loads == []


def test_the_samples_fit_into_a_pull_request(both: str, samples: list[Run]) -> None:
    assert len(both.encode()) < 500 << 10
    page = Page(both)
    assert len(page.ids) == len(set(page.ids))
    assert page.says("B is 3.71 × faster than A: 80.517 → 21.699 ms a batch of 2 images")
    busy = samples[0].trace.summary()["gpu_timeline"]["busy_ns"]  # type: ignore[union-attr]
    assert page.says(f"busy, {busy / 1e6:.3f} ms.")


def test_every_table_is_on_the_page(samples: list[Run]) -> None:
    run = samples[0]
    page = Page(report_page([run]))
    shown = (
        "regions",
        "region_overview",
        "kernels",
        "operator_work",
        "module_work",
        "live_at_peak",
        "memory_regions",
    )  # they have a section of their own
    for of, source in (("trace", run.trace), ("snapshot", run.snapshot)):
        for table in tables_of(of):  # type: ignore[arg-type]
            title = table.title[:1].upper() + table.title[1:]
            rows = len(table.of_source(source)) if table.arrow is None else 0
            assert table.name in shown or page.says(f"{title} ({rows:,})" if rows else table.title), table.name


def test_a_run_on_a_cpu_shows_host_time(root: Path) -> None:
    page = Page(report_page([load_run(root / "host")]))
    assert page.ids == ["overview", "regions", "timeline", "operators", "what", "tables"]
    assert page.says("No GPU in this run. image encoder took 80 % of the time in regions")
    assert page.says(
        "Not in this run: memory.pickle (memory over time, live at the peak); layers.parquet (time per layer and batch "
        "size)."
    )
    assert page.says("aten::addmm 600.00 µs 75.0 %")  # self time: 100 us of linear, 600 of addmm, 100 of sigmoid


def test_bare_files_make_a_report(root: Path) -> None:
    assert Page(report_page([load_run(root / "bare.json.gz")])).ids[0] == "overview"
    memory = Page(report_page([load_run(root / "gpu" / "memory.pickle")]))
    assert memory.ids == ["overview", "memory", "tables"]
    layers = Page(report_page([load_run(root / "gpu" / "layers.parquet")]))
    assert layers.ids == ["overview", "layers", "tables"]


def test_a_cut_off_trace_and_broken_parts_are_stated(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    record("run").write(folder)
    whole = gpu_trace().write(folder / "whole.json.gz")
    (folder / TRACE).write_bytes(whole.read_bytes()[:-40])
    (folder / "memory.pickle").write_bytes(b"not a pickle")
    run = load_run(folder)
    page = Page(report_page([run]))
    assert page.says("The file is cut off before its end.")
    assert page.says(f"{folder / 'memory.pickle'}:")
    assert page.says("Not in this run: layers.parquet (time per layer and batch size).")
    text = report_markdown([run])
    assert "The file is cut off before its end." in text and "Not in this run: layers.parquet" in text


def test_runs_without_a_trace_are_not_compared_but_shown(root: Path) -> None:
    runs = load_runs([root / "gpu", root / "gpu" / "memory.pickle"])
    page = Page(report_page(runs))
    assert page.says("Not compared: no trace in memory.pickle.")
    assert "run0-regions" in page.ids and "run1-memory" in page.ids
    assert "not compared, no trace in memory.pickle" in report_markdown(runs)


def test_names_cannot_break_out(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region(EVIL, 0, 100)
    trace.operator(EVIL, 1, 50)
    trace.launch(1, 5)
    trace.kernel(1, 10, 50, name=EVIL)
    folder = tmp_path / "<b>&run"
    folder.mkdir()
    trace.write(folder / TRACE)
    run = load_run(folder)
    for page in (report_page([run]), report_page([run, run])):
        parsed = Page(page)
        assert parsed.tags.count("script") == 1 and "img" not in parsed.tags and parsed.handlers == []
        assert parsed.says(EVIL.split("{")[0][:12])
    text = report_markdown([run])
    outside_code = re.sub(r"`[^`]*`", "", re.sub(r"\\.", "", text))  # without what is escaped, and without code
    assert "<" not in outside_code and "onerror" in text


def test_runs_of_one_name_are_told_apart(root: Path, tmp_path: Path) -> None:
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
        host_trace().write(tmp_path / name / TRACE)
    names = [run.name for run in load_runs([tmp_path / "before" / TRACE, tmp_path / "after" / TRACE])]
    assert names == [f"before/{TRACE}", f"after/{TRACE}"]


def test_a_timeline_stays_small_however_many_spans_it_has(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("all", 0, 60_000)
    for number in range(5_000):
        trace.launch(number, number * 10)
        trace.kernel(number, number * 10 + 2, 3, name=f"kernel{number % 7}")
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    launches = loaded.launch_calls().iloc[:0]
    frames = (loaded.gpu_events(), loaded.region_instances(), loaded.operators(), launches)
    index = build_timeline(*frames, loaded.threads)
    picture = timeline_picture(index, {"all": "#4477AA"})
    assert len(picture) < 40 * BINS
    assert "Stream 7: 5,000 GPU events" in picture


def test_markdown_of_the_samples_is_short(samples: list[Run]) -> None:
    one, two = report_markdown(samples[:1]), report_markdown(samples)
    assert len(one.splitlines()) <= 60 and len(two.splitlines()) <= 60
    assert "| &emsp;&emsp;`image encoder` | 140.314 ms | 91.2 % | 137.902 ms | 762 | GPU-bound | 2 |" in one
    assert "- B is 3.71 × faster than A: 80.517 → 21.699 ms a batch of 2 images" in two
    widths = {}
    for text in (one, two):  # every row of a table has the cells of its head
        for row in text.splitlines():
            if row.startswith("|"):
                widths.setdefault(len(re.findall(r"(?<!\\)\|", row)), []).append(row)
            elif widths:
                assert len(widths) == 1
                widths = {}


@pytest.mark.parametrize(
    ("most", "wanted"),
    [(10, [0, 2, 4, 6, 8, 10]), (0.3, [0, 0.1, 0.2, 0.3]), (7, [0, 2, 4, 6]), (0, [0]), (float("nan"), [0])],
)
def test_ticks_are_round(most: float, wanted: list[float]) -> None:
    assert ticks(most) == pytest.approx(wanted)


@given(st.floats(1e-9, 1e15), st.sampled_from([3, 5, 7]))
def test_no_two_ticks_have_the_same_text(most: float, count: int) -> None:
    texts = [text for _, text in marks(most, "GiB", count)]
    assert len(set(texts)) == len(texts) >= 2


def test_lines_and_lengths() -> None:
    assert line([(0, 0), (0.5, 1), (1, 0)], 100) == "M0 100L500 0L1000 100"
    assert line([(0, 0), (0.5, 1), (1, 1)], 100, holds=True) == "M0 100h500v-100h500"
    assert line([(0, 0.5), (0.0004, 0.505), (1, 0)], 100, holds=True) == "M0 50h.5v-.5h999.5v50.5"
    assert [percent(share) for share in (0.1234, 2, -1, 0.5)] == ["12.34%", "100%", "0%", "50%"]


def test_what_is_most_worth_fixing_is_shown_with_its_evidence(both: str, samples: list[Run]) -> None:
    page = Page(both)
    assert page.says("Matrix products in fp32 without tensor cores holds 47.803 ms of each batch (59.0 %)")
    assert "- Worth fixing: **Matrix products in fp32 without tensor cores (holds 47.803 ms" in report_markdown(
        samples[:1]
    )
