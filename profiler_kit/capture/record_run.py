"""Record a run from inside a script: timings, trace, memory snapshot, layers and run.json in one folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch

from profiler_kit.capture.device import choose_device
from profiler_kit.capture.forms import in_forms, refuse_unrun, runs_later
from profiler_kit.capture.layer_sweep import SweepPlan, sweep_layers
from profiler_kit.capture.phases import Loop, Phases, numerics
from profiler_kit.capture.run_folder import whole_folder
from profiler_kit.errors import CaptureError, OptionError
from profiler_kit.formats.layer_file import write_layers
from profiler_kit.formats.run_record import LAYERS, MEMORY, MEMORY_TRACE, TRACE


@dataclass(frozen=True, kw_only=True)
class RecordOptions:
    """What to record; the keyword options of `record_run`, which describes them."""

    model: torch.nn.Module | None = None
    name: str = ""
    batch_size: int = 1
    unit: str = "images"
    weights: str = ""
    optimizations: Sequence[str] = ()
    image_size: int = 0
    device: torch.device | str | None = None
    warmup: int | None = None
    iterations: int | None = None
    trace_batches: int = 2
    record_shapes: bool = False
    with_stack: bool = False
    facts: Mapping[str, object] = field(default_factory=dict)
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("warmup", 0), ("iterations", 1), ("trace_batches", 1)):
            value = getattr(self, name)
            whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not whole and not (value is None and name in ("warmup", "iterations")):
                raise OptionError(f"record_run: {name} is {value!r}, expected a whole number from {least}.")
        if self.model is not None and not isinstance(self.model, torch.nn.Module):
            raise OptionError(f"record_run: model is a {type(self.model).__name__}, expected a torch.nn.Module.")


def record_run(path: str | os.PathLike[str], /, *args: Any, **kwargs: Any) -> Any:
    """Record a run of your own code into a run folder, in one of two forms.

        with record_run("runs/mine", model=net, batch_size=8) as run:
            for batch in run.steps(loader):     # as many as are needed: warm-up, timed, traced, memory
                step(batch)

        record_run("runs/mine", step, batch)    # calls step(batch) as often as is needed; returns the folder

    In the second form every argument after the function is the function's own; to give options there, write
    `record_run("runs/mine", model=net).run(step, batch)`.

    The folder gets run.json (what ran, latencies, peaks), trace.json.gz and memory.pickle (on a GPU also
    memory_trace.json.gz, a trace of the same batch). Nothing is recorded while the timed iterations run, and no
    latency includes fetching a batch. `run.layers(step, batch_of)` inside the block adds layers.parquet. The folder
    appears whole when the block ends; when it raises, or the loop is left early, nothing is left under its name.

    Options:
        model: its class, dtype and device go into the record; needed for `layers`.
        name, weights, optimizations, image_size, facts: what else the record says: the model's name, "checkpoint:..."
            or "random:...", names in order, side in pixels, anything else under `workload`.
        batch_size, unit: how many of what ("images", "sequences") a batch holds.
        device: the model's by default, else a GPU when there is one.
        warmup, iterations: 3 and 10 on a GPU, 1 and 3 on a CPU. trace_batches: batches in the trace.
        record_shapes, with_stack: of the trace, as in `profiler_runner`.
        overwrite: replace the run that is there.

    Raises OptionError for an option or a path that cannot be used, CaptureError when the loop ends before everything is
    recorded and when a profiler is already at work.
    """
    return in_forms("record_run", lambda options: RunRecorder(path, options), RecordOptions, args, kwargs)


class RunRecorder:
    """Records one run; made by `record_run`, good for one block."""

    def __init__(self, path: str | os.PathLike[str], options: RecordOptions) -> None:
        self.path = Path(path)
        self._options = options
        weights = () if options.model is None else tuple(options.model.parameters())
        found = options.device if options.device is not None else next((p.device for p in weights), None)
        self._device = choose_device(None if found is None else str(found))
        dtype = next((p.dtype for p in weights if p.is_floating_point()), None)
        self._dtype = "" if dtype is None else str(dtype).removeprefix("torch.")
        on_gpu = self._device.type == "cuda"
        self._warmup = options.warmup if options.warmup is not None else (3 if on_gpu else 1)
        self._iterations = options.iterations if options.iterations is not None else (10 if on_gpu else 3)
        self._phases = Phases(self._device)
        self._items = _Items(None)
        self._loop: Loop[Any] | None = None
        self._finished = False
        self._notes: list[str] = []
        self._stack = contextlib.ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> RunRecorder:
        if self._folder is not None:
            raise CaptureError("record_run: this recorder has been used, expected a new one for each block.")
        folder = whole_folder(self.path, overwrite=self._options.overwrite, option="overwrite=True")
        self._folder = self._stack.enter_context(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        if error is not None:
            if self._loop is not None:
                with contextlib.suppress(BaseException):  # the error itself, once what records has ended with it
                    self._loop.throw(error)
            self._stack.__exit__(kind, error, trace)
            return False
        with self._stack:
            if not self._finished:
                raise CaptureError(self._too_few())
            self._write()
        return False

    def steps(self, data: Iterable[Any] | None = None) -> Iterator[Any]:
        """The batches to run, one after the other: those of `data`, round and round, or None without any.

        Raises CaptureError when `data` runs out and cannot be gone through again.
        """
        if self._folder is None or self._loop is not None:
            found = "called outside of its block" if self._folder is None else "called for a second time"
            raise CaptureError(f"record_run: steps() {found}, expected it once inside `with record_run(...)`.")
        self._items = _Items(data)
        self._loop = self._all(self._items, self._folder)
        return self._loop

    def _all(self, item: Callable[[int], Any], folder: Path) -> Loop[Any]:
        phases, options = self._phases, self._options
        yield from phases.warm_up(item, self._warmup)
        yield from phases.timed(item, self._iterations)
        shapes, stacks = options.record_shapes, options.with_stack
        trace = folder / TRACE
        yield from phases.traced(item, trace, options.trace_batches, record_shapes=shapes, with_stack=stacks)
        yield from phases.remembered(item, folder / MEMORY, folder / MEMORY_TRACE)
        self._finished = True

    def _too_few(self) -> str:
        if self._loop is None:
            return f"record_run {self.path}: nothing ran, expected a loop over steps(). Nothing is written."
        self._loop.close()
        more = 1 if self._device.type == "cuda" else 0  # which start CUPTI
        parts = (self._warmup, self._iterations, self._options.trace_batches + more, 1 + more)
        names = ("of warm-up", "timed", "traced", "for memory")
        expected = ", ".join(f"{count} {name}" for count, name in zip(parts, names, strict=True))
        ran = f"{self._items.count} batch{'es' if self._items.count != 1 else ''}"
        return (
            f"record_run {self.path}: the loop ended after {ran}, expected {sum(parts)} "
            f"({expected}). Nothing is written. Let the loop over steps() end by itself, or ask for fewer."
        )

    def run(self, function: Callable[..., object], /, *args: Any, **kwargs: Any) -> Path:
        """Call `function` with the other arguments as often as is needed; returns the run folder."""
        if runs_later(function):
            name = getattr(function, "__qualname__", repr(function))
            raise OptionError(f"record_run: {name} is a generator or a coroutine, expected a plain function.")
        with self:
            for _ in self.steps():
                refuse_unrun("record_run", function, function(*args, **kwargs))
        return self.path

    def layers(
        self, step: Callable[[Any], object], batch_of: Callable[[int], Any], batch_sizes: Sequence[int] = (1, 2, 4, 8)
    ) -> None:
        """Time every layer of the model while `step(batch_of(size))` runs, at each size, into layers.parquet."""
        if self._folder is None or self._options.model is None:
            raise CaptureError("record_run: layers() needs the model: `with record_run(..., model=net) as run:`.")
        plan = SweepPlan(tuple(sorted(set(batch_sizes))), self._warmup, self._iterations)
        layers = sweep_layers(self._options.model, step, batch_of, self._device, plan)
        write_layers(self._folder / LAYERS, layers)
        self._notes += layers.notes

    def _write(self) -> None:
        """run.json, when everything else is there."""
        assert self._folder is not None
        options = self._options
        self._phases.record(
            self.path.name,
            model=options.name or (self.path.name if options.model is None else type(options.model).__name__),
            weights=options.weights,
            optimizations=options.optimizations,
            batch_size=options.batch_size,
            image_size=options.image_size,
            dtype=self._dtype,
            workload={"unit": options.unit, **options.facts},
            notes=[*numerics(self._dtype, self._device), *self._notes],
        ).write(self._folder)


class _Items:
    """Gives the next batch of some data, from the start again when there is no more."""

    def __init__(self, data: Iterable[Any] | None) -> None:
        self._data, self._iterator = data, iter(() if data is None else data)
        self.count = 0

    def __call__(self, _number: int) -> Any:
        self.count += 1
        if self._data is None:
            return None
        for _ in range(2):
            for batch in self._iterator:
                return batch
            self._iterator = iter(self._data)
        raise CaptureError(
            f"record_run: steps() was given {self.count - 1} batches, expected more, or data to go through again. "
            "Give it a list or a DataLoader, or ask for fewer iterations."
        )
