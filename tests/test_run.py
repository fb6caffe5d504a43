"""A run as a whole: what of a path is loaded, and what a broken part does to the others."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from profiler_kit.errors import InputError, TraceFormatError
from profiler_kit.load.discover.runs import find_runs
from profiler_kit.run import compare_runs, load_run, open_run
from profiler_kit.trace import Trace, load_trace
from tests.app.samples import gpu_trace, host_trace, layers, make_runs, record, snapshot

CASE = Path(__file__).parent / "cases" / "traces" / "two_gpus_in_turn.json"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_runs(tmp_path_factory.mktemp("runs") / "runs")


def test_a_run_folder_is_loaded_with_all_its_parts(root: Path) -> None:
    run = load_run(root / "gpu")
    assert run.holds == ("record", "trace", "memory", "layers")
    assert run.name == "gpu" and run.problems == ()
    assert run.presence is not None and run.presence.ran == "gpu"
    assert run.load is not None and run.load.batches == 1
    assert {file.name for file in run.files} == {
        "run.json",
        "trace.json.gz",
        "memory.pickle",
        "layers.parquet",
        "requests.parquet",
    }


def test_bare_files_are_told_apart_by_how_they_begin(root: Path, tmp_path: Path) -> None:
    for name, source in (
        ("trace", root / "gpu" / "trace.json.gz"),
        ("memory", root / "gpu" / "memory.pickle"),
        ("layers", root / "gpu" / "layers.parquet"),
    ):
        bare = tmp_path / f"{name}.bin"
        bare.write_bytes(source.read_bytes())
        run = load_run(bare)
        assert run.holds == (name,) and run.files == (bare,) and run.load is None


def test_broken_parts_are_said_and_the_others_are_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    record("run").write(folder)
    host_trace().write(folder / "trace.json.gz")
    (folder / "memory.pickle").write_bytes(b"not a pickle")
    (folder / "layers.parquet").write_bytes(b"not parquet")
    run = load_run(folder)
    assert run.holds == ("record", "trace")
    assert [line.split(":")[0] for line in run.problems] == [
        str(folder / "memory.pickle"),
        str(folder / "layers.parquet"),
    ]


def test_a_broken_record_is_not_one_that_is_missing(tmp_path: Path) -> None:
    host_trace().write(tmp_path / "trace.json.gz")
    assert "there is no run.json" in load_run(tmp_path)._repr_html_()
    (tmp_path / "run.json").write_text("{not json")
    for page in (load_run(tmp_path)._repr_html_(), find_runs(tmp_path)[0]._repr_html_()):
        assert "What ran is unknown: run.json cannot be read." in page and "there is no run.json" not in page


@pytest.mark.parametrize("pack", ["json", "json.gz", "json.bz2", "json.xz", "json.zst"])
@pytest.mark.parametrize("name", ["trace", "profile_rank0"])
def test_the_only_trace_of_a_folder_is_its_run_however_it_is_packed(name: str, pack: str, tmp_path: Path) -> None:
    data = CASE.read_bytes()
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}
    kind = pack.partition(".")[2]
    file = tmp_path / f"{name}.{pack}"
    file.write_bytes(packed[kind](data) if kind else data)
    run = load_run(tmp_path)
    assert run.trace is not None and len(run.trace.gpu_events()) == 4
    assert run.holds == ("trace",)
    file.rename(tmp_path / "other.json")  # told by its bytes
    assert load_run(tmp_path).trace is not None


def test_what_is_no_run_is_said_in_one_line(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as none:
        load_run(tmp_path)
    assert str(none.value) == (
        f"{tmp_path}: found no run in this folder, expected a run folder, a chrome trace, a memory snapshot or a "
        "layers.parquet. Record one with: profiler-kit capture --out DIR"
    )
    for kind in ("study", "ladder"):
        folder = Path(__file__).parent.parent / "traces" / f"h200-vit_b-{kind}"
        with pytest.raises(InputError) as other:
            load_run(folder)
        assert str(other.value) == (
            f"{folder}: found a {kind}, expected a run folder, a chrome trace, a memory snapshot or a layers.parquet. "
            f"Show it with: profiler-kit {kind} {folder}"
        )
    with pytest.raises(InputError) as several:
        load_run(root)
    assert "found 4 runs below this folder (bare.json.gz, broken, gpu, host): name one of them" in str(several.value)
    with pytest.raises(InputError, match="no such file"):
        load_run(tmp_path / "missing")
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(TraceFormatError):
        load_run(tmp_path / "text.json")


def test_two_runs_are_compared_with_their_latency(tmp_path: Path) -> None:
    for name, latency in (("a", 40), ("b", 20)):
        folder = tmp_path / name
        folder.mkdir()
        one = record(name)
        object.__setattr__(one, "latency_ns", (latency * 1_000_000,) * 3)
        one.write(folder)
        gpu_trace().write(folder / "trace.json.gz")
    found = compare_runs(load_run(tmp_path / "a"), load_run(tmp_path / "b"))
    assert found is not None
    first = found.changes[0]
    assert first.path == ("latency",) and first.change == -0.5
    (tmp_path / "bare.pickle").write_bytes(snapshot())
    assert compare_runs(load_run(tmp_path / "a"), load_run(tmp_path / "bare.pickle")) is None


def test_layers_are_summed_once_for_everybody(root: Path) -> None:
    found = load_run(root / "gpu").layers
    assert found is not None
    assert sorted(found.totals["batch_size"].unique()) == sorted(set(layers().calls["batch_size"]))
    assert len(found.coverage) == 2


def test_a_record_of_a_newer_format_is_said_and_the_rest_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    record("run").write(folder)
    text = (folder / "run.json").read_text(encoding="utf-8").replace('"format": 1', '"format": 7')
    (folder / "run.json").write_text(text, encoding="utf-8")
    host_trace().write(folder / "trace.json.gz")
    run = load_run(folder)
    assert run.holds == ("trace",)
    assert run.problems == (
        f"{folder / 'run.json'}: format 7, expected 1 or less: it was written by a newer profiler_kit. Update this "
        "one.",
    )


def test_the_parts_of_an_opened_run_are_read_when_asked_for(root: Path, tmp_path: Path) -> None:
    read: list[str] = []

    def counted(file: Path) -> Trace:
        read.append(file.name)
        return load_trace(file)

    run = open_run(root / "gpu", trace=counted)
    assert run.record is not None and {file.name for file in run.files} >= {"trace.json.gz", "memory.pickle"}
    assert read == []
    assert run.presence is not None and run.findings is run.findings and run.trace is not None
    assert read == ["trace.json.gz"]
    assert compare_runs(run, run) is compare_runs(run, run)
    assert dataclasses.replace(run, name="other").trace is run.trace  # one reading for both
    assert run.joined is None and read == ["trace.json.gz"]  # recorded at different times
    broken = tmp_path / "trace.json"
    broken.write_text("hello")
    opened = open_run(broken)
    assert opened.problems == ()
    assert opened.trace is None and opened.holds == ()
    assert len(opened.problems) == 1 and opened.problems[0].startswith(f"{broken}: ")


def test_kernels_and_memory_of_a_run_are_joined_once(tmp_path: Path) -> None:
    golden = Path(__file__).parent / "golden"
    (tmp_path / "memory.pickle").write_bytes((golden / "joined_h200.pickle").read_bytes())
    (tmp_path / "trace.json.gz").write_bytes((golden / "joined_h200.json.gz").read_bytes())
    run = open_run(tmp_path)
    assert run.joined is not None and run.joined is run.joined
    assert run.joined.trace is run.trace and run.joined.snapshot is run.snapshot and not run.joined.regions().empty


@pytest.mark.parametrize(
    ("name", "content"), [("memory.pickle", b"this is no pickle\n"), ("m.PKL", b"\n"), ("m.pkl.gz", b"x")]
)
def test_a_file_called_a_snapshot_is_a_broken_snapshot_not_a_broken_trace(
    name: str, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    run = open_run(tmp_path / name)
    assert run.snapshot is None and run.trace is None
    assert len(run.problems) == 1 and "expected a CUDA memory snapshot" in run.problems[0]


def test_a_trace_is_one_by_whatever_name(tmp_path: Path) -> None:
    assert open_run(gpu_trace().write(tmp_path / "t.pickle")).trace is not None
