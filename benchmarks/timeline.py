"""Measure the timeline in a real browser beside Plotly bars: spans in; first paint, pan, zoom and bytes a view out.

    python benchmarks/timeline.py [--spans 10000000] [--bars 100000] [--output benchmarks/results/timeline.json]

The trace: the events of a sample run repeated, ids and times apart, until that many spans can be drawn. Its columns are
put into the loader's cache, beside a stub of the JSON that nobody has to write and parse; from there on everything is
what the dashboard does with any large trace. Peer: the same run's first GPU events as Plotly bars, in the same browser.

first paint: from the click on the page's link in the open dashboard to the first picture with data; also from typing
an address, which loads Streamlit's own script first. pan, zoom: from the event to the picture, once as drawn from the
tile at hand (frame) and once with the tile of that very view (sharp). All times in ms.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

import numpy as np
import plotly.graph_objects as go
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.serve import serving
from profiler_kit.load.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, keep
from profiler_kit.load.discover.runs import samples_root
from profiler_kit.load.trace.cached import SMALLEST_JSON_BYTES, TRACES, find_trace
from profiler_kit.load.trace.chrome import ChromeTrace, read_chrome_trace
from profiler_kit.timeline.cached import trace_timeline
from profiler_kit.trace import Trace

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SAMPLE = "h200-vit_b-eager-fp32"
SHIFTED = ("correlation", "external_id", "python_id", "python_parent_id")
_SINCE = time.perf_counter()
VIEW_BYTES, FRAME_MS, FIRST_MS = 50_000, 30.0, 1_000.0

# In the page: send events to the canvas, resolve with [ms to the next picture, ms to the tile of that view] of each.
DEEP = """const deep = selector => document.querySelector(selector)
  ?? [...document.querySelectorAll('[data-testid=stMain] *')].map(e => e.shadowRoot?.querySelector(selector))
    .find(Boolean);
