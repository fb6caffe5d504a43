"""Compile a SAM's image encoder: torch.compile in three modes, and AOTInductor packages."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

import torch

from profiler_kit.errors import InputError, WorkloadError
from profiler_kit.files import require_file
from profiler_kit.workload.optimizations import Graph, Wrapped, record_graph

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Tensor = torch.Tensor
_CXX: Final = "libstdc++.so.6"
_TRY: Final = (
    "import ctypes, contextlib, sys, torch\nwith contextlib.suppress(OSError): "
    f"ctypes.CDLL('{_CXX}', ctypes.RTLD_GLOBAL)\n"
    "for one in sys.argv[1:]: torch._inductor.aoti_load_package(one)"
)
_PACKAGE: Final = "a package written by save_encoder (.pt2)"


def compile_encoder(sam: Sam, *, backend: str = "inductor", mode: str | None = None) -> Sam:
    """Compile the parts of the image encoder in place: for the first batch size, then once more for any other.

    The blocks are compiled one by one: they share two graphs (windows, global), so that vit_h compiles in a quarter
    of the time that the encoder as one graph takes, and runs as fast. Attributes, children and the state dict stay
    as they are. mode: as torch.compile's.
    """
    encoder = sam.image_encoder
    for part in (encoder.patch_embed, *encoder.blocks, encoder.neck):
        part.compile(backend=backend, mode=mode)
    return sam


class GraphedEncoder(Wrapped):
    """An encoder that replays a CUDA graph, one for each shape and dtype of its input; it is recorded first.

    Answers are copied out of the graph's memory: otherwise the next image would change the answer to this one.
    """

    def __init__(self, published: torch.nn.Module) -> None:
        super().__init__(published)
        self._recorded: dict[tuple[torch.Size, torch.dtype], tuple[Graph, Tensor]] = {}

    def forward(self, images: Tensor) -> Tensor:
        """As the published encoder."""
        key = (images.shape, images.dtype)
        if key not in self._recorded:
            encoder = self._whole[0]
            # the encoder casts its input: half the bytes
            given = images.to(next(encoder.parameters()).dtype, copy=True)
            self._recorded[key] = record_graph(lambda: encoder(given), images.device), given
        graph, given = self._recorded[key]
        given.copy_(images)
        out: Tensor = graph.replay().clone()
        return out


def graph_encoder(sam: Sam) -> Sam:
    """torch.compile, then the whole encoder as one CUDA graph: one launch a forward."""
    compile_encoder(sam)
    sam.image_encoder = GraphedEncoder(sam.image_encoder)
    return sam


class PackagedEncoder(Wrapped):
    """An encoder that runs AOTInductor packages, one for each shape of its input; a missing one is made first."""

    def __init__(
        self, published: torch.nn.Module, packages: Mapping[torch.Size, Callable[[Tensor], Any]] = MappingProxyType({})
    ) -> None:
        super().__init__(published)
        self._packages = dict(packages)

    def forward(self, images: Tensor) -> Any:
        """As the published encoder."""
        run = self._packages.get(images.shape)
        if run is None:
            with tempfile.TemporaryDirectory() as folder:
                path = save_encoder(self._whole[0], images, Path(folder) / "encoder.pt2")
                if problem := why_not_loadable([path]):
                    raise WorkloadError(
                        f"--optimizations aoti: torch {torch.__version__} cannot load the AOTInductor package it made "
                        f"here ({problem}). Use compile or compile_graphs, or another torch."
                    )
                run = self._packages[images.shape] = load_encoder(path)
        return run(images)


def package_encoder(sam: Sam) -> Sam:
    """Run the image encoder from AOTInductor packages: compiled ahead, saved to a file, loaded from it."""
    sam.image_encoder = PackagedEncoder(sam.image_encoder)
    return sam


@torch.no_grad()
def save_encoder(encoder: torch.nn.Module, images: Tensor, path: Path) -> Path:
    """Compile `encoder` for inputs of the shape, dtype and device of `images`, weights included, into `path`."""
    exported = torch.export.export(encoder, (images,))
    torch._inductor.aoti_compile_and_package(exported, package_path=path.as_posix())
    return path


def why_not_loadable(paths: Sequence[Path]) -> str:
    """Load packages in a process of its own first: where that crashes, ours would end without a word. "" if it can.

    torch 2.11.0+cu130 crashed so where libstdc++ was not within reach of a package, even of a single nn.Linear.
    """
    command = [sys.executable, "-c", _TRY, *(path.as_posix() for path in paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    if done.returncode < 0:
        return f"signal {-done.returncode}"
    return f"{lines[-1] if lines else done.returncode}" if done.returncode else ""


def load_encoder(path: Path) -> Callable[[Tensor], Tensor]:
    """The encoder saved in `path`; it runs without Python code of the model, in one thread at a time.

    The file holds compiled code: load only what you made. Raises InputError when it is missing or no package.
    """
    require_file(path, _PACKAGE, "Write one with profiler_kit.models.sam.compiled.save_encoder.")
    with contextlib.suppress(OSError):  # where it has another name
        ctypes.CDLL(_CXX, ctypes.RTLD_GLOBAL)  # packages do not name it, and torch's libraries keep it to themselves
    try:
        # one thread: for several it asks about events, which is refused while a CUDA graph is recorded
        run = torch._inductor.aoti_load_package(path.as_posix(), run_single_threaded=True)
        return cast("Callable[[Tensor], Tensor]", run)
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path}: cannot be loaded ({reason}), expected {_PACKAGE} for this torch and device."
        ) from error
