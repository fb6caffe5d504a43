"""Compare two runs in a process of its own, which gives back all the memory that two large traces take.

    python -m profiler_kit.comparing A B

Writes the Comparison of two run folders or traces, pickled, to stdout. Of a KitError: one line to stderr, exit code 1.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from profiler_kit.analyses.compare.traces import Comparison
from profiler_kit.errors import InputError, KitError
from profiler_kit.load import cache
from profiler_kit.run import compare_runs, open_run


def compared_apart(a: Path, b: Path) -> Comparison:
    """What changed from run A to run B, which must have traces; raises InputError with what the other process said."""
    command = [sys.executable, "-m", "profiler_kit.comparing", str(a), str(b)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise InputError(said[-1] if said else f"{b}: comparing it with {a} ended without a word ({done.returncode}).")
    found = pickle.loads(done.stdout)  # of this very program
    assert isinstance(found, Comparison)
    return found


def main() -> int:
    """The command above."""
    try:
        first, second = (open_run(path) for path in sys.argv[1:])
        for side in (first, second):
            side.parts.trace.required()
        sys.stdout.buffer.write(pickle.dumps(compare_runs(first, second)))
    except KitError as error:
        sys.stderr.write(" ".join(str(error).split()) + "\n")
        return 1
    cache.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
