"""Find what can be shown below a folder: run folders, bare traces and snapshots, ladders and studies.

Nothing outside the folder is reached, and a file that is still being written is not shown.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from profiler_kit.errors import InputError, KitError
from profiler_kit.files import PACKED, require_file
from profiler_kit.formats.ladder_record import LOG, RESULTS, RESULTS_CSV, ROW
from profiler_kit.formats.notes_file import NOTES
from profiler_kit.formats.run_record import (
    GRAPH_TRACE,
    LAYERS,
    MASKS,
    MEMORY,
    MEMORY_TRACE,
    RECORD,
    REQUESTS,
    TRACE,
    RunRecord,
    read_record,
)
from profiler_kit.formats.study_file import STUDY, STUDY_CSV
from profiler_kit.later import shown
from profiler_kit.load.job_folder import STORE_SUFFIX
from profiler_kit.load.snapshot.reader import SNAPSHOT_SUFFIXES, is_snapshot
from profiler_kit.load.trace.decompress import Blocks, packing_of

DEPTH: Final = 3  # folders below the root that are looked into
TRACE_SUFFIXES: Final = tuple(f".json{packed}" for packed in ("", *PACKED))
OWN: Final = (RECORD, MASKS, NOTES)
_HINT: Final = "Record one with: profiler-kit capture --out DIR"
_WRITING_S: Final = 2.0  # a file that changed this lately may still have its writer
_SMALL_BYTES: Final = 1 << 20
_SMALL_BLOCKS: Final = 256
_ANY_PACKING: Final = (TRACE, MEMORY, MEMORY_TRACE, GRAPH_TRACE)  # the parts that are read packed in any way
_FILES: Final = {
    "trace": TRACE,
    "memory": MEMORY,
    "layers": LAYERS,
    "masks": MASKS,
    "memory_trace": MEMORY_TRACE,
    "requests": REQUESTS,
}
_PLAIN: Final = " -_.~+=,@()[]&'!#>"  # what a key keeps as it is, beside letters, digits and the slash


@dataclass(frozen=True)
class RunFolder:
    """A run to show. Paths are resolved and inside the root; None where a file is missing.

    key: the path below the root, percent-encoded where it is not plain ASCII, so that it survives any URL: of the
    folder, whatever the file in it is called, of a file only where there are others beside it.
    path: the folder, or the file itself when it has none that makes it a run.
    problem: one line when run.json exists but is broken; the other files can still be shown.
    memory_trace: a trace of the batch that `memory` is of.
    """

    key: str
    path: Path
    record: RunRecord | None
    trace: Path | None
    memory: Path | None
    layers: Path | None
    masks: Path | None
    problem: str | None
    memory_trace: Path | None = None
    requests: Path | None = None

    def _repr_html_(self) -> str:
        """What the folder holds, for a notebook."""
        return shown("folder_card", self)

    @property
    def label(self) -> str:
        """The path below the root as people read it; characters that cannot be printed become �."""
        text = os.fsdecode(unquote_to_bytes(self.key)).encode("utf-8", "replace").decode("utf-8")
        return "".join(c if c.isprintable() else "�" for c in text)


def find_runs(root: str | os.PathLike[str]) -> list[RunFolder]:
    """Every run below `root`, sorted by label; run folders are not searched further.

    A folder below `root` that holds one trace or snapshot and no run is that run, whatever the file is called. Opens
    nothing but run.json. Skips names that start with a dot (unfinished files have such names) and links that
    lead out of the root.

    Raises InputError when `root` is not a folder or cannot be read.
    """
    base = require_root(root)
    return sorted(_walk(base, base, DEPTH), key=lambda run: run.label.casefold())


def default_root() -> Path:
    """Where to look when no folder was named: ./traces, else the samples that come with the package.

    Raises InputError when neither exists.
    """
    found = Path("traces") if Path("traces").is_dir() else samples_root()
    if found is None:
        raise InputError(
            f"{Path('traces').absolute()}: no such folder, expected a folder of runs. "
            "Name one, or record a run with: profiler-kit capture"
        )
    return found


def samples_root() -> Path | None:
    """The runs that come with the package: inside it in a wheel, beside it in a checkout; None when left out."""
    package = Path(__file__).resolve().parents[2]
    return next((p for p in (package / "_bundle" / "traces", package.parent / "traces") if p.is_dir()), None)


def require_root(root: str | os.PathLike[str]) -> Path:
    """The resolved folder; raises InputError when it is missing, a file, or cannot be read."""
    path = Path(root)
    hint = "Name a folder that holds runs, or record one with: profiler-kit capture"
    if path.is_file():
        raise InputError(f"{path}: this is a file, expected a folder of runs. Try its folder: {path.parent}")
    if not path.is_dir():
        raise InputError(f"{path}: no such folder, expected a folder of runs. {hint}")
    if not os.access(path, os.R_OK | os.X_OK):
        raise InputError(f"{path}: cannot be read (permission denied), expected a folder of runs. {hint}")
    return path.resolve()


def find_run(root: str | os.PathLike[str], key: str) -> RunFolder | None:
    """The run with that key, or in that file; None when `find_runs` would not list it. Reads no other run."""
    base = require_root(root)
    names = [] if key == "." else os.fsdecode(unquote_to_bytes(key)).split("/")
    return next((run for run in _walk(base, base, DEPTH, names) if run.key == key), None)


def run_at(path: Path) -> RunFolder:
    """The run in a folder or a file outside every root, told by what the file holds; its key is not set.

    Raises InputError when there is none, or when the folder holds several.
    """
    if path.is_dir():
        found = find_run(path, ".")
        below = [found] if found is not None else find_runs(path)
        if len(below) != 1:
            what = f"{len(below)} runs" if below else "no run"
            raise InputError(
                f"{path}: found {what}, expected one. Try: profiler-kit serve {path}"
                if below
                else f"{path}: found {what}, expected a run folder, a trace, a snapshot or a layers.parquet. {_HINT}"
            )
        return below[0]
    require_file(path, "a run folder, a chrome trace, a memory snapshot or a layers.parquet", _HINT)
    with path.open("rb") as handle:
        part = "layers" if handle.read(4) == b"PAR1" else "memory" if is_snapshot(path) else "trace"
    parts = {name: path if name == part else None for name in ("trace", "memory", "layers")}
    return RunFolder("", path, None, masks=None, problem=None, **parts)


def confined(root: Path, key: str) -> Path | None:
    """The resolved path of `key` when it exists inside the (resolved) root, in no hidden folder, else None."""
    try:
        path = (root / os.fsdecode(unquote_to_bytes(key))).resolve()
        inside = path.is_relative_to(root) and path.exists() and not _is_hidden(path.relative_to(root))
    except (ValueError, OSError, RuntimeError):  # NUL byte, name too long, loop of links
        return None
    return path if inside else None


def _is_hidden(path: Path) -> bool:
    return any(name.startswith(".") for name in path.parts)


def key_of(root: Path, path: Path) -> str:
    """The key of a path below the root; "." is the root itself."""
    return quote(os.fsencode(path.relative_to(root).as_posix()), safe="/" + _PLAIN)


def _walk(root: Path, folder: Path, depth: int, names: Sequence[str] | None = None) -> Iterator[RunFolder]:
    """The runs below a folder; names: only that entry, and below it only the one named next."""
    run = _run_folder(root, folder)
    if run is not None:
        yield run
        return
    if folder == root or names:
        yield from _below(root, folder, depth, names)
        return
    found = list(itertools.islice(_below(root, folder, depth, None), 2 if names is not None else None))
    if len(found) == 1 and found[0].path.parent == folder and not found[0].path.is_dir():
        found = [dataclasses.replace(found[0], key=key_of(root, folder))]
    yield from found


def _below(root: Path, folder: Path, depth: int, names: Sequence[str] | None) -> Iterator[RunFolder]:
    for entry in _entries(folder):
        if names is not None and entry.name not in names[:1]:
            continue
        path = Path(entry.path)
        if entry.is_symlink():
            target = confined(root, key_of(root, path))
            if target is None or folder.is_relative_to(target):  # out of the root, or round in a circle
                continue
        if entry.is_dir():
            if depth > 0:
                yield from _walk(root, path, depth - 1, names and names[1:])
            continue
        found = _bare_file(root, path)
        if found is not None and (names is not None or not _is_being_written(path)):
            yield found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, without what is hidden, or was read of a job and kept beside it."""
    try:
        entries = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
        return [entry for entry in entries if not (entry.name.endswith(STORE_SUFFIX) and entry.is_dir())]
    except OSError:  # no permission, or gone since it was listed
        return []


