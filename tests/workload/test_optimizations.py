"""The optimizations that need no particular model: what they change, what they keep, and in which order they go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from profiler_kit.capture.phases import Phases, drive
from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.formats.run_record import TRACE
from profiler_kit.trace import load_trace
from profiler_kit.workload import optimizations
from profiler_kit.workload.capture import record_unrolled
from profiler_kit.workload.optimizations import (
    GENERAL,
    GENERAL_CPU_LADDER,
    GENERAL_LADDER,
    Graph,
    Graphed,
    Wrapped,
    optimized,
    parse_optimizations,
)
from profiler_kit.workload.protocol import relative_error_and_cosine
from profiler_kit.workload.quantize import Int8Linear

CPU = torch.device("cpu")


class Net(torch.nn.Module):
    """A convolution, a fused transformer layer and a head; takes and gives a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 32, 4, stride=4)
        self.block = torch.nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
        self.head = torch.nn.Linear(32, 5)

    def forward(self, given: dict[str, torch.Tensor]) -> dict[str, object]:
        """Images to scores; `seen` tells the dtype and layout inside."""
        x = self.stem(given["images"])
        seen = (x.dtype, x.is_contiguous(memory_format=torch.channels_last))
        x = self.block(x.flatten(2).transpose(1, 2))
        return {"scores": [self.head(x)], "seen": seen, "labels": given["labels"]}


def run(names: str, device: torch.device = CPU) -> dict[str, object]:
    torch.manual_seed(0)
    net = Net().eval().requires_grad_(False).to(device)
    given = {"images": torch.randn(2, 3, 16, 16, device=device), "labels": torch.arange(2, device=device)}
    with torch.no_grad(), optimized(net, parse_optimizations(names, GENERAL), device) as model:
        outputs: list[dict[str, object]] = [model(given) for _ in range(3)]
    return outputs[-1]


@pytest.mark.parametrize(
    ("names", "dtype", "channels_last", "error"),
    [
        ("bf16", torch.bfloat16, False, 2e-2),
        ("fp16", torch.float16, False, 2e-3),
        ("channels_last", torch.float32, True, 1e-5),
        ("int8", torch.float32, False, 5e-2),
        ("bf16,channels_last,int8", torch.bfloat16, True, 5e-2),
    ],
)
def test_each_gives_nearly_what_the_model_gives(
    names: str, dtype: torch.dtype, channels_last: bool, error: float
) -> None:
    want, got = run(""), run(names)
    assert got["seen"] == (dtype, channels_last) and want["seen"] == (torch.float32, False)
    (scores,) = got["scores"]  # type: ignore[misc]
    assert scores.dtype is torch.float32 and torch.equal(got["labels"], want["labels"])  # type: ignore[arg-type, has-type]
    found = relative_error_and_cosine(got["scores"], want["scores"])["relative_error"]
    assert found is not None and 0 <= found < error and (found > 0 or names == "channels_last")


def test_settings_are_put_back() -> None:
    assert torch.backends.mha.get_fastpath_enabled()
    with optimized(torch.nn.Linear(16, 16), [GENERAL["bf16"]], CPU):
        assert torch.backends.mha.get_fastpath_enabled()
    with GENERAL["int8"].settings():
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_int8_takes_what_fits_and_says_when_nothing_does() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Linear(32, 5), torch.nn.MultiheadAttention(16, 2))
    with optimized(net, [GENERAL["int8"]], CPU) as model:
        kinds = [type(module).__name__ for module in model.modules()][1:]
    assert kinds == ["Int8Linear", "Linear", "MultiheadAttention", "NonDynamicallyQuantizableLinear"]
    assert isinstance(net[0], Int8Linear)
    with pytest.raises(WorkloadError) as caught, optimized(torch.nn.Conv2d(3, 3, 3), [GENERAL["int8"]], CPU):
        pass
    assert str(caught.value) == (
        "Conv2d: nothing to quantize, expected an nn.Linear whose widths are multiples of 16. Leave int8 and fp8 out."
    )


def test_order_and_what_goes_together() -> None:
    for text, problem in {
        "compile,bf16": "bf16 must come before compile. Change the order.",
        "compile,cuda_graphs": "compile and cuda_graphs exclude each other; choose one of them.",
        "int8,channels_last": "channels_last must come before int8. Change the order.",
        "fp8": "fp8 needs bf16 before it. Add it.",
        "rel_pos": f"'rel_pos' is not known, expected names from {', '.join(GENERAL)} separated by commas.",
    }.items():
        with pytest.raises(OptionError) as caught:
            parse_optimizations(text, GENERAL)
        assert str(caught.value) == f"--optimizations {text}: {problem}"
    for row in (*GENERAL_LADDER, *GENERAL_CPU_LADDER):
        assert tuple(o.name for o in parse_optimizations(str(row), GENERAL)) == row.optimizations
    assert {name for row in GENERAL_LADDER for name in row.optimizations} | {"fp16"} == set(GENERAL)


class Counted(Wrapped):
    """Counts its calls."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As what it wraps."""
        self.calls += 1
        out: torch.Tensor = self._whole[0](x)
        return out


def test_what_wraps_a_compiled_model_is_called_itself() -> None:
    linear = torch.nn.Linear(2, 3)
    linear.compile(backend="eager")
    wrapped = Counted(linear)
    assert wrapped(torch.ones(1, 2)).shape == (1, 3)
    assert wrapped.calls == 1


