"""Killed at any moment: no half file under a final name, no process left, and the next run works and tidies up.

PROFILER_KIT_KILLS says how often each command is killed; without it, two of them once. `python -m tests.test_kills 6
[NAME...]` kills each so often (those that train three times), and prints what became of it as JSON.
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
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from profiler_kit.load import cache
from tests.app.samples import PATIENCE_S, snapshot
from tests.builders import TraceBuilder
from tests.flight_dumps import two
from tests.jobs import SimulatedJob

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
    """Large enough to be cached, and of yesterday, so that it is kept when it is read."""
    path = folder / "in" / "trace.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        trace = TraceBuilder()
        for number in range(1, 41_000):
            trace.launch(number, number * 10)
            trace.kernel(number, number * 10 + 5, 4, name=f"kernel {number % 50}")
        trace.write(path)
        os.utime(path, (time.time() - 86_400,) * 2)
        (folder / "in" / "memory.pickle").write_bytes(snapshot())
    return str(path)


def a_model(folder: Path) -> str:
    path = folder / "in" / "mine.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(MINE + "step = lambda model, batch: model(batch)\n")
    return str(path)


def a_job(folder: Path) -> str:
    job = folder / "in" / "job"
    if not job.exists():
        SimulatedJob(ranks=6, steps=40, cause="compute").write(job)
    return str(job)


def runs(folder: Path) -> str:
    for name in ("monday", "tuesday"):
        if not (folder / "out" / name).exists():
            SimulatedJob(ranks=3, steps=20, cause="compute").write(folder / "out" / name)
    return str(folder / "out")


def training(folder: Path) -> list[str]:
    """Of a student; what was begun goes on."""
    out = folder / "out" / "student"
    how = (*("--steps", "2", "--scenes", "2", "--batch-size", "2", "--device", "cpu"), "--out", str(out))
    resume = ("--resume",) if (out / "state.pt").exists() else ()
    names = ("--teacher", "vit_tiny", "--backbone", "cas_vit_tiny")
    return ["sam", "student", "train", *names, *how, *resume]


def quantizing(folder: Path) -> list[str]:
    out = folder / "out" / "int8.pt2"
    if not (folder / "out" / "student").exists():
        whole(start([sys.executable, "-c", RUN, *training(folder)], folder), "train")
    how = ("--scenes", "2", "--batch-size", "2", "--out", str(out))
    return ["sam", "student", "quantize", str(folder / "out" / "student"), *how]


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
    "ranks": Case(lambda folder: ["ranks", a_job(folder), "--store", str(folder / "out" / "store")], "out"),
    "ranks by processes": Case(
        lambda folder: ["ranks", a_job(folder), "--workers", "2", "--store", str(folder / "out" / "store")], "out"
    ),
    "trend": Case(lambda folder: ["trend", runs(folder)], "out"),
    "export of ranks": Case(
        lambda folder: ["export", a_job(folder), "--ranks", "0,1", "-o", str(folder / "out" / "job.json.gz")], "out"
    ),
    "flight": Case(lambda folder: ["flight", str(two(folder / "out" / "dumps"))], "out"),
    "train": Case(training, "out"),
    "quantize": Case(quantizing, "out"),
}
HEAVY, HEAVY_KILLS = ("capture", "ladder", "train", "quantize"), 3


@pytest.mark.parametrize("name", CASES if KILLS else ("cache", "capture"))
def test_a_killed_command_leaves_nothing_half_done(tmp_path: Path, name: str) -> None:
    killed(name, tmp_path, KILLS or 1)


def killed(name: str, folder: Path, kills: int) -> int:
    """Kill a command so often, at moments spread over the time it takes; how often it had not ended by itself."""
    case = CASES[name]
    program = LOW + RUN if name == "ladder" else RUN
    tried = folder / "tried"
    tried.mkdir()
    arguments = case.arguments(tried)
    since = time.monotonic()
    whole(start([sys.executable, "-c", program, *arguments], tried), name)
    took = time.monotonic() - since
    moments = random.Random(name)
    reached = 0
    for number in range(kills):
        process = start([sys.executable, "-c", program, *case.arguments(folder)], folder)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(took * (number + moments.random()) / kills)
        process.kill()
        process.communicate()
        reached += process.returncode == -signal.SIGKILL
        until = time.monotonic() + PATIENCE_S
        while of(folder) and time.monotonic() < until:
            time.sleep(0.05)
        assert not of(folder), "a process goes on"
        check(folder / case.out)
    whole(start([sys.executable, "-c", program, *case.arguments(folder)], folder), name)
    check(folder / case.out)
    left = [path for path in folder.rglob(".*") if path.name.startswith((".tmp-", ".old-"))]
    assert not left
    if name == "cache":
        assert any((folder / case.out).iterdir())
    else:
        assert listing(folder / case.out) == listing(tried / case.out)
    return reached


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
    waits = "import time\nstep = lambda model, batch: time.sleep(9_999)\n"
    Path(a_model(tmp_path)).write_text(MINE + waits)
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


if __name__ == "__main__":
    most, *names = sys.argv[1:]
    found: dict[str, object] = {}
    for name in names or CASES:
        kills = min(int(most), HEAVY_KILLS) if name in HEAVY else int(most)
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found[name] = {"kills": kills, "before its end": killed(name, Path(scratch), kills), "wrong": ""}
            except AssertionError as error:
                found[name] = {"kills": kills, "wrong": str(error)[-1000:]}
        print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)
    print(json.dumps({"command": f"python -m tests.test_kills {' '.join(sys.argv[1:])}", "commands": found}, indent=1))