def _run_folder(root: Path, folder: Path) -> RunFolder | None:
    """The run in that folder; None when it holds no file of a run."""
    recorded = _file_inside(root, folder / RECORD) is not None
    parts = {part: _file_inside(root, part_file(folder, name) or folder / name) for part, name in _FILES.items()}
    trace = parts["trace"] if (folder / TRACE).is_file() else None  # one of another name makes no folder a run
    if not (recorded or trace or parts["memory"] or parts["layers"]):
        return None
    record, problem = None, None
    try:
        record = read_record(folder) if recorded else None
    except KitError as error:
        problem = str(error)
    return RunFolder(key=key_of(root, folder), path=folder, record=record, problem=problem, **parts)


def part_file(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, else the same packed otherwise or not at all: memory.pickle.gz, trace.json."""
    plain = name.removesuffix(".gz")
    names = (name, *(plain + packed for packed in ("", *PACKED))) if name in _ANY_PACKING else (name,)
    # unlike Path.is_file, os.path says no to a name that is too long: the reader then tells
    return next((folder / one for one in names if os.path.isfile(folder / one)), None)  # noqa: PTH113


def _file_inside(root: Path, path: Path) -> Path | None:
    if not path.is_file():
        return None
    return confined(root, key_of(root, path)) if path.is_symlink() else path


def _bare_file(root: Path, path: Path) -> RunFolder | None:
    """A trace or snapshot without a run folder, told by its suffix and not opened."""
    name = path.name.lower()
    is_trace = name.endswith(TRACE_SUFFIXES) and not is_own(path)
    is_snapshot = name.endswith(SNAPSHOT_SUFFIXES)
    if not (is_trace or is_snapshot) or not path.is_file():
        return None
    trace, memory = (path, None) if is_trace else (None, path)
    return RunFolder(key_of(root, path), path, None, trace, memory, None, None, None)


def _is_being_written(path: Path) -> bool:
    """Whether a file changed just now, begins like a trace or snapshot, and does not end like a whole one.

    JSON ends with a bracket and a pickle with a full stop. A small packed file is unpacked to see its end; a large one
    counts as whole once it has not changed for two seconds.
    """
    try:
        found = path.stat()
        if not 0 <= time.time() - found.st_mtime < _WRITING_S:
            return False
        with path.open("rb") as handle:
            if not path.name.lower().endswith(PACKED):
                begins = handle.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[", b"\x80"))
                handle.seek(max(0, found.st_size - 64))
                return (begins or not found.st_size) and not handle.read().rstrip().endswith((b"}", b"]", b"."))
            if found.st_size > _SMALL_BYTES:
                return True
            if packing_of(handle.read(16)) is None:
                return not found.st_size
        blocks = Blocks(path)
        for _ in itertools.islice(blocks, _SMALL_BLOCKS):
            pass
        return blocks.cut_off
    except OSError:
        return False


def is_own(path: Path) -> bool:
    """Whether profiler-kit wrote this JSON file beside traces: it is none itself."""
    return path.name in OWN or _is_of_ladder(path)


def _is_of_ladder(path: Path) -> bool:
    """Whether `profiler-kit ladder` or `study` wrote a JSON file: told by its name and the file beside it."""
    beside = {RESULTS: RESULTS_CSV, ROW: LOG, STUDY: STUDY_CSV}.get(path.name)
    return beside is not None and path.with_name(beside).is_file()


@dataclass(frozen=True)
class LadderFolder:
    """A ladder, a study, or both: their JSON files, None where one is missing. key, path: as RunFolder's."""

    key: str
    path: Path
    results: Path | None
    study: Path | None


def find_ladders(root: str | os.PathLike[str]) -> list[LadderFolder]:
    """Every ladder and study below `root`, by key: folders with results.json or study.json, and the csv beside it.

    As deep as `find_runs` looks; skips names that start with a dot, and links. Raises InputError for the root.
    """
    base = require_root(root)
    return sorted(_walk_ladders(base, base, DEPTH), key=lambda found: found.key.casefold())


def _walk_ladders(root: Path, folder: Path, depth: int) -> Iterator[LadderFolder]:
    files = [path if path.is_file() and _is_of_ladder(path) else None for path in (folder / RESULTS, folder / STUDY)]
    if any(files):
        yield LadderFolder(key_of(root, folder), folder, *files)
        return
    for entry in _entries(folder):
        if depth > 0 and entry.is_dir(follow_symlinks=False):
            yield from _walk_ladders(root, Path(entry.path), depth - 1)