"""
OPEN = f"""link => new Promise(resolve => {{
  {DEEP}
  const since = performance.now();
  link.click();
  const look = () => deep('canvas[data-sharp]') ? resolve(performance.now() - since) : requestAnimationFrame(look);
  requestAnimationFrame(look);
}})"""
MOVES = (
    f"""([selector, kind, times]) => new Promise(async resolve => {{
  {DEEP}
  const canvas = deep(selector);
"""
    + """  const timeline = canvas.closest('.tl').timeline, took = [];
  const after = test => new Promise(done => {
    const watch = new MutationObserver(() => { if (test()) { watch.disconnect(); done(performance.now()); } });
    watch.observe(canvas, { attributes: true });
  });
  const rest = () => new Promise(done => setTimeout(done, 120));
  for (let i = 0; i < 6; i++) timeline.zoom(0.6, timeline.gutter + timeline.plot * 0.5); // room to move and to zoom out
  await new Promise(done => setTimeout(done, 1000));
  for (let i = 0; i < times; i++) {
    const before = canvas.dataset.t0 + canvas.dataset.t1;
    const frame = after(() => canvas.dataset.t0 + canvas.dataset.t1 !== before);
    const since = performance.now();
    if (kind === 'zoom') {
      const box = canvas.getBoundingClientRect(), clientX = box.x + 300 + 500 * ((i * 0.618) % 1);
      const deltaY = i % 20 < 10 ? -240 : 240;
      canvas.dispatchEvent(new WheelEvent('wheel', { deltaY, clientX, clientY: box.y + 60, cancelable: true }));
    } else {
      canvas.dispatchEvent(new KeyboardEvent('keydown', { key: i % 10 < 5 ? 'd' : 'a' }));
    }
    const view = () => `${timeline.view.t0},${timeline.view.t1}`;
    const sharp = after(() => canvas.dataset.sharp === view());
    took.push([await frame - since, await sharp - since, Number(canvas.dataset.tileBytes)]);
    await rest();
  }
  resolve(took);
})"""
)
PLOTLY = """times => new Promise(async resolve => {
  const plot = document.querySelector('.js-plotly-plot'), took = [];
  const [a, b] = plot.layout.xaxis.range, width = b - a;
  for (let i = 0; i < times; i++) {
    const since = performance.now(), shift = width * 0.002 * (i % 7);
    await Plotly.relayout(plot, { 'xaxis.range': [a + shift, a + shift + width * (0.5 + 0.05 * (i % 5))] });
    await new Promise(requestAnimationFrame);
    took.push(performance.now() - since);
  }
  resolve(took);
})"""


def main() -> None:
    """Make the trace, measure both, print and keep the figures; exit code 1 when a limit is not met."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--spans", type=int, default=10_000_000)
    options.add_argument("--bars", type=int, default=100_000, help="Plotly bars of the peer; 0 leaves it out")
    options.add_argument("--times", type=int, default=40, help="pans, zooms")
    options.add_argument("--loads", type=int, default=5, help="navigations for the first paint")
    options.add_argument("--output", type=Path)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="profiler_kit-") as folder:
        os.environ[FOLDER_VARIABLE] = str(Path(folder) / "cache")
        os.environ[LIMIT_VARIABLE] = "50GB"
        run = Path(folder) / "runs" / "grown.json"
        run.parent.mkdir()
        found = {"machine": f"{os.cpu_count()} cores, {platform.machine()}", **make(run, chosen.spans)}
        with sync_playwright() as playwright, serving(run.parent) as (_, url):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            found["browser"] = f"Chromium {browser.version}, drawn by the CPU"
            found["timeline"] = measure(browser, url, run.name, chosen.loads, chosen.times)
            keep_figures(found, chosen.output)
            if chosen.bars:
                found["plotly"] = {"bars": chosen.bars, **measure_plotly(browser, Path(folder), chosen.bars)}
            browser.close()
    show(found)
    keep_figures(found, chosen.output)
    mine = found["timeline"]
    within = mine["bytes_a_view"]["most"] <= VIEW_BYTES and mine["first_paint_ms"]["p50"] <= FIRST_MS
    sys.exit(0 if within and max(mine[kind]["frame_ms"]["p50"] for kind in ("pan", "zoom")) <= FRAME_MS else 1)


def keep_figures(found: dict[str, Any], output: Path | None) -> None:
    """Write what is known so far."""
    if output:
        output.write_text(json.dumps(found, indent=2) + "\n")


