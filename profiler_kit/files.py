"""Write files whole or not at all: a temporary name beside the target, renamed at the end."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from profiler_kit.errors import InputError

_NAME_KEPT: Final = 40  # characters at the end of a name; the prefix must not make it too long


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends, remove it when it raises.

    The temporary name keeps the suffixes (writers choose gzip by them) and starts with a dot, so that no
    listing of runs or traces picks it up. Missing folders are made. An existing `path` stays as it is until
    the rename, which replaces it in one step.

    Raises InputError when the folder cannot be written.
    """
    target = Path(path)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name[-_NAME_KEPT:]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{target}: cannot make the folder ({error.strerror}). Choose a path that can be written."
        ) from error
    try:
        yield temporary
        os.replace(temporary, target)  # noqa: PTH105 - the one call that is atomic on POSIX and on Windows
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
        raise InputError(f"{target}: no such file, expected {what}. {hint}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{target}: cannot be read ({reason}), expected {what}. {hint}") from error
    return target
