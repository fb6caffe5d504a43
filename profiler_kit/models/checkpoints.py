"""Weights of our models: a checkpoint that is read without running its code and has to fit, or seeded random ones."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import pickle
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from profiler_kit.errors import CheckpointError, InputError
from profiler_kit.files import require_file
from profiler_kit.workload.quantize import int8_rows

# Standard deviation of the noise put on the position embeddings, which the published code starts at zero: a model
# with zeros there would skip no work, but its windows could not tell positions apart.
POSITION_NOISE: Final = 0.02
State = dict[str, torch.Tensor]
_SCALE: Final = "@scale"  # after the name of a tensor that is stored in int8
_LEAST: Final = 4096  # elements of a tensor worth storing so


@dataclass(frozen=True)
class CheckpointKind:
    """What a family's files are. expected: in words. hint: what to try. inside: the key of the state dict."""

    expected: str
    hint: str
    inside: str = ""

    def unpickle(self, path: Path) -> Any:
        """What the file holds: tensors, and plain values around them. Raises CheckpointError."""
        self._require(path)
        wrong = f"expected {self.expected}. {self.hint}"
        try:
            with warnings.catch_warnings():  # torch's advice on other pickle protocols and archives is not for our user
                warnings.simplefilter("ignore")
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            if "Unsupported global" in str(error) or "GLOBAL " in str(error):
                raise CheckpointError(
                    f"{path}: refused, it is a pickle that asks for more than tensors (it could run code), {wrong}"
                ) from error
            raise CheckpointError(f"{path}: not written by torch.save, {wrong}") from error
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
            reason = "" if isinstance(error, LookupError) else f" ({_first_line(error)})"  # a KeyError names a byte
            raise CheckpointError(f"{path}: broken or cut off{reason}, {wrong}") from error

    def read(self, path: Path) -> State:
        """The file's state dict; only tensors are unpickled. Raises CheckpointError."""
        state, wrong = self.unpickle(path), f"expected {self.expected}. {self.hint}"
        if self.inside and isinstance(state, dict) and isinstance(state.get(self.inside), dict):
            state = state[self.inside]
        elif self.inside and isinstance(state, dict):
            raise CheckpointError(f"{path}: holds a dict of {_keys(state)} without {self.inside!r}, {wrong}")
        if not isinstance(state, dict):
            raise CheckpointError(f"{path}: holds {type(state).__name__}, {wrong}")
        if not state or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
            raise CheckpointError(f"{path}: holds a dict of {_keys(state)}, not tensors by parameter name, {wrong}")
        return unpacked(state)

    def check(self, path: Path, state: State, wanted: State, name: str) -> None:
        """Raise CheckpointError unless `state`, read from `path`, has the tensors that the model `name` wants."""
        for key, tensor in wanted.items():
            if key not in state:
                raise CheckpointError(
                    f"{path}: tensor {key} is missing, expected all {len(wanted)} of {name}. {self.hint}"
                )
            if state[key].shape != tensor.shape:
                found, shape = tuple(state[key].shape), tuple(tensor.shape)
                raise CheckpointError(f"{path}: {key} has shape {found}, expected {shape} of {name}. {self.hint}")
        extra = next((key for key in state if key not in wanted), None)
        if extra is not None:
            raise CheckpointError(f"{path}: holds {extra}, which {name} has not. {self.hint}")

    def weights(self, path: Path | None, seed: int | None) -> str:
        """ "checkpoint:<sha256 of the file>" or "random:<seed>"; raises CheckpointError when the file is missing."""
        if path is None:
            return f"random:{seed or 0}"
        self._require(path)
        with path.open("rb") as handle:
            return f"checkpoint:{hashlib.file_digest(handle, 'sha256').hexdigest()}"

    def _require(self, path: Path) -> None:
        try:
            require_file(path, self.expected, self.hint)
        except InputError as error:
            raise CheckpointError(str(error)) from error


def packed(state: State) -> State:
    """The state dict for a small file: large tensors in int8, one scale a row beside each, the others in float16."""
    found: State = {}
    for key, tensor in state.items():
        if tensor.dim() < 2 or tensor.numel() < _LEAST:
            found[key] = tensor.half()
            continue
        rows, scale = int8_rows((tensor.flatten(1) if len(tensor) > 1 else tensor.flatten(0, -2)).float())
        found |= {key: rows.view(tensor.shape), key + _SCALE: scale.half()}
    return found


def unpacked(state: State) -> State:
    """What `packed` packed, in float32; another state dict as it is."""
    scales = {
        key: scale
        for key, tensor in state.items()
        if tensor.dtype == torch.int8
        and (scale := state.get(key + _SCALE)) is not None
        and scale.shape == (len(scale), 1)
        and tensor.numel() % len(scale) == 0
    }
    return {
        key: (tensor.float().view(len(scales[key]), -1) * scales[key].float()).view(tensor.shape)
        if key in scales
        else tensor
        for key, tensor in state.items()
        if key.removesuffix(_SCALE) not in scales or key in scales
    }


@contextlib.contextmanager
def without_torchaos_advice() -> Iterator[None]:
    """For the import of torchao, or of what imports it: torch warns its authors of types that torch knows by now."""
    log = logging.getLogger("torch.utils._pytree")
    log.disabled = True
    try:
        yield
    finally:
        log.disabled = False


def build_seeded(build: Callable[[], Any], seed: int, zeros: Collection[str]) -> Any:
    """What `build` makes on the CPU with torch's CPU generator at `seed`; the generator is put back.

    zeros: parameters that start at zero, by the last part of their name; they get noise instead.
    """
    generator = torch.default_generator
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        generator.manual_seed(seed)
        model = build()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.rpartition(".")[2] in zeros:
                    parameter.normal_(0.0, POSITION_NOISE, generator=generator)
    return model.eval().requires_grad_(False)


def _keys(state: dict[Any, object]) -> str:
    return ", ".join(str(key) for key in list(state)[:3]) or "nothing"


def _first_line(error: Exception) -> str:
    """What it says first; torch goes on with advice."""
    return (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0].rstrip(".")
