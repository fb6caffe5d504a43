"""The documentation is whole and needs no network: every public name, command and table is in the reference."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import profiler_kit
from profiler_kit.cli import build_app, commands
from profiler_kit.tables import every_table

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built as `make docs` builds it: a broken link or reference is an error."""
    out = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def anchors(page: Path) -> set[str]:
    return set(re.findall(r'<h[23] id="([^"]+)"', page.read_text(encoding="utf-8")))


def test_every_public_name_command_and_table_is_in_the_reference(site: Path) -> None:
    names = {f"{home}.{name}" for name, home in profiler_kit.HOMES.items()}
    assert names - anchors(site / "reference" / "python.html") == set()
    assert set(commands()) - anchors(site / "reference" / "commands.html") == set()
    assert set(every_table()) - anchors(site / "reference" / "tables.html") == set()


def test_every_public_name_says_what_it_is() -> None:
    undocumented = [name for name in profiler_kit.HOMES if not getattr(profiler_kit, name).__doc__]
    assert undocumented == []
    assert set(profiler_kit.__all__) - set(profiler_kit.HOMES) == {"__version__"}


def test_a_page_asks_no_other_server(site: Path) -> None:
    """Links that a reader follows may lead elsewhere; what a page loads may not."""
    loads = re.compile(r'<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')
    assert [found for page in site.rglob("*.html") for found in loads.findall(page.read_text(encoding="utf-8"))] == []


def test_the_picture_of_the_stages_names_every_folder() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "profiler_kit").glob("*/__init__.py")}
    assert [name for name in sorted(folders) if f"`{name}/`" not in text] == []


DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/measurements.md", "traces/README.md")


def test_every_command_in_the_documents_exists_with_its_options() -> None:
    """`profiler-kit COMMAND ... --option` in code, on one line of a block or between backticks."""
    app, runner = build_app(), CliRunner()
    asked: dict[tuple[str, ...], set[str]] = {}
    for name in DOCUMENTS:
        text = re.sub(r"^```$|^(?=profiler-kit )", "`", (ROOT / name).read_text(encoding="utf-8"), flags=re.MULTILINE)
        for words, rest in re.findall(r"profiler-kit ((?:sam student |sam )?[a-z][\w-]+)([^`#|;]*)", text):
            asked.setdefault(tuple(words.split()), set()).update(re.findall(r"(?<!\S)--[a-z][\w-]+", rest))
    assert len(asked) > 10
    for command, options in sorted(asked.items()):
        shown = runner.invoke(app, [*command, "--help"], terminal_width=200)
        assert shown.exit_code == 0, command
        assert [option for option in sorted(options) if f"{option} " not in shown.output] == [], command


def test_every_file_that_the_architecture_names_exists() -> None:
    """But `cli/idle.py`, which is named because there is none, and the recipes' x.py."""
    files = [str(path) for folder in ("profiler_kit", "app", "tests") for path in (ROOT / folder).rglob("*")]
    for name in ("ARCHITECTURE.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"`([a-z_/]+/?[a-z_]+\.(?:py|c|h))`", (ROOT / name).read_text(encoding="utf-8")))
        missing = {one for one in named if not any(file.endswith(f"/{one}") for file in files)}
        assert missing <= {"cli/idle.py", "tables/x.py", "app/app_pages/x.py"}, name


def test_the_readme_is_read_in_one_sitting() -> None:
    """What is longer stands in docs/, or in the docstring of what it is about."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 130


def test_recorded_commands_name_no_folder_of_a_machine() -> None:
    records = [path for kind in ("json", "jsonl") for path in (ROOT / "benchmarks" / "results").rglob(f"*.{kind}")]
    commands = [(path.name, re.findall(r'"command": ("(?:[^"\\]|\\.)*")', path.read_text("utf-8"))) for path in records]
    assert sum(len(found) for _, found in commands) > 20
    assert [name for name, found in commands if any(re.search(r"[\s'\"=]/\w", one) for one in found)] == []
