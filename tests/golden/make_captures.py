"""Record the golden captures that need a GPU, one in each process.

python tests/golden/make_captures.py joined FOLDER       # joined_h200.json.gz and joined_h200.pickle
python tests/golden/make_captures.py pools FOLDER        # memory_pools_h200.pickle
python tests/golden/make_captures.py expandable FOLDER   # memory_expandable_h200.pickle
python tests/golden/make_captures.py graphs FOLDER       # graph_capture_*_h200.json.gz
python tests/golden/make_captures.py compiled FOLDER     # compiled_breaks_ and compiled_recompiles_h200
python tests/golden/make_captures.py operators FOLDER    # operators_h200.json.gz, and torch's FLOPs beside it
python tests/golden/shorten.py FOLDER/*
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

if "expandable" in sys.argv:  # before torch reads it
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"

import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from profiler_kit import memory_runner, profiler_runner, region


def joined(folder: Path) -> None:
    """Two steps of SAM vit_b in bf16, trace and memory at once; the trace holds every allocation too."""
    from profiler_kit.capture.phases import STEP_REGION
    from profiler_kit.models.sam.forward import SamForward, move_batch, prepare_batch
    from profiler_kit.models.sam.models import load_model
    from profiler_kit.models.sam.prompts import PromptChoice
    from profiler_kit.models.sam.scenes import generate_scenes

    device = torch.device("cuda")
    sam = load_model("vit_b", device=device).model
    scenes = generate_scenes(1, height=768, width=1024, objects=4)
    forward, prepared = SamForward(sam), prepare_batch(sam, scenes, PromptChoice("centers"), pin=True)

    def step() -> None:
        with region("data transfer"):
            batch = move_batch(prepared, device)
        with region(STEP_REGION):
            forward(batch)

    for _ in range(2):
        step()
    torch.cuda.synchronize()
    trace = profiler_runner(folder / "joined_h200.json.gz", warmup=1, active=2, profile_memory=True)
    with contextlib.ExitStack() as history, trace as profiler:
        for number in range(3):
            with torch.autocast("cuda", dtype=torch.bfloat16):
                step()
            torch.cuda.synchronize()
            if number == 0:  # the step before those that are recorded
                history.enter_context(memory_runner(folder / "joined_h200.pickle"))
            if number < 2:
                profiler.step()


def pools(folder: Path) -> None:
    """Three CUDA graphs in two private pools beside eager work, replayed; then one pool given back."""
    net = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(3))).cuda()
    x = torch.randn(512, 1024, device="cuda")
    side = torch.cuda.Stream()

    def forward() -> torch.Tensor:
        return net(x).relu() @ x.t()

    def capture(pool: tuple[int, int] | None) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            out = forward()
        return graph, out

    with torch.no_grad(), memory_runner(folder / "memory_pools_h200.pickle"):
        with region("warm up"):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                forward()
            torch.cuda.current_stream().wait_stream(side)
        with region("capture"):
            first, first_out = capture(None)
            second, second_out = capture(first.pool())
            other, other_out = capture(None)
        with region("replay"):
            for _ in range(3):
                for graph in (first, second, other):
                    graph.replay()
        with region("eager"):
            kept = [forward() for _ in range(4)]
        with region("give one pool back"):
            torch.cuda.synchronize()
            del graph, other, other_out  # the loop's name holds the last graph
            torch.cuda.empty_cache()
        with region("eager"):
            kept.append(forward() + first_out + second_out)


def expandable(folder: Path) -> None:
    """Training with expandable segments: batches of growing size until the process may have no more memory."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.5 * (1 << 30) / total)
    net = torch.nn.Sequential(*(torch.nn.Linear(2048, 2048) for _ in range(4))).cuda()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def run() -> None:
        for power in range(8, 20):
            x = torch.randn(1 << power, 2048, device="cuda")
            with region("forward"):
                loss = net(x).square().mean()
            with region("backward"):
                loss.backward()
            with region("optimizer"):
                optimizer.step()
                optimizer.zero_grad()
            if power == 10:
                torch.cuda.empty_cache()

    try:
        memory_runner(folder / "memory_expandable_h200.pickle", run)
    except torch.OutOfMemoryError as error:
        print(error)


