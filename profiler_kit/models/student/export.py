"""A student's encoder as a file that runs without this package: an AOTInductor package or an ONNX model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch

from profiler_kit.capture.device import choose_device
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.files import require_folder, whole_file
from profiler_kit.models.sam.compiled import load_encoder, save_encoder, why_not_loadable
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.models.student.workload import student_workload
from profiler_kit.workload.protocol import make_model, relative_error_and_cosine

Run = Callable[[torch.Tensor], Any]
KINDS: Final = ("aoti", "onnx")
_ONNX: Final = ("onnxscript", "onnxruntime")


@dataclass(frozen=True)
class Exported:
    """side: of the images that the file takes, pixels. error, cosine: of its answer against the student's own."""

    kind: str
    path: Path
    side: int
    error: float | None
    cosine: float | None


def export(
    options: dict[str, Any], files: Sequence[tuple[str, Path]], *, batch: int, device: str | None
) -> list[Exported]:
    """Write the encoder of the student that those options of its workload name, and run what was written once.

    files: kind and path of each. aoti: for batches of that size, on a device of that kind. onnx: for batches of any
    size; run by onnxruntime on the CPU. Raises, before any work, OptionError when a file is there, InputError when it
    cannot be, WorkloadError without the packages.
    """
    for kind, path in files:
        if path.exists():
            raise OptionError(f"--{kind} {path}: this exists already. Choose another file.")
        if kind == "aoti" and path.suffix != ".pt2":
            raise OptionError(f"--aoti {path}: torch writes and loads files ending in .pt2 only. Try {path.name}.pt2")
        require_folder(path)
        lacking = [name for name in _ONNX if kind == "onnx" and find_spec(name) is None]
        if lacking:
            raise WorkloadError(
                f"--onnx: needs {lacking[0]}, which is not installed. Try: pip install 'profiler-kit[onnx]'"
            )
    if len({path.absolute() for _, path in files}) < len(files):
        raise OptionError(f"--onnx {files[-1][1]}: the same file as --aoti. Choose another file.")
    workload = student_workload(**options)
    workload.check(batch)
    chosen = choose_device(device)
    return [
        _export(workload, kind, path, batch, torch.device("cpu") if kind == "onnx" else chosen) for kind, path in files
    ]


def _export(workload: SamWorkload, kind: str, path: Path, batch: int, device: torch.device) -> Exported:
    encoder: torch.nn.Module = make_model(workload, device).image_encoder  # type: ignore[assignment]  # a SAM's
    images = torch.randn(batch, 3, workload.image_size, workload.image_size, generator=torch.Generator().manual_seed(0))
    images = images.to(device)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's exporters warn of each other's deprecated parts
        wanted = encoder(images)
        with whole_file(path) as temporary:
            run = _as_package(encoder, images, temporary) if kind == "aoti" else _as_onnx(encoder, images, temporary)
            found = relative_error_and_cosine(run(images), wanted)
    return Exported(kind, path, workload.image_size, found["relative_error"], found["cosine"])


def _as_package(encoder: torch.nn.Module, images: torch.Tensor, path: Path) -> Run:
    save_encoder(encoder, images, path)
    if reason := why_not_loadable([path]):
        said = f"--aoti: torch {torch.__version__} cannot load the AOTInductor package it made here ({reason})"
        raise WorkloadError(f"{said}. Use --onnx, or another torch.")
    return load_encoder(path)


def _as_onnx(encoder: torch.nn.Module, images: torch.Tensor, path: Path) -> Run:
    import onnxruntime

    shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
    example = (
        images if len(images) > 1 else images.expand(2, -1, -1, -1).contiguous()
    )  # one would be taken for a constant
    torch.onnx.export(encoder, (example,), path, dynamo=True, external_data=False, verbose=False, dynamic_shapes=shapes)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: torch.Tensor) -> Any:
        return [torch.from_numpy(part) for part in session.run(None, {name: images.numpy()})]

    return run
