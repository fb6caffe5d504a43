"""FLOPs of our models against those of torch.utils.flop_counter, which has the operators' own shapes at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from profiler_kit.analyses.gpu.operator_models import Call, model_of

META = torch.device("meta")


def counted(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def ours(operator: str, shapes: list[Any], values: list[Any]) -> float | None:
    model = model_of(operator)
    assert model is not None
    texts = ["" if value is None else str(value) for value in values]
    return model(Call(operator, shapes, ["float"] * len(shapes), texts)).flops


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "dilation", "transposed", "more", "groups"),
    [
        ((2, 6, 50), (8, 6, 5), [2], [1], [2], False, [0], 1),
        ((2, 6, 20, 21), (8, 6, 3, 5), [1, 2], [1, 2], [1, 1], False, [0, 0], 1),
        ((2, 6, 20, 20), (6, 1, 3, 3), [1, 1], [1, 1], [1, 1], False, [0, 0], 6),
        ((2, 6, 20, 20), (12, 3, 3, 3), [1, 1], [0, 0], [2, 2], False, [0, 0], 2),
        ((1, 4, 7, 8, 9), (5, 4, 3, 2, 1), [1, 2, 1], [1, 0, 0], [1, 1, 1], False, [0, 0, 0], 1),
        ((2, 6, 10, 11), (6, 4, 3, 4), [2, 2], [1, 1], [1, 1], True, [1, 0], 1),
        ((2, 6, 9), (6, 2, 5), [3], [0], [2], True, [0], 2),
        ((1, 4, 5, 6, 7), (4, 3, 2, 2, 2), [2, 2, 2], [0, 0, 0], [1, 1, 1], True, [0, 0, 0], 1),
    ],
)
def test_convolutions(
    x: tuple[int, ...], w: tuple[int, ...], stride: list[int], padding: list[int], dilation: list[int],
    transposed: bool, more: list[int], groups: int,
) -> None:  # fmt: skip
    rest = (stride, padding, dilation, transposed, more, groups)
    a, b = torch.empty(x, device=META), torch.empty(w, device=META)
    out = torch.ops.aten.convolution(a, b, None, *rest)
    expected = counted(lambda: torch.ops.aten.convolution(a, b, None, *rest))
    assert ours("aten::convolution", [x, w, []], [None, None, None, *rest]) == expected
    for mask in ([True, True, False], [False, True, False]):
        whole = counted(lambda: torch.ops.aten.convolution_backward(out, a, b, None, *rest, mask))  # noqa: B023
        found = ours("aten::convolution_backward", [out.shape, x, w], [None, None, None, None, *rest, mask])
        assert found == sum(mask) * expected
        # torch counts the gradient of a grouped convolution's weight, and of a transposed one's input, otherwise
        if groups == 1 and not transposed:
            assert found == whole


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mm", ((3, 5), (5, 7))),
        ("bmm", ((2, 3, 5), (2, 5, 7))),
        ("addmm", ((3, 7), (3, 5), (5, 7))),
        ("baddbmm", ((2, 3, 7), (2, 3, 5), (2, 5, 7))),
    ],
)
def test_matrix_products(name: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    tensors = [torch.empty(shape, device=META) for shape in shapes]
    added = shapes[0] if name.endswith("addmm") or name == "baddbmm" else ()
    bias = torch.Size(added).numel() if added else 0
    # torch leaves out what is added
    assert (
        ours(f"aten::{name}", list(shapes), [None] * len(shapes))
        == counted(lambda: getattr(torch.ops.aten, name)(*tensors)) + bias
    )


@pytest.mark.parametrize(("heads", "n", "m", "width", "wide"), [(8, 64, 64, 32, 32), (4, 16, 100, 64, 64)])
def test_attention(heads: int, n: int, m: int, width: int, wide: int) -> None:
    """torch counts the whole square of a causal mask; ours are without one."""
    from torch.utils.flop_counter import sdpa_backward_flop_count, sdpa_flop_count

    q, k, v, out = (2, heads, n, width), (2, heads, m, width), (2, heads, m, wide), (2, heads, n, wide)
    for name, mask in (("flash", 4), ("efficient", 6), ("cudnn", 6)):
        values = [None] * 3 + ["False"] * 4
        found = ours(f"aten::_scaled_dot_product_{name}_attention", [q, k, v, [], [], [], []], values)
        assert mask < len(values) and found == sdpa_flop_count(q, k, v)
        back = ours(f"aten::_scaled_dot_product_{name}_attention_backward", [out, q, k, v, *[[]] * 11], ["False"] * 15)
        assert back == sdpa_backward_flop_count(out, q, k, v)
