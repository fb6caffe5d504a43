"""The workload protocol: what any model brings to be captured, timed and laddered, and how it is loaded by name.

A user writes three functions; everything else has a default:

    # mine.py
    class workload:
        def model(device): return torchvision.models.resnet18().to(device)
        def batch(size, device): return torch.randn(size, 3, 224, 224, device=device)
        def step(model, batch): return model(batch)

`profiler-kit capture mine.py:workload` then records it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Protocol

import torch
from torch.utils._pytree import tree_leaves, tree_map

from profiler_kit.capture.device import is_out_of_memory
from profiler_kit.capture.layer_sweep import LARGEST_BATCH
from profiler_kit.capture.layer_tree import Label, Select
from profiler_kit.capture.regions import region
from profiler_kit.errors import KitError, OptionError, WorkloadError
from profiler_kit.formats.ladder_record import OUTPUTS, RowResult
from profiler_kit.workload.optimizations import GENERAL, GENERAL_CPU_LADDER, GENERAL_LADDER, LadderRow, Optimization

DISTINCT: Final = 4  # batches prepared at most; iterations use them again and again
LARGEST_SEED: Final = (1 << 63) - 1  # numpy's generator takes no negative one, torch's none beyond 64 bits
PARTS: Final = {"model": "model(device)", "batch": "batch(size, device)", "step": "step(model, batch)"}
_EXPECTED: Final = "expected model(device), batch(size, device) and step(model, batch)"
_OUTPUT: Final = "a tensor, or a list, tuple, dict or dataclass of tensors"


class UserWorkload(Protocol):
    """What a user's workload has to have; whatever else `Workload` has, it may have too."""

    def model(self, device: torch.device) -> torch.nn.Module:
        """Make the model on that device."""

    def batch(self, size: int, device: torch.device) -> Any:
        """Make a batch of that size; what `step` is given."""

    def step(self, model: Any, batch: Any) -> Any:
        """Run the model on a batch and return its output: tensors, nested as they come."""


class Workload:
    """A model and how to run it, with a default for everything but `model`, `batch` and `step`.

    spec, options: how `load_workload` finds it, in another process too. name: of the model; family: what kind of model
    that is, put before the name. unit: what a batch is counted in. weights: "checkpoint:<sha256>", "random:<seed>" (a
    user's says "random"), or "" when it does not say. image_size: side in pixels, 0 for what takes no images;
    image_step: what sides have to be multiples of, 0 when `at_image_size` takes none. train: `step` needs gradients;
    without, the model is in eval mode and nothing is kept for a backward. smaller: what to try when memory runs out.
    compares: what `compare` compares. scratch: a folder that all rows of a ladder share while it runs. optimizations:
    those that apply, by name; a user's may list names. modes: what a server of masks may run, as names of those.
    """

    spec: str = ""
    options: Mapping[str, Any] = {}
    name: str = ""
    family: str = ""
    unit: str = "items"
    weights: str = ""
    seed: int = 0
    image_size: int = 0
    image_step: int = 0
    train: bool = False
    smaller: str = "a smaller model"
    compares: str = "outputs"
    scratch: Path | None = None
    optimizations: Mapping[str, Optimization] = GENERAL
    modes: Mapping[str, tuple[str, ...]] = {}

    def model(self, device: torch.device) -> torch.nn.Module:
        """Make the model on that device."""
        raise NotImplementedError

    def batch(self, size: int, device: torch.device) -> Any:
        """Make a batch of that size."""
        raise NotImplementedError

    def step(self, model: Any, batch: Any) -> Any:
        """Run what `assemble` made on a batch; returns its output."""
        raise NotImplementedError

    def check(self, batch_size: int) -> None:
        """Raise OptionError or InputError for options that cannot be used, before anything is made."""
        if not 1 <= batch_size <= LARGEST_BATCH:
            raise OptionError(f"--batch-size {batch_size}: expected 1 to {LARGEST_BATCH}.")

    def batches(self, size: int, device: torch.device) -> Sequence[Any]:
        """Some batches to use again and again, not yet on the device."""
        return [self.batch(size, device)]

    def transfer(self, batch: Any, device: torch.device) -> Any:
        """The batch on the device; copies from page-locked memory do not block the host."""
        return tree_map(lambda x: x.to(device, non_blocking=True) if isinstance(x, torch.Tensor) else x, batch)

    def assemble(self, model: Any) -> Any:
        """What `step` is given and whose layers are timed, made of the model once it is optimized."""
        return model

    def dtype(self, model: Any) -> torch.dtype:
        """What the model computes in."""
        return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)

    def facts(self) -> Mapping[str, object]:
        """What the run's record says under `workload`."""
        return {"spec": self.spec, "unit": self.unit}

    def setup(self) -> Mapping[str, Any]:
        """What a ladder's setup says beside what all have: fields of `Setup`."""
        return {}

    def layers(self, _program: Any) -> tuple[Select | None, Label | None]:
        """Which layers to time, and what sets layers of one type apart; as `layer_timer`'s select and label."""
        return None, None

    def components(self, program: Any) -> Mapping[str, str]:
        """The parts of the forward that the study times: layer path and what to call it."""
        return {name: name for name, _ in program.named_children()}

    def at_image_size(self, _side: int) -> Workload:
        """The same workload for images of another side; raises OptionError when it has no such thing."""
        raise OptionError(f"--study image-size: {self.spec} has no at_image_size(side). Choose other studies.")

    def ladder(self, device: torch.device) -> tuple[LadderRow, ...]:
        """The rows of the default ladder."""
        rows = GENERAL_LADDER if device.type == "cuda" else GENERAL_CPU_LADDER
        return tuple(row for row in rows if set(row.optimizations) <= set(self.optimizations))

    def agreement(self, output: Any, baseline: Any) -> Mapping[str, float | None]:
        """How far two outputs agree; see `relative_error_and_cosine`."""
        return relative_error_and_cosine(output, baseline)

    def finish(self, _batch: Any, _output: Any, _folder: Path) -> list[str]:
        """Write what the run folder holds beside the usual, from a batch and its output; returns notes."""
        return []

    def answer(self, bench: Bench, row: RowResult, folder: Path) -> RowResult:
        """Write what is compared later into the folder of a ladder's row; gives the row with what it says of it."""
        torch.save(_plain(bench.run(bench.item(0)), lambda tensor: tensor.detach().cpu()), folder / OUTPUTS)
        return row

    def compare(self, row: RowResult, folder: Path, baseline: Path) -> RowResult:
        """The row with how far its answers agree with the baseline's, from the folders of both."""
        mine, base = folder / OUTPUTS, baseline / OUTPUTS
        if row.scores and not mine.is_file():  # compared before, and resumed without its outputs
            return row
        if not (mine.is_file() and base.is_file()):
            return dataclasses.replace(row, notes=(*row.notes, "outputs: none of the baseline to compare with"))
        output, wanted = (torch.load(path, weights_only=True) for path in (mine, base))
        return dataclasses.replace(row, scores=dict(self.agreement(output, wanted)))