class Net(torch.nn.Module):
    """Six layers, then a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.GELU(), torch.nn.LayerNorm(512)) for _ in range(6)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return torch.softmax(x, -1).sum(0)


def graphs(folder: Path) -> None:
    """CUDA graphs captured under the profiler and replayed: in a line, on two streams, a whole step of training, the
    two passes of a module, and those of torch.compile, without and with a backward pass.
    """
    net = Net().cuda().half().eval().requires_grad_(False)
    x = torch.randn(256, 512, device="cuda", dtype=torch.half)
    trained, wide = Net().cuda(), x.float()
    optimizer = torch.optim.AdamW(trained.parameters(), capturable=True)

    def forked() -> torch.Tensor:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            a = net(x)
        b = torch.relu(x @ x.T)
        torch.cuda.current_stream().wait_stream(side)
        return a.sum() + b.sum()

    def step() -> None:
        optimizer.zero_grad()
        with region("forward"):
            loss = trained(wide).square().mean()
        with region("backward"):
            loss.backward()
        with region("optimizer"):
            optimizer.step()

    def recorded(name: str) -> contextlib.AbstractContextManager[object]:
        path, eager = folder / f"graph_capture_{name}_h200.json.gz", not name.startswith("reduce")
        return profiler_runner(path, record_shapes=True, with_stack=eager, rank="none")

    for name, run in (("eager", lambda: net(x)), ("forked", forked), ("training", step)):
        torch.cuda.synchronize()
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(3):
                run()
        torch.cuda.synchronize()
        with recorded(name):
            graph = torch.cuda.CUDAGraph()
            with region("capture"), torch.cuda.graph(graph):
                run()
            for _ in range(3):
                with region("replay"):
                    graph.replay()
            torch.cuda.synchronize()
    with recorded("callables"):
        with region("capture"):
            both = torch.cuda.make_graphed_callables(Net().cuda(), (wide,))
        for _ in range(3):
            with region("replay"):
                both(wide).sum().backward()
        torch.cuda.synchronize()
    for name, given, module in (("reduce_overhead", x, net), ("reduce_training", wide, Net().cuda())):
        reduced = torch.compile(module, mode="reduce-overhead")

        def call() -> None:
            with region("call"):
                module.zero_grad()  # noqa: B023
                torch.compiler.cudagraph_mark_step_begin()
                answer = reduced(given)  # noqa: B023
                if answer.requires_grad:
                    answer.sum().backward()

        call()
        with recorded(name):
            for _ in range(4):
                call()
            torch.cuda.synchronize()


class Broken(torch.nn.Module):
    """Two graph breaks: one that is asked for, one where Python needs a number of the GPU's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (torch.nn.Linear(64, 64) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        torch._dynamo.graph_break()
        x = torch.sigmoid(self.second(x))
        scale = x.sum().item()
        x = x * 2 if scale > 0 else x / 2
        return torch.softmax(self.third(x), -1)


