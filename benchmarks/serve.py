"""Measure how long `profiler-kit serve` takes until it answers (folder in, seconds out).

    python benchmarks/serve.py [DIR] [--times 5]

Each time a fresh process: seconds from its start to the first answer, and to the whole start page of plain HTML.
"""

from __future__ import annotations

import argparse
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

from profiler_kit.load.discover.runs import default_root

PATIENCE_S = 60.0


def main() -> None:
    """Start the server several times and print the median."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", nargs="?", type=Path, help="folder of runs; default: ./traces or the samples")
    options.add_argument("--times", type=int, default=5)
    chosen = options.parse_args()
    samples = [start(chosen.folder or default_root()) for _ in range(chosen.times)]
    for name, values in zip(("first answer", "start page"), zip(*samples, strict=True), strict=True):
        listed = ", ".join(f"{value:.2f}" for value in values)
        print(f"{name:<13} {statistics.median(values):.2f} s (median of {listed})")


def start(folder: Path) -> tuple[float, float]:
    """Seconds until the server answers, and until it has sent the start page."""
    since = time.perf_counter()
    with serving(folder) as (_, url):
        return time.perf_counter() - since, wait_for(f"{url}/", since)


@contextmanager
def serving(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The dashboard over a folder in a process of its own, once it answers, and its address."""
    port = free_port()
    options = ["--port", str(port), "--no-browser", "--no-token"]
    command = [sys.executable, "-m", "profiler_kit.cli", "serve", str(folder), *options]
    since = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{url}/_stcore/health", since)
        yield process, url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, since: float) -> float:
    """Seconds from `since` until the address has answered."""
    while time.perf_counter() - since < PATIENCE_S:
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return time.perf_counter() - since
        except OSError:
            time.sleep(0.02)
    sys.exit(f"{url}: no answer within {PATIENCE_S:.0f} s")


if __name__ == "__main__":
    main()
