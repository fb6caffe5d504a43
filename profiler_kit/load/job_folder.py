"""What was said about the folder of a job, kept beside what was read of its ranks, so that it is said again at once.

It counts while all that it came from is what it was: the words of the command, this package, the user's names of
communication, and each name, size and time in the folder. The standard library is enough to tell that: importing what
reads and computes takes longer than looking at a thousand files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from profiler_kit.errors import KitError
from profiler_kit.files import SETTLED_NS, whole_file
from profiler_kit.settings import names_of_settings

STORE_SUFFIX: Final = ".ranks"  # of the folder that keeps what was read of a job
DEPTH: Final = 4  # folders below the job's that are looked into: job/run/node/rank
MOST_KEPT: Final = 16
MOST_BYTES: Final = 64 << 20  # of all that is kept of one job: 10,000 ranks as JSON are 6 MB
_FOLDER: Final = "answers"
_CONTROL: Final = re.compile(
    r"\\u00(?:[01]|7f|[89])|\\[rbf]|[\x7f-\x9f]", re.IGNORECASE
)  # in JSON; a terminal may obey it


class State(NamedTuple):
    """What a folder holds, as a digest; settled: whether any further change would show in its times."""

    digest: str
    settled: bool


def state_of(folder: str) -> State:
    """The state of a folder: the names in it and below, the size and time of each file."""
    seen, found = hashlib.sha256(), time.time_ns()
    newest = 0

    def look(path: str, depth: int) -> None:
        nonlocal newest
        with os.scandir(path) as listed:
            entries = sorted(listed, key=lambda entry: entry.name)
        newest = max(newest, os.stat(path).st_mtime_ns)  # noqa: PTH116
        for entry in entries:
            seen.update(os.fsencode(entry.name))
            if entry.is_dir(follow_symlinks=False):
                if depth and not entry.name.startswith(".") and not entry.name.endswith(STORE_SUFFIX):
                    look(entry.path, depth - 1)
                continue
            about = entry.stat()
            newest = max(newest, about.st_mtime_ns)
            seen.update(f"\0{about.st_size} {about.st_mtime_ns} {about.st_ctime_ns}\n".encode())
        seen.update(b"\0\n")

    try:
        look(folder, DEPTH)
    except OSError:  # a link to nothing, a folder that may not be looked into: nothing is kept
        return State("", False)
    return State(seen.hexdigest(), newest < found - SETTLED_NS)


def kept(words: Sequence[str]) -> list[Any] | None:
    """What was said when the command had these words, of which one is the folder of a job; None unless that counts."""
    folders = {os.path.realpath(word): word for word in words if "\0" not in word and os.path.isdir(word)}  # noqa: PTH112
    for real, word in folders.items():
        for root in (real + STORE_SUFFIX, word):
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                text = _file(root, words).read_text("utf-8")
                record = None if _CONTROL.search(text) else json.loads(text)
                if record and record["folder"] in folders:
                    of = _made_from(words, record["folder"], state_of(record["folder"]))
                    return list(record["said"]) if record["of"] == of else None
    return None


def keep(root: str, words: Sequence[str], folder: str, state: State, said: list[Any]) -> None:
    """Keep what was said in the store `root`, as far as it can be written; the oldest go.

    state: of the folder before it was read.
    """
    if not state.settled:
        return
    record = {"folder": folder, "of": _made_from(words, folder, state), "said": said}
    file = _file(root, words)
    text = json.dumps(record)
    if len(text) > MOST_BYTES:
        return
    with contextlib.suppress(OSError, KitError):
        with whole_file(file) as temporary:
            temporary.write_text(text, "utf-8")
        _clear(file.parent)


def _clear(folder: Path) -> None:
    """Remove the oldest answers beyond what may be kept; another process may be doing the same."""
    found: list[tuple[int, int, Path]] = []
    for file in folder.glob("*.json"):
        with contextlib.suppress(FileNotFoundError):
            about = file.stat()
            found.append((about.st_mtime_ns, about.st_size, file))
    held = 0
    for number, (_, size, file) in enumerate(sorted(found, reverse=True)):
        held += size
        if number >= MOST_KEPT or held > MOST_BYTES:
            file.unlink(missing_ok=True)


def _file(root: str, words: Sequence[str]) -> Path:
    return Path(root) / _FOLDER / f"{hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()[:32]}.json"


def _made_from(words: Sequence[str], folder: str, state: State) -> str:
    package = Path(__file__).parents[1]
    files = (*package.rglob("*.py"), *package.rglob("*.[ch]"))
    code = [(str(file), about.st_size, about.st_mtime_ns) for file in files if (about := file.stat())]
    parts = [list(words), folder, state.digest, sorted(code), sys.version, names_of_settings()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
