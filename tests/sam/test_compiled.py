"""AOTInductor packages: saved, loaded, equal to the published encoder; and what happens when one cannot be loaded."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from profiler_kit.errors import InputError
from profiler_kit.models.sam import compiled
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.optimizations import parse_optimizations
from profiler_kit.workload.optimizations import optimized

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler on a CPU")


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_package_gives_the_published_embedding() -> None:
    """With one block: every further one is more of the same to compile."""
    model = load_model("vit_tiny").model
    encoder = model.image_encoder
    encoder.blocks = encoder.blocks[:1]
    images = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    names = "nosync,patch_linear,sdpa,rel_pos,window_pad,batched_decoder,aoti"
    kept = set(model.state_dict())
    with torch.no_grad():
        want = encoder(images)
        with optimized(model, parse_optimizations(names), torch.device("cpu")) as sam:
            for _ in range(2):  # the second time from the package that is loaded
                torch.testing.assert_close(sam.image_encoder(images), want, rtol=0, atol=2e-5)
            assert sam.image_encoder.img_size == 256 and set(sam.state_dict()) == kept


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
