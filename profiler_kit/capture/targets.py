"""Name the files a runner writes: numbers for repeated recordings, ranks under torch.distributed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from profiler_kit.errors import OptionError

Rank = int | Literal["auto", "none"]


@dataclass
class Target:
    """Gives the path of each recording of one runner.

    The first file has the name that was asked for, `trace.json.gz`; the next ones `trace.1.json.gz`,
    `trace.2.json.gz`. With always_numbered the first is `trace.0.json.gz`. Under torch.distributed the rank comes
    before the number: `trace.rank0.1.json.gz`. A file left by an earlier run of the program is replaced.
    A relative path counts from the folder that was current when it was given.
    """

    path: Path
    suffix: str
    rank: Rank
    always_numbered: bool = False
    written: int = 0
    _folder: Path = field(default_factory=Path.cwd)

    def next(self) -> Path:
        """The path of the next recording; call `advance` once it is written."""
        rank = current_rank() if self.rank == "auto" else self.rank
        parts = [self.path.name.removesuffix(self.suffix)]
        if rank not in (None, "none"):
            parts.append(f"rank{rank}")
        if self.always_numbered or self.written:
            parts.append(str(self.written))
        return self._folder / self.path.with_name(".".join(parts) + self.suffix)

    def advance(self) -> None:
        self.written += 1


def make_target(
    what: str, path: str | os.PathLike[str], suffixes: tuple[str, ...], rank: Rank, *, always_numbered: bool = False
) -> Target:
    """Check a path before anything is recorded into it.

    Raises OptionError when the path has none of the suffixes, is a folder, or is where nothing can be written.
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
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        kind = "cannot be written" if folder.is_dir() else "is no folder"
        raise OptionError(f"{what}: path {target} lies in {folder}, which {kind}. Choose another path.")
    return Target(target, suffix, rank, always_numbered)


def current_rank() -> int | None:
    """This process's rank, or None when torch.distributed is not initialised."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return None