def test_compile_changes_the_model_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.append(options))
    net = Own(torch.nn.Linear(2, 2))
    for name in ("compile", "compile_max", "compile_graphs"):
        assert GENERAL[name].apply(net) is net and GENERAL[name].compiles
    assert [options["mode"] for options in asked] == [None, "max-autotune-no-cudagraphs", "reduce-overhead"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("names", ["cuda_graphs", "bf16,cuda_graphs", "bf16,int8", "tf32", "bf16,compile_graphs"])
def test_on_a_gpu_too(names: str) -> None:
    device = torch.device("cuda", 0)
    torch.compiler.reset()
    found = relative_error_and_cosine(run(names, device)["scores"], run("", device)["scores"])["relative_error"]
    assert found is not None and found < 5e-2


class Recorded:
    """Stands in for a CUDA graph, of which a machine without a GPU has none."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1


@pytest.mark.parametrize("room", [True, False])
def test_what_was_recorded_runs_one_by_one_for_a_trace(
    room: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, recorded, x = torch.nn.Linear(4, 4).requires_grad_(False), Recorded(), torch.randn(2, 4)

    def record(run: Callable[[], torch.Tensor], device: torch.device) -> Graph:
        graph = Graph(recorded, run(), run)  # type: ignore[arg-type]
        monkeypatch.setattr(optimizations, "_graphs", {graph})
        return graph

    monkeypatch.setattr(optimizations, "record_graph", record)
    graphed = Graphed(net)
    torch.testing.assert_close(graphed(x), net(x))
    assert recorded.replays == 1

    def run(batch: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = graphed(batch)
        if not room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return answer

    bench = SimpleNamespace(item=lambda number: x, run=run)
    record_unrolled(Phases(torch.device("cpu")), bench, tmp_path)  # type: ignore[arg-type]
    assert recorded.replays == 1 and (tmp_path / "graph_trace.json.gz").is_file() == room
    if room:
        names = load_trace(tmp_path / "graph_trace.json.gz").operators()["name"]
        assert "aten::addmm" in set(names)


class Own(torch.nn.Sequential):
    """With a forward of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The parts one after the other."""
        for part in self:
            x = part(x)
        return x


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch's compiler imports
@pytest.mark.parametrize("kind", [Own, torch.nn.Sequential])
def test_a_model_of_torch_nn_alone_is_compiled_too(
    kind: type[torch.nn.Sequential], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = kind(torch.nn.Linear(4, 4), torch.nn.GELU()).requires_grad_(False), torch.randn(2, 4)
    expected, seen = net(x), list[int]()

    def backend(graph: torch.fx.GraphModule, given: list[torch.Tensor]) -> Callable[..., Any]:
        seen.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda run, mode: torch._dynamo.optimize(backend)(run))
    with optimized(net, parse_optimizations("compile", GENERAL), CPU) as model:
        torch.testing.assert_close(model(x), expected)
    assert len(seen) == 1


def test_what_the_compiler_recorded_runs_one_by_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    trees: Any = pytest.importorskip("torch._inductor.cudagraph_trees")
    assert not optimizations.graphs_recorded()
    manager = object.__new__(trees.CUDAGraphTreeManager)
    manager.ids_to_funcs = {3: SimpleNamespace(model=lambda inputs: ["one by one", *inputs])}
    manager.roots = {3: ["a node"]}
    monkeypatch.setattr(trees.CUDAGraphTreeManager, "_run", lambda self, inputs, function_id: "replayed")
    held = {0: SimpleNamespace(tree_manager=manager), 1: SimpleNamespace(tree_manager=None)}
    monkeypatch.setattr(trees.local, "tree_manager_containers", held)
    assert optimizations.graphs_recorded() and manager._run([1], 3) == "replayed"
    with optimizations.without_graphs():
        assert manager._run([1], 3) == ["one by one", 1]
    assert manager._run([1], 3) == "replayed"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("names", ["cuda_graphs", "compile_graphs"])
def test_a_capture_knows_the_operators_of_its_replays(names: str, tmp_path: Path) -> None:
    net, device = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU()).cuda().eval(), torch.device("cuda")
    x = torch.randn(8, 64, device=device)
    torch._dynamo.reset()  # what other tests compiled counts against a limit, beyond which nothing is compiled
    with torch.no_grad(), optimized(net, parse_optimizations(names, GENERAL), device) as model:
        for _ in range(4):
            expected = model(x).clone()
        bench, phases = SimpleNamespace(item=lambda number: x, run=model), Phases(device)
        drive(phases.traced(bench.item, tmp_path / TRACE, 2, record_shapes=False, with_stack=False), bench.run)
        record_unrolled(phases, bench, tmp_path)  # type: ignore[arg-type]
        torch.testing.assert_close(model(x), expected)
    graphs = load_trace(tmp_path / TRACE).replayed_graphs()
    assert graphs["launches"].tolist() == [2] and graphs["matched"].tolist() == [1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graph_for_each_shape_and_answers_that_stay() -> None:
    net = torch.nn.Linear(4, 4).cuda().eval().requires_grad_(False)
    graphed = Graphed(net)
    first, second, wide = (torch.randn(size, 4, device="cuda") for size in (2, 2, 3))
    answers = [graphed(first), graphed(second), graphed(wide)]
    for given, answer in zip((first, second, wide), answers, strict=True):
        torch.testing.assert_close(answer, net(given))
    assert len(graphed._recorded) == 2 and graphed.state_dict().keys() == net.state_dict().keys()
