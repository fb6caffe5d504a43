"""Write files whole or not at all: a temporary name beside the target, renamed at the end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from profiler_kit.errors import InputError, KitError, OutputError

PACKED: Final = (".gz", ".zst", ".xz", ".bz2")  # how packed files that are read usually end; told by their bytes
PLAIN_OR_PACKED: Final = f"plain, {', '.join(PACKED[:-1])} or {PACKED[-1]}"
SETTLED_NS: Final = 2 * 10**9  # FAT has times no finer than this: a younger file may change and keep its time
_NAME_KEPT: Final = 40  # characters at the end of a name; the prefix must not make it too long
_UNFINISHED: Final = re.compile(r"\.(?P<kind>tmp|old)-(?P<pid>[1-9]\d{0,9})-(?P<name>.+)")
_numbers: Final = itertools.count()  # threads may write the same path


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path; rename it to `path` when the block ends, remove it when it raises.

    It lies in a folder of its own beside `path`, as `folder_beside` makes one, and keeps the suffixes (writers choose
    gzip by them). Missing folders are made. An existing `path` stays as it is until the rename, which replaces it in
    one step.

    Raises InputError when the folder cannot be written, OutputError when the file cannot.
    """
    target = Path(path)
    with contextlib.ExitStack() as stack:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            folder = stack.enter_context(folder_beside(target))
        except OSError as error:
            raise InputError(
                f"{target}: cannot make the folder ({error.strerror}). Choose a path that can be written."
            ) from error
        temporary = folder / target.name[-_NAME_KEPT:]
        try:
            yield temporary
            os.replace(temporary, target)  # noqa: PTH105 - the one call that is atomic on POSIX and on Windows
        except OSError as error:
            if isinstance(error, KitError) or error.filename not in (None, str(temporary), str(target)):
                raise
            reason = error.strerror or str(error)
            raise OutputError(
                f"{target}: cannot be written ({reason}). Free some space, or choose another path."
            ) from error


def require_folder(path: str | os.PathLike[str]) -> None:
    """Raise InputError where `whole_file` could not make the folder of `path`; for what takes long before it writes."""
    above = next(one for one in Path(path).absolute().parents if one.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        reason = os.strerror(errno.EACCES if above.is_dir() else errno.ENOTDIR)
        raise InputError(f"{path}: cannot make the folder ({reason}). Choose a path that can be written.")


def temporary_folder() -> contextlib.AbstractContextManager[Path]:
    """A folder for files that are gone afterwards, which only their owner may read; as `folder_beside`."""
    return folder_beside(Path(tempfile.gettempdir()) / "profiler_kit", 0o700)


@contextlib.contextmanager
def folder_beside(target: Path, mode: int = 0o777) -> Iterator[Path]:
    """Give a new folder beside `target`, and remove it with what it then holds.

    Its name starts with a dot, so that no listing of runs or traces shows it. While it is used it is locked; what
    killed processes left beside `target` is cleared away first. Raises OSError when it cannot be made.
    """
    clear_unfinished(target.parent)
    folder = target.with_name(f".tmp-{os.getpid()}-{next(_numbers)}-{target.name[-_NAME_KEPT:]}")
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process that had the same number
    folder.mkdir(mode)
    try:
        with _lock(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_unfinished(parent: Path) -> None:
    """Clear away the folders that killed processes left in `parent`; a run that one was replacing comes back.

    A folder is left by a killed process when it has the name of one, no process has its number, and none holds its
    lock: the number alone means nothing when the process ran in another container or on another machine.
    """
    if not parent.is_dir():
        return
    for path in [Path(entry) for entry in os.scandir(parent) if entry.name.startswith(".")]:
        match = _UNFINISHED.fullmatch(path.name)
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


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with whole_file(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="replace")  # a path in a command line may be no UTF-8


def version_of(path: Path) -> tuple[int, int]:
    """When a file changed (ns) and its bytes: what is kept of it is kept for these. Zeros where it cannot be seen."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def require_file(path: str | os.PathLike[str], what: str, hint: str) -> Path:
    """Return `path` when it is a file that holds something.

    Raises InputError when it is missing, a folder, a pipe or a device (files are read more than once, by position),
    empty or unreadable; `what` names the thing expected ("a chrome trace") and `hint` says what to try.
    """
    target = Path(path)
    try:
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{target}: this is a folder, expected {what}. {hint}")
        if not stat.S_ISREG(mode):
            raise InputError(f"{target}: this is a pipe or a device, expected {what} in a file. {hint}")
        with target.open("rb") as handle:
            if not handle.read(1):
                raise InputError(f"{target}: the file is empty (0 bytes), expected {what}. {hint}")
    except FileNotFoundError:
        if target.is_symlink():
            to = target.readlink()
            todo = f"Fetch the file: git annex get {target}" if "annex" in to.parts else "Copy the file it stands for."
            raise InputError(
                f"{target}: this is a link to {to}, which does not exist, expected {what}. {todo}"
            ) from None
        raise InputError(f"{target}: no such file, expected {what}. {hint}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{target}: cannot be read ({reason}), expected {what}. {hint}") from error
    return target
