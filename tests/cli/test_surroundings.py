"""Every command where nothing can be printed or written: no traceback, and the exit code that the README names."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from profiler_kit.cli import commands
from profiler_kit.formats.request_file import write_requests
from tests.app.samples import gpu_trace, make_job, make_runs
from tests.cli.run import profiler_kit
from tests.cli.surroundings import (
    close_errors,
    close_everything,
    close_output,
    fill_errors,
    fill_output,
    leave_output,
    small_files,
    speak_ascii,
)
from tests.flight_dumps import two
from tests.serving.samples import a_load, rows_of, served

ROOT = Path(__file__).parents[2]
SHOWN = {
    "advice": ["gpu"],
    "demo": ["--help"],
    "capture": ["--help"],
    "serve": ["--help"],
    "sam": ["compare", "load.jsonl", "load.jsonl"],
    "requests": ["served"],
    "layers": ["gpu"],
    "ladder": [str(ROOT / "traces" / "h200-vit_b-ladder")],
    "study": [str(ROOT / "traces" / "h200-vit_b-study")],
    "memory": ["gpu/memory.pickle"],
    "ranks": ["job"],
    "trend": ["job"],
    "flight": ["dumps"],
    "diff": ["gpu", "bare.json.gz"],
    "query": ["bare.json.gz", "SELECT * FROM gpu_events"],
    "export": ["bare.json.gz", "--time", "0:5", "-o", "out.json.gz"],
    "report": ["gpu", "-o", "out.html"],
}  # what else there is takes a trace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, and a job of two ranks."""
    root = make_runs(tmp_path_factory.mktemp("surroundings") / "runs")
    make_job(root)
    a_load(root)
    two(root / "dumps")
    (root / "served").mkdir()
    (root / "served" / "trace.json.gz").write_bytes((root / "bare.json.gz").read_bytes())
    write_requests(root / "served" / "requests.parquet", rows_of(served()))
    return root


FULL = "profiler-kit: standard output: cannot be written ({}). Free some space, or print to another file.\n"


SURROUNDINGS = ((fill_output, 1), (close_everything, 0), (leave_output, 0), (speak_ascii, 0), (small_files, None))


@pytest.mark.parametrize(
    ("name", "first", "code"),
    [
        (name, first, code)
        for number, name in enumerate(commands())
        for turn, (first, code) in enumerate(SURROUNDINGS)
        if turn == 0 or (number + turn) % 4 == 0 or name in ("export", "report")  # each in turn: they share one way out
    ],
)
def test_every_command_ends_as_it_should(
    name: str, first: Callable[[], object], code: int | None, folder: Path
) -> None:
    done = profiler_kit(name, *SHOWN.get(name, ["bare.json.gz"]), cwd=folder, first=first)
    assert "Traceback" not in done.out + done.err and "Exception ignored" not in done.err
    if first is fill_output:
        assert done.code == 1 and done.err.endswith(FULL.format("No space left on device"))
    elif first is small_files:
        assert done.code in (0, 1)
        assert not done.code or "cannot be written (File too large)" in done.err.splitlines()[-1]
    else:
        assert done.code == code, done.err
    assert (folder / SHOWN[name][-1]).is_file() if name in ("export", "report") else True
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("name", commands())
def test_bad_input_and_usage_keep_their_codes(name: str, folder: Path) -> None:
    assert profiler_kit(name, "--no-such-option", cwd=folder, first=close_everything).code == 2
    if name not in ("demo", "capture", "sam"):  # of sam the first word is a command
        nowhere = ["nowhere", *SHOWN.get(name, [])[1:]]
        assert profiler_kit(name, *nowhere, cwd=folder, first=close_everything).code == 1


@pytest.mark.parametrize(
    "first", [close_output, close_errors, close_everything, fill_output, fill_errors, leave_output]
)
def test_a_failed_threshold_fails_whoever_listens(first: Callable[[], object], folder: Path, tmp_path: Path) -> None:
    slower = gpu_trace()
    slower.launch(9, 320)
    slower.kernel(9, 1300, 900, name="gemm")
    after = slower.write(tmp_path / "after.json")
    assert profiler_kit("diff", folder / "bare.json.gz", after, "--fail-above", "5%", first=first).code == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("summary bare.json.gz >&-", 0),
        ("kernels bare.json.gz >&- 2>&-", 0),
        ("summary nowhere >&- 2>&-", 1),
        ("summary bare.json.gz --json <&- >&- 2>&-", 0),
        ("kernels bare.json.gz --json | head -1", 0),
        ("summary bare.json.gz > /dev/full", 1),
        ("--help > /dev/full", 1),
        ("export bare.json.gz --time 0:5 -o out.json >&-", 0),
    ],
)
def test_as_a_shell_starts_it(command: str, code: int, folder: Path) -> None:
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m profiler_kit.cli {command}"
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == code
        and "Traceback" not in done.stderr
        and len(done.stderr.splitlines()) == (code and ">&-" not in command)
    )


WRITERS = (
    ("export", "bare.json.gz", "--time", "0:5", "-o", "{}.json"),
    ("report", "gpu", "-o", "{}.html"),
    ("report", "gpu", "--markdown", "-o", "{}.md"),
    ("memory", "gpu/memory.pickle", "--html", "{}.html"),
    ("ladder", str(ROOT / "traces" / "h200-vit_b-ladder"), "--png", "{}.png"),
)


@pytest.mark.parametrize("command", WRITERS, ids=lambda command: command[0])
def test_what_cannot_be_written_is_one_line(command: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    ending = Path(command[-1]).suffix
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / "file").touch()
    for target, code in (("folder", 1), ("file/below", 1), ("x" * 300, 1), ("/proc/nowhere/out", 1), ("new/out", 0)):
        done = profiler_kit(*command[:-1], tmp_path / command[-1].format(target), cwd=folder)
        assert done.code == code and "Traceback" not in done.err
        if code:
            assert len(done.err.splitlines()) == 1 and done.err.startswith("profiler-kit: ")
    assert not list(tmp_path.rglob(".*"))
