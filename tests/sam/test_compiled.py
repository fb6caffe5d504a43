"""AOTInductor packages: saved, loaded, equal to the published encoder; and what happens when one cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from profiler_kit.errors import InputError, WorkloadError
from profiler_kit.models.sam import compiled
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.optimizations import parse_optimizations
from profiler_kit.workload.optimizations import optimized


def test_a_package_is_made_once_for_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """What compiles it is stood in for: tests/serving/test_package.py makes a real one."""
    model = load_model("vit_tiny").model
    made: list[torch.Size] = []
    monkeypatch.setattr(compiled, "save_encoder", lambda _, images, path: made.append(images.shape) or path)
    monkeypatch.setattr(compiled, "load_encoder", lambda _: lambda images: images + 1)
    monkeypatch.setattr(compiled, "why_not_loadable", lambda _: "")
    names, kept = "nosync,patch_linear,sdpa,rel_pos,window_pad,batched_decoder,aoti", set(model.state_dict())
    with torch.no_grad(), optimized(model, parse_optimizations(names), torch.device("cpu")) as sam:
        for size in (1, 1, 2):
            assert sam.image_encoder(torch.zeros(size, 3, 4, 4)).min() == 1
        assert sam.image_encoder.img_size == 256 and set(sam.state_dict()) == kept
        monkeypatch.setattr(compiled, "why_not_loadable", lambda _: "signal 11")
        with pytest.raises(WorkloadError) as caught:
            sam.image_encoder(torch.zeros(3, 3, 4, 4))
    assert made == [torch.Size((size, 3, 4, 4)) for size in (1, 2, 3)]
    assert str(caught.value) == (
        f"--optimizations aoti: torch {torch.__version__} cannot load the AOTInductor package it made here (signal 11)"
        ". Use compile or compile_graphs, or another torch."
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_what_is_no_package_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        compiled.load_encoder(tmp_path / "none.pt2")
    assert "none.pt2" in str(caught.value) and "save_encoder" in str(caught.value)
    (tmp_path / "bad.pt2").write_bytes(b"no package")
    with pytest.raises(InputError) as caught:
        compiled.load_encoder(tmp_path / "bad.pt2")
    assert "bad.pt2: cannot be loaded" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("program", "said"),
    [("import os; os.abort()", "signal 6"), ("raise SystemExit('no such file')", "no such file"), ("", "")],
)
def test_a_package_is_tried_in_a_process_of_its_own(program: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_TRY", program)
    assert compiled.why_not_loadable([Path("encoder.pt2")]) == said
