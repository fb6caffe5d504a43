"""Finding runs: nothing outside the root, nothing half-written, every name survives a URL."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import zstandard

from profiler_kit.errors import InputError
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.load.discover import runs as discover
from profiler_kit.load.discover.runs import confined, default_root, find_run, find_runs, require_root
from tests.effort import calls


def record(name: str) -> RunRecord:
    return RunRecord(
        name=name, created="2026-01-01T00:00:00Z", model="vit_b", weights="random:0", optimizations=(), batch_size=1,
        image_size=64, dtype="float32", device="cpu", device_name="cpu", versions={"torch": "2.12.1"},
        warmup_iterations=1, timed_iterations=2, phases_ns={"load": 1}, latency_ns=(1, 2), peak_memory_bytes=None,
        command="", git_commit=None,
    )  # fmt: skip


def make_run(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    record(folder.name).write(folder)
    for name in files:
        (folder / name).write_bytes(b"x")
    return folder


def test_run_folders_and_bare_files(tmp_path: Path) -> None:
    make_run(tmp_path / "b_run", "trace.json.gz", "memory.pickle", "layers.parquet", "masks.json")
    make_run(tmp_path / "nested" / "deep", "trace.json.gz")
    (tmp_path / "a_trace.json.gz").write_bytes(b"x")
    (tmp_path / "snap.pickle").write_bytes(b"x.")
    (tmp_path / "notes.txt").write_bytes(b"x")
    runs = {run.key: run for run in find_runs(tmp_path)}
    assert list(runs) == ["a_trace.json.gz", "b_run", "nested/deep", "snap.pickle"]
    full = runs["b_run"]
    assert full.record is not None and full.record.model == "vit_b" and full.problem is None
    assert [p.name for p in (full.trace, full.memory, full.layers, full.masks) if p] == [
        "trace.json.gz", "memory.pickle", "layers.parquet", "masks.json",
    ]  # fmt: skip
    assert runs["a_trace.json.gz"].trace == tmp_path / "a_trace.json.gz" and runs["a_trace.json.gz"].record is None
    assert runs["snap.pickle"].memory == tmp_path / "snap.pickle"
    assert runs["nested/deep"].memory is None


@pytest.mark.parametrize("packed", ["", ".gz", ".zst", ".xz", ".bz2"])
def test_parts_of_a_run_may_be_packed_in_any_way(tmp_path: Path, packed: str) -> None:
    names = (f"trace.json{packed}", f"memory.pickle{packed}", f"memory_trace.json{packed}")
    make_run(tmp_path / "run", *names, f"masks.json{packed}")
    (run,) = find_runs(tmp_path)
    assert [path and path.name for path in (run.trace, run.memory, run.memory_trace)] == list(names)
    assert (run.masks is None) is bool(packed)  # those are read as they are


def test_a_packed_snapshot_is_found_with_and_without_a_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "memory.pickle.xz").write_bytes(b"x")
    (tmp_path / "rank0.pickle.zst").write_bytes(b"x")
    (tmp_path / "trace.json").write_bytes(b"x]")  # a name that makes no folder a run
    assert [(run.key, run.memory and run.memory.name) for run in find_runs(tmp_path)] == [
        ("a", "memory.pickle.xz"), ("rank0.pickle.zst", "rank0.pickle.zst"), ("trace.json", None),
    ]  # fmt: skip


def test_the_usual_name_goes_before_a_packed_one(tmp_path: Path) -> None:
    make_run(tmp_path, "memory.pickle.gz", "memory.pickle", "trace.json.xz", "trace.json.gz")
    assert discover.part_file(tmp_path, "memory.pickle") == tmp_path / "memory.pickle"
    assert discover.part_file(tmp_path, "trace.json.gz") == tmp_path / "trace.json.gz"
    assert discover.part_file(tmp_path, "layers.parquet") is None
    assert discover.part_file(tmp_path / ("x" * 300), "memory.pickle") is None


def test_what_was_read_of_a_job_and_kept_beside_it_is_no_run(tmp_path: Path) -> None:
    for folder in ("job.ranks/answers", "mine"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "0.json").write_text("{}")
        os.utime(tmp_path / folder / "0.json", (1, 1))  # written to the end long ago
    assert [run.key for run in find_runs(tmp_path)] == ["mine"]


def test_the_root_itself_may_be_a_run(tmp_path: Path) -> None:
    make_run(tmp_path, "trace.json.gz")
    (only,) = find_runs(tmp_path)
    assert only.key == "." and find_run(tmp_path, ".") == only


def test_a_broken_record_leaves_the_rest(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "trace.json.gz")
    (tmp_path / "run" / "run.json").write_text("{")
    (run,) = find_runs(tmp_path)
    assert run.record is None and run.trace is not None
    assert run.problem is not None and run.problem.startswith(
        f"{tmp_path / 'run' / 'run.json'}: Input data was truncated"
    )


def test_a_run_that_is_being_written_does_not_show(tmp_path: Path) -> None:
    make_run(tmp_path / ".tmp-1-run", "trace.json.gz")
    (tmp_path / ".tmp-1-trace.json.gz").write_bytes(b"x")
    assert find_runs(tmp_path) == []


def test_a_bare_file_that_is_being_written_shows_when_it_is_whole_or_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trace of somebody else's program is written in place: half of it is no trace with a loss."""
    now = 1_700_000_000.0
    monkeypatch.setattr(discover, "time", SimpleNamespace(time=lambda: now))
    events = '{"traceEvents": [' + '{"ph": "X", "name": "a", "ts": 1, "dur": 1},' * 9
    whole = {
        "t.json": events.encode()[:-1] + b"]}\n",
        "small.json.gz": gzip.compress(events.encode()),
        "small.json.zst": zstandard.compress(events.encode()),
        "small.json.xz": lzma.compress(events.encode()),
        "small.json.bz2": bz2.compress(events.encode()),
        "m.pickle": pickle.dumps({"segments": []}),
    }
    for name, data in whole.items():
        file = tmp_path / name
        file.write_bytes(data[: len(data) // 2])
        os.utime(file, (now - 1,) * 2)
        assert find_runs(tmp_path) == [], name
        os.utime(file, (now - 3,) * 2)  # nobody writes to it any more: shown, as the cut file it is
        assert [run.label for run in find_runs(tmp_path)] == [name]
        file.write_bytes(data)
        os.utime(file, (now - 1,) * 2)
        assert [run.label for run in find_runs(tmp_path)] == [name]
        file.unlink()
    large = tmp_path / "large.json.gz"
    large.write_bytes(gzip.compress(os.urandom(2 << 20)))
    os.utime(large, (now - 1,) * 2)
    assert find_runs(tmp_path) == []
    os.utime(large, (now - 3,) * 2)
    assert len(find_runs(tmp_path)) == 1


def test_links_out_of_the_root_and_circles_are_skipped(tmp_path: Path) -> None:
    outside = make_run(tmp_path / "outside", "trace.json.gz")
    root = tmp_path / "root"
    make_run(root / "real", "trace.json.gz")
    (root / "link").symlink_to(outside)
    (root / "link.json.gz").symlink_to(outside / "trace.json.gz")
    (root / "circle").symlink_to(root)
    (root / "dangling.json.gz").symlink_to(root / "nowhere")
    half = make_run(root / "half")
    (half / "trace.json.gz").symlink_to(outside / "trace.json.gz")
    runs = {run.key: run for run in find_runs(root)}
    assert list(runs) == ["half", "real"]
    assert runs["half"].trace is None


@pytest.mark.parametrize(
    "key", ["..", "../outside", "/etc", "%2e%2e/outside", "a/../../outside", "link", "\0", "x" * 5000, "missing"]
)
def test_keys_stay_inside(tmp_path: Path, key: str) -> None:
    make_run(tmp_path / "outside", "trace.json.gz")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    assert find_run(root, key) is None
    assert confined(root.resolve(), key) is None


@pytest.mark.parametrize(
    "name",
    [b"white space & <b>.json.gz", b"100%25.json.gz", b"\xff\xfe.json.gz", "日本.json.gz".encode(), b"a\nb.json.gz"],
)
def test_hostile_names_come_back(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.write_bytes(b"x")
    (run,) = find_runs(tmp_path)
    assert run.key.isascii() and run.label.isprintable()
    assert run.label.encode("utf-8")
    assert find_run(tmp_path, run.key) == run


def test_ten_times_the_folders_are_ten_times_the_work(tmp_path: Path) -> None:
    for i in range(500):
        make_run(tmp_path / ("few" if i < 50 else "many") / f"run{i:03d}", "trace.json.gz")
    assert len(find_runs(tmp_path)) == 500
    few = calls(lambda: find_runs(tmp_path / "few"))
    assert few < 50 * 1000 and calls(lambda: find_runs(tmp_path)) < 11 * few


def test_a_root_that_is_none(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(InputError) as error:
        require_root(missing)
    assert str(error.value) == (
        f"{missing}: no such folder, expected a folder of runs. "
        "Name a folder that holds runs, or record one with: profiler-kit capture"
    )
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError) as error:
        require_root(file)
    assert str(error.value) == (f"{file}: this is a file, expected a folder of runs. Try its folder: {tmp_path}")


def test_the_default_is_traces_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_root().name == "traces" and default_root().is_dir()  # the samples of the package
    (tmp_path / "traces").mkdir()
    assert default_root() == Path("traces")
