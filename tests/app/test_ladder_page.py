"""The Ladder page: filled, empty, broken, and without any run beside it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from profiler_kit.load.discover.runs import find_ladders
from tests.app.dashboard import dashboard
from tests.app.samples import gpu_trace, record
from tests.app.test_pages import errors, text
from tests.ladders import a_ladder, write_ladder


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROFILER_KIT_DIR", str(tmp_path))
    return tmp_path


def show(**query: str) -> AppTest:
    test = dashboard()
    test.run()
    test.switch_page("app_pages/ladder.py")
    for name, value in query.items():
        test.query_params[name] = value
    test.run()
    assert not test.exception, [e.value for e in test.exception]
    return test


def test_a_ladder_without_any_run_beside_it(root: Path) -> None:
    write_ladder(root / "vit_b")
    test = show()
    assert "The fastest row is **int8**: **400.0 images/s**, 5.00 times the published" in text(test)
    assert "SAM vit_b (random:0), points, batch size 8, NVIDIA H200" in text(test)
    assert "random weights: masks are noise" in text(test)
    assert [w.value.replace("\\", "") for w in test.warning] == ["oom: oom. --batch-size 8: too much"]
    assert test.dataframe[0].value["images_per_s"].tolist()[:4] == [80, 160, 320, 400]
    assert errors(test) == []
    assert "What ran" in [part.value for part in test.subheader]
    for view, heads in (("Trade-offs", ["Speed against agreement", "Roofline"]), ("Masks", ["Masks"])):
        other = show(view=view)
        assert [part.value for part in other.subheader] == heads and errors(other) == []
    assert test.query_params["ladder"] in ("vit_b", ["vit_b"])


def test_rows_below_the_accuracy_asked_for_are_marked(root: Path) -> None:
    write_ladder(root / "a", dataclasses.replace(a_ladder(), min_miou=0.95))
    write_ladder(root / "b" / "deep")
    assert "Masks agree less with those of fp32 than --min-miou 0.95 asks for: int8." in errors(show())
    test = show(ladder="b/deep")
    assert test.selectbox[0].value == "b/deep" and not any("--min-miou" in line for line in errors(test))
    assert "nowhere: no ladder here (moved or deleted?). A different one is shown." in errors(show(ladder="nowhere"))


def test_the_ladder_of_a_run_is_shown_or_one_of_its_model(root: Path) -> None:
    made = a_ladder()
    for model in ("vit_a", "vit_b"):
        folder = write_ladder(
            root / model, dataclasses.replace(made, setup=dataclasses.replace(made.setup, model=model))
        )
        row, run = folder / "rows" / "int8", root / f"run of {model}"
        for made_in in (row, run):
            made_in.mkdir(parents=True)
        gpu_trace().write(row / "trace.json.gz")
        gpu_trace().write(run / "trace.json.gz")
        dataclasses.replace(record("gpu"), model=model).write(run)
    for of in ("vit_b", "vit_b/rows/int8", "run of vit_b"):
        assert show(run=of).selectbox[0].value == "vit_b", of
    assert show(run="run of vit_b", ladder="vit_a").selectbox[0].value == "vit_a"
    assert not show(run="run of vit_b").code


def test_of_a_run_without_a_ladder_of_its_model_it_is_said_and_how_to_measure_one(root: Path) -> None:
    write_ladder(root / "a")
    for name, command in (("bare", ""), ("mine", "python mine.py"), ("sam", "profiler-kit capture --model vit_x")):
        (root / name).mkdir()
        gpu_trace().write(root / name / "trace.json.gz")
        if command:
            dataclasses.replace(record(name), model="vit_x", command=command).write(root / name)
    shown = [show(run=name) for name in ("bare", "mine", "sam")]
    assert [test.warning[0].value.replace("\\", "") for test in shown] == [
        "The model of **bare** is unknown, for it has no run.json. This one is of vit_b.",
        "No ladder of **vit_x**, the model of mine, is here. This one is of vit_b.",
        "No ladder of **vit_x**, the model of sam, is here. This one is of vit_b.",
    ]
    assert [test.code[0].value for test in shown] == [
        f"profiler-kit ladder mine.py:workload --out {root}/bare-ladder",
        f"profiler-kit ladder mine.py:workload --out {root}/mine-ladder",
        f"profiler-kit ladder --model vit_x --out {root}/sam-ladder",
    ]


def test_no_ladder_says_how_to_make_one(root: Path) -> None:
    test = show()
    assert "No ladder here yet" in text(test) and f"profiler-kit ladder --out {root}/ladder" in test.code[0].value


def test_broken_results_are_one_line(root: Path) -> None:
    folder = write_ladder(root / "x")
    (folder / "results.json").write_text("{")
    assert len(errors(show())) == 1 and errors(show())[0].startswith(f"{folder}/results.json: ")


def test_ladders_are_found_inside_the_root_only(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = write_ladder(tmp_path_factory.mktemp("outside") / "x")
    write_ladder(root / "mine")
    (root / "link").symlink_to(outside)
    assert [found.key for found in find_ladders(root)] == ["mine"]
