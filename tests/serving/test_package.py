"""A model compiled ahead: exported, opened, and serving the same masks; and what is made for something else."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from profiler_kit.cli import sam
from profiler_kit.errors import InputError, KitError, OptionError, WorkloadError
from profiler_kit.formats.package_record import CACHES, MANIFEST, PackageRecord, digest
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.models.serving import package, service
from profiler_kit.models.serving.package import export_package, open_package
from profiler_kit.workload import protocol

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"task": "amg", "side": 64, "points_per_side": 2, "pred_iou_thresh": 0.0}
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor needs a C++ compiler on a CPU")


def one_block(workload: SamWorkload, device: torch.device) -> torch.nn.Module:
    """vit_tiny with one block: every further one is more of the same to compile."""
    model: Any = protocol.make_model(workload, device)
    model.image_encoder.blocks = model.image_encoder.blocks[:1]
    return model


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What sam export writes; packages are tried in this process, which takes no seconds.

    One package is compiled, once: headers compiled for the next ones would cost more than it does.
    """
    from torch._inductor import config

    target = tmp_path_factory.mktemp("package") / "tiny"
    quick = {"aot_inductor.precompile_headers": False, "aot_inductor.compile_wrapper_opt_level": "O0"}
    with pytest.MonkeyPatch.context() as patch, config.patch(quick):
        for module in (package, service):
            patch.setattr(module, "make_model", one_block)
        patch.setattr(
            package, "why_not_loadable", lambda paths: "" if all(path.is_file() for path in paths) else "gone"
        )
        record = export_package(SamWorkload("vit_tiny", **SMALL), "ao", CPU, target, batch_size=1)
    assert (record.without, list(record.shapes.values())) == ("", [(1, 3, 64, 64)])
    return target


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_package_serves_the_same_masks(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = json.loads((exported / MANIFEST).read_text())
    assert (said["torch"], said["device"], said["model"]) == (torch.__version__, "cpu", "vit_tiny")
    assert said["sha256"] == {"encoder-1.pt2": digest(exported / "encoder-1.pt2")}
    for module in (package, service):
        monkeypatch.setattr(module, "make_model", one_block)
    monkeypatch.setattr(package, "why_not_loadable", lambda _: "")
    opened = open_package(exported, CPU)
    image = generate_scenes(1, height=48, width=64, seed=1)[0].image
    masks, embeddings = [], []
    for packages in (None, opened.packages):
        with contextlib.ExitStack() as stack:
            workload = SamWorkload("vit_tiny", stability_score_thresh=0.0, **SMALL)
            ready = service.make_service(workload, "ao", CPU, stack, batch_size=1, packages=packages)
            masks.append(ready.generator.generate(image))
            (embedding,) = ready.generator.model.embed([image])
            embeddings.append(embedding.features)
    torch.testing.assert_close(embeddings[1], embeddings[0], rtol=0, atol=2e-5)
    assert masks[0] and len(masks[0]) == len(masks[1])
    assert [one["area"] for one in masks[1]] == pytest.approx([one["area"] for one in masks[0]], rel=0.01)
    opened.check(model="vit_tiny", mode=None, batch_size=1, weights="random:0")
    with pytest.raises(OptionError) as caught:
        opened.check(mode="fast")
    assert str(caught.value) == (
        f"--mode: found fast with --load {exported}, expected ao, which it was made of. Leave it out, or export anew."
    )
    with pytest.raises(OptionError, match=r"^--checkpoint: found random:1 with --load "):
        opened.check(weights="random:1")
    with pytest.raises(OptionError, match=r"^MODEL: found vit_b with --load "):
        sam.serve(model="vit_b", load=exported)
    monkeypatch.setattr(package, "why_not_loadable", lambda _: "signal 11")
    with pytest.raises(
        WorkloadError, match=r"cannot load its packages here \(signal 11\), expected those made by it\. "
    ):
        open_package(exported, CPU)._packages()
    with pytest.raises(OptionError, match=r"this folder exists already\. Choose another name\.$"):
        export_package(SamWorkload("vit_tiny", **SMALL), "baseline", CPU, exported, batch_size=1)


def a_package(folder: Path, **changed: Any) -> Path:
    """A folder with a file that is no package, which is never loaded."""
    (folder / CACHES).write_bytes(b"caches")
    here = {"torch": str(torch.__version__), "device": "cpu", "device_name": "none"}
    facts = {"model": "vit_b", "weights": "random:0", "mode": "fast", "batch_size": 8, "image_size": 1024}
    grid = {"points_per_side": 32, "points_per_batch": 64, "shapes": {}, "sha256": {CACHES: digest(folder / CACHES)}}
    (folder / MANIFEST).write_text(json.dumps(vars(PackageRecord(**{**here, **facts, **grid, **changed}))))
    return folder


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"torch": "1.13.1"}, r"made by torch 1\.13\.1 for none \(cpu\), found torch .* \(cpu\), expected the same\. "),
        ({"device": "cuda", "device_name": "NVIDIA A100"}, r"for NVIDIA A100 \(cuda\), found torch .*Make it anew: "),
        (
            {"sha256": {CACHES: "0" * 64}},
            r"caches\.bin: found another sha256 than manifest\.json says, expected 0{64}\. ",
        ),
        ({"sha256": {"../x": "0"}}, r"names the file '\.\./x', expected names without a folder\. "),
        ({"sha256": {"gone.pt2": "0"}}, r"gone\.pt2: no such file, expected a file of profiler-kit sam export\. "),
        ({"shapes": {"a.pt2": [1, 3, 4, 4]}}, r"has no sha256 of a\.pt2, expected one of each file\. "),
        ({"batch_size": 0}, r"manifest\.json: Expected `int` >= 1"),
        ({"format": 99}, r"manifest\.json: format 99, expected 1 or less"),
    ],
)
def test_a_package_of_something_else_is_one_line(changed: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(KitError, match=said) as caught:
        open_package(a_package(tmp_path, **changed), CPU)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"manifest\.json: no such file, .*sam export DIR MODEL$"):
        sam.serve(load=tmp_path)


