"""Run the command line as a user would, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


def profiler_kit(*args: str | Path, cwd: Path | None = None) -> Finished:
    command = [sys.executable, "-m", "profiler_kit.cli", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=1200, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)
