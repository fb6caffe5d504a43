"""Named optimizations that need no particular model; each takes a model and returns a faster one, in a checked order.

A model of ours has its own list beside these (`models/*/optimizations.py`), in the same form.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, Final

import torch
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.workload.quantize import Float8Linear, Int8Linear, quantize_linears

Tensor = torch.Tensor

PRECISION: Final = ("tf32", "bf16", "fp16")


@dataclass(frozen=True)
class Optimization:
    """One named optimization.

    after: those of these that are chosen too must come before it. excludes: cannot be chosen with it. requires: one
    of these must be chosen too. capability: the least CUDA compute capability. package: has to be importable.
    exact: gives the published result up to the rounding of the dtype in use. compiles: what it rewrites shows no
    layers and compiles at its first call. apply: changes the model it is given and returns it. settings: opens the
    torch settings it needs and puts them back.
    """

    name: str
    about: str
    apply: Callable[[Any], Any]
    after: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    needs_cuda: bool = False
    capability: tuple[int, int] | None = None
    package: str | None = None
    exact: bool = True
    compiles: bool = False
    settings: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class LadderRow:
    """One row of a ladder: optimizations in order, none as published.

    alternative: another end of the row before it, not a step on the way to the next.
    """

    label: str
    optimizations: tuple[str, ...] = ()
    alternative: bool = False

    def __str__(self) -> str:
        return ",".join(self.optimizations)


def parse_optimizations(text: str, known: Mapping[str, Optimization]) -> tuple[Optimization, ...]:
    """Read names of `known` separated by commas, in the order to apply them; "" is none.

    Raises OptionError for an unknown name, a name given twice, two that exclude each other, a wrong order, or one
    that another requires and that is missing.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    for position, name in enumerate(names):
        optimization = known.get(name)
        if optimization is None:
            raise OptionError(
                f"--optimizations {text}: {name!r} is not known, expected names from {', '.join(known)} "
                "separated by commas."
            )
        if name in names[:position]:
            raise OptionError(f"--optimizations {text}: {name} is listed twice; list it once.")
        clash = next((other for other in optimization.excludes if other in names), None)
        if clash is not None:
            raise OptionError(f"--optimizations {text}: {name} and {clash} exclude each other; choose one of them.")
        late = next((other for other in optimization.after if other in names[position + 1 :]), None)
        if late is not None:
            raise OptionError(f"--optimizations {text}: {late} must come before {name}. Change the order.")
        if optimization.requires and not set(optimization.requires) & set(names):
            wanted = " or ".join(optimization.requires)
            raise OptionError(f"--optimizations {text}: {name} needs {wanted} before it. Add it.")
    return tuple(known[name] for name in names)


def unmet(optimization: Optimization, device: torch.device) -> str | None:
    """What the optimization needs and this machine has not, with what was found; None when it can run on `device`."""
    if optimization.needs_cuda and device.type != "cuda":
        return f"needs a CUDA device, found {device}"
    if optimization.capability is not None and device.type == "cuda":
        found = torch.cuda.get_device_capability(device)
        if found < optimization.capability:
            least, have = (".".join(map(str, version)) for version in (optimization.capability, found))
            name = torch.cuda.get_device_name(device)
            return f"needs a GPU of compute capability {least} or more, found {name} with {have}"
    if optimization.package is not None and importlib.util.find_spec(optimization.package) is None:
        return f"needs the package {optimization.package}, which is not installed"
    return None


@contextlib.contextmanager
def optimized(model: Any, chosen: Sequence[Optimization], device: torch.device) -> Iterator[Any]:
    """Apply the chosen ones in order and give the model, with their torch settings in force inside the block.

    The settings are put back at the end; the model stays changed (a cast loses bits that cannot come back).
    Raises WorkloadError when one needs hardware or a package that is not here, before anything is changed.
    """
    for optimization in chosen:
        problem = unmet(optimization, device)
        if problem is not None:
            hint = " or use --device cuda" if device.type != "cuda" and optimization.needs_cuda else ""
            raise WorkloadError(f"--optimizations {optimization.name}: {problem}. Leave it out{hint}.")
    with contextlib.ExitStack() as stack:
        for optimization in chosen:
            stack.enter_context(optimization.settings())
            model = optimization.apply(model)
        yield model


def layer_optimizations(chosen: Sequence[Optimization]) -> tuple[tuple[Optimization, ...], tuple[str, ...]]:
    """Those to time layers with, and a note when that leaves one out: a compiled model shows no layers inside."""
    kept = tuple(optimization for optimization in chosen if not optimization.compiles)
    if len(kept) == len(chosen):
        return kept, ()
    left_out = ", ".join(optimization.name for optimization in chosen if optimization.compiles)
    names = ", ".join(optimization.name for optimization in kept) or "no optimization"
    return kept, (f"layers: timed without {left_out} (with {names}), because a compiled model shows no layers inside",)


def others(names: Iterable[str], name: str) -> tuple[str, ...]:
    """All names but that one, which exclude it."""
    return tuple(other for other in names if other != name)