def test_without_packages_the_caches_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch cannot load any package: what its compilers kept; nothing at all is an error."""

    def broken(*_: object) -> Path:
        raise RuntimeError("no compiler\nand more")

    kept: list[Callable[[], object]] = []
    monkeypatch.setattr(package, "save_encoder", broken)
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: kept[0]() if kept else None)
    workload = SamWorkload("vit_tiny", **{**SMALL, "points_per_side": 1})
    with pytest.raises(
        WorkloadError, match=r"^--mode baseline: compiles nothing, .*packaged \(no compiler\), expected "
    ):
        export_package(workload, "baseline", CPU, tmp_path / "none", batch_size=1)
    assert not list(tmp_path.iterdir())
    kept.append(lambda: (b"caches", None))
    record = export_package(workload, "baseline", CPU, tmp_path / "caches", batch_size=1)
    assert (record.without, record.shapes, list(record.sha256)) == ("no compiler", {}, [CACHES])
    monkeypatch.setattr(torch.compiler, "load_cache_artifacts", kept.append)
    assert open_package(tmp_path / "caches", CPU).packages is None and kept[1:] == [b"caches"]


def test_packages_that_load_but_do_not_run_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("operation failed\nand more")

    def saved(_: object, __: object, path: Path) -> Path:
        path.write_bytes(b"package")
        return path

    for name, found in (("save_encoder", saved), ("why_not_loadable", lambda _: ""), ("load_encoder", lambda _: run)):
        monkeypatch.setattr(package, name, found)
    monkeypatch.setattr(torch.compiler, "save_cache_artifacts", lambda: (b"caches", None))
    workload = SamWorkload("vit_tiny", **{**SMALL, "points_per_side": 1})
    record = export_package(workload, "baseline", CPU, tmp_path / "caches", batch_size=1)
    assert (record.without, record.shapes, list(record.sha256)) == ("operation failed", {}, [CACHES])
