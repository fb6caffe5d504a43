"""Killed at any moment: no half file under a final name, no process left, and the next run works and tidies up.

PROFILER_KIT_KILLS says how often each command is killed; without it, two of them once.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from profiler_kit.load import cache
from tests.app.samples import PATIENCE_S, snapshot
from tests.builders import TraceBuilder

KILLS = int(os.environ.get("PROFILER_KIT_KILLS", "0"))
RUN = "from profiler_kit.cli import main; main()"
# what a CPU can do is measured with small matrices: with those of a user it takes ten seconds
LOW = "from profiler_kit.workload import ceilings as c;c._SECONDS, c._SIDE, c._COPY_BYTES = 0, {'cpu': 9}, {'cpu': 9}; "
MINE = "from torch import nn, rand\nmodel = lambda on: nn.Linear(9, 9)\nbatch = lambda n, on: rand(n, 9)\n"
SMALL = ("--device", "cpu", "--warmup", "0", "--iterations", "1")


@dataclass(frozen=True)
class Case:
    """A command. arguments: given the folder it works in. out: what it makes there."""

    arguments: Callable[[Path], list[str]]
    out: str


def a_trace(folder: Path) -> str:
    """Large enough to be cached."""
    path = folder / "in" / "trace.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        trace = TraceBuilder()
        for number in range(1, 41_000):
            trace.launch(number, number * 10)
            trace.kernel(number, number * 10 + 5, 4, name=f"kernel {number % 50}")
        trace.write(path)
        (folder / "in" / "memory.pickle").write_bytes(snapshot())
    return str(path)


def a_model(folder: Path) -> str:
    path = folder / "in" / "mine.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(MINE + "step = lambda model, batch: model(batch)\n")
    return str(path)


CASES = {
    "cache": Case(lambda folder: ["summary", a_trace(folder)], "cache"),
    "export": Case(lambda folder: ["export", a_trace(folder), "-o", str(folder / "out" / "t.json.gz")], "out"),
    "report": Case(lambda folder: ["report", a_trace(folder), "-o", str(folder / "out" / "r.html")], "out"),
    "memory": Case(
        lambda folder: [
            *("memory", str(Path(a_trace(folder)).with_name("memory.pickle"))),
            *("--html", str(folder / "out" / "m.html")),
        ],
        "out",
    ),
    "capture": Case(
        lambda folder: ["capture", a_model(folder), "--out", str(folder / "out" / "run"), "--overwrite", *SMALL],
        "out",
    ),
    "ladder": Case(
        lambda folder: [
            *("ladder", a_model(folder), "--out", str(folder / "out" / "ladder"), "--resume"),
            *("--rows", "bf16", *SMALL),
        ],
        "out",
    ),
}


@pytest.mark.parametrize("name", CASES if KILLS else ("cache", "capture"))
def test_a_killed_command_leaves_nothing_half_done(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    command = [sys.executable, "-c", LOW + RUN if name == "ladder" else RUN, *case.arguments(tmp_path)]
    tried = tmp_path / "tried"
    tried.mkdir()
    since = time.monotonic()
    whole(start([*command[:3], *case.arguments(tried)], tried), name)
    took = time.monotonic() - since
    moments = random.Random(name)
    for number in range(kills := KILLS or 1):
        killed = start(command, tmp_path)
        with contextlib.suppress(subprocess.TimeoutExpired):
            killed.wait(took * (number + moments.random()) / kills)
        killed.kill()
        killed.communicate()
        until = time.monotonic() + PATIENCE_S
        while of(tmp_path) and time.monotonic() < until:
            time.sleep(0.05)
        assert not of(tmp_path), "a process goes on"
        check(tmp_path / case.out)
    whole(start(command, tmp_path), name)
    check(tmp_path / case.out)
    left = [path for path in tmp_path.rglob(".*") if path.name.startswith((".tmp-", ".old-"))]
    assert not left
    if name == "cache":  # a file is kept from its second reading on, when it is surely settled
        assert any((tmp_path / case.out).iterdir())
    else:
        assert listing(tmp_path / case.out) == listing(tried / case.out)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start(command: list[str], folder: Path) -> subprocess.Popen[str]:
    env = {**os.environ, cache.FOLDER_VARIABLE: str(folder / "cache"), "TMPDIR": str(folder), "KILLS_OF": str(folder)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, stdin=subprocess.DEVNULL, text=True)


def whole(process: subprocess.Popen[str], name: str) -> None:
    out, err = process.communicate()
    assert process.returncode == 0, f"{name}: {out[-2000:]}{err[-2000:]}"


def of(folder: Path) -> list[int]:
    """The processes that were started in the folder, and those that they started."""
    mark = f"KILLS_OF={folder}".encode()
    found = []
    for place in Path("/proc").glob("[1-9]*"):
        with contextlib.suppress(OSError):
            if mark in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def check(folder: Path) -> None:
    """Every file with a final name is whole."""
    for path in folder.rglob("*") if folder.exists() else ():
        hidden = any(part.startswith(".tmp-") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file() or "inductor" in str(path).lower():
            continue
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        if path.name.endswith((".json", ".json.gz")):
            json.loads(data)
        elif path.suffix == ".pickle":
            pickle.loads(data)
        elif path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".html":
            assert data.rstrip().endswith(b"</html>")


def test_ladder_rows_end_with_the_ladder(tmp_path: Path) -> None:
    """The process of a row is in a session of its own, which a kill of the ladder does not reach."""
    command = [sys.executable, "-c", LOW + RUN, *CASES["ladder"].arguments(tmp_path)]
    ladder = start(command, tmp_path)
    until = time.monotonic() + PATIENCE_S
    while not any(b"profiler_kit.workload.row" in line(one) for one in of(tmp_path)):
        assert ladder.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    ladder.send_signal(signal.SIGKILL)
    ladder.communicate()
    while of(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert not of(tmp_path)


def line(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""
