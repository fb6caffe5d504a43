"""Runs from outside the folder that is served: opened by path, or dropped on the page and kept while the server runs.

Only where a token keeps others of the machine out: whoever reaches the server could read every file of its user.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import itertools
import os
import threading
from pathlib import Path
from urllib.parse import quote

from profiler_kit.errors import InputError
from profiler_kit.files import temporary_folder
from profiler_kit.load.discover.runs import RunFolder, run_at
from profiler_kit.text import fmt_bytes

PREFIX = "opened:"  # a key of the served folder never holds a colon
DROP_MB = 256  # the browser's copy is held in memory until it is written
MOST_BYTES = 1 << 30  # of all dropped files together: the oldest ones go
MOST = 50  # that are listed
_opened: dict[str, Path] = {}
_dropped: list[tuple[Path, int]] = []  # and their sizes
_numbers = itertools.count(1)
_home: list[Path] = []  # the folder of dropped files, made for the first one
_kept = contextlib.ExitStack()
atexit.register(_kept.close)
_lock = threading.Lock()


def allowed() -> bool:
    """Whether the server asks for a token."""
    return bool(os.environ.get("PROFILER_KIT_TOKEN"))


def by_path(text: str) -> str:
    """Open the run at a path of the server's machine; returns its key. Raises InputError when there is none."""
    path = Path(text.strip().strip("'\"")).expanduser()
    if not path.is_absolute():
        raise InputError(f"{text}: a relative path, expected an absolute one. Try: {Path.cwd() / path}")
    run_at(path)  # raises what is wrong with it
    return _open(path.resolve(), str(path.resolve()))


def drop(name: str, data: bytes | memoryview) -> str:
    """Keep a file that was dropped on the page and open it; returns its key.

    Raises InputError when it is larger than all dropped files may be.
    """
    size = len(data)
    if size > MOST_BYTES:
        raise InputError(f"{name}: {fmt_bytes(size)}, expected at most {fmt_bytes(MOST_BYTES)}. Open it by its path.")
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in Path(name).name).lstrip(".")
    with _lock:
        if not _home or not _home[0].is_dir():  # the system may have emptied its folder for such files
            _home[:] = [_kept.enter_context(temporary_folder())]
        path = _home[0] / str(next(_numbers)) / (plain[-100:] or "file")
        try:
            path.parent.mkdir()
            path.write_bytes(data)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise InputError(
                f"{name}: not kept ({error.strerror}), expected room for it. Open it by its path."
            ) from error
        _dropped.append((path, size))
        while sum(of for _, of in _dropped) > MOST_BYTES:
            gone, _ = _dropped.pop(0)
            gone.unlink(missing_ok=True)
    return _open(path, "/".join(path.parts[-2:]))


def find(key: str) -> RunFolder | None:
    """The run with that key; None when it was not opened, or is gone."""
    path = _opened.get(key)
    if path is None:
        return None
    with contextlib.suppress(InputError, OSError):
        return dataclasses.replace(run_at(path), key=key)
    return None


def every() -> list[RunFolder]:
    """What was opened and is still there, the latest first."""
    found = (find(key) for key in reversed(list(_opened)))
    return [run for run in found if run is not None]


def _open(path: Path, name: str) -> str:
    key = PREFIX + quote(name)
    with _lock:
        _opened.pop(key, None)
        _opened[key] = path
        for oldest in list(_opened)[:-MOST]:
            del _opened[oldest]
    return key