def make(run: Path, spans: int) -> dict[str, Any]:
    """Put a trace of that many drawable spans into the cache, and its drawing index; says how long the latter took."""
    root = samples_root()
    assert root is not None, "the sample runs are not there"
    sample = read_chrome_trace(root / SAMPLE / "trace.json.gz")
    drawable = sum(track_spans(Trace(sample)))
    grown = grow(sample, -(-spans // drawable))
    say("columns repeated")
    with run.open("wb") as stub:
        stub.truncate(SMALLEST_JSON_BYTES)
    os.utime(run, (time.time() - 60, time.time() - 60))
    entry = find_trace(TRACES, run)
    assert entry is not None
    keep(entry, dataclasses.replace(grown, path=run))
    assert entry.file.is_file()
    say("trace cached")
    trace = Trace(grown)
    frames = (trace.gpu_events, trace.region_instances, trace.operators, trace.launch_calls)
    frames_s = timed(lambda: [frame() for frame in frames])
    index_s = timed(lambda: trace_timeline(run, lambda: trace))
    again_s = timed(lambda: trace_timeline(run, lambda: trace))
    say("index built")
    drawn = sum(track.spans for track in trace_timeline(run, lambda: trace).tracks)
    file = entry.file.with_suffix(".timeline")
    return {
        "trace": f"{SAMPLE} repeated {-(-spans // drawable)} times",
        "events": len(grown.columns),
        "spans": drawn,
        "attribute_s": frames_s,
        "index_build_s": index_s,
        "index_from_file_s": again_s,
        "index_file_mb": file.stat().st_size / 1e6 if file.is_file() else 0.0,  # quick to build is not kept
    }


def track_spans(trace: Trace) -> list[int]:
    """How many spans each track of a trace draws."""
    frames = (trace.gpu_events(), trace.operators(), trace.launch_calls())
    regions = trace.region_instances()
    return [*map(len, frames), len(regions), int(regions["gpu_start_ns"].notna().sum())]


def grow(sample: ChromeTrace, times: int) -> ChromeTrace:
    """The events of a trace `times` times in a row, each copy later and with ids of its own."""
    columns = sample.columns
    width = int((columns.start_ns + columns.dur_ns).max() - columns.start_ns.min()) + 2_000_000
    copy = np.repeat(np.arange(times, dtype=np.int64), len(columns))
    integers = {}
    for name, values in columns.integers.items():
        out = np.tile(values, times)
        if name in SHIFTED and (values > 0).any():
            out = np.where(out > 0, out + copy * (int(values.max()) + 1), out)
        integers[name] = out
    grown = dataclasses.replace(
        columns,
        name=np.tile(columns.name, times),
        category=np.tile(columns.category, times),
        thread=np.tile(columns.thread, times),
        start_ns=np.tile(columns.start_ns, times) + copy * width,
        dur_ns=np.tile(columns.dur_ns, times),
        integers=integers,
    )
    return dataclasses.replace(sample, columns=grown)


def say(what: str) -> None:
    """Tell on stderr what is done, and when."""
    print(f"{time.perf_counter() - _SINCE:6.1f} s  {what}", file=sys.stderr, flush=True)


def timed(work: Any) -> float:
    """Seconds it takes."""
    since = time.perf_counter()
    work()
    return time.perf_counter() - since


def measure(browser: Browser, url: str, key: str, loads: int, times: int) -> dict[str, Any]:
    """First paint over several navigations, then pans and zooms on the last page."""
    opened: list[float] = []
    for _ in range(loads + 1):  # the first one of a server that has nothing in memory
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(f"{url}/timeline?run={key}", wait_until="commit")
        page.wait_for_selector("canvas[data-sharp]", timeout=180_000)
        opened.append(float(page.evaluate("performance.now()")))
        say(f"first paint from the address: {opened[-1]:.0f} ms")
        page.wait_for_selector("[data-testid=stDataFrame]", timeout=300_000)  # the trace itself is loaded now
        if len(opened) <= loads:
            page.close()
    say("the trace itself is loaded")
    first = []
    for _ in range(loads):
        page.get_by_role("link", name="Memory", exact=True).click()
        page.wait_for_selector("h1:has-text('Memory')")
        page.wait_for_timeout(1_000)
        first.append(float(page.get_by_role("link", name="Timeline", exact=True).evaluate(OPEN)))
        page.wait_for_selector("[data-testid=stDataFrame]", timeout=300_000)
    say(f"first paint: {first}")
    page.wait_for_timeout(1_500)
    moves = {kind: page.evaluate(MOVES, ["canvas[aria-label]", kind, times]) for kind in ("zoom", "pan")}
    sizes = [size for took in moves.values() for _, _, size in took]
    say("moved")
    searched = search(page)
    say("searched")
    return {
        "first_paint_ms": spread(first),
        "first_paint_from_address_ms": spread(opened[1:]),
        "first_paint_of_a_new_server_ms": opened[0],
        **{
            kind: {"frame_ms": spread([t[0] for t in took]), "sharp_ms": spread([t[1] for t in took])}
            for kind, took in moves.items()
        },
        "bytes_a_view": {"n": len(sizes), "p50": statistics.median(sizes), "most": max(sizes)},
        **searched,
    }


def search(page: Page) -> dict[str, float]:
    """The first search for a name, and steps from match to match."""
    asked = (
        "async back => {"
        + DEEP
        + """
      const root = deep('.tl');
      const { server, by, lanes } = root.timeline;
      const rows = lanes.tracks.flatMap(t => Array.from({ length: t.rows }, (_, i) => t.first + i));
      const since = performance.now();
      const answer = await server.search(by, 'gemm', rows, { t: back ? 1e12 : -1, row: -1 }, back);
      return [performance.now() - since, answer.total];
    }"""
    )
    first = page.evaluate(asked, False)
    steps = [page.evaluate(asked, back)[0] for back in (True, False) * 5]
    return {"search_matches": first[1], "search_first_ms": first[0], "search_step_ms": statistics.median(steps)}


def measure_plotly(browser: Browser, folder: Path, bars: int) -> dict[str, Any]:
    """The sample's GPU events, repeated to that many, as one Plotly bar each; page with plotly.js inline."""
    root = samples_root()
    assert root is not None
    events = Trace(read_chrome_trace(root / SAMPLE / "trace.json.gz")).gpu_events()
    start = events["start_ns"].to_numpy() - int(events["start_ns"].min())
    times = -(-bars // len(events))
    width = int(start.max()) + 2_000_000
    begin = (np.tile(start, times) + np.repeat(np.arange(times) * width, len(start)))[:bars]
    dur = np.tile(events["dur_ns"].to_numpy(), times)[:bars]
    figure = go.Figure(go.Bar(base=begin / 1e6, x=dur / 1e6, y=["Stream 7"] * bars, orientation="h"))
    file = folder / "plotly.html"
    since = time.perf_counter()
    figure.write_html(file, include_plotlyjs=True)
    made = time.perf_counter() - since
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(300_000)
    page.goto(file.as_uri(), wait_until="commit")
    page.wait_for_selector(".js-plotly-plot .bars path", timeout=300_000)
    page.evaluate("new Promise(requestAnimationFrame)")
    painted = float(page.evaluate("performance.now()"))
    say(f"Plotly's first paint: {painted:.0f} ms")
    moves = page.evaluate(PLOTLY, 2)
    return {
        "write_s": made,
        "page_mb": file.stat().st_size / 1e6,
        "first_paint_ms": painted,
        "zoom_ms": spread(moves),
    }


def spread(values: list[float]) -> dict[str, float]:
    """n, median, 95th percentile, least and most."""
    ordered = sorted(values)
    return {
        "n": len(ordered),
        "p50": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))],
        "least": ordered[0],
        "most": ordered[-1],
    }


