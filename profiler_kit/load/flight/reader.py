"""Read dumps of torch's flight recorder without trusting them, in a process of its own (child.py)."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from profiler_kit.errors import InputError
from profiler_kit.load.discover.jobs import ranks_in
from profiler_kit.load.flight.child import EXPECTED

CHILD: Final = Path(__file__).with_name("child.py")
MEMORY_BYTES: Final = 1 << 30
CPU_S: Final = 20  # for one dump; one of 2,000 entries takes 0.1
HINT: Final = (
    "Set TORCH_NCCL_TRACE_BUFFER_SIZE=2000 and TORCH_NCCL_DUMP_ON_TIMEOUT=1 before the job starts: each rank writes "
    "one when a collective times out."
)
_AT_END: Final = re.compile(r"(\d+)(?:\.(?:json|pkl|pickle))?$")


@dataclass(frozen=True, slots=True)
class Entry:
    """A collective or point to point operation that a rank had issued. sequence: None where it is not known.

    state: scheduled, started or completed. sizes: of inputs and outputs, with dtypes, as JSON. line: where it was
    called. Times are Unix nanoseconds.
    """

    group: str
    sequence: int | None
    pair_sequence: int | None
    is_pair: bool
    operation: str
    state: str
    sizes: str
    created_ns: int | None
    started_ns: int | None
    completed_ns: int | None
    line: str


@dataclass(frozen=True)
class Dump:
    """What one rank wrote, the last MOST_ENTRIES of it (child.py).

    groups: description and members by name; last: the last sequence issued in each, where that is known. whole: these
    are all operations that the rank has issued: none was overwritten.
    """

    path: Path
    rank: int
    groups: dict[str, tuple[str, tuple[int, ...]]]
    last: dict[str, int]
    entries: tuple[Entry, ...]
    whole: bool


@dataclass(frozen=True)
class Dumps:
    """The dumps of a job by rank, and a line for each file that is none."""

    path: str
    ranks: dict[int, Dump]
    problems: tuple[str, ...]


def read_dumps(paths: str | Path | Sequence[str | Path]) -> Dumps:
    """Read the dumps of a folder, or those that are named: pickles or JSON, as nccl_trace_rank_0, rank0.json, …

    Raises InputError when none of them is one.
    """
    named = [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]
    files = [file for path in named for file in (sorted(_below(path)) if path.is_dir() else [path])]
    ranks: dict[int, Dump] = {}
    problems = []
    for file, said in zip(files, _read(files), strict=True):
        rank = said.get("rank")
        rank = rank if isinstance(rank, int) and rank >= 0 else _told(file.name)
        if "error" in said:
            problems.append(f"{file}: {said['error']}. {HINT}")
        elif rank is None:
            problems.append(f"{file}: says no rank, expected a name that ends in one. Name it nccl_trace_rank_0.")
        elif rank in ranks:
            problems.append(
                f"{file}: says it is rank {rank}, and so does {ranks[rank].path}, expected one dump per rank."
            )
        else:
            ranks[rank] = Dump(
                file,
                rank,
                {name: (text, tuple(members)) for name, text, members in said["config"]},
                {name: last for name, last in said["status"] if last is not None},
                tuple(Entry(*one) for one in said["entries"]),
                said["whole"],
            )
    shown = ", ".join(map(str, named))
    if not ranks:
        raise InputError(problems[0] if problems else f"{shown}: found no file, {EXPECTED}. {HINT}")
    return Dumps(shown, dict(sorted(ranks.items())), tuple(problems))


def _told(name: str) -> int | None:
    """The rank that a file's name says: a job's, else the number at its end, else that of a node or within one."""
    named, last = ranks_in(name), _AT_END.search(name)
    of_job = bool(named) and not named[0][0]
    return int(last[1]) if last and not of_job else named[0][1] if named else None


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.name[0] != "." and path.is_file())


def _read(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """What the process says of each file; one that it dies of is said, and another process reads the rest."""
    rest = list(files)
    while rest:
        command = [sys.executable, "-I", "-S", str(CHILD), str(MEMORY_BYTES), str(CPU_S)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as child:
            assert child.stdin is not None and child.stdout is not None
            try:
                while rest:
                    try:
                        child.stdin.write(json.dumps(str(rest[0])) + "\n")
                        child.stdin.flush()
                        line = child.stdout.readline()
                    except BrokenPipeError:
                        line = ""
                    if not line.endswith("\n"):
                        code = child.wait()
                        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                        yield {"error": f"reading it ended the reading process ({how}), {EXPECTED}"}
                        del rest[0]
                        break
                    del rest[0]
                    yield json.loads(line)
            finally:
                child.kill()
