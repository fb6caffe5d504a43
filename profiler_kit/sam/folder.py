"""Make a run folder whole or not at all: built under a temporary name beside it, renamed at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from profiler_kit.errors import OptionError
from profiler_kit.record import RECORD


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise OptionError when a run cannot be written to `target`, before any work is done for it.

    With `overwrite` a run folder or an empty folder may be there; anything else is left alone.
    """
    if not target.name:
        raise OptionError(
            f"--out {target}: this names no folder of its own, want a new one. Try --out {target / 'run'}."
        )
    check_place(target, target)
    if not os.path.lexists(target):
        return
    if not target.is_dir() or target.is_symlink():
        raise OptionError(f"--out {target}: this is a file, want a new folder. Choose another --out.")
    if not overwrite:
        raise OptionError(f"--out {target}: this folder is there already. Choose another --out, or add --overwrite.")
    if not (target / RECORD).is_file() and any(target.iterdir()):
        raise OptionError(
            f"--out {target}: this folder holds something other than a run (no {RECORD}), --overwrite does not touch "
            "it. Choose another --out."
        )


def check_place(out: Path, target: Path) -> None:
    """Raise OptionError when nothing can be written at `target`; `out` is what the option --out says."""
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise OptionError(f"--out {out}: {folder} is a file, want a folder. Choose another --out.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OptionError(f"--out {out}: {folder} cannot be written. Choose another --out.")


@contextlib.contextmanager
def whole_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a new empty folder beside `target`; make it `target` when the block ends, remove it when it raises.

    The temporary name starts with a dot, so that no listing of runs shows it. With `overwrite` the folder there
    before is removed only once the new one is complete.

    Raises OptionError as `check_target`, at the start and once more at the end.
    """
    check_target(target, overwrite=overwrite)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had the same id
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        raise OptionError(
            f"--out {target}: the folder cannot be made ({error.strerror}). Choose another --out."
        ) from error
    try:
        yield temporary
        check_target(target, overwrite=overwrite)
        old = target.with_name(f".old-{os.getpid()}-{target.name}")
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
