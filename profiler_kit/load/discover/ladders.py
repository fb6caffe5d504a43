"""Find ladders and studies under a folder: a root in, the folders that hold results.json or study.json out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from profiler_kit.formats.ladder_record import RESULTS, RESULTS_CSV
from profiler_kit.formats.study_file import STUDY, STUDY_CSV
from profiler_kit.load.discover.runs import DEPTH, confined, key_of, require_root


@dataclass(frozen=True)
class LadderFolder:
    """A ladder, a study, or both. key: the path below the root, fit for an address. path: the resolved folder."""

    key: str
    path: Path

    @property
    def results(self) -> Path | None:
        """Its results.json; None for a study alone."""
        return self.path / RESULTS if (self.path / RESULTS_CSV).is_file() else None

    @property
    def study(self) -> Path | None:
        """Its study.json."""
        return self.path / STUDY if (self.path / STUDY_CSV).is_file() else None


def find_ladders(root: str | os.PathLike[str]) -> list[LadderFolder]:
    """Every ladder and study below `root`, by key: folders with results.json or study.json, and the csv beside it.

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
    pairs = ((RESULTS, RESULTS_CSV), (STUDY, STUDY_CSV))
    return any((folder / name).is_file() and (folder / beside).is_file() for name, beside in pairs)
