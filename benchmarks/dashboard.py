"""Measure the dashboard in a real browser: a folder of runs in; start, page switches and memory of the server out.

    python benchmarks/dashboard.py [DIR] [--run KEY] [--times 5] [--output benchmarks/results/dashboard.json]

start: seconds from a fresh process to its first answer, --times times. first visit, switch: seconds from the click on
a page's link until its script has run to the end and its pictures are drawn; a first visit is the first time this
server shows that page, a switch is any time after. memory: resident set of the server process, after every page has
been open.
Without --run each run with a trace is visited in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from playwright.sync_api import Page, sync_playwright

from benchmarks.serve import serving, start
from profiler_kit.load.discover.runs import default_root, find_runs

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE_S = 120
# Runs in the browser: clicks, and resolves with the milliseconds until the page is whole. A component hides its canvas
# in a shadow root, where `deep` finds it.
SWITCH = """link => new Promise((resolve, reject) => {
  const deep = selector => document.querySelector(selector) ?? [...document.querySelectorAll('[data-testid=stMain] *')]
    .map(host => host.shadowRoot?.querySelector(selector)).find(Boolean);
  const path = '/' + link.getAttribute('href').split('?')[0], since = performance.now();
  link.click();
  const whole = () => {
    const app = document.querySelector('[data-testid=stApp]'), head = document.querySelector('h1');
    const canvas = deep('.tl canvas'), here = location.pathname === path;
    const drawn = !canvas || canvas.dataset.sharp;
    return here && head && app.dataset.testScriptState === 'notRunning' && drawn
      && !document.querySelector('[data-stale=true]') && !document.querySelector('[data-testid=stSkeleton]');
  };
  let started = false;
  const look = () => {
    const state = document.querySelector('[data-testid=stApp]').dataset.testScriptState;
    started ||= state === 'running' || location.pathname === path && performance.now() - since > 250;
    if (started && whole()) return resolve(performance.now() - since);
    if (performance.now() - since > 60000) return reject(new Error(`${path} never came to rest: `
      + [location.pathname, document.querySelector('h1')?.textContent, deep('.tl canvas')?.dataset.sharp,
        document.querySelector('[data-testid=stApp]').dataset.testScriptState].join()));
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})"""


def main() -> None:
    """Start the server, visit every page of every run, print and keep the figures."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", nargs="?", type=Path, help="folder of runs; default: ./traces or the samples")
    options.add_argument("--run", help="key of the only run to visit")
    options.add_argument("--times", type=int, default=5, help="visits of each page after the first")
    options.add_argument("--output", type=Path, help="JSON file to keep the figures in, by name of the folder")
    chosen = options.parse_args()
    folder = chosen.folder or default_root()
    keys = [chosen.run] if chosen.run else [run.key for run in find_runs(folder) if run.trace is not None]
    found = measure(folder, keys, chosen.times)
    show(found)
    if chosen.output:
        kept = json.loads(chosen.output.read_text()) if chosen.output.is_file() else {}
        chosen.output.write_text(json.dumps({**kept, folder.resolve().name: found}, indent=2) + "\n")


def measure(folder: Path, keys: list[str], times: int) -> dict[str, Any]:
    """Everything about one folder; times in seconds."""
    starts = [start(folder)[0] for _ in range(times)]
    with serving(folder) as (server, url), sync_playwright() as playwright:
        empty = resident_mb(server.pid)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(PATIENCE_S * 1000)
        runs = {key: visit(page, url, key, times) for key in keys}
        browser.close()
        return {
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
            "start_s": starts,
            "memory_mb": {
                "nothing open": empty,
                "every page open": resident_mb(server.pid),
                "most": most_mb(server.pid),
            },
            "runs": runs,
        }


def visit(page: Page, url: str, key: str, times: int) -> dict[str, Any]:
    """First visit and switches of each page of a run, going round them in turn."""
    since = time.perf_counter()
    page.goto(f"{url}/?{urlencode({'run': key})}")
    page.wait_for_function(
        "document.querySelector('h1') && document.querySelector('[data-testid=stApp]').dataset.testScriptState"
        " === 'notRunning'"
    )
    opened = time.perf_counter() - since
    links = page.locator("[data-testid=stSidebar] [data-testid=stPageLink-NavLink]")
    links.first.wait_for()
    titles = [link.inner_text().strip() for link in links.all()]
    titles = [*titles[1:], titles[0]]  # the first one is open already
    first: dict[str, float] = {}
    switches: dict[str, list[float]] = {title: [] for title in titles}
    for turn in range(times + 1):
        for title in titles:
            took = links.filter(has_text=re.compile(f"^{re.escape(title)}$")).first.evaluate(SWITCH) / 1000
            if turn == 0:
                first[title] = took
            else:
                switches[title].append(took)
            page.wait_for_timeout(150)
    return {"opened_s": opened, "first_visit_s": first, "switch_s": switches}


def resident_mb(pid: int) -> float:
    """Resident set of a process, in MB of a million bytes."""
    return _status(pid, "VmRSS")


def most_mb(pid: int) -> float:
    """The largest that set has been."""
    return _status(pid, "VmHWM")


def _status(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / 1e6


def show(found: dict[str, Any]) -> None:
    """Print medians and the slowest."""
    starts = found["start_s"]
    print(
        f"start {statistics.median(starts):.2f} s (n = {len(starts)}, {min(starts):.2f} to {max(starts):.2f}) · "
        + " · ".join(f"{k} {v:.0f} MB" for k, v in found["memory_mb"].items())
    )
    for key, run in found["runs"].items():
        print(f"{key}: opened in {run['opened_s']:.2f} s")
        for title, values in run["switch_s"].items():
            spread = (
                f"{statistics.median(values):.2f} s, slowest {max(values):.2f} s of {len(values)}" if values else "-"
            )
            print(f"  {title:<12} first {run['first_visit_s'][title]:.2f} s, then {spread}")


if __name__ == "__main__":
    main()
