"""Name the files a runner writes: numbers for repeated recordings, ranks under torch.distributed."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import torch

from profiler_kit.errors import CaptureError, InputError, OptionError

Rank = int | Literal["auto", "none"]
_HEAD: Final = 1 << 20  # bytes of a file in which its kind is told
_MARKS: Final = {".json": b'"traceEvents"', ".json.gz": b'"traceEvents"', ".pickle": b"segments", ".pkl": b"segments"}
_ours: set[Path] = set()  # files that runners of this process have written


@dataclass
class Target:
    """Gives the path of each recording of one runner.

    The first file has the name that was asked for, `trace.json.gz`; the next ones `trace.1.json.gz`,
    `trace.2.json.gz`. With always_numbered the first is `trace.0.json.gz`. Under torch.distributed the rank comes
    before the number: `trace.rank0.1.json.gz`. A recording that an earlier run of the program left is replaced; what
    this process has written, and any other file, is passed over. A relative path counts from the folder that was
    current when it was given.
    """

    path: Path
    suffix: str
    rank: Rank
    always_numbered: bool = False
    written: int = 0
    _folder: Path = field(default_factory=Path.cwd)

    def next(self) -> Path:
        """The path of the next recording; call `advance` with it once it is written."""
        rank = current_rank() if self.rank == "auto" else self.rank
        while True:
            parts = [self.path.name.removesuffix(self.suffix)]
            if rank not in (None, "none"):
                parts.append(f"rank{rank}")
            if self.always_numbered or self.written:
                parts.append(str(self.written))
            path = self._folder / self.path.with_name(".".join(parts) + self.suffix)
            if not path.exists() or (path not in _ours and is_recording(path, self.suffix)):
                return path
            self.written += 1

    def advance(self, path: Path) -> None:
        """Remember that `path` is written."""
        _ours.add(path)
        self.written += 1


def make_target(
    what: str, path: str | os.PathLike[str], suffixes: tuple[str, ...], rank: Rank, *, always_numbered: bool = False
) -> Target:
    """Check a path before anything is recorded into it.

    Raises OptionError when the path has none of the suffixes, is a folder, holds something other than a recording, or
    is where nothing can be written.
    """
    if not isinstance(path, str | os.PathLike):
        raise OptionError(f'{what}: path is a {type(path).__name__}, expected text. Write {what}("name{suffixes[0]}").')
    target = Path(path)
    suffix = next((s for s in suffixes if target.name.endswith(s) and target.name != s), None)
    if suffix is None:
        raise OptionError(f"{what}: path {target} ends in {target.suffix!r}, expected {' or '.join(suffixes)}.")
    if rank not in ("auto", "none") and (isinstance(rank, bool) or not isinstance(rank, int) or rank < 0):
        raise OptionError(f'{what}: rank is {rank!r}, expected "auto", "none" or a whole number from 0.')
    if target.is_dir():
        raise OptionError(f"{what}: path {target} is a folder, expected a file name in it.")
    if not is_recording(target, suffix):
        kind = "trace" if ".json" in suffix else "memory snapshot"
        raise OptionError(
            f"{what}: path {target} is a file that holds no {kind}, expected a new name or an earlier {kind} to "
            "replace. Choose another name."
        )
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        kind = "cannot be written" if folder.is_dir() else "is no folder"
        raise OptionError(f"{what}: path {target} lies in {folder}, which {kind}. Choose another path.")
    return Target(target, suffix, rank, always_numbered)


def is_recording(path: Path, suffix: str) -> bool:
    """Whether replacing the file loses nothing but a recording: it looks like one, is empty, or is not there."""
    try:
        with path.open("rb") as handle:
            head = handle.read(_HEAD)
    except (FileNotFoundError, NotADirectoryError):
        return True
    if head and suffix.endswith(".gz"):
        try:
            head = zlib.decompressobj(31).decompress(head, _HEAD)
        except zlib.error:
            return False
    return not head or _MARKS[suffix] in head


def current_rank() -> int | None:
    """This process's rank, or None when torch.distributed is not initialised."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return None


@contextmanager
def one_line(what: str, path: Path, thing: str) -> Iterator[None]:
    """What keeps a recording from being written is a CaptureError of one line."""
    try:
        yield
    except InputError as error:  # the folder cannot be made
        raise CaptureError(f"{what} {error}") from error
    except (OSError, RuntimeError) as error:
        reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
        raise CaptureError(
            f"{what} {path}: the {thing} cannot be written ({reason}). Choose a path with room for it."
        ) from error
