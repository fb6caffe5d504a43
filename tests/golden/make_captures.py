"""Record the golden captures that need a GPU, one in each process: joined, pools, expandable, graphs or compiled.

python tests/golden/make_captures.py joined FOLDER       # joined_h200.json.gz and joined_h200.pickle
python tests/golden/make_captures.py pools FOLDER        # memory_pools_h200.pickle
python tests/golden/make_captures.py expandable FOLDER   # memory_expandable_h200.pickle
python tests/golden/make_captures.py graphs FOLDER       # graph_capture_*_h200.json.gz
python tests/golden/make_captures.py compiled FOLDER     # compiled_breaks_ and compiled_recompiles_h200
python tests/golden/shorten.py FOLDER/*
"""

import contextlib
import os
import sys
from pathlib import Path

if "expandable" in sys.argv:  # before torch reads it
    os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"

import torch

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
    """CUDA graphs captured under the profiler and replayed: in a line, on two streams, by torch.compile."""
    net = Net().cuda().half().eval().requires_grad_(False)
    x = torch.randn(256, 512, device="cuda", dtype=torch.half)

    def forked() -> torch.Tensor:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            a = net(x)
        b = torch.relu(x @ x.T)
        torch.cuda.current_stream().wait_stream(side)
        return a.sum() + b.sum()

    for name, run in (("eager", lambda: net(x)), ("forked", forked)):
        for _ in range(3):
            run()
        torch.cuda.synchronize()
        path = folder / f"graph_capture_{name}_h200.json.gz"
        with profiler_runner(path, record_shapes=True, with_stack=True, rank="none"):
            graph = torch.cuda.CUDAGraph()
            with region("capture"), torch.cuda.graph(graph):
                run()
            for _ in range(3):
                with region("replay"):
                    graph.replay()
            torch.cuda.synchronize()
    reduced = torch.compile(net, mode="reduce-overhead")
    reduced(x)
    with profiler_runner(folder / "graph_capture_reduce_overhead_h200.json.gz", record_shapes=True, rank="none"):
        for _ in range(4):
            with region("call"):
                torch.compiler.cudagraph_mark_step_begin()
                reduced(x)
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


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    for make in (joined, pools, expandable, graphs, compiled):
        if make.__name__ == sys.argv[1]:
            make(target)
