"""Time every layer of a model while it runs, without synchronising inside the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Final

import torch
from torch.compiler import is_dynamo_compiling

from profiler_kit.capture.layer_calls import Call, Mark, find_calls, iterations, less_children, repeats
from profiler_kit.capture.layer_tree import Enter, Label, Layer, Leave, Select, find_layers
from profiler_kit.errors import CaptureError, OptionError
from profiler_kit.formats.layer_file import LAYER_CALLS
from profiler_kit.units import ms_to_ns

if TYPE_CHECKING:
    import pandas as pd


def layer_timer(
    model: torch.nn.Module,
    *,
    batch_size: int = 1,
    label: Label | None = None,
    select: Select | None = None,
) -> LayerTimer:
    """Time the layers of `model` inside a `with` block: `with layer_timer(model) as timer: ...; timer.frame()`.

    Each call of each module is timed by forward hooks: with CUDA events on the current stream of the module's
    device (nothing waits for the GPU until `frame()`), and with perf_counter on the host. Modules are hooked when
    the block is entered and unhooked when it ends, whatever happens.

    batch_size only fills the column of that name. label(name, module) fills `variant`. select(name, module) says
    which modules to time; a module left out counts as part of the one around it. Both see the root as "(model)",
    and a compiled module as the module it was made from.

    What counts as what:
    - An iteration ends at `timer.step()`. When step() is never called, an iteration ends with each outermost call
      of the root; calls made outside the root then belong to the root call that follows. When the root is not
      called either, everything is one iteration.
    - A module known by two names is timed under the one that lies inside the calling layer, or else the first.
      Two names inside one and the same layer cannot be told apart: the first counts all.
    - A module that calls itself has a row for each call, with itself as parent of the inner ones.
    - A call that raises counts as long as it ran. A call cut off by KeyboardInterrupt or SystemExit has no row.
    - Each thread has its own stack: work that a layer hands to another thread has no parent there.
    - A compiled module (`torch.compile(module)` inside the model, or `module.compile()`) is one layer: what is
      inside its graph has no calls of its own. Hooks that the compiler traces leave nothing in the graph, so pass
      what torch.compile returned: of the module it was made from, no call may be seen. Nor are calls of
      `forward` by hand.
    - The device is that of the module's parameters when the block is entered, of the module around it when it
      has none. A CUDA graph that is replayed calls no module, so nothing of it is timed.

    Outputs stay as they are. One known exception is torch's own: TransformerEncoderLayer and MultiheadAttention
    leave their fused inference path when a hook is present, here as with any other hook.

    Raises OptionError when `model` is not a module, batch_size is not a whole number from 1, or select leaves nothing.
    """
    if not isinstance(model, torch.nn.Module):
        raise OptionError(
            f"layer_timer: model is a {type(model).__name__}, expected a torch.nn.Module. Pass the model."
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"layer_timer: batch_size is {batch_size!r}, expected a whole number from 1.")
    return LayerTimer(model, batch_size, label or _no_label, select or _everything)


def _no_label(_name: str, _module: torch.nn.Module) -> str:
    return ""


def _everything(_name: str, _module: torch.nn.Module) -> bool:
    return True


_Hooks = tuple[Enter, Leave]
_POOLS: Final[dict[torch.device, list[torch.cuda.Event]]] = {}  # events that have been read, for the next timer


def _hooks(layer: int, append: Callable[[Mark], None], device: torch.device) -> _Hooks:
    """The two hooks of a layer: they note the time and return nothing, so the module's input and output stay."""
    return _cuda_hooks(layer, append, device) if device.type == "cuda" else _host_hooks(layer, append)


def _host_hooks(layer: int, append: Callable[[Mark], None]) -> _Hooks:
    now = time.perf_counter_ns

    def enter(_module: torch.nn.Module, _args: tuple[object, ...]) -> None:
        if not is_dynamo_compiling():
            append((layer, get_ident(), now(), None))

    def leave(_module: torch.nn.Module, _args: tuple[object, ...], _result: object) -> None:
        if not is_dynamo_compiling():
            append((~layer, get_ident(), now(), None))

    return enter, leave


def _cuda_hooks(layer: int, append: Callable[[Mark], None], device: torch.device) -> _Hooks:
    now = time.perf_counter_ns
    record = _recorder(device)

    def enter(_module: torch.nn.Module, _args: tuple[object, ...]) -> None:
        if not is_dynamo_compiling():
            event = record()
            append((layer, get_ident(), now(), event))

    def leave(_module: torch.nn.Module, _args: tuple[object, ...], _result: object) -> None:
        if not is_dynamo_compiling():
            end = now()
            append((~layer, get_ident(), end, record()))

    return enter, leave