def compiled(folder: Path) -> None:
    """A function whose graph breaks twice, with Python stacks; then its recompiling for other shapes, as it happens."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net = torch.compile(Broken().to(device).eval().requires_grad_(False))
    batches = [torch.randn(size, 64, device=device) for size in (32, 48, 1)]
    for batch in batches:
        net(batch)
    with profiler_runner(folder / "compiled_breaks_h200.json.gz", record_shapes=True, with_stack=True, rank="none"):
        for batch in batches:
            with region("run"):
                net(batch)
    torch._dynamo.reset()
    net(batches[0])
    with profiler_runner(folder / "compiled_recompiles_h200.json.gz", record_shapes=True, rank="none"):
        for batch in batches[1:]:
            with region("compile and run"):
                net(batch)
        with region("run"):
            for batch in batches:
                net(batch)


def operators(folder: Path) -> None:
    """Many operators, forward and backward, each in a region of its name; and the FLOPs that torch counts for each."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)

    def new(*shape: int, dtype: torch.dtype = torch.bfloat16, grad: bool = False) -> torch.Tensor:
        return torch.randn(shape, device=device).to(dtype).requires_grad_(grad)

    def both(run: Callable[..., torch.Tensor], *shapes: tuple[int, ...]) -> Callable[[], object]:
        given = [new(*shape, grad=True) for shape in shapes]
        return lambda: run(*given).sum().backward()

    def attention(backend: SDPBackend, causal: bool, heads: int = 8) -> Callable[[], object]:
        def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            with sdpa_kernel(backend):
                return functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads < 8)

        return both(run, (2, 8, 256, 64), (2, heads, 256, 64), (2, heads, 256, 64))

    def packed() -> object:
        q, k, v = (new(96, 4, 64) for _ in range(3))
        ends = torch.tensor([0, 32, 96], dtype=torch.int32, device=device)
        return torch.ops.aten._flash_attention_forward(q, k, v, ends, ends, 64, 64, 0.0, True, False)

    float8, whole = torch.float8_e4m3fn, torch.tensor(1.0, device=device)
    left, right = new(256, 512, dtype=float8), new(384, 512, dtype=float8).t()
    rows, experts = new(256, 512), new(4, 384, 512).transpose(-2, -1)
    ends = torch.tensor([64, 128, 160, 256], dtype=torch.int32, device=device)
    index = torch.randint(100, (64,), device=device)
    table, scores = new(100, 32, grad=True), new(64, 100, dtype=torch.float32, grad=True)
    parameters = [torch.nn.Parameter(new(64, 64)) for _ in range(3)]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    adamw = torch.optim.AdamW(parameters, fused=True)
    net = functional
    cases: dict[str, Callable[[], object]] = {
        "mm": lambda: new(128, 256) @ new(256, 384),
        "linear": both(net.linear, (8, 16, 128), (256, 128), (256,)),
        "baddbmm": lambda: torch.baddbmm(new(4, 32, 48), new(4, 32, 64), new(4, 64, 48)),
        "scaled_mm": lambda: torch._scaled_mm(left, right, whole, whole, out_dtype=torch.bfloat16),
        "int_mm": lambda: torch._int_mm(left.view(torch.int8), right.view(torch.int8)),
        "grouped_mm": lambda: torch._grouped_mm(rows, experts, offs=ends, out_dtype=torch.bfloat16),
        "grouped_mm of weights": lambda: torch._grouped_mm(rows.t(), rows, offs=ends, out_dtype=torch.bfloat16),
        "scaled_grouped_mm": lambda: torch._scaled_grouped_mm(
            rows.to(float8),
            experts.to(float8).transpose(-2, -1).contiguous().transpose(-2, -1),
            torch.ones(256, device=device),
            torch.ones(4, 384, device=device),
            offs=ends,
            out_dtype=torch.bfloat16,
        ),
        "conv1d": both(lambda x, w: net.conv1d(x, w, stride=2, padding=1), (4, 16, 200), (32, 16, 5)),
        "conv2d": both(lambda x, w: net.conv2d(x, w, padding=1), (4, 16, 32, 32), (32, 16, 3, 3)),
        "conv3d": both(net.conv3d, (2, 8, 8, 16, 16), (16, 8, 3, 3, 3)),
        "depthwise": both(lambda x, w: net.conv2d(x, w, padding=1, groups=32), (4, 32, 32, 32), (32, 1, 3, 3)),
        "transposed": both(lambda x, w: net.conv_transpose2d(x, w, stride=2), (4, 32, 16, 16), (32, 16, 2, 2)),
        "flash": attention(SDPBackend.FLASH_ATTENTION, causal=False),
        "flash causal": attention(SDPBackend.FLASH_ATTENTION, causal=True),
        "flash shared heads": attention(SDPBackend.FLASH_ATTENTION, causal=False, heads=2),
        "efficient": attention(SDPBackend.EFFICIENT_ATTENTION, causal=False),
        "cudnn": attention(SDPBackend.CUDNN_ATTENTION, causal=False),
        "packed": packed,
        "layer_norm": both(lambda x, w, b: net.layer_norm(x, (128,), w, b), (64, 128), (128,), (128,)),
        "rms_norm": both(lambda x, w: net.rms_norm(x, (128,), w), (64, 128), (128,)),
        "group_norm": both(lambda x, w, b: net.group_norm(x, 4, w, b), (4, 16, 32, 32), (16,), (16,)),
        "batch_norm": both(
            lambda x, w, b: net.batch_norm(x, None, None, w, b, training=True), (4, 16, 32, 32), (16,), (16,)
        ),
        "softmax": both(lambda x: torch.softmax(x, -1), (64, 128)),
        "embedding": lambda: net.embedding(index, table).sum().backward(),
        "embedding_bag": lambda: net.embedding_bag(index.view(8, 8), table.detach()),
        "cross_entropy": lambda: net.cross_entropy(scores, index).backward(),
        "dropout": both(lambda x: net.dropout(x, 0.1), (64, 128)),
        "topk": lambda: torch.topk(scores.detach(), 5),
        "sort": lambda: torch.sort(scores.detach()),
        "scatter_add": lambda: torch.zeros(100, device=device).scatter_add_(0, index, torch.ones(64, device=device)),
        "index_add": lambda: torch.zeros(100, 32, device=device).index_add_(
            0, index, torch.ones(64, 32, device=device)
        ),
        "masked_fill": lambda: scores.detach().masked_fill(scores.detach() > 0, 0.0),
        "cat": lambda: torch.cat([rows, rows]),
        "foreach": lambda: torch._foreach_add([new(64, 64), new(32, 64)], 1.0),
        "adamw": adamw.step,
    }
    known: dict[str, int] = {}
    for name, run in [*cases.items()]:
        try:
            with FlopCounterMode(display=False) as counter:
                run()
            known[name] = int(counter.get_total_flops())
        except AssertionError as error:  # of the counter
            print(f"{name}: {error}")
        except (RuntimeError, AttributeError) as error:
            print(f"{name}: {str(error).splitlines()[0]}")
            del cases[name]
    with profiler_runner(folder / "operators_h200.json.gz", record_shapes=True, rank="none"):
        for name, run in cases.items():
            with region(name):
                run()
        if device.type == "cuda":
            torch.cuda.synchronize()
    (folder / "operators_h200.flops.json").write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    for make in (joined, pools, expandable, graphs, compiled, operators):
        if make.__name__ == sys.argv[1]:
            make(target)
