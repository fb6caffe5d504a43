"""Record tests/golden/memory_train_h200.pickle on a GPU: a graph's private pool, a snapshot in mid history, an OOM.

python tests/golden/make_memory_train.py OUT.pickle
"""

import sys

import torch

from profiler_kit import memory_runner, region


def main(path: str) -> None:
    net = torch.nn.Sequential(*(torch.nn.Linear(1024, 1024) for _ in range(3))).cuda()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    x = torch.randn(256, 1024, device="cuda")
    side = torch.cuda.Stream()

    def step() -> None:
        with region("forward"):
            loss = net(x).square().mean()
        with region("backward"):
            loss.backward()
        with region("optimizer"):
            optimizer.step()
            optimizer.zero_grad()

    def run() -> None:
        step()
        step()
        torch.cuda.memory._snapshot()
        with region("graph"):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                (x @ x.t()).relu()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                (x @ x.t()).relu()
            graph.replay()
        with region("second stream"):
            shared = torch.empty(1 << 20, device="cuda")
            shared.record_stream(side)
            with torch.cuda.stream(side):
                shared.add_(1)
            del shared
        step()
        with region("too much"):
            torch.empty(1 << 44, dtype=torch.uint8, device="cuda")

    try:
        memory_runner(path, run)
    except torch.OutOfMemoryError as error:
        print(error)


if __name__ == "__main__":
    main(sys.argv[1])
