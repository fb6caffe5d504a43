"""Make a run folder whole or not at all: built under a temporary name beside it, renamed at the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from profiler_kit.errors import KitError, OptionError
from profiler_kit.files import clear_unfinished, folder_beside
from profiler_kit.formats.run_record import RECORD


def check_target(target: Path, *, overwrite: bool, option: str = "--overwrite") -> None:
    """Raise OptionError when a run cannot be written to `target`, before any work is done for it.

    With `overwrite` a run folder or an empty folder may be there; anything else is left alone. option: how the caller's
    user asks for that, "" where none can.
    """
    if not target.name:
        raise OptionError(f"{target}: this names no folder of its own, expected a new one. Try {target / 'run'}.")
    check_place(target, target)
    if not os.path.lexists(target):
        return
    if not target.is_dir() or target.is_symlink():
        raise OptionError(f"{target}: this is a file, expected a new folder. Choose another name.")
    if not overwrite:
        more = f", or add {option}" if option else ""
        raise OptionError(f"{target}: this folder exists already. Choose another name{more}.")
    if not (target / RECORD).is_file() and any(target.iterdir()):
        raise OptionError(
            f"{target}: this folder holds something other than a run (no {RECORD}), {option} does not touch "
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
def whole_folder(target: Path, *, overwrite: bool, option: str = "--overwrite") -> Iterator[Path]:
    """Give a new empty folder beside `target`, as files.folder_beside; make it `target` when the block ends.

    With `overwrite` the folder there before is removed only once the new one is complete. When the block raises,
    folders above that were made for it go too, unless they hold something.

    Raises OptionError as `check_target`, at the start and once more at the end.
    """
    clear_unfinished(target.parent)
    check_target(target, overwrite=overwrite, option=option)
    above = [parent for parent in target.absolute().parents if not parent.exists()]
    with contextlib.ExitStack() as undo:
        for parent in reversed(above):
            undo.callback(_remove_empty, parent)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = undo.enter_context(folder_beside(target))
        except OSError as error:
            raise OptionError(
                f"{target}: the folder cannot be made ({error.strerror}). Choose another name."
            ) from error
        try:
            yield temporary
        except KitError as error:  # of a file in it: say the place that the user chose
            error.args = (str(error).replace(temporary.name, target.name),)
            raise
        check_target(target, overwrite=overwrite, option=option)
        old = target.with_name(f".old-{os.getpid()}-{target.name}")
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
