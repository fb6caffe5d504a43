"""layer_timer: counting, names, iterations, exceptions, compiled modules, and that it leaves the model alone."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pandas as pd
import pytest
import torch
from torch import nn

from profiler_kit import layer_timer
from profiler_kit.capture import layers
from profiler_kit.errors import CaptureError, OptionError
from profiler_kit.formats.layer_file import LAYER_CALLS

CUDA = torch.cuda.is_available()


class Block(nn.Module):
    """Two layers, the second one called twice."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.activation(self.linear(x)))


class Nested(nn.Module):
    """Calls itself until `depth` is 0."""

    def forward(self, depth: int) -> int:
        return depth if depth == 0 else self(depth - 1)


class Failing(nn.Module):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.error = error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inner(x)
        raise self.error


def model() -> nn.Sequential:
    activation = nn.ReLU()  # one module under two names
    return nn.Sequential(Block(activation), Block(activation))


def calls(frame: pd.DataFrame) -> list[tuple[str, str, int, int]]:
    return list(frame[["layer", "parent", "iteration", "call"]].itertuples(index=False, name=None))


def hooks(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules())


def check_sums(frame: pd.DataFrame, column: str) -> None:
    """Total = self + direct children, exactly; on frames without recursion and threads."""
    for (iteration, layer), group in frame.groupby(["iteration", "layer"]):
        inside = frame[(frame["iteration"] == iteration) & (frame["parent"] == layer)]
        assert group[column].sum() == group[f"self_{column}"].sum() + inside[column].sum()


X = torch.ones(2, 4)
ONE_FORWARD = [
    ("(model)", "", 0),
    ("0", "(model)", 0),
    ("0.linear", "0", 0),
    ("0.activation", "0", 0),
    ("0.activation", "0", 1),
    ("1", "(model)", 0),
    ("1.linear", "1", 0),
    ("1.activation", "1", 0),
    ("1.activation", "1", 1),
]


def test_nested_repeated_and_reused_modules() -> None:
    net = model()
    with layer_timer(net, batch_size=2) as timer:
        for _ in range(3):
            net(X)
    frame = timer.frame()
    assert LAYER_CALLS.check(frame).equals(frame)
    expected = [(layer, parent, iteration, call) for iteration in range(3) for layer, parent, call in ONE_FORWARD]
    assert calls(frame) == expected
    assert list(frame["type"][:5]) == ["Sequential", "Block", "Linear", "ReLU", "ReLU"]
    assert set(frame["batch_size"]) == {2}
    assert frame["device_ns"].isna().all() and frame["self_device_ns"].isna().all()
    assert (frame["host_ns"] > 0).all() and (frame["self_host_ns"] >= 0).all()
    check_sums(frame, "host_ns")
    assert frame["self_host_ns"].sum() == frame.loc[frame["layer"] == "(model)", "host_ns"].sum()
    frame["batch_size"] = 9
    assert set(timer.frame()["batch_size"]) == {2}


def test_outputs_and_model_stay_as_they_are() -> None:
    net = model()
    mine = net[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    expected, before = net(X), hooks(net)
    with layer_timer(net):
        assert torch.equal(net(X), expected)
    assert hooks(net) == before == 1
    mine.remove()


def test_own_hooks_of_the_model_count_as_the_layers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 5

        def perf_counter_ns(self) -> int:
            return self.now

        def goes_on(self, *_: object) -> None:
            self.now += 100_000

    clock, net = Clock(), nn.Identity()
    monkeypatch.setattr(layers, "time", clock)
    net.register_forward_pre_hook(clock.goes_on)
    with layer_timer(net) as timer:
        net(X)
    assert timer.frame()["host_ns"].tolist() == [100_000]


def test_step_ends_an_iteration() -> None:
    net = model()
    with layer_timer(net, select=lambda name, _: name in ("(model)", "0.linear")) as timer:
        net(X)
        net(X)
        timer.step()
        net[0].linear(X)
        timer.step()
    assert calls(timer.frame()) == [
        ("(model)", "", 0, 0),
        ("0.linear", "(model)", 0, 0),
        ("(model)", "", 0, 1),
        ("0.linear", "(model)", 0, 1),
        ("0.linear", "", 1, 0),
    ]


def test_calls_outside_the_root_belong_to_the_root_call_that_follows() -> None:
    net = model()
    with layer_timer(net, select=lambda name, _: name in ("(model)", "0.linear")) as timer:
        for _ in range(2):
            net[0].linear(X)
            net(X)
    assert calls(timer.frame()) == [
        ("0.linear", "", 0, 0),
        ("(model)", "", 0, 0),
        ("0.linear", "(model)", 0, 1),
        ("0.linear", "", 1, 0),
        ("(model)", "", 1, 0),
        ("0.linear", "(model)", 1, 1),
    ]


def test_without_root_calls_and_steps_everything_is_one_iteration() -> None:
    net = model()
    with layer_timer(net) as timer:
        net[0].linear(X)
        net[0].linear(X)
    assert calls(timer.frame()) == [("0.linear", "", 0, 0), ("0.linear", "", 0, 1)]


def test_recursion() -> None:
    net = Nested()
    with layer_timer(net) as timer:
        net(2)
        net(0)
    frame = timer.frame()
    assert calls(frame) == [
        ("(model)", "", 0, 0),
        ("(model)", "(model)", 0, 1),
        ("(model)", "(model)", 0, 2),
        ("(model)", "", 1, 0),
    ]
    outer, middle, inner, _ = frame["host_ns"]
    assert list(frame["self_host_ns"][:3]) == [outer - middle, middle - inner, inner]


def test_shared_module_inside_shared_module() -> None:
    shared = nn.Sequential(nn.ReLU())
    net = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))
    with layer_timer(net) as timer:
        net(X)
    assert list(timer.frame()["layer"]) == ["(model)", "0", "0.0", "0.0.0", "1", "1.0", "1.0.0"]