class Bench:
    """A workload's model on a device with some batches, ready to run over and over."""

    def __init__(self, workload: Workload, model: Any, device: torch.device, batch_size: int) -> None:
        """model: as `make_model` gives it, and optimized."""
        self.workload, self.device, self.size = workload, device, batch_size
        self.dtype = str(workload.dtype(model)).removeprefix("torch.")
        self.program = workload.assemble(model)
        with _seeded(workload.seed, device):
            self.batches = list(workload.batches(batch_size, device))

    def item(self, number: int) -> Any:
        """Batch `number` (starting over after the last) on the device."""
        with region("data transfer"):
            return self.workload.transfer(self.batches[number % len(self.batches)], self.device)

    def of_size(self, size: int) -> Any:
        """A batch of another size on the device; those of different sizes differ in size alone."""
        with _seeded(self.workload.seed, self.device):
            return self.workload.transfer(self.workload.batch(size, self.device), self.device)

    def run(self, batch: Any) -> Any:
        """Run one batch; on a GPU nothing waits for the result."""
        with torch.set_grad_enabled(self.workload.train):
            return self.workload.step(self.program, batch)


def make_model(workload: Workload, device: torch.device) -> torch.nn.Module:
    """The workload's model on the device, the same random weights each time."""
    with _seeded(workload.seed, device):
        model = workload.model(device).to(device)
    return model if workload.train else model.eval().requires_grad_(False)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators at the seed inside the block, and as they were after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _plain(value: Any, change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor) -> Any:
    """An output as lists and dicts of (changed) tensors and of numbers; a dataclass becomes a dict."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if dataclasses.is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, change) for part in value]
    return value if isinstance(value, str | int | float) else None


def tensors_of(output: Any) -> list[torch.Tensor]:
    """The tensors of an output, nested as they come, in their order."""
    return [leaf for leaf in tree_leaves(_plain(output)) if isinstance(leaf, torch.Tensor)]


def relative_error_and_cosine(output: Any, baseline: Any) -> dict[str, float | None]:
    """|output - baseline| / |baseline| and the cosine between the two, all their tensors together as one vector.

    None if that is not a number: the output holds NaN or infinity, or the baseline is all zeros. Raises WorkloadError
    when the tensors differ in number or shape.
    """
    mine, base = tensors_of(output), tensors_of(baseline)
    shapes, wanted = ([tuple(t.shape) for t in tensors] for tensors in (mine, base))
    if shapes != wanted:
        raise WorkloadError(f"output: found tensors of shapes {shapes}, expected those of the baseline, {wanted}.")
    error = dot = mine_square = base_square = 0.0
    for a, b in zip(
        (t.detach().double().flatten() for t in mine), (t.detach().double().flatten() for t in base), strict=True
    ):
        a = a.to(b.device)
        error += float((a - b).square().sum())
        dot += float(a @ b)
        mine_square, base_square = mine_square + float(a.square().sum()), base_square + float(b.square().sum())
    scale = (mine_square * base_square) ** 0.5
    cosine = _finite(dot / scale) if scale else None
    return {
        "relative_error": _finite((error / base_square) ** 0.5) if base_square else None,
        "cosine": None if cosine is None else max(-1.0, min(1.0, cosine)),  # rounding may go beyond
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def load_workload(spec: str, options: Mapping[str, Any] | None = None) -> Workload:
    """The workload that `FILE.py:NAME` or `PACKAGE.MODULE:NAME` names; NAME is `workload` when it is left out.

    NAME may be an object, a class or a function without arguments that gives one, or a module's own functions. options:
    the arguments of a workload of profiler_kit's own; of a user's, `seed` alone. Raises WorkloadError, one line, for
    what cannot be imported, has no such name or lacks a part.
    """
    place, _, attribute = spec.rpartition(":") if ":" in spec else (spec, "", "")
    module = _import(place)
    found = getattr(module, attribute or "workload", None)
    if found is None and not attribute and any(hasattr(module, part) for part in PARTS):
        found = module  # one with some parts is a workload that lacks the others
    if found is None:
        names = ", ".join(name for name in vars(module) if not name.startswith("_")) or "nothing"
        raise WorkloadError(
            f"{place}: no {attribute or 'workload'!r} in it, found {names}; expected a workload with model, batch and "
            "step. Name it: FILE.py:NAME."
        )
    if isinstance(found, type) and issubclass(found, Workload) and found.__module__.startswith("profiler_kit."):
        return found(**(options or {}))
    file = getattr(module, "__file__", None)
    name = attribute if attribute not in ("", "workload") else Path(place).stem.rpartition(".")[2]
    return _Checked(_made(found, spec), spec, name, file, **(options or {}))


def _import(place: str) -> ModuleType:
    path = Path(place)
    is_file = place.endswith(".py")
    if is_file and not path.is_file():
        raise WorkloadError(f"{place}: no such file, expected a Python file with a workload. Write FILE.py:NAME.")
    if not is_file and ("/" in place or path.is_file()):
        raise WorkloadError(
            f"{place}: not a Python file, expected one with a workload, or a module's name. Write FILE.py:NAME or "
            "package.module:NAME."
        )
    folder = str(path.resolve().parent if is_file else Path.cwd())
    if folder not in sys.path:  # modules next to the file come first, as for a script; the current folder comes last
        sys.path.insert(0 if is_file else len(sys.path), folder)
    try:
        if not is_file:
            return importlib.import_module(place)
        name = f"profiler_kit_workload_{path.stem}"
        description = importlib.util.spec_from_file_location(name, path)
        assert description is not None and description.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(description)
        description.loader.exec_module(module)
        return module
    except KitError:
        raise
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        how = f"python {place}" if is_file else f'python -c "import {place}"'
        raise WorkloadError(
            f"{place}: cannot be imported ({_reason(error, str(path.resolve()))}), expected a module that defines a "
            f"workload. Try: {how}"
        ) from error


def _made(found: Any, spec: str) -> Any:
    """An instance of a class whose methods take `self`, what a function gives, and anything else itself."""
    if isinstance(found, type):
        parts = [inspect.getattr_static(found, part, None) for part in PARTS]
        if not any(inspect.isfunction(part) and "self" in inspect.signature(part).parameters for part in parts):
            return found
    elif not inspect.isfunction(found):
        return found
    with _said(spec, f"{found.__name__}()", _EXPECTED, inspect.getsourcefile(found)):
        return found()


def _reason(error: BaseException, file: str | None) -> str:
    """What was raised, and the line of the user's file it came from: `ValueError: x; line 3`."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if file and frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines, said = [error.lineno], error.msg
    where = f"; line {lines[-1]}" if lines else ""
    return f"{type(error).__name__}: {said[:300]}{where}" if said else f"{type(error).__name__}{where}"


