"""`python -m profiler_kit.load.cache.facts_child TRACE`: put what a large trace file is into the cache, out of the way.

The dashboard starts it when a large trace is loaded, so that Doctor finds the answer there: in a process of its own,
with low priority, since the same work in a thread would make every page wait that is drawn meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from profiler_kit.errors import KitError
from profiler_kit.load.cache.store import load_file_facts


def main() -> None:
    """Read the file named on the command line; what is wrong with it is told to whoever asks for its facts."""
    with contextlib.suppress(OSError, AttributeError):  # not everywhere
        os.nice(10)
    with contextlib.suppress(KitError, OSError):
        load_file_facts(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
