"""Run the command line as a user would, in a process of its own.

The process is forked from one that has imported what most commands import (preload.py), which takes most of their time,
and that has done nothing else. A command says how far it is after two seconds; here never, so that a busy machine does
not add lines to what a test compares.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler_kit import cli, progress

HANGS_S = 1200  # only what hangs gets there
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["tests.cli.preload", "tests.cli.surroundings", __name__])


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


def profiler_kit(*args: str | Path, cwd: Path | None = None, first: Callable[[], object] | None = None) -> Finished:
    """first: what the process does before all else, to its own descriptors or limits."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        command = ["profiler-kit", *map(str, args)]
        process = _FORKING.Process(
            target=_run, args=(command, str(cwd or Path.cwd()), dict(os.environ), out, err, first)
        )
        process.start()
        process.join(HANGS_S)
        process.kill()
        process.join()
        assert process.exitcode is not None
        return Finished(process.exitcode, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8"))


def _run(
    command: Sequence[str],
    cwd: str,
    environment: dict[str, str],
    out: Path,
    err: Path,
    first: Callable[[], object] | None,
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in ((sys.stdout, out), (sys.stderr, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), stream.fileno())
    if first is not None:
        first()
    sys.argv = list(command)

    progress.SHOW_AFTER_S = float("inf")
    cli.main()
