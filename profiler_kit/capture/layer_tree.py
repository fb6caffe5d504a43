"""Find the modules to time in a model and hook them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import torch

ROOT: Final = "(model)"
"""The layer path of the module that is timed; the paths of the others are relative to it."""

Label = Callable[[str, torch.nn.Module], str]
Select = Callable[[str, torch.nn.Module], bool]
Enter = Callable[[torch.nn.Module, tuple[object, ...]], None]
Leave = Callable[[torch.nn.Module, tuple[object, ...], object], None]


@dataclass(slots=True)
class Layer:
    """One module to time. names: every path it is known by, in the model's order; variants: its label by path."""

    module: torch.nn.Module
    type: str
    device: torch.device
    names: list[str] = field(default_factory=list)
    variants: dict[str, str] = field(default_factory=dict)

    def attach(self, enter: Enter, leave: Leave) -> Callable[[], None]:
        """Call `enter` before and `leave` after each call of the module, also when it raises; returns the undo."""
        if self.module._compiled_call_impl is not None:
            return _wrap_compiled_call(self.module, enter, leave)
        first = self.module.register_forward_pre_hook(enter, prepend=True)
        try:
            last = self.module.register_forward_hook(leave, always_call=True)
        except BaseException:
            first.remove()
            raise

        def undo() -> None:
            first.remove()
            last.remove()

        return undo


def find_layers(model: torch.nn.Module, label: Label, select: Select) -> list[Layer]:
    """The modules that `select` keeps, each once, in the model's order; nothing below a compiled module."""
    layers: dict[int, Layer] = {}
    for name, module, device in _walk(model, "", _default_device(), ()):
        plain = _uncompiled(module)
        if select(name, plain):
            layer = layers.setdefault(id(module), Layer(module, type(plain).__name__, device))
            layer.names.append(name)
            layer.variants[name] = label(name, plain)
    return list(layers.values())


def _walk(
    module: torch.nn.Module, path: str, around: torch.device, above: tuple[int, ...]
) -> Iterator[tuple[str, torch.nn.Module, torch.device]]:
    """Every path in the tree, a module before its children; a module that contains itself is not entered again."""
    device = _device_of(module) or around
    yield path or ROOT, module, device
    if _uncompiled(module) is not module or module._compiled_call_impl is not None:
        return
    above = (*above, id(module))
    for name, child in module._modules.items():
        if child is not None and id(child) not in above:
            yield from _walk(child, f"{path}.{name}" if path else name, device, above)


def _uncompiled(module: torch.nn.Module) -> torch.nn.Module:
    """The module that torch.compile was given, or the module itself."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")  # not imported: then nothing is compiled
    if dynamo is not None and isinstance(module, dynamo.OptimizedModule):
        inner: torch.nn.Module = module._orig_mod
        return inner
    return module


def _device_of(module: torch.nn.Module) -> torch.device | None:
    for tensors in (module.parameters(), module.buffers()):
        for tensor in tensors:
            return torch.device(tensor.device)
    return None


def _default_device() -> torch.device:
    """Where a model without any parameter runs: on the GPU when this process uses one."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def _wrap_compiled_call(module: torch.nn.Module, enter: Enter, leave: Leave) -> Callable[[], None]:
    """Time a module compiled in place (`module.compile()`) from outside: its own hooks would be traced away."""
    compiled: Callable[..., Any] = module._compiled_call_impl  # type: ignore[assignment]  # never None: it is compiled

    def timed(*args: Any, **kwargs: Any) -> Any:
        enter(module, args)
        try:
            return compiled(*args, **kwargs)
        finally:
            leave(module, args, None)

    def undo() -> None:
        if module._compiled_call_impl is timed:
            module._compiled_call_impl = compiled

    module._compiled_call_impl = timed
    return undo