@contextlib.contextmanager
def _said(spec: str, part: str, expected: str, file: str | None) -> Iterator[None]:
    """Turn what a part of the user's raises into one line; running out of memory and a failed compiler stay."""
    try:
        yield
    except Exception as error:
        if isinstance(error, KitError) or is_out_of_memory(error) or "torch._dynamo.exc" in _kinds(error):
            raise
        raise WorkloadError(f"{spec}: {part} failed ({_reason(error, file)}), {expected}.") from error


def _kinds(error: BaseException) -> set[str]:
    return {kind.__module__ for kind in type(error).__mro__}


_OURS: Final = ("spec", "options", "scratch", "seed", "at_image_size", *PARTS)  # not the user's to set as they are


class _Checked(Workload):
    """A user's workload with the defaults for what it lacks; what its parts raise or give is checked."""

    def __init__(self, given: UserWorkload, spec: str, name: str, file: str | None, *, seed: int = 0) -> None:
        missing = [part for part in PARTS if not callable(getattr(given, part, None))]
        if missing:
            here = ", ".join(part for part in PARTS if part not in missing) or "none of them"
            raise WorkloadError(f"{spec}: no {' and no '.join(missing)} in it (found {here}), {_EXPECTED}.")
        self._given, self._file, self._answers = given, file, False
        self.spec, self.options, self.seed = spec, {"seed": seed}, seed
        self.image_step = 1 if hasattr(given, "at_image_size") else 0
        for part, default in vars(Workload).items():
            if not part.startswith("_") and part not in _OURS and hasattr(given, part):
                setattr(self, part, _fitting(spec, part, default, getattr(given, part)))
        # what says the size of its images is counted in them
        if not hasattr(given, "unit") and (self.image_size or self.image_step):
            self.unit = "images"
        self.name = self.name or name
        self.weights = f"random:{seed}" if self.weights == "random" else self.weights
        if not isinstance(self.optimizations, Mapping):
            self.optimizations = _named(self.optimizations, spec)

    def at_image_size(self, side: int) -> Workload:
        """What the user's own `at_image_size` gives, checked alike."""
        if not self.image_step:
            return super().at_image_size(side)
        with _said(self.spec, "at_image_size(side)", _EXPECTED, self._file):
            given = self._given.at_image_size(side)  # type: ignore[attr-defined]  # image_step says it has one
        other = _Checked(given, self.spec, self.name, self._file, seed=self.seed)
        other.image_size = other.image_size or side
        return other

    def model(self, device: torch.device) -> torch.nn.Module:
        """The user's model, which has to be a module."""
        with self._part("model", "expected a torch.nn.Module"):
            model = self._given.model(device)
        if not isinstance(model, torch.nn.Module):
            found = type(model).__name__
            raise WorkloadError(f"{self.spec}: model(device) returned {found}, expected a torch.nn.Module.")
        return model

    def batch(self, size: int, device: torch.device) -> Any:
        """The user's batch."""
        with self._part("batch", f"expected a batch of {size} for {device}"):
            return self._given.batch(size, device)

    def step(self, model: Any, batch: Any) -> Any:
        """The user's step, whose output has to hold a tensor."""
        with self._part("step", f"expected it to run one batch and return {_OUTPUT}"):
            output = self._given.step(model, batch)
        if not self._answers and not tensors_of(output):  # looked at once: it takes host time
            found = type(output).__name__
            raise WorkloadError(f"{self.spec}: step(model, batch) returned {found}, expected {_OUTPUT}.")
        self._answers = True
        return output

    def _part(self, part: str, expected: str) -> contextlib.AbstractContextManager[None]:
        return _said(self.spec, PARTS[part], expected, self._file)


def _fitting(spec: str, part: str, default: object, value: object) -> object:
    """The user's own part in place of a default, when it is of the same kind."""
    is_method, is_list = inspect.isfunction(default), part == "optimizations"
    if callable(value) if is_method else is_list or isinstance(value, type(default)):
        return value
    expected = "a method" if is_method else type(default).__name__
    raise WorkloadError(f"{spec}: {part} is {type(value).__name__}, expected {expected}. Choose another name for it.")


def _named(chosen: Sequence[str | Optimization], spec: str) -> dict[str, Optimization]:
    """The optimizations that a user lists, by name or as his own."""
    found: dict[str, Optimization] = {}
    for one in chosen:
        optimization = GENERAL.get(one) if isinstance(one, str) else one
        if not isinstance(optimization, Optimization):
            raise WorkloadError(f"{spec}: optimizations lists {one!r}, expected names from {', '.join(GENERAL)}.")
        found[optimization.name] = optimization
    return found
