"""Measure the memory page against torch's own in a real browser (snapshots in, table and JSON out).

    python benchmarks/memory_html.py SNAPSHOT... [--times 5] [--out benchmarks/results/memory_html.json]

For each snapshot: bytes and seconds of generating our page and torch's (torch.cuda._memory_viz.trace_plot), then in
Chromium, from a file and without a network: seconds from opening to the first drawing, a zoom, a click in the
allocator's state, a movement of the mouse, each until the frame after it has been presented. torch's page imports its
script from a CDN, so that it stays blank here; what it shows is recorded as elements drawn.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from playwright.sync_api import Browser, Error, Page, ViewportSize, sync_playwright
from torch.cuda import _memory_viz as memory_viz

from profiler_kit.render.memory_page.page import memory_page
from profiler_kit.snapshot import Snapshot, load_snapshot

PATIENCE_MS = 60_000
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
VIEWPORT: ViewportSize = {"width": 1280, "height": 900}
FRAME = "await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
TIMED = f"async (act) => {{ const since = performance.now(); act(); {FRAME}; return performance.now() - since; }}"
ZOOM = f"() => ({TIMED})(() => memoryPage.zoom(0.6, memoryPage.axis.ofState(memoryPage.device.peak_state)))"
PLACE = """const box = byId("chart").getBoundingClientRect(), clientX = box.x + 76 + share * (box.width - 92);
    const send = (kind, clientY) =>
        byId("chart").dispatchEvent(new PointerEvent(kind, { clientX, clientY, pointerId: 1, bubbles: true }));"""
CLICK = f"""async (share) => {{ {PLACE} const before = memoryPage.moment;
    const took = await ({TIMED})(() => {{ send("pointerdown", box.y + 60); send("pointerup", box.y + 60); }});
    if (memoryPage.moment === before) throw new Error("the click chose no moment");
    return took; }}"""
HOVER = f"async (share) => {{ {PLACE} return ({TIMED})(() => send('pointermove', box.y + box.height - 60)); }}"
DRAWN = "document.querySelectorAll('svg, canvas, pre, select').length"


def main() -> None:
    """Measure each snapshot and write the results."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("snapshots", nargs="+", type=Path)
    options.add_argument("--times", type=int, default=5)
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory_html.json")
    chosen = options.parse_args()
    results: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count(), "pages": []}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=found, args=FLAGS)
        results["chromium"] = browser.version
        for path in chosen.snapshots:
            results["pages"].append(measure(browser, path, Path(folder), chosen.times))
            chosen.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        browser.close()
    print(f"Chromium {results['chromium']}, {results['cores']} cores; median of n, slowest in brackets")
    for page in results["pages"]:
        print("\n".join(lines(page)))


def measure(browser: Browser, path: Path, folder: Path, times: int) -> dict[str, Any]:
    """Everything about one snapshot."""
    since = time.perf_counter()
    snapshot = load_snapshot(path)
    loading = time.perf_counter() - since
    events = {device: len(snapshot.replay(device).rows) for device in snapshot.devices}
    ours = folder / "ours.html"
    seconds = [generate(load_snapshot(path) if number else snapshot, ours) for number in range(min(times, 3))]
    page = {"snapshot": path.name, "events": sum(events.values()), "load_s": loading}
    page["ours"] = {"bytes": ours.stat().st_size, "generate_s": seconds, **in_browser(browser, ours, times)}
    page["torch"] = of_torch(browser, path, folder / "torch.html")
    return page


def generate(snapshot: Snapshot, out: Path) -> float:
    """Seconds from a loaded snapshot, nothing of it computed yet but the totals, to the page on disk."""
    since = time.perf_counter()
    out.write_text(memory_page(snapshot, "benchmark"), encoding="utf-8")
    return time.perf_counter() - since


def in_browser(browser: Browser, path: Path, times: int) -> dict[str, Any]:
    """Milliseconds of opening the page in a fresh context, and of what is done in it."""
    found: dict[str, list[float]] = {"first_drawing_ms": [], "first_state_ms": []}
    for _ in range(times):
        context = browser.new_context(viewport=VIEWPORT)
        page = context.new_page()
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=120_000)
        drawn = page.evaluate(f"async () => {{ {FRAME}; return performance.now(); }}")
        found["first_drawing_ms"].append(drawn)
        found["first_state_ms"].append(page.evaluate(f"() => ({TIMED})(() => memoryPage.show('state'))"))
        if len(found["first_drawing_ms"]) < times:
            context.close()
    found |= acts(page)
    context.close()
    return found


def acts(page: Page) -> dict[str, list[float]]:
    """Milliseconds of twelve zooms, twenty clicks in the allocator's state, and twenty movements of the mouse."""
    clicks = [page.evaluate(CLICK, (7 * number % 20 + 0.5) / 20) for number in range(20)]
    page.evaluate("() => { memoryPage.clear(); memoryPage.show('memory'); }")
    hovers = [page.evaluate(HOVER, (7 * number % 20 + 0.5) / 20) for number in range(20)]
    zooms = [page.evaluate(ZOOM) for _ in range(12)]
    return {"state_click_ms": clicks, "hover_ms": hovers, "zoom_ms": zooms}


def of_torch(browser: Browser, path: Path, out: Path) -> dict[str, Any]:
    """torch's page of the same snapshot (a file of our own making, or one that is trusted: this unpickles it)."""
    data = pickle.loads(path.read_bytes())
    since = time.perf_counter()
    out.write_text(memory_viz.trace_plot(data), encoding="utf-8")
    seconds = time.perf_counter() - since
    page = browser.new_page()
    errors: list[str] = []
    page.on(
        "requestfailed", lambda request: errors.append(f"{Path(urlsplit(request.url).path).name}: {request.failure}")
    )
    drawn = None
    try:
        page.goto(out.as_uri(), timeout=PATIENCE_MS)
        page.wait_for_timeout(3000)
        drawn = page.evaluate(DRAWN)
    except Error as error:
        errors.append(str(error).splitlines()[0])
    page.close()
    return {"bytes": out.stat().st_size, "generate_s": [seconds], "elements_drawn_offline": drawn, "failed": errors}


def lines(page: dict[str, Any]) -> list[str]:
    """The table of one snapshot."""
    ours, torch = page["ours"], page["torch"]
    rows = [f"{page['snapshot']}: {page['events']:,} events, loaded in {page['load_s']:.2f} s"]
    rows.append(f"  {'bytes':<18} ours {ours['bytes'] / 1e6:.2f} MB, torch {torch['bytes'] / 1e6:.2f} MB")
    rows.append(
        f"  {'generating':<18} ours {spread(ours['generate_s'], 's')}, torch {spread(torch['generate_s'], 's')}"
    )
    names = ("first_drawing_ms", "zoom_ms", "first_state_ms", "state_click_ms", "hover_ms")
    rows += [f"  {name[:-3]:<18} ours {spread(ours[name], 'ms')}" for name in names]
    drawn = torch["elements_drawn_offline"]
    rows.append(f"  torch's page without a network draws {drawn} elements: {torch['failed']}")
    return rows


def spread(values: list[float], unit: str) -> str:
    digits = 2 if unit == "s" else 0
    return f"{statistics.median(values):.{digits}f} {unit} (n {len(values)}, {max(values):.{digits}f})"


if __name__ == "__main__":
    main()
