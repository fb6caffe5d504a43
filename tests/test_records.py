"""Records that hold something else: one line for any wrong value, whoever reads them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from profiler_kit.errors import InputError, KitError, RunFormatError
from profiler_kit.formats.ladder_record import read_ladder
from profiler_kit.formats.layer_file import read_layers
from profiler_kit.formats.run_record import read_record
from profiler_kit.formats.study_file import read_study, study_samples, study_totals
from profiler_kit.models.sam.accuracy import decode, read_masks_file
from profiler_kit.run import load_run
from tests.app import test_ladder_page, test_pages
from tests.app.samples import make_runs
from tests.cli.run import profiler_kit
from tests.ladders import write_ladder

SAMPLES = Path(__file__).parents[1] / "traces"
DEEP = "[" * 100_000 + "]" * 100_000
WRONG = (
    '["x", null, {}]',
    '{"load": "text"}',
    "3",
    '"x"',
    "null",
    "-1",
    "1.5",
    "1e400",
    "9" * 400,
    "NaN",
    "[[]]",
    DEEP,
)
NUMBERS = ("-1", "1.5", "true", "NaN", "1e400", "9" * 400, str(1 << 63), str((1 << 53) + 1), '"1"', "null", "[1]")


def with_value(text: str, name: str, value: str) -> str:
    """The first value of that name replaced by that text."""
    data = json.loads(text)
    data[name] = "HERE"
    return json.dumps(data).replace('"HERE"', value, 1)


def wrong_runs() -> Iterator[tuple[str, str]]:
    yield from (("latency_ns", value) for value in WRONG if value != "[[]]")
    yield from (("latency_ns", f"[{value}]") for value in NUMBERS)
    yield from (("phases_ns", f'{{"load": {value}}}') for value in NUMBERS)
    yield from (("batch_size", value) for value in ("0", *NUMBERS))
    yield from (("peak_memory_bytes", value) for value in NUMBERS if value != "null")
    yield from (("snapshot_peak_bytes", value) for value in NUMBERS if value != "null")
    yield from (("optimizations", value) for value in ("3", '"bf16"', "[3]", "null", DEEP, '{"a": 1}'))
    yield from (("versions", value) for value in ("3", '{"torch": 2}', "[]", "null"))
    yield from (("workload", value) for value in ("3", "[]", DEEP, "9" * 5000))
    yield from (("model", value) for value in ("3", "null", "[]", r'"\ud800"'))


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run, and what its record holds: each test writes its own instead."""
    run = make_runs(tmp_path_factory.mktemp("runs")) / "gpu"
    return run, (run / "run.json").read_text()


@pytest.mark.parametrize(("name", "value"), [*wrong_runs()], ids=lambda text: text[:20])
def test_a_wrong_value_of_a_run_is_one_line(right: tuple[Path, str], name: str, value: str) -> None:
    run, text = right
    path = run / "run.json"
    path.write_text(with_value(text, name, value))
    with pytest.raises(RunFormatError) as caught:
        read_record(run)
    line = str(caught.value)
    assert line.startswith(f"{path}: ") and "\n" not in line and len(line) < 400
    assert line.endswith(", expected the record of a run. Record a run with: profiler-kit capture --out DIR")
    assert load_run(run).problems == (line,)


def test_every_page_and_command_says_it_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_runs(tmp_path / "traces")
    monkeypatch.setenv("PROFILER_KIT_DIR", str(root))
    run, path = root / "gpu", root / "gpu" / "run.json"
    path.write_text(with_value(path.read_text(), "latency_ns", '["x", null, {}]'))
    said = (
        f"{path}: Expected `int`, got `str` - at `$.latency_ns[0]`, expected the record of a run. "
        "Record a run with: profiler-kit capture --out DIR"
    )
    for command in (
        ("report", run, "-o", tmp_path / "r.html"),
        ("advice", run),
        ("diff", run, root / "host"),
        ("doctor", run),
    ):
        done = profiler_kit(*command)
        assert done.code == 0 and (done.out + done.err).count(said) == 1
    for page in test_pages.OF_A_RUN:
        test_pages.show(page, "gpu")  # without an exception


