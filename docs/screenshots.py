"""Remake docs/*.png: a folder of runs in, one picture of each page out. Needs Chromium and playwright.

python docs/screenshots.py [DIR] [--run KEY] [--only PAGE ...]

Beside the runs of the folder the two ranks of tests/golden/ddp are shown, for the page of that name.
"""

from __future__ import annotations

import argparse
import io
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from profiler_kit.load.discover.runs import default_root, find_runs

DOCS = Path(__file__).resolve().parent
RANKS = DOCS.parent / "tests" / "golden" / "ddp"
MOST_BYTES = 200_000
PERFETTO_MS = 20_000  # until its plugins have run
NO_LADDER = "No ladder here yet"
BASELINE = "h200-vit_b-eager-fp32"  # what the samples are compared with
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIZE = {"width": 1440, "height": 900}


# Picture -> (page, more of the address, dark).
PICTURES: dict[str, tuple[str, dict[str, str], bool]] = {
    "runs": ("", {}, False),
    "overview": ("overview", {}, False),
    "overview-dark": ("overview", {}, True),
    "timeline": ("timeline", {}, False),
    "regions": ("regions", {}, False),
    "regions-dark": ("regions", {}, True),
    "idle": ("idle", {}, False),
    "kernels": ("kernels", {}, False),
    "kernels-dark": ("kernels", {"by": "By kind of work"}, True),
    "operators": ("operators", {}, False),
    "operators-launches": ("operators", {"view": "Launches"}, False),
    "layers": ("layers", {}, False),
    "memory": ("memory", {}, False),
    "compare": ("compare", {"run": BASELINE}, False),
    "compare-dark": ("compare", {"run": BASELINE, "view": "Layers"}, True),
    "ladder-page": ("ladder", {}, False),
    "ranks": ("ranks", {"run": "ddp/ddp_rank1.json.gz"}, False),
    "tables": ("tables", {"table": "idle"}, False),
    "perfetto": ("perfetto", {}, False),
    "doctor": ("doctor", {}, False),
}


def main() -> None:
    """Serve the folder, draw each page, stop."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", nargs="?", type=Path, help="folder of runs; default: ./traces or the samples")
    options.add_argument("--run", help="key of the run to show; default: the first with trace, memory and layers")
    options.add_argument("--only", nargs="*", default=list(PICTURES), help="names of the pictures to take")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(chosen.folder or default_root(), Path(place) / "traces"))
        shutil.copytree(RANKS, folder / "ddp")
        run = chosen.run or richest(folder)
        port = free_port()
        command = [
            sys.executable,
            "-m",
            "profiler_kit.cli",
            "serve",
            "traces",
            "--port",
            str(port),
            "--no-browser",
            "--no-token",
        ]
        server = subprocess.Popen(
            command, cwd=place, stdout=subprocess.DEVNULL
        )  # so that no path of this machine shows
        try:
            wait_for(f"http://127.0.0.1:{port}/_stcore/health")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
                for name in chosen.only:
                    page, address, dark = PICTURES[name]
                    there = (folder / address.get("run", "")).exists()  # a folder of other runs has no sample
                    query = urlencode({"run": run, **address} if there else {**address, "run": run})
                    url = f"http://127.0.0.1:{port}/{page}{f'?{query}' if page else ''}"  # that of all runs has none
                    draw(browser, url, DOCS / f"{name}.png", dark=dark)
                browser.close()
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(10)


def richest(folder: Path) -> str:
    """The key of the run that has most of trace, memory and layers."""
    runs = find_runs(folder)
    if not runs:
        sys.exit(f"{folder}: no runs to show. Record one with: profiler-kit capture")
    return max(
        runs, key=lambda run: sum(part is not None for part in (run.record, run.trace, run.memory, run.layers))
    ).key


def draw(browser: Browser, url: str, path: Path, *, dark: bool = False) -> None:
    """One page, as tall as it needs to be, at most 1,300 pixels."""
    context = browser.new_context(viewport=SIZE, color_scheme="dark" if dark else "light", device_scale_factor=1.5)
    page = context.new_page()
    page.goto(url)
    settle(page)
    tall = page.evaluate("document.querySelector('[data-testid=\"stMain\"]').scrollHeight")
    page.set_viewport_size({"width": SIZE["width"], "height": min(max(tall, 500), 1300)})
    settle(page)
    if "/perfetto?" in url:
        page.wait_for_timeout(PERFETTO_MS)
    if page.get_by_text(NO_LADDER).count():  # a picture of nothing
        context.close()
        return
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    # A third of the bytes; maximum coverage keeps the colours of small areas, which the median cut mixes.
    for colours in (256, 128, 64, 32):
        few = picture.quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        if path.stat().st_size <= MOST_BYTES:
            break
    context.close()
    print(path)


def settle(page: Page) -> None:
    """Wait until the page no longer changes."""
    page.wait_for_selector("h1")
    page.wait_for_selector('[data-test-script-state="notRunning"]')
    page.wait_for_function("!document.querySelector('[data-testid=\"stSkeleton\"]')")
    page.wait_for_timeout(2500)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str) -> None:
    """Wait until the server answers."""
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except OSError:  # refused, reset, or not in time
            time.sleep(0.1)
    sys.exit(f"{url}: the server does not answer")


if __name__ == "__main__":
    main()