@contextlib.contextmanager
def tf32_matmul() -> Iterator[None]:
    """float32 matrix products on TF32 tensor cores inside the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def _without_fused_encoder() -> Iterator[None]:
    """torch.nn's transformer layers call their products one by one: their fused path takes float weights only."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def cast_model(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """Run a module in `dtype`: floating inputs are cast as they enter. What it gives is left in that dtype."""
    model.to(dtype)
    model.register_forward_pre_hook(partial(_cast_inputs, dtype), with_kwargs=True)
    return model


def cast_outputs(_module: torch.nn.Module, _args: object, output: object) -> object:
    """A forward hook: floating tensors leave in float32, so that what comes after is as it was."""
    return tree_map(partial(_cast, dtype=torch.float32), output)


def _cast_inputs(
    dtype: torch.dtype, _module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    change = partial(_cast, dtype=dtype)
    return tree_map(change, args), tree_map(change, kwargs)


def _cast(value: object, dtype: torch.dtype) -> object:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    if value.dim() and len(value) > 1 and value.stride(0) == 0:  # one row seen many times stays one row
        return value[:1].to(dtype).expand_as(value)
    return value.to(dtype)


def _reduced(model: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    cast_model(model, dtype).register_forward_hook(cast_outputs)
    return model


def _channels_last(model: torch.nn.Module) -> torch.nn.Module:
    def turn(value: object) -> object:
        is_image = isinstance(value, Tensor) and value.dim() == 4
        return value.contiguous(memory_format=torch.channels_last) if is_image else value  # type: ignore[attr-defined]  # is_image says it is a tensor

    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    model.register_forward_pre_hook(
        lambda _, args, kwargs: (tree_map(turn, args), tree_map(turn, kwargs)), with_kwargs=True
    )
    return model


def _compile(model: torch.nn.Module, mode: str | None = None) -> torch.nn.Module:
    call: Callable[..., Any] = model._call_impl
    if not type(model).forward.__module__.startswith("torch.nn."):
        model.compile(mode=mode)
    else:  # nothing that begins in a file of torch.nn would be compiled, not even what it calls

        def inlined(*args: object, **kwargs: object) -> object:
            return call(*args, **kwargs)

        model._compiled_call_impl = torch.compile(inlined, mode=mode)
    return model


class StandIn(torch.nn.Module):
    """Takes the place of `published` and shares everything with it: parameters, children, hooks, plain attributes.

    Keys of the state dict stay what they were, and what was registered on the module before (such as the casts of
    reduced precision) goes on working.
    """

    def __init__(self, published: torch.nn.Module) -> None:
        super().__init__()
        self.__dict__.update(published.__dict__)


class Wrapped(StandIn):
    """A stand-in that calls the published module as a whole; that one's hooks run inside the call, not around it."""

    def __init__(self, published: torch.nn.Module) -> None:
        super().__init__(published)
        self._whole = (published,)  # in a tuple, so that it is not a child
        self._compiled_call_impl = None  # what was compiled is the published forward, not this one
        self._forward_hooks, self._forward_pre_hooks = type(self._forward_hooks)(), type(self._forward_pre_hooks)()


@dataclass(frozen=True, eq=False)
class Graph:
    """A recorded CUDA graph. run: what it was recorded of."""

    graph: torch.cuda.CUDAGraph
    answer: Any
    run: Callable[[], Any]

    def replay(self) -> Any:
        """Replay it; its answer stays in the graph's memory. Inside `without_graphs` the same kernels one by one."""
        if _one_by_one[0]:
            return self.run()
        self.graph.replay()
        return self.answer


_graphs: Final[weakref.WeakSet[Graph]] = weakref.WeakSet()
_one_by_one: Final = [False]


def _compilers_graphs() -> Any:
    """torch's module of the graphs that torch.compile records; None where this thread has recorded none."""
    trees = sys.modules.get("torch._inductor.cudagraph_trees")
    held = trees.get_obj(trees.local, "tree_manager_containers") if trees is not None else {}
    return trees if any(one.tree_manager is not None and one.tree_manager.roots for one in held.values()) else None


def graphs_recorded() -> bool:
    """Whether there is a graph of `record_graph`, or one that torch.compile recorded, in this process."""
    return bool(_graphs) or _compilers_graphs() is not None


@contextlib.contextmanager
def without_graphs() -> Iterator[None]:
    """Run what was recorded in place of its graph: the same kernels, each launched by its operator."""
    _one_by_one[0] = True
    trees = _compilers_graphs()
    manager: Any = trees.CUDAGraphTreeManager if trees is not None else SimpleNamespace(_run=None)
    as_torch_has_it = manager._run
    try:
        # nothing else of the manager's state is touched: its graphs are replayed again afterwards
        manager._run = lambda self, inputs, function_id: self.ids_to_funcs[function_id].model(inputs)
        yield
    finally:
        manager._run = as_torch_has_it
        _one_by_one[0] = False


def record_graph(run: Callable[[], Any], device: torch.device) -> Graph:
    """Run a few times on a stream of its own (which compiles), then record; as torch's manual asks for."""
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = run()
    recorded = Graph(graph, answer, run)
    _graphs.add(recorded)
    return recorded


class Graphed(Wrapped):
    """A model that replays a CUDA graph, one for each shape and dtype of its tensors; it is recorded first.

    Answers are copied out of the graph's memory: otherwise the next batch would change the answer to this one. Needs a
    forward that never asks the GPU for a value (no `.item()`, no boolean mask as an index) and no gradients.
    """

    def __init__(self, published: torch.nn.Module) -> None:
        super().__init__(published)
        self._recorded: dict[object, tuple[Graph, list[Any]]] = {}

    def forward(self, *args: object, **kwargs: object) -> Any:
        """As the published model."""
        leaves, spec = tree_flatten((args, kwargs))
        key = (spec, *((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves))
        if key not in self._recorded:
            given = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            inputs, named = tree_unflatten(given, spec)
            device = next(leaf.device for leaf in leaves if isinstance(leaf, Tensor))
            self._recorded[key] = record_graph(lambda: self._whole[0](*inputs, **named), device), given
        graph, given = self._recorded[key]
        for mine, leaf in zip(given, leaves, strict=True):
            if isinstance(leaf, Tensor):
                mine.copy_(leaf)
        return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, graph.replay())


def _precision(name: str, about: str, dtype: torch.dtype) -> Optimization:
    return Optimization(name, about, partial(_reduced, dtype=dtype), excludes=others(PRECISION, name), exact=False)


TF32: Final = Optimization(
    "tf32",
    "float32 matrix products on TF32 tensor cores",
    lambda model: model,
    excludes=others(PRECISION, "tf32"),
    needs_cuda=True,
    capability=(8, 0),
    exact=False,
    settings=tf32_matmul,
)
INT8: Final = Optimization(
    "int8",
    "linear layers in int8, activations scaled row by row",
    partial(quantize_linears, kind=Int8Linear),
    after=(*PRECISION, "channels_last"),
    excludes=("fp8",),
    exact=False,
    settings=_without_fused_encoder,
)
FP8: Final = replace(
    INT8,
    name="fp8",
    about="linear layers in float8, activations scaled row by row",
    apply=partial(quantize_linears, kind=Float8Linear),
    excludes=("int8",),
    requires=("bf16",),
    needs_cuda=True,
    capability=(8, 9),
)
_WHOLE: Final = ("cuda_graphs", "compile", "compile_max", "compile_graphs")


def _whole(name: str, about: str, apply: Callable[[Any], Any], *, needs_cuda: bool = False) -> Optimization:
    after = (*PRECISION, "channels_last", "int8", "fp8")
    return Optimization(
        name, about, apply, after=after, excludes=others(_WHOLE, name), needs_cuda=needs_cuda, compiles=True
    )


GENERAL: Final[Mapping[str, Optimization]] = {
    optimization.name: optimization
    for optimization in (
        TF32,
        _precision("bf16", "the model in bfloat16, inputs cast, outputs back in float32", torch.bfloat16),
        _precision("fp16", "the model in float16, inputs cast, outputs back in float32", torch.float16),
        Optimization("channels_last", "images and convolutions with the channels innermost", _channels_last),
        INT8,
        FP8,
        _whole("cuda_graphs", "the model replayed as one CUDA graph, not compiled", Graphed, needs_cuda=True),
        _whole("compile", "torch.compile, mode default", _compile),
        _whole(
            "compile_max",
            "torch.compile, mode max-autotune without CUDA graphs",
            partial(_compile, mode="max-autotune-no-cudagraphs"),
        ),
        _whole(
            "compile_graphs",
            "torch.compile, mode reduce-overhead: replayed as CUDA graphs",
            partial(_compile, mode="reduce-overhead"),
            needs_cuda=True,
        ),
    )
}
_BASE: Final = LadderRow("fp32")
GENERAL_LADDER: Final = (
    _BASE,
    LadderRow("TF32", ("tf32",), alternative=True),
    LadderRow("bf16", ("bf16",)),
    LadderRow("channels_last", ("bf16", "channels_last"), alternative=True),
    LadderRow("CUDA graph", ("bf16", "cuda_graphs"), alternative=True),
    LadderRow("compile", ("bf16", "compile")),
    LadderRow("reduce-overhead", ("bf16", "compile_graphs")),
    LadderRow("max-autotune", ("bf16", "compile_max"), alternative=True),
    LadderRow("int8", ("bf16", "int8", "compile"), alternative=True),
    LadderRow("fp8", ("bf16", "fp8", "compile"), alternative=True),
)
GENERAL_CPU_LADDER: Final = (
    _BASE,
    LadderRow("bf16", ("bf16",), alternative=True),
    LadderRow("channels_last", ("channels_last",), alternative=True),
    LadderRow("compile", ("compile",)),
)
