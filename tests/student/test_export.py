"""An exported student gives what the student gives; what cannot be written is said."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from profiler_kit.cli import load_command
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.models.student import export as exporting
from tests.student.test_students import file_of


def export(*arguments: object) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        load_command("sam").main(["student", "export", *map(str, arguments)], standalone_mode=False)
    return out.getvalue()


@pytest.mark.filterwarnings("ignore")  # the exporter's own advice
def test_an_onnx_model_is_run_and_compared(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "student.onnx"
    (found,) = json.loads(export(file_of(tmp_path / "s.pt"), "--onnx", out, "--json"))
    assert (found["kind"], found["side"]) == ("onnx", 256) and found["error"] < 1e-5 and found["cosine"] > 0.99999
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (maps,) = session.run(None, {session.get_inputs()[0].name: torch.zeros(3, 3, 256, 256).numpy()})
    assert maps.shape == (3, 64, 16, 16)


def test_a_package_is_run_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the compiler does is tested with the teacher's encoder (tests/sam/test_compiled.py)."""
    saved: list[torch.nn.Module] = []

    def save(encoder: torch.nn.Module, _images: torch.Tensor, path: Path) -> Path:
        saved.append(encoder)
        path.write_bytes(b"package")
        return path

    def load(_path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda images: saved[0](images) * 1.01

    monkeypatch.setattr(exporting, "save_encoder", save)
    monkeypatch.setattr(exporting, "load_encoder", load)
    monkeypatch.setattr(exporting, "why_not_loadable", lambda paths: "signal 11")
    with pytest.raises(
        WorkloadError, match=r"--aoti: torch .* cannot load the .* it made here \(signal 11\). Use --onnx"
    ):
        export(file_of(tmp_path / "s.pt"), "--aoti", tmp_path / "student.pt2", "--device", "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["s.pt"]
    monkeypatch.setattr(exporting, "why_not_loadable", lambda paths: "")
    out = tmp_path / "student.pt2"
    printed = export(file_of(tmp_path / "s.pt"), "--aoti", out, "--device", "cpu")
    assert printed == f"written to {out}: images of 256 px, relative error 1.00e-02 against the student itself\n"
    with pytest.raises(OptionError, match=r"--aoti .*student.pt2: this exists already. Choose another file."):
        export(tmp_path / "s.pt", "--aoti", out)
    for wrong, said in (
        (("--aoti", "x"), "--aoti x: torch writes and loads files ending in .pt2 only. Try x.pt2"),
        (("--aoti", "x.pt2", "--onnx", "x.pt2"), "--onnx x.pt2: the same file as --aoti. Choose another file."),
        (("--aoti", tmp_path / "new.pt2", "--onnx", out), f"--onnx {out}: this exists already. Choose another file."),
    ):
        with pytest.raises(OptionError) as refused:
            export(tmp_path / "s.pt", *wrong)
        assert str(refused.value) == said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.pt", "student.pt2"]
    with pytest.raises(OptionError, match=r"found no file to write, expected --aoti FILE or --onnx FILE."):
        export(tmp_path / "s.pt")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(WorkloadError) as lacking:
        export(tmp_path / "s.pt", "--onnx", tmp_path / "x.onnx")
    said = "--onnx: needs onnxscript, which is not installed. Try: pip install 'profiler-kit[onnx]'"
    assert str(lacking.value) == said and not (tmp_path / "x.onnx").exists()
