"""Mutated snapshots, read and analysed in one process: what is refused, what is read, and what breaks a rule.

`python -m tests.fuzz.snapshots FIRST LAST` prints a line of JSON before each file, and one after it.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import resource
import signal
import subprocess
import sys
import traceback
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from profiler_kit.analyses.compare.snapshots import compare_snapshots
from profiler_kit.analyses.memory.replay import active_blocks
from profiler_kit.errors import KitError
from profiler_kit.load.snapshot import native as native_reader
from profiler_kit.load.snapshot.data import Array, SnapshotBuilder
from profiler_kit.load.snapshot.unpickle_child import Refused, convert, unpickle
from profiler_kit.snapshot import Snapshot
from profiler_kit.tables import tables_of
from tests import snapshots as s

SECONDS = 20  # of processor time, for a file of some kilobytes
MEMORY_BYTES = 2 << 30
PAGES = 25  # one file of so many is also written as a page
VALUES = (
    *(b"x", {"a": 1}, [], (0, 1), 0.5, float("nan"), "x", "", "\ud800", True),
    *(0, -1, 1, 2, 512, 1 << 21, 1 << 40, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 1 << 64, 10**400),
    *("annotate", "user_defined", "alloc", "free_requested", "free_completed", "oom", "snapshot"),
    *("segment_alloc", "segment_free", "segment_map", "segment_unmap", "START", "END", "MIDDLE"),
    *("active_allocated", "active_pending_free", "inactive", None),
)


def corpus() -> list[bytes]:
    """The pickles of every case, unpacked, and of two small captures."""
    paths = sorted((s.ROOT / "tests" / "cases" / "snapshots").iterdir())
    paths += [s.ROOT / "tests" / "golden" / f"memory_{name}_h200.pickle" for name in ("train", "pools")]
    return [_plain(path.read_bytes()) for path in paths]


def _plain(data: bytes) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.decompress(data)
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    return data


def mutate(number: int, seeds: list[bytes]) -> bytes:
    """One file in three has bytes changed, the others have values, entries and keys changed."""
    data = seeds[number % len(seeds)]
    return mutant(data, number) if number % 3 == 0 else pickle.dumps(scrambled(data, number), 4)


def mutant(data: bytes, seed: int) -> bytes:
    """Some bytes set, flipped, removed, doubled or replaced, or the end cut off."""
    rng = random.Random(seed)
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at, length = rng.randrange(len(out)), rng.choice((1, 1, 2, 8, 64))
        kind = rng.randrange(6)
        if kind == 0:
            out[at] = rng.choice((0, 1, 0x2E, 0x52, 0x63, 0x7F, 0x80, 0x93, 0x95, 0xFF))
        elif kind == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        elif kind == 4:
            out[at : at + length] = rng.randbytes(length)
        else:
            del out[at + len(out) // 2 :]
        out = out or bytearray(b".")
    return bytes(out)


def scrambled(data: bytes, seed: int) -> dict[str, Any]:
    """The snapshot with some values set to others, keys and entries removed, doubled or exchanged."""
    rng, snapshot = random.Random(seed), pickle.loads(data)
    for _ in range(rng.choice((1, 3, 10, 40))):
        lists = [one for one in _lists(snapshot) if one]
        if not lists or rng.random() < 0.02:
            snapshot[rng.choice([*snapshot, "host_traces", "annotations"])] = rng.choice(VALUES)
            continue
        entries = rng.choice(lists[:6] if rng.random() < 0.7 else lists)
        at, kind = rng.randrange(len(entries)), rng.randrange(8)
        entry, other = entries[at], rng.randrange(len(entries))
        if kind < 4 and isinstance(entry, dict) and entry:
            key, alike = rng.choice(list(entry)), entries[other]
            entry[key] = rng.choice((*VALUES, alike.get(key) if isinstance(alike, dict) else None))
        elif kind == 4:
            entries.insert(other, entry)
        elif kind == 5:
            del entries[at]
        elif kind == 6 and isinstance(entry, dict) and entry:
            del entry[rng.choice(list(entry))]
        else:
            entries[at], entries[other] = entries[other], entry
    return cast(dict[str, Any], snapshot)


def _lists(snapshot: dict[str, Any]) -> list[list[Any]]:
    """Every list of entries in it: histories first, then segments, annotations, host memory, blocks and frames."""
    traces = [snapshot.get("device_traces"), snapshot.get("host_traces")]
    found: list[Any] = [snapshot.get("external_annotations"), snapshot.get("segments"), snapshot.get("host_segments")]
    for one in traces:
        found += one if isinstance(one, list) and one and isinstance(one[0], list) else [one]
    found.reverse()
    entries = [entry for one in found if isinstance(one, list) for entry in one if isinstance(entry, dict)]
    found += [entry[key] for entry in entries for key in ("blocks", "frames") if key in entry]
    return [one for one in found if isinstance(one, list)]


def columns_of(data: bytes) -> tuple[dict[str, Any], dict[str, Array], bool]:
    """What the child hands back, and whether the native reader gives it too, which may give up; raises Refused."""
    native = native_reader.read_columns(io.BytesIO(data), MEMORY_BYTES // 8)
    try:
        found, columns = convert(unpickle(io.BytesIO(data)), len(data))
    except Refused as refused:
        assert native is None, f"the native reader takes what is refused: {refused}"
        raise
    assert sum(len(column) for column in columns.values()) <= 64 * len(data) + (1 << 20), "more rows than bytes"
    head = json.loads(json.dumps(found))
    arrays = {name: np.array(column, native_reader.DTYPES[column.typecode]) for name, column in columns.items()}
    if native is not None:
        assert json.loads(native[0]) == head, "the readers differ"
        assert native[1].keys() == arrays.keys()
        for name, array in arrays.items():
            other = native[1][name]
            assert other.dtype == array.dtype and np.array_equal(other, array), f"the readers differ in {name}"
    return head, arrays, native is not None


def read(data: bytes) -> Snapshot:
    """As the child and its parent read it; raises Refused."""
    head, columns, _ = columns_of(data)
    return Snapshot(SnapshotBuilder(Path("m.pickle"), head, columns).build())


def analyse(found: Snapshot, other: Snapshot, *, page: bool) -> None:
    """Ask everything."""
    json.dumps(found.summary())
    for table in tables_of("snapshot"):
        found.table(table.name)
    for by in ("stack", "metadata", "category", "compile_context", "annotation"):
        found.table("memory_groups", by=by)
    compare_snapshots(other, found)
    for one in found.findings():
        assert "\n" not in one.sentence, one.sentence
    if page:
        assert found.html("m")


def broken_rules(found: Snapshot) -> Iterator[str]:
    """No total is negative or beyond what is reserved; the end is torch's; the parts of the peak make the peak."""
    for device in found.devices:
        one = found.replay(device)
        held = found.segments[found.segments["device"] == device]
        if one.allocated_bytes.min() < 0 or one.reserved_bytes.min() < 0:
            yield f"device {device}: a negative total"
        if not len(held):
            continue
        if bool((one.allocated_bytes > one.reserved_bytes).any()):
            yield f"device {device}: more allocated than reserved"
        end = int(active_blocks(found.blocks, device)["requested_bytes"].sum())
        whole = found.source == "cuda" and not found.contradictions(device).unheld
        if whole and int(one.allocated_bytes[-1]) != end:
            yield f"device {device}: {one.allocated_bytes[-1]} at the end, torch says {end}"
        whole = whole and _frees_fit(found, device)
        at_end, at_peak = (int(frame(device)["size_bytes"].sum()) for frame in (found.live_at_end, found.live_at_peak))
        if at_end == end and whole and at_peak != int(one.allocated_bytes[one.peak]):
            yield f"device {device}: {at_peak} live at the peak of {one.allocated_bytes[one.peak]}"