def _recorder(device: torch.device) -> Callable[[], torch.cuda.Event]:
    """Gives a CUDA event just recorded on the current stream of `device`.

    torch.cuda.current_stream builds a Stream each time; the raw handle is a plain number, so streams are kept by it.
    """
    pool = _POOLS.setdefault(device, [])
    streams: dict[int, torch.cuda.Stream] = {}
    raw_stream = torch._C._cuda_getCurrentRawStream
    index = device.index

    def record() -> torch.cuda.Event:
        raw = raw_stream(index)
        stream = streams.get(raw)
        if stream is None:
            stream = streams[raw] = torch.cuda.current_stream(device)
        try:
            event = pool.pop()
        except IndexError:
            event = torch.cuda.Event(enable_timing=True)
        event.record(stream)
        return event

    return record


class LayerTimer:
    """Times a model's layers between `__enter__` and `__exit__`; made by `layer_timer`, good for one block."""

    def __init__(self, model: torch.nn.Module, batch_size: int, label: Label, select: Select) -> None:
        self._model = model
        self._batch_size = batch_size
        self._label = label
        self._select = select
        self._layers: list[Layer] = []
        self._undo: list[Callable[[], None]] = []
        self._marks: list[Mark] = []
        self._steps: list[int] = []
        self._state = "new"
        self._frame: pd.DataFrame | None = None

    def __enter__(self) -> LayerTimer:
        if self._state != "new":
            raise CaptureError("layer_timer: this timer has been used, expected a new one for each block.")
        self._layers = find_layers(self._model, self._label, self._select)
        if not self._layers:
            raise OptionError("layer_timer: select leaves no module to time, expected at least one.")
        try:
            for index, layer in enumerate(self._layers):
                enter, leave = _hooks(index, self._marks.append, layer.device)
                self._undo.append(layer.attach(enter, leave))
        except BaseException:
            self._detach()
            raise
        self._state = "running"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state = "done"
        self._detach()

    def step(self) -> None:
        """End an iteration: calls that begin from now on belong to the next one."""
        if self._state != "running":
            raise CaptureError("layer_timer: step() outside the block, expected it inside `with layer_timer(...)`.")
        self._steps.append(len(self._marks))

    def frame(self) -> pd.DataFrame:
        """What was timed, as LAYER_CALLS; the first call waits for the GPU, the next ones give a copy.

        Total less direct children is self, exactly, for host and device time; a child on another device is not
        taken off. CUDA events count in steps of about half a microsecond, so a self_device_ns of a layer that
        does nothing itself can be that much off zero, to both sides.

        Raises CaptureError before the block ended, and when the GPU cannot say how long a call took.
        """
        if self._state != "done":
            raise CaptureError(
                "layer_timer: frame() before the end of the block, expected it after `with layer_timer(...)`."
            )
        if self._frame is None:
            self._frame = self._measure()
            self._marks.clear()
        return self._frame.copy()

    def _detach(self) -> None:
        while self._undo:
            self._undo.pop()()

    def _measure(self) -> pd.DataFrame:
        import pandas as pd

        calls = find_calls(self._marks, self._layers)
        layers = [self._layers[call.layer] for call in calls]
        iteration = iterations(calls, self._steps)
        host = [self._marks[call.leave][2] - self._marks[call.enter][2] for call in calls]
        device = self._device_ns(calls)
        columns: dict[str, Sequence[str] | Sequence[int | None]] = {
            "layer": [call.name for call in calls],
            "type": [layer.type for layer in layers],
            "variant": [layer.variants[call.name] for call, layer in zip(calls, layers, strict=True)],
            "parent": [call.parent_name for call in calls],
            "batch_size": [self._batch_size] * len(calls),
            "iteration": iteration,
            "call": repeats(calls, iteration),
            "device_ns": device,
            "self_device_ns": less_children(calls, device, [layer.device for layer in layers]),
            "host_ns": host,
            "self_host_ns": less_children(calls, host, [None] * len(calls)),
        }
        # by way of object, because a list of numbers and None would become float64, which loses nanoseconds
        frame = pd.DataFrame(columns, dtype="object").astype(LAYER_CALLS.empty().dtypes.to_dict())
        return LAYER_CALLS.check(frame)

    def _device_ns(self, calls: Sequence[Call]) -> list[int | None]:
        """Device time of each call; waits for the devices once, then gives the events back to the pool."""
        times: list[int | None] = []
        try:
            for device in {layer.device for layer in self._layers if layer.device.type == "cuda"}:
                torch.cuda.synchronize(device)
            for call in calls:
                start, end = self._marks[call.enter][3], self._marks[call.leave][3]
                times.append(None if start is None or end is None else ms_to_ns(start.elapsed_time(end)))
        except RuntimeError as error:  # torch.AcceleratorError is one
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise CaptureError(
                f"layer_timer: the GPU cannot say how long the layers took ({reason}), expected finished CUDA events. "
                "Leave CUDA graph capture out of the block, or look for an earlier CUDA error."
            ) from error
        for layer, _, _, event in self._marks:
            if event is not None:
                _POOLS[self._layers[max(layer, ~layer)].device].append(event)
        return times
