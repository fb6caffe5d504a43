"""Make a run folder whole or not at all: built under a temporary name beside it, renamed at the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from profiler_kit.errors import OptionError
from profiler_kit.formats.run_record import RECORD

_LEFT: Final = re.compile(r"\.(?P<kind>tmp|old)-(?P<pid>[1-9]\d{0,9})-(?P<name>.+)")


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise OptionError when a run cannot be written to `target`, before any work is done for it.

    With `overwrite` a run folder or an empty folder may be there; anything else is left alone.
    """
    if not target.name:
        raise OptionError(f"{target}: this names no folder of its own, expected a new one. Try {target / 'run'}.")
    check_place(target, target)
    if not os.path.lexists(target):
        return
    if not target.is_dir() or target.is_symlink():
        raise OptionError(f"{target}: this is a file, expected a new folder. Choose another name.")
    if not overwrite:
        raise OptionError(f"{target}: this folder exists already. Choose another name, or add --overwrite.")
    if not (target / RECORD).is_file() and any(target.iterdir()):
        raise OptionError(
            f"{target}: this folder holds something other than a run (no {RECORD}), --overwrite does not touch "
            "it. Choose another name."
        )


def check_place(out: Path, target: Path) -> None:
    """Raise OptionError when nothing can be written at `target`; `out` is what the option --out says."""
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise OptionError(f"{out}: {folder} is a file, expected a folder. Choose another name.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OptionError(f"{out}: {folder} cannot be written. Choose another name.")


@contextlib.contextmanager
def whole_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a new empty folder beside `target`; make it `target` when the block ends, remove it when it raises.

    The temporary name starts with a dot, so that no listing of runs shows it. With `overwrite` the folder there
    before is removed only once the new one is complete. Whatever killed captures left beside `target` is
    cleared away first. When the block raises, folders above that were made for it go too, unless they hold something.

    Raises OptionError as `check_target`, at the start and once more at the end.
    """
    sweep(target.parent)
    check_target(target, overwrite=overwrite)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had the same id
    above = [parent for parent in temporary.parents if not parent.exists()]
    with contextlib.ExitStack() as undo:
        for parent in reversed(above):
            undo.callback(_remove_empty, parent)
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise OptionError(
                f"{target}: the folder cannot be made ({error.strerror}). Choose another name."
            ) from error
        undo.callback(shutil.rmtree, temporary, ignore_errors=True)
        with _lock(temporary):
            yield temporary
            check_target(target, overwrite=overwrite)
            old = target.with_name(f".old-{os.getpid()}-{target.name}")
            if target.exists():
                target.rename(old)
            temporary.rename(target)
        undo.pop_all()
        shutil.rmtree(old, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Clear away the folders that killed captures left in `parent`; a run that one was replacing comes back.

    A folder is left by a killed capture when it has the name of one, no process has its number, and none holds its
    lock: the number alone means nothing when the process ran in another container or on another machine.
    """
    if not parent.is_dir():
        return
    for path in list(parent.iterdir()):
        match = _LEFT.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_dir() or _runs(int(match["pid"])):
            continue
        with contextlib.suppress(OSError), _lock(path) as locked:
            if not locked:
                continue
            replaced = parent / match["name"]
            if match["kind"] == "old" and not os.path.lexists(replaced):
                path.rename(replaced)  # killed between moving it aside and putting the new run in its place
            else:
                shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder, which the system lets go of when the process dies; False when it cannot be had."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except OSError:  # held by another process, or a file system without locks
            locked = False
        yield locked
    finally:
        os.close(handle)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user, or no number of a process
        return True
    return True


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