def _frees_fit(found: Snapshot, device: int) -> bool:
    """Whether each free has the size of its allocation, as torch writes both."""
    pairs = found.allocations()
    pairs = pairs[(pairs["device"] == device) & pairs["alloc_event"].notna() & pairs["free_event"].notna()]
    freed = found.history["size_bytes"].to_numpy()[pairs["free_event"].to_numpy(np.int64)]
    again = found.history["action"].to_numpy()[pairs["free_event"].to_numpy(np.int64)] == "alloc"  # a gap: no free
    return bool(((freed == pairs["size_bytes"].to_numpy()) | again).all())


def check(number: int, data: bytes, other: Snapshot) -> dict[str, Any]:
    """What became of one file."""
    problems: list[str] = []
    outcome, message = "read", ""
    try:
        found = read(data)
        analyse(found, other, page=number % PAGES == 0)
        problems += broken_rules(found)
    except Refused as refused:
        outcome = "refused"
        problems += [f"no short line: {refused}"] if len(str(refused)) > 400 or "\n" in str(refused) else []
    except KitError as error:
        outcome, message = "said", str(error)
        problems += [f"no line: {error}"] if "\n" in str(error) else []
    except MemoryError:
        outcome = "too large"
    except Exception:
        outcome, problems = "crashed", [traceback.format_exc(limit=-14)]
    return {"file": number, "outcome": outcome, "message": message, "problems": problems}


def verdicts(first: int, last: int) -> Iterator[dict[str, Any]]:
    """What became of each file; one that ends its process is "killed", and a new process goes on behind it."""
    while first < last:
        command = [sys.executable, "-m", "tests.fuzz.snapshots", str(first), str(last)]
        with subprocess.Popen(command, cwd=s.ROOT, stdout=subprocess.PIPE, text=True) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                message = json.loads(line)
                first = message["file"] + ("outcome" in message)
                if "outcome" in message:
                    yield message
        if first < last:
            yield {"file": first, "outcome": "killed", "problems": [f"exit code {worker.returncode}"]}
            first += 1


def main() -> None:
    first, last = int(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter("error")
    seeds = corpus()
    other = read(seeds[-1])
    check(0, seeds[0], other)  # imports what is imported late
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    for number in range(first, last):
        print(json.dumps({"file": number}), flush=True)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        verdict = check(number, mutate(number, seeds), other)
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(verdict), flush=True)


if __name__ == "__main__":
    main()