def test_labels_and_selection() -> None:
    net = model()
    seen: list[tuple[str, str]] = []

    def select(name: str, module: nn.Module) -> bool:
        seen.append((name, type(module).__name__))
        return name != "0"

    with layer_timer(net, label=lambda name, module: f"{name} {type(module).__name__}", select=select) as timer:
        net(X)
    frame = timer.frame()
    assert seen == [
        ("(model)", "Sequential"),
        ("0", "Block"),
        ("0.linear", "Linear"),
        ("0.activation", "ReLU"),
        ("1", "Block"),
        ("1.linear", "Linear"),
        ("1.activation", "ReLU"),
    ]
    assert list(frame["variant"][:2]) == ["(model) Sequential", "0.linear Linear"]
    assert list(frame["parent"][:2]) == ["", "(model)"]
    check_sums(frame, "host_ns")


def test_call_that_raises_counts_and_the_stack_stays_balanced() -> None:
    failing = Failing(ValueError("mine"))
    net = nn.Sequential(nn.Identity(), failing)
    with layer_timer(net) as timer:
        for _ in range(2):
            with pytest.raises(ValueError, match="mine"):
                net(X)
    expected = [("(model)", "", 0), ("0", "(model)", 0), ("1", "(model)", 0), ("1.inner", "1", 0)]
    assert calls(timer.frame()) == [(name, parent, i, call) for i in range(2) for name, parent, call in expected]
    check_sums(timer.frame(), "host_ns")


def test_call_cut_off_by_the_keyboard_has_no_row() -> None:
    failing = Failing(KeyboardInterrupt())
    net = nn.Sequential(nn.Identity(), failing)
    with layer_timer(net) as timer:
        with pytest.raises(KeyboardInterrupt):
            net(X)
        net[0](X)
    assert calls(timer.frame()) == [("0", "", 0, 0), ("1.inner", "", 0, 0), ("0", "", 0, 1)]
    assert hooks(net) == 0


def test_hooks_go_when_the_block_raises() -> None:
    net = model()
    with pytest.raises(ValueError, match="mine"), layer_timer(net) as timer:
        net(X)
        raise ValueError("mine")
    assert hooks(net) == 0
    assert len(timer.frame()) == len(ONE_FORWARD)


def test_hooks_go_when_hooking_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    net = model()

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no hooks")

    monkeypatch.setattr(net[1], "register_forward_hook", refuse)
    with pytest.raises(RuntimeError, match="no hooks"), layer_timer(net):
        pass
    assert hooks(net) == 0


