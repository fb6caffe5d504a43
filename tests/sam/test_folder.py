"""Run folders appear whole or not at all, and nothing that is no run is ever replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler_kit.errors import OptionError
from profiler_kit.sam.folder import whole_folder


def fill(target: Path, text: str, *, overwrite: bool = False) -> None:
    with whole_folder(target, overwrite=overwrite) as folder:
        assert folder.parent == target.parent and folder.name.startswith(".")
        (folder / "run.json").write_text(text)


def refused(target: Path, *, overwrite: bool) -> str:
    with pytest.raises(OptionError) as caught:
        fill(target, "never", overwrite=overwrite)
    return str(caught.value)


def test_a_folder_appears_at_the_end_and_its_parents_are_made(tmp_path: Path) -> None:
    target = tmp_path / "new" / "run"
    with whole_folder(target, overwrite=False) as folder:
        (folder / "run.json").write_text("1")
        assert not target.exists()
    assert (target / "run.json").read_text() == "1"
    assert [p.name for p in target.parent.iterdir()] == ["run"]


def test_nothing_is_left_when_it_raises(tmp_path: Path) -> None:
    target = tmp_path / "run"
    fill(target, "before")
    with pytest.raises(KeyboardInterrupt), whole_folder(target, overwrite=True) as folder:
        (folder / "run.json").write_text("half")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert (target / "run.json").read_text() == "before"


def test_an_existing_run_is_replaced_only_when_asked(tmp_path: Path) -> None:
    target = tmp_path / "run"
    fill(target, "before")
    assert refused(target, overwrite=False) == (
        f"--out {target}: this folder is there already. Choose another --out, or add --overwrite."
    )
    assert (target / "run.json").read_text() == "before"
    fill(target, "after", overwrite=True)
    assert (target / "run.json").read_text() == "after"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_what_is_no_run_is_never_touched(tmp_path: Path) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / "letter.txt").write_text("dear")
    assert refused(target, overwrite=True) == (
        f"--out {target}: this folder holds something other than a run (no run.json), --overwrite does not touch it. "
        "Choose another --out."
    )
    file = target / "letter.txt"
    assert refused(file, overwrite=True) == f"--out {file}: this is a file, want a new folder. Choose another --out."
    below = file / "run"
    assert refused(below, overwrite=True) == f"--out {below}: {file} is a file, want a folder. Choose another --out."
    assert file.read_text() == "dear"


def test_a_name_is_wanted() -> None:
    assert refused(Path(), overwrite=True) == (
        "--out .: this names no folder of its own, want a new one. Try --out run."
    )
