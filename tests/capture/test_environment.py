"""describe_environment and resolve_device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import profiler_kit
from profiler_kit.capture import environment
from profiler_kit.capture.environment import command_line, describe_environment, resolve_device
from profiler_kit.errors import KitError, OptionError, WorkloadError

ROOT = Path(__file__).parents[2]


def test_description_of_the_cpu() -> None:
    found = describe_environment("cpu")
    assert {"python", "torch", "profiler_kit"} <= set(found.versions)
    assert found.versions["torch"] == torch.__version__
    assert all(isinstance(version, str) and version for version in found.versions.values())
    assert "driver" not in found.versions
    assert (found.device, bool(found.device_name)) == ("cpu", True)
    json.dumps(dict(found.versions))


def test_commit_of_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_PROBE_TIMEOUT_S", 300.0)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GIT_COMMIT", raising=False)
    assert describe_environment("cpu").git_commit is None
    monkeypatch.setenv("GIT_COMMIT", "abc")
    assert describe_environment("cpu").git_commit == "abc"
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run(["git", "add", "file"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "-m", "m", "--no-gpg-sign"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["git", *identity, "tag", "-a", "v1", "-m", "m"], check=True)
    assert describe_environment("cpu").git_commit == head
    (tmp_path / "file").write_text("2")
    assert describe_environment("cpu").git_commit == f"{head}-dirty"


def test_nothing_fails_without_git_and_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("GIT_COMMIT", raising=False)
    assert describe_environment("cpu").git_commit is None
    assert environment._output_of("nvidia-smi") is None


def test_command_line_has_no_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/people/ada")
    typed = command_line(
        ["/srv/people/ada/bin/profiler-kit", "capture", "--out=/srv/people/ada/runs/a b", "/home/bob/x", "/data/home/c"]
    )
    assert typed == "profiler-kit capture '--out=~/runs/a b' ~/x /data/home/c"
    assert command_line(["/x/profiler_kit/cli/__main__.py", "layers"]) == "profiler-kit layers"
    assert command_line([]) == ""
    assert command_line(["-c"]) == "-c"


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CPU", "", "cpu:0", "cuda:0 "])
def test_unknown_device(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        resolve_device(text)
    assert str(caught.value) == f"device: found {text!r}, expected cpu, cuda or cuda:N. Use --device cpu."


def test_cpu() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("text", ["cuda", "cuda:0"])
def test_no_cuda_device(text: str) -> None:
    with pytest.raises(WorkloadError) as caught:
        resolve_device(text)
    assert str(caught.value) == (
        f"device: found {text!r}, expected a device that is here: this build of torch ({torch.__version__}) sees no "
        "CUDA device; use --device cpu."
    )


@pytest.mark.parametrize(("count", "here"), [(1, "cuda:0"), (4, "cuda:0 to cuda:3")])
def test_device_out_of_range(count: int, here: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert resolve_device("cuda") == resolve_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(WorkloadError) as caught:
        resolve_device("cuda:4")
    assert str(caught.value) == (
        f"device: found 'cuda:4', expected a device that is here: {here}. Use --device cuda:0."
    )


@pytest.mark.parametrize(("number", "text"), [(90102, "9.1.2"), (8907, "8.9.7"), (None, None)])
def test_cudnn_version(number: int | None, text: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: number)
    assert environment._cudnn_version() == text


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_description_of_a_gpu() -> None:
    found = describe_environment(resolve_device("cuda"))
    assert {"cuda", "cudnn", "driver"} <= set(found.versions)
    assert found.device_name == torch.cuda.get_device_name()


def test_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert profiler_kit.__version__ == project["version"]


BLOCKER = """
import sys
class Blocker:  # the blocked packages cannot be found, as where they are not installed
    def __init__(self, finders):
        self.finders = finders
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            return None
        return next(filter(None, (finder.find_spec(name, path, target) for finder in self.finders)), None)
sys.meta_path[:] = [Blocker([finder for finder in sys.meta_path if hasattr(finder, "find_spec")])]
"""


def run_without(packages: set[str], code: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"BLOCKED = {packages!r}\n{BLOCKER}\n{code}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


EVERYTHING_BUT_TORCH = {
    *("pandas", "pyarrow", "msgspec", "isal", "duckdb", "plotly", "streamlit", "rich", "typer", "hta", "viztracer"),
    *("segment_anything", "torchvision", "pycocotools", "PIL", "numba"),
}


def test_capture_needs_torch_alone(tmp_path: Path) -> None:
    code = """
import torch
from profiler_kit import KitError, layer_timer, memory_runner, profiler_runner, region
from profiler_kit.capture.environment import describe_environment
with profiler_runner("t.json.gz"), region("step"), layer_timer(torch.nn.ReLU()) as timer:
    torch.ones(3)
memory_runner("m.pickle", torch.ones, 3)
describe_environment("cpu")
print("fine")
"""
    assert run_without(EVERYTHING_BUT_TORCH, code, tmp_path) == "fine\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.pickle", "t.json.gz"]


def test_package_and_errors_need_nothing(tmp_path: Path) -> None:
    code = "import profiler_kit; print(profiler_kit.__version__, profiler_kit.KitError.__name__)"
    assert run_without({*EVERYTHING_BUT_TORCH, "torch", "numpy"}, code, tmp_path) == "0.1.0 KitError\n"


def test_public_names() -> None:
    assert set(profiler_kit.__all__) <= set(dir(profiler_kit))
    assert profiler_kit.KitError is KitError
    for name in ("layer_timer", "memory_runner", "profiler_runner", "region"):
        assert callable(getattr(profiler_kit, name))
    with pytest.raises(AttributeError) as caught:
        profiler_kit.nothing  # noqa: B018
    assert str(caught.value) == "module 'profiler_kit' has no attribute 'nothing'"
