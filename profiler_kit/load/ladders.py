"""Find the ladders under a folder: a root in, the folders that hold a results.json of `profiler-kit ladder` out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from profiler_kit.ladder_record import RESULTS, RESULTS_CSV
from profiler_kit.load.runs import DEPTH, confined, key_of, require_root


@dataclass(frozen=True)
class LadderFolder:
    """key: the path below the root, fit for an address. path: the resolved folder."""

    key: str
    path: Path

    @property
    def results(self) -> Path:
        """Its results.json."""
        return self.path / RESULTS


def find_ladders(root: str | os.PathLike[str]) -> list[LadderFolder]:
    """Every ladder below `root`, by key; a ladder is a folder with results.json and results.csv.

    As deep as `find_runs` looks; names that start with a dot and links are skipped. Raises InputError for the root.
    """
    base = require_root(root)
    return sorted(_walk(base, base, DEPTH), key=lambda found: found.key.casefold())


def find_ladder(root: str | os.PathLike[str], key: str) -> LadderFolder | None:
    """The ladder with that key, None when there is none inside the root."""
    path = confined(require_root(root), key)
    return LadderFolder(key, path) if path is not None and _is_ladder(path) else None


def _walk(root: Path, folder: Path, depth: int) -> Iterator[LadderFolder]:
    if _is_ladder(folder):
        yield LadderFolder(key_of(root, folder), folder)
        return
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except OSError:  # no permission, or gone since it was listed
        return
    for entry in entries:
        if depth > 0 and entry.is_dir(follow_symlinks=False):
            yield from _walk(root, Path(entry.path), depth - 1)


def _is_ladder(folder: Path) -> bool:
    return (folder / RESULTS).is_file() and (folder / RESULTS_CSV).is_file()