def test_what_is_odd_and_right_is_read(tmp_path: Path) -> None:
    root = make_runs(tmp_path)
    path = root / "gpu" / "run.json"
    record = json.loads(path.read_text())
    del record["workload"], record["format"], record["notes"]
    path.write_text(json.dumps({**record, "new": {"key": [1]}, "images": "generated", "latency_ns": [0, 1 << 53]}))
    found = read_record(root / "gpu")
    assert found.workload == {"images": "generated"} and found.latency_ns == (0, 1 << 53)
    assert profiler_kit("report", root / "gpu", root / "host", "-o", tmp_path / "r.html").code == 0


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, one in inner:
        yield from leaves(one, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    whole = at = copy.deepcopy(value)
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = new
    return whole


ODD = (
    *("x", "", None, {}, [], -1, 0, 1, 1 << 53, 1 << 64, 10**399, 1.5, 1e300, float("nan"), True, [0], [0, 0], [[]]),
    *([1 << 53] * 3, {"load": 0}, {"load": 1 << 53}, "\x1b[31m\n<script>", "é\u2028", "x" * 10_000),
)


def test_no_value_of_a_ladder_or_a_study_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty of each, drawn by lot: read and shown, or refused in one line."""
    monkeypatch.setenv("PROFILER_KIT_DIR", str(tmp_path))
    write_ladder(tmp_path / "ladder")
    study = json.loads((SAMPLES / "h200-vit_b-study" / "study.json").read_text())
    study["samples"] = study["samples"][:20]
    lot = random.Random(0)
    for name, whole in (("results", json.loads((tmp_path / "ladder" / "results.json").read_text())), ("study", study)):
        path = tmp_path / "ladder" / f"{name}.json"
        (tmp_path / "ladder" / f"{name}.csv").touch()
        for place, value in lot.sample([(place, value) for place in leaves(whole) for value in ODD], 40):
            path.write_text(json.dumps(replaced(whole, place, value)))
            try:
                if name == "study":
                    study_totals(study_samples(read_study(path)))
                else:
                    read_ladder(path)
            except InputError as error:
                assert str(error).startswith(f"{path}: ") and "\n" not in str(error), (place, value)
                if lot.random() < 0.95:
                    continue
            test_ladder_page.show(view="Trade-offs" if lot.random() < 0.2 else "Speed")
            if name == "results" and lot.random() < 0.5:
                assert profiler_kit("ladder", tmp_path / "ladder", "--png", tmp_path / "w.png").err.count("\n") < 2
        path.unlink()


def test_rows_that_contradict_themselves(tmp_path: Path) -> None:
    write_ladder(tmp_path)
    path = tmp_path / "results.json"
    whole = json.loads(path.read_text())
    for place, value, said in (
        (("rows", 1, "batch_size"), 0, "`batch_size` is 0 beside samples in `latency_ns` - at `$.rows[1]`"),
        (("rows", 1, "latency_ns"), [0], "Expected `int` >= 1 - at `$.rows[1].latency_ns[0]`"),
        (("rows", 1, "status"), "fine", "Invalid enum value 'fine' - at `$.rows[1].status`"),
        (("setup", "batch_size"), 0, "Expected `int` >= 1 - at `$.setup.batch_size`"),
        (("format",), 9, "format 9, expected 1 or less: it was written by a newer profiler_kit"),
    ):
        path.write_text(json.dumps(replaced(whole, place, value)))
        with pytest.raises(RunFormatError) as caught:
            read_ladder(path)
        assert str(caught.value).startswith(f"{path}: {said}")


MASKS = '{{"images": [{{"id": 0, "file_name": "a", "height": {0}, "width": {1}}}], "annotations": [{{"image_id": 0, '
MASKS += '"segmentation": {{"size": [{0}, {1}], "counts": {2}}}, "score": {3}}}]}}'


@pytest.mark.parametrize(
    ("height", "width", "counts", "score"),
    [
        ("1000000", "1000000", '"0"', "1"),
        ("65536", "65536", '"0"', "1"),
        ("0", "3", '"0"', "1"),
        ("2", "-2", '"0"', "1"),
        ("2", "3", '"7"', "1"),
        ("2", "3", '"o"', "1"),
        ("2", "3", '"é"', "1"),
        ("2", "3", '"oooooooooooooooooooo1"', "1"),
        ("2", "3", '"O7"', "1"),
        ("2", "3", "[6]", "1"),
        ("2", "3", '"6"', "NaN"),
        ("2", "3", '"6"', '"x"'),
        ("9" * 400, "3", '"6"', "1"),
    ],
)
def test_masks_of_absurd_sizes_are_refused(tmp_path: Path, height: str, width: str, counts: str, score: str) -> None:
    path = tmp_path / "masks.json"
    path.write_text(MASKS.format("2", "3", '"6"', "1"))
    assert not decode(read_masks_file(path)[0].rles[0]).any()
    path.write_text(MASKS.format(height, width, counts, score))
    with pytest.raises(RunFormatError) as caught:
        read_masks_file(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_mask_whose_runs_do_not_fill_its_size_is_not_decoded() -> None:
    with pytest.raises(ValueError, match="its runs do not fill 1000000 x 1000000 pixels"):
        decode({"size": [1_000_000, 1_000_000], "counts": b"6"})


def layer_table() -> pa.Table:
    return pq.read_table(SAMPLES / "h200-vit_b-eager-fp32" / "layers.parquet").slice(0, 200)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("host_ns", pa.array([1.5] * 200), "host_ns is double, expected int64"),
        ("host_ns", pa.array(["1"] * 200), "host_ns is string, expected int64"),
        ("host_ns", pa.array([None] * 200, pa.int64()), "host_ns is empty in 200 rows"),
        ("host_ns", pa.array([-1] * 200), "host_ns is -1 to -1"),
        ("host_ns", pa.array([1 << 62] * 200), f"host_ns is {1 << 62} to {1 << 62}"),
        ("host_ns", pa.array([(1 << 63) + 1] * 200, pa.uint64()), f"host_ns is {(1 << 63) + 1} to {(1 << 63) + 1}"),
        ("batch_size", pa.array([0] * 200), "batch_size is 0 to 0"),
        ("layer", pa.array([0] * 200), "layer is int64, expected string"),
        ("layer", pa.array([["a"]] * 200), "layer is list<element: string>, expected string"),
        ("layer", pa.array([b"\xff"] * 200), "layer is binary, expected string"),
        ("layer", pa.array([None] * 200, pa.string()), "layer is empty in 200 rows"),
        ("layer", pa.array(["x" * 100_000] * 200), "layer is up to 100000 characters long"),
    ],
)
def test_columns_of_layers_that_hold_something_else(tmp_path: Path, name: str, values: pa.Array, said: str) -> None:
    table, path = layer_table(), tmp_path / "layers.parquet"
    pq.write_table(table.set_column(table.column_names.index(name), name, values), path)
    with pytest.raises(RunFormatError) as caught:
        read_layers(path)
    assert str(caught.value) == (
        f"{path}: a column holds something else ({said}), expected a layers.parquet of profiler-kit. "
        "Record one with: profiler-kit layers --out DIR"
    )
    if said.startswith("layer is binary"):  # a command says what the error of any of them says
        done = profiler_kit("report", path, "-o", tmp_path / "r.html")
        assert (done.code, done.err) == (1, f"profiler-kit: {caught.value}\n")


def test_layers_without_rows_and_with_too_many(tmp_path: Path) -> None:
    path = tmp_path / "layers.parquet"
    pq.write_table(layer_table().slice(0, 0), path)
    assert profiler_kit("layers", path).code == profiler_kit("report", path, "-o", tmp_path / "r.html").code == 0
    one = layer_table().slice(0, 1)
    pq.write_table(one.take(pa.array([0] * 1_000_000)), path)
    with pytest.raises(RunFormatError, match=r"a column holds something else \(1000000 rows in \d+ bytes\)"):
        read_layers(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("forwards", b'{"batch_size": ["x"], "iteration": [1], "forward_ns": [1]}'),
        ("forwards", b'{"batch_size": [1], "iteration": [1, 2], "forward_ns": [1]}'),
        ("forwards", b'{"batch_size": [1], "iteration": [1], "forward_ns": [1e400]}'),
        ("forwards", b'{"batch_size": [0], "iteration": [1], "forward_ns": [1]}'),
        ("forwards", b'{"batch_size": [1]}'),
        ("forwards", b"[1]"),
        ("notes", b"[1, null]"),
        ("notes", b"\xff"),
        ("notes", DEEP.encode()),
    ],
)
def test_metadata_of_layers_that_holds_something_else(tmp_path: Path, key: str, value: bytes) -> None:
    path, table = tmp_path / "layers.parquet", layer_table()
    pq.write_table(table.replace_schema_metadata({f"profiler_kit.{key}": value}), path)
    with pytest.raises(KitError) as caught:
        read_layers(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
