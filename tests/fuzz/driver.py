"""Run the worker over many mutated files: a range of numbers in, one verdict per file out, whatever kills a worker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.worker import HANGS_S, SECONDS

ROOT = Path(__file__).parents[2]


def verdicts(first: int, last: int, folder: Path) -> Iterator[dict[str, Any]]:
    """One Verdict (as a dict) per file; a file that ends its worker is "killed", and a new worker goes on behind it."""
    while first < last:
        command = [sys.executable, "-m", "tests.fuzz.worker", str(first), str(last), str(folder)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None and worker.stderr is not None
            begun: int | None = None
            for line in worker.stdout:
                message = json.loads(line)
                begun = message.get("start")
                if begun is None:
                    first = message["file"] + 1
                    yield message
            said = worker.stderr.read()
        if begun is None:
            if first < last:
                raise RuntimeError(f"the worker ended with {worker.returncode} before file {first}: {said[-2000:]}")
            return
        late = {-signal.SIGPROF: f"longer than {SECONDS} s", -signal.SIGALRM: f"waited for {HANGS_S} s"}
        why = late.get(worker.returncode, f"exit code {worker.returncode}")
        yield {"file": begun, "outcome": "killed", "seconds": SECONDS, "problems": [f"{why}: {said[-500:]}"]}
        first = begun + 1