def show(found: dict[str, Any]) -> None:
    """Print the figures."""
    print(f"{found['trace']}: {found['events']:,} events, {found['spans']:,} spans")
    print(
        f"index built in {found['index_build_s']:.2f} s, mapped again in {1000 * found['index_from_file_s']:.0f} ms, "
        f"{found['index_file_mb']:.0f} MB"
    )
    mine = found["timeline"]
    address, cold = mine["first_paint_from_address_ms"], mine["first_paint_of_a_new_server_ms"]
    print(f"first paint {line(mine['first_paint_ms'])}")
    print(f"first paint from an address, Streamlit's own start included {line(address)}; of a new server {cold:.0f} ms")
    for kind in ("pan", "zoom"):
        print(f"{kind}: frame {line(mine[kind]['frame_ms'])}; sharp {line(mine[kind]['sharp_ms'])}")
    size = mine["bytes_a_view"]
    print(f"bytes a view: median {size['p50']:,.0f}, most {size['most']:,} (n = {size['n']})")
    print(
        f"search: {mine['search_matches']:,} matches, first {mine['search_first_ms']:.0f} ms, "
        f"a step {mine['search_step_ms']:.0f} ms"
    )
    if "plotly" in found:
        peer = found["plotly"]
        print(
            f"Plotly, {peer['bars']:,} bars: first paint {peer['first_paint_ms']:,.0f} ms, "
            f"zoom {line(peer['zoom_ms'])}, page {peer['page_mb']:.1f} MB"
        )


def line(values: dict[str, float]) -> str:
    """One spread as text."""
    return f"p50 {values['p50']:.1f} ms, p95 {values['p95']:.1f} ms (n = {values['n']})"


if __name__ == "__main__":
    main()
