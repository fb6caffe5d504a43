"""Every command where nothing can be printed or written: no traceback, and the exit code that the README names."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from profiler_kit.cli import commands
from profiler_kit.formats.run_record import LAYERS, MEMORY, TRACE
from tests.app.samples import make_job
from tests.cli.run import profiler_kit

ROOT = Path(__file__).parents[2]
RUN = ROOT / "traces" / "h200-vit_b-eager-fp32"
SHOWN = {
    "advice": [RUN],
    "demo": ["--help"],
    "capture": ["--help"],
    "serve": ["--help"],
    "layers": [RUN / LAYERS],
    "ladder": [ROOT / "traces" / "h200-vit_b-ladder"],
    "study": [ROOT / "traces" / "h200-vit_b-study"],
    "memory": [RUN / MEMORY],
    "diff": [RUN, ROOT / "traces" / "h200-vit_b-bf16-compile"],
    "query": [RUN / TRACE, "SELECT * FROM gpu_events"],
    "export": [RUN / TRACE, "--time", "0:5", "-o", "out.json.gz"],
    "report": [RUN, "-o", "out.html"],
}


def arguments(name: str, folder: Path) -> list[str | Path]:
    """Something that the command shows; what is not named above takes a trace."""
    return [name, *([make_job(folder)] if name == "ranks" else SHOWN.get(name, [RUN / TRACE]))]


def close_output() -> None:
    os.close(1)


def close_errors() -> None:
    os.close(2)


def close_everything() -> None:
    os.closerange(0, 3)


def fill_output() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 1)


def fill_errors() -> None:
    os.dup2(os.open("/dev/full", os.O_WRONLY), 2)


def leave_output() -> None:
    """As `head -1` does, at once."""
    reads, writes = os.pipe()
    os.close(reads)
    os.dup2(writes, 1)


def speak_ascii() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="ascii", errors="strict")  # type: ignore[union-attr]


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * 1024, 8 * 1024))


FULL = "profiler-kit: standard output: cannot be written ({}). Free some space, or print to another file.\n"


@pytest.mark.parametrize(
    ("first", "code"),
    [
        (close_output, 0),
        (close_errors, 0),
        (close_everything, 0),
        (fill_output, 1),
        (fill_errors, 0),
        (leave_output, 0),
        (speak_ascii, 0),
        (small_files, None),
    ],
)
@pytest.mark.parametrize("name", commands())
def test_every_command_ends_as_it_should(
    name: str, first: Callable[[], object], code: int | None, tmp_path: Path
) -> None:
    done = profiler_kit(*arguments(name, tmp_path), cwd=tmp_path, first=first)
    said = done.err.splitlines()
    assert "Traceback" not in done.out + done.err and "Exception ignored" not in done.err
    if first is fill_output and not done.code:  # it prints nothing on standard output
        assert name == "memory" or list(tmp_path.glob("out.*"))
    elif first is fill_output:
        assert done.code == 1 and done.err.endswith(FULL.format("No space left on device"))
    elif first is small_files:
        assert done.code in (0, 1) and (not done.code or "cannot be written (File too large)" in said[-1])
    else:
        assert done.code == code, done.err
    if name in ("export", "report") and first is not small_files:
        assert [path.name for path in tmp_path.glob("out.*")] == [SHOWN[name][-1]]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", commands())
def test_bad_input_and_usage_keep_their_codes(name: str, tmp_path: Path) -> None:
    for first in (close_output, close_everything, fill_errors):
        assert profiler_kit(name, "--no-such-option", cwd=tmp_path, first=first).code == 2
    if name not in ("demo", "capture"):
        nowhere = ["nowhere", *(str(one) for one in SHOWN.get(name, [])[1:])]
        assert profiler_kit(name, *nowhere, cwd=tmp_path, first=close_everything).code == 1


def test_a_failed_threshold_is_told_to_nobody_and_still_fails(tmp_path: Path) -> None:
    slower = ("diff", ROOT / "traces" / "h200-vit_b-bf16-compile", RUN, "--fail-above", "5%")
    for first in (close_output, close_everything, leave_output, fill_output):
        assert profiler_kit(*slower, cwd=tmp_path, first=first).code == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("kernels {trace} >&-", 0),
        ("kernels {trace} >&- 2>&-", 0),
        ("kernels nowhere >&- 2>&-", 1),
        ("kernels {trace} --json <&- >&- 2>&-", 0),
        ("kernels {trace} --json | head -1", 0),
        ("kernels {trace} > /dev/full", 1),
        ("--help > /dev/full", 1),
        ("export {trace} --time 0:5 -o out.json >&-", 0),
    ],
)
def test_as_a_shell_starts_it(command: str, code: int, tmp_path: Path) -> None:
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -m profiler_kit.cli {command}"
    done = subprocess.run(
        ["bash", "-c", line.replace("{trace}", shlex.quote(str(RUN / TRACE)))],
        cwd=tmp_path,
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
    ("export", str(RUN / TRACE), "--time", "0:5", "-o", "{}.json"),
    ("report", str(RUN), "-o", "{}.html"),
    ("report", str(RUN), "--markdown", "-o", "{}.md"),
    ("memory", str(RUN / MEMORY), "--html", "{}.html"),
    ("ladder", str(ROOT / "traces" / "h200-vit_b-ladder"), "--png", "{}.png"),
)


@pytest.mark.parametrize("command", WRITERS, ids=lambda command: command[0])
def test_what_cannot_be_written_is_one_line(command: tuple[str, ...], tmp_path: Path) -> None:
    ending = Path(command[-1]).suffix
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / "file").touch()
    for target, code in (("folder", 1), ("file/below", 1), ("x" * 300, 1), ("/proc/nowhere/out", 1), ("new/out", 0)):
        done = profiler_kit(*command[:-1], command[-1].format(target), cwd=tmp_path)
        assert done.code == code and "Traceback" not in done.err
        if code:
            assert len(done.err.splitlines()) == 1 and done.err.startswith("profiler-kit: ")
    assert not list(tmp_path.rglob(".*"))