def test_threads_have_stacks_of_their_own() -> None:
    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Sequential(nn.ReLU()), nn.Sequential(nn.ReLU())

        def forward(self, x: torch.Tensor) -> None:
            threads = [threading.Thread(target=part, args=(x,)) for part in (self.a, self.b)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    net = Parallel()
    with layer_timer(net) as timer:
        net(X)
    rows = set(timer.frame()[["layer", "parent"]].itertuples(index=False, name=None))
    assert rows == {("(model)", ""), ("a", ""), ("a.0", "a"), ("b", ""), ("b.0", "b")}


def in_place(module: nn.Module) -> nn.Module:
    module.compile(backend="eager")
    return module


@pytest.mark.parametrize("compiled", [lambda m: torch.compile(m, backend="eager"), in_place])
def test_compiled_module_is_one_layer(compiled: Callable[[nn.Module], nn.Module]) -> None:
    torch._dynamo.reset()
    block = Block(nn.ReLU())
    expected = block(X)
    net = nn.Sequential(nn.Identity(), compiled(block))
    with layer_timer(net, label=lambda name, module: type(module).__name__) as timer:
        for _ in range(2):
            assert torch.equal(net(X), expected)
    frame = timer.frame()
    assert list(frame["layer"]) == ["(model)", "0", "1"] * 2
    assert list(frame["type"][:3]) == list(frame["variant"][:3]) == ["Sequential", "Identity", "Block"]
    assert torch.equal(net(X), expected)
    assert hooks(net) == 0
    assert len(timer.frame()) == 6


def test_hooks_leave_nothing_in_a_graph_compiled_around_them() -> None:
    torch._dynamo.reset()
    net = model()
    compiled = torch.compile(lambda x: net(x), backend="eager", fullgraph=True)
    with layer_timer(net) as timer:
        result = compiled(X)
    assert torch.equal(result, net(X))
    frame = timer.frame()
    assert frame.empty
    assert LAYER_CALLS.check(frame).dtypes.equals(LAYER_CALLS.empty().dtypes)


def test_wrong_use() -> None:
    net = model()
    for arguments, message in (
        ({"model": 3}, "model is a int, expected a torch.nn.Module. Pass the model."),
        ({"batch_size": 0}, "batch_size is 0, expected a whole number from 1."),
        ({"batch_size": True}, "batch_size is True, expected a whole number from 1."),
    ):
        with pytest.raises(OptionError) as caught:
            layer_timer(**{"model": net, **arguments})  # type: ignore[arg-type]
        assert str(caught.value) == f"layer_timer: {message}"
    with pytest.raises(OptionError) as caught, layer_timer(net, select=lambda *_: False):
        pass
    assert str(caught.value) == "layer_timer: select leaves no module to time, expected at least one."
    timer = layer_timer(net)
    with pytest.raises(CaptureError) as refused:
        timer.step()
    assert str(refused.value) == "layer_timer: step() outside the block, expected it inside `with layer_timer(...)`."
    with timer, pytest.raises(CaptureError) as refused:
        timer.frame()
    assert str(refused.value) == (
        "layer_timer: frame() before the end of the block, expected it after `with layer_timer(...)`."
    )
    with pytest.raises(CaptureError) as refused, timer:
        pass
    assert str(refused.value) == "layer_timer: this timer has been used, expected a new one for each block."


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
def test_cuda_times_add_up_and_match_a_synchronised_clock() -> None:
    net = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(8)), nn.ReLU()).cuda()
    value = torch.ones(4096, 2048, device="cuda")
    net(value)
    torch.cuda.synchronize()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    with layer_timer(net) as timer:
        for _ in range(3):
            net(value)
        start.record()
        net(value)
        end.record()
    frame = timer.frame()
    check_sums(frame, "device_ns")
    check_sums(frame, "host_ns")
    assert list(frame["layer"][:2]) == ["(model)", "0"]
    assert frame["device_ns"].notna().all()
    last = frame.loc[frame["layer"] == "(model)", "device_ns"].iloc[-1]
    assert last == pytest.approx(start.elapsed_time(end) * 1e6, rel=0.05)
    assert (frame.loc[frame["type"] == "Linear", "device_ns"] > 10_000).all()


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
def test_cuda_events_are_recorded_on_the_current_stream() -> None:
    net = nn.Linear(4096, 4096, device="cuda")
    value = torch.ones(8192, 4096, device="cuda")
    net(value)
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    with layer_timer(net) as timer:
        for stream in (side, torch.cuda.current_stream(), side):
            with torch.cuda.stream(stream):
                net(value)
            torch.cuda.synchronize()
    times = timer.frame()["device_ns"]
    assert (times > 100_000).all()  # 0.27 TFLOP at fp32 take milliseconds; on a wrong stream it would be nothing


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
def test_nothing_synchronises_inside_the_run() -> None:
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU()).cuda()
    value = torch.ones(64, 64, device="cuda")
    net(value)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        with layer_timer(net) as timer:
            net(value)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(timer.frame()) == 3


@pytest.mark.gpu
@pytest.mark.skipif(not CUDA, reason="needs a CUDA device")
def test_events_are_used_again() -> None:
    net = nn.ReLU()
    value = torch.ones(4, device="cuda")
    for _ in range(3):
        with layer_timer(net) as timer:
            net(value)
        assert timer.frame()["device_ns"].notna().all()
    pool = layers._POOLS[value.device]
    assert len(pool) == len(set(map(id, pool)))
