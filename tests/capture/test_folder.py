"""Run folders appear whole or not at all, and nothing that is no run is ever replaced."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from profiler_kit.capture.run_folder import whole_folder
from profiler_kit.errors import OptionError, OutputError
from profiler_kit.files import whole_file


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
        f"{target}: this folder exists already. Choose another name, or add --overwrite."
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
        f"{target}: this folder holds something other than a run (no run.json), --overwrite does not touch it. "
        "Choose another name."
    )
    file = target / "letter.txt"
    assert refused(file, overwrite=True) == f"{file}: this is a file, expected a new folder. Choose another name."
    below = file / "run"
    assert refused(below, overwrite=True) == f"{below}: {file} is a file, expected a folder. Choose another name."
    assert file.read_text() == "dear"


def test_a_name_is_wanted() -> None:
    assert refused(Path(), overwrite=True) == (".: this names no folder of its own, expected a new one. Try run.")


def test_folders_made_for_it_go_with_it(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "run"
    with pytest.raises(KeyboardInterrupt), whole_folder(target, overwrite=False):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), whole_folder(target, overwrite=False):
        (tmp_path / "a" / "mine").touch()
        raise KeyboardInterrupt
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["a", "a/mine"]
    (tmp_path / "a" / "mine").unlink()
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "a" / "run", overwrite=False):
        raise KeyboardInterrupt
    assert (tmp_path / "a").is_dir()  # it was there before


def test_an_error_names_the_file_where_it_would_have_been(tmp_path: Path) -> None:
    target = tmp_path / "run"
    with (
        pytest.raises(OutputError) as caught,
        whole_folder(target, overwrite=False) as folder,
        whole_file(folder / "trace.json"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value) == (
        f"{target / 'trace.json'}: cannot be written (No space left on device). "
        "Free some space, or choose another path."
    )
    assert list(tmp_path.iterdir()) == []


def a_dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_capture_left_is_cleared_by_the_next_one(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time\n"
        "from profiler_kit.capture.run_folder import whole_folder\n"
        f"with whole_folder(pathlib.Path({str(tmp_path)!r}) / 'run', overwrite=False) as folder:\n"
        "    (folder / 'trace.json').write_text('half')\n"
        "    print(folder.name, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = process.stdout.readline().strip()
        fill(tmp_path / "other", "1")
        assert sorted(path.name for path in tmp_path.iterdir()) == [left, "other"]  # it still runs
        process.send_signal(signal.SIGKILL)
    fill(tmp_path / "third", "1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "third"]


def test_only_what_is_surely_left_over_is_cleared(tmp_path: Path) -> None:
    dead = a_dead_process()
    kept = [
        f".tmp-{os.getpid()}-mine",  # that process runs
        ".tmp-1-run",  # of another user, or at least alive
        f".tmp-{dead}",
        ".tmp-x-run",
        f".tmp-0{dead}-run",
        f"tmp-{dead}-run",
        f".tmp-{dead}-locked",
        ".tmp-99999999999-run",
        f".tmp-{dead}-file",
    ]
    fill(tmp_path / "there", "new")
    for name in kept[:-1]:
        (tmp_path / name).mkdir()
    (tmp_path / kept[-1]).touch()
    for name in (f".tmp-{dead}-run", f".old-{dead}-there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").touch()
    handle = os.open(tmp_path / f".tmp-{dead}-locked", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # at work in a container of its own, where numbers are others
        fill(tmp_path / "run", "1")
    finally:
        os.close(handle)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "run", "there"])
    assert (tmp_path / "there" / "run.json").read_text() == "new"


def test_a_run_whose_replacement_never_came_is_put_back(tmp_path: Path) -> None:
    aside = tmp_path / f".old-{a_dead_process()}-run"
    aside.mkdir()
    (aside / "run.json").write_text("before")
    assert refused(tmp_path / "run", overwrite=False).endswith("Choose another name, or add --overwrite.")
    assert (tmp_path / "run" / "run.json").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
