"""What an operator has to compute and to move: FLOPs and bytes from its recorded shapes, dtypes and arguments.

The conventions are those of torch.utils.flop_counter and TraceLens, so that numbers can be compared: a multiply-add is
two operations, every operand is read once and every result written once, whatever the caches do. `@operator_model`
registers a model for an operator of one's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, TypeVar

from profiler_kit.analyses.gpu.serving_labels import Served

Shape = Sequence[int]
Moved = Sequence[tuple[float, str]]  # elements and their dtype; of a product or an attention the first one computes

SIZES: Final = {
    "double": 8, "long int": 8, "long": 8, "unsigned long": 8, "c10::complex<float>": 8, "c10::complex<double>": 16,
    "float": 4, "int": 4, "unsigned int": 4, "c10::complex<c10::Half>": 4, "Scalar": 4, "c10::Half": 2,
    "c10::BFloat16": 2, "short": 2, "unsigned short": 2, "bool": 1, "unsigned char": 1, "signed char": 1, "char": 1,
}  # fmt: skip
_FOUR_BITS: Final = "c10::Float4_"  # two of them in each element
_ONE_BYTE: Final = ("c10::Float8_", _FOUR_BITS)


@dataclass(frozen=True)
class Call:
    """One call of an operator as the trace has it: for each argument its shape ([] for what is not a tensor), its dtype
    ("" for None) and, for what is not a tensor, its value as text. step: the step of LLM serving that it is part of,
    for operators whose model asks for it.
    """

    operator: str
    shapes: Sequence[Any]
    dtypes: Sequence[str]
    values: Sequence[str]
    step: Served | None = None

    def tensor(self, at: int) -> tuple[Shape, str]:
        """Shape and dtype of an argument that has to be a tensor. Of a nested one neither is recorded."""
        shape, dtype = self.shapes[at], self.dtypes[at]
        if not all(type(size) is int and size >= 0 for size in shape):
            raise ValueError(shape)
        if not shape and not dtype:
            raise Unrecorded
        return shape, dtype

    def numbers(self, at: int) -> list[int]:
        """The integers of an argument such as "[1, 2]"; none where it is not given."""
        return [int(number) for number in re.findall(r"-?\d+", self.values[at] if at < len(self.values) else "")]

    def whole(self, at: int) -> int:
        """An argument that has to be a whole number."""
        if not self.values[at].isdecimal():
            raise Unrecorded
        return int(self.values[at])

    def flags(self, at: int) -> list[bool]:
        """The truth values of an argument such as "[True, False]" or "False"."""
        return [word.lower() == "true" for word in re.findall(r"[A-Za-z]+", self.values[at])]


@dataclass(frozen=True)
class Work:
    """What one call computes and moves. flops: None where only the bytes can be told. moved: bytes, or elements.
    assumed: what was, of something that is not recorded.
    """

    flops: float | None
    moved: Moved | float | None
    assumed: str = ""

    @property
    def bytes(self) -> float | None:
        """Bytes read and written; None where a dtype is unknown."""
        if self.moved is None or isinstance(self.moved, int | float):
            return self.moved
        sizes = [size_of(dtype) for _, dtype in self.moved]
        known = [size for size in sizes if size is not None]
        if len(known) < len(sizes):
            return None
        return sum(count * size for (count, _), size in zip(self.moved, known, strict=True))

    @property
    def dtype(self) -> str:
        """The dtype that it computes in; "" where it cannot be told."""
        return self.moved[0][1] if isinstance(self.moved, Sequence) and self.moved else ""


Model = Callable[[Call], Work]
M = TypeVar("M", bound=Model)
MODELS: Final[dict[str, Model]] = {}
WHOLE: Final[set[str]] = set()  # operators whose model is for all that is called inside them
OF_STEP: Final[set[str]] = set()  # operators whose model asks for the step


class Unrecorded(Exception):
    """What a model needs beside the shapes was not recorded."""


def operator_model(*names: str, whole: bool = True, of_step: bool = False) -> Callable[[M], M]:
    """Register a function from Call to Work as the model of these operators (`@operator_model("my::op")`).

    Of a sum and its LayerNorm in one kernel, say:

        @operator_model("my::add_norm")
        def add_norm(call: Call) -> Work:
            (x, dtype), (more, _) = call.tensor(0), call.tensor(1)
            return Work(6 * prod(x), [(3 * prod(x) + prod(more), dtype)])  # FLOPs, and what is read and written

    whole: it is for all that is called inside the operator too; without, for an operator that launches itself.
    of_step: it asks for `step`.
    A model that raises LookupError, TypeError or ValueError says that the recorded shapes do not fit the operator.
    """

    def register(model: M) -> M:
        MODELS.update(dict.fromkeys(names, model))
        (WHOLE.update if whole else WHOLE.difference_update)(names)
        (OF_STEP.update if of_step else OF_STEP.difference_update)(names)
        return model

    return register


def size_of(dtype: str) -> int | None:
    """Bytes of one element; None for a dtype that is not known."""
    return 1 if dtype.startswith(_ONE_BYTE) else SIZES.get(dtype)


def _aten(*names: str) -> Iterator[str]:
    return (f"aten::{name}" for name in names)


# Matrix products: 2 M N K, and M N for what is added


def product(batch: int, a: tuple[Shape, str], b: tuple[Shape, str], out: str = "", *, added: bool = False) -> Work:
    """Matrix products of the last two sides. out: the dtype of the result, where it is not the first one's."""
    (m, k), (inner, n) = a[0][-2:], b[0][-2:]
    if k != inner:
        raise ValueError((a, b))
    moved = [(batch * m * k, a[1]), (batch * k * n, b[1]), (batch * m * n, out or a[1])]
    deep = 2 * k if a[1].startswith(_FOUR_BITS) else k
    return Work(batch * (2 * m * n * deep + added * m * n), [*moved, (added * batch * n, a[1])])


@operator_model(*_aten("mm", "bmm", "_int_mm"))
def _mm(call: Call) -> Work:
    a, b = call.tensor(0), call.tensor(1)
    batch = a[0][0] if call.operator == "aten::bmm" else 1
    if len(a[0]) != len(b[0]) or len(a[0]) - 2 != (call.operator == "aten::bmm"):
        raise ValueError(call.shapes)
    return product(batch, a, b, "int" if call.operator == "aten::_int_mm" else "")


@operator_model(*_aten("addmm", "baddbmm", "addmm_", "baddbmm_", "_addmm_activation"))
def _addmm(call: Call) -> Work:
    a, b = call.tensor(1), call.tensor(2)
    if len(a[0]) != len(b[0]) or len(a[0]) not in (2, 3):
        raise ValueError(call.shapes)
    return product(a[0][0] if len(a[0]) == 3 else 1, a, b, added=True)


_SCALED: Final = ("aten::_scaled_mm", "aten::_scaled_mm_v2", "trtllm::cublas_scaled_mm")


@operator_model(*_SCALED, "bitsandbytes::int8_linear_matmul")
def _scaled_mm(call: Call) -> Work:
    """The result has two bytes, or the four that are asked for by the number of a dtype."""
    a, b = call.tensor(0), call.tensor(1)
    wide = call.operator == "aten::_scaled_mm" and call.numbers(6) == [6]
    return product(1, a, b, "float" if wide else "c10::BFloat16" if size_of(a[1]) == 1 else "")


@operator_model(*_aten("linear", "matmul"), whole=False)
def _linear(call: Call) -> Work:
    (x, x_type), (w, w_type) = call.tensor(0), call.tensor(1)
    if len(w) != 2:
        raise ValueError(call.shapes)
    matrix = w[::-1] if call.operator == "aten::linear" else w
    added = call.operator == "aten::linear" and len(call.shapes) > 2 and bool(call.shapes[2])
    return product(1, ((prod(x[:-1]), x[-1]), x_type), (matrix, w_type), added=added)


@operator_model(*_aten("mv", "addmv", "addmv_", "dot", "vdot"), whole=False)
def _vector_product(call: Call) -> Work:
    first = 1 if call.operator.startswith("aten::addmv") else 0
    (a, dtype), (b, _) = call.tensor(first), call.tensor(first + 1)
    if not a or a[-1:] != b:
        raise ValueError(call.shapes)
    return Work(2 * prod(a), [(prod(a), dtype), (prod(b), dtype), (prod(a[:-1]), dtype)])


# Convolutions: the bias is left out, as torch.utils.flop_counter does


def _convolution(call: Call, at: int) -> tuple[float, Shape, Shape, Shape, str]:
    """FLOPs, the shapes of input, weight and output, dtype; `at`: where the input is among the arguments."""
    (x, dtype), (w, _) = call.tensor(at), call.tensor(at + 1)
    dims = len(x) - 2

    def each(position: int, default: int) -> list[int]:
        found = call.numbers(at + position) or [default]
        return found * dims if len(found) == 1 else found

    stride, padding, dilation, more = each(3, 1), each(4, 0), each(5, 1), each(7, 0)
    transposed, groups = call.flags(at + 6)[0], (call.numbers(at + 8) or [1])[0]
    if dims < 1 or len(w) != len(x) or x[1] != (w[0] if transposed else w[1] * groups):
        raise ValueError(call.shapes)
    taps = [d * (k - 1) + 1 for d, k in zip(dilation, w[2:], strict=True)]
    if transposed:
        sides = [(x[2 + i] - 1) * stride[i] - 2 * padding[i] + taps[i] + more[i] for i in range(dims)]
    else:
        sides = [(x[2 + i] + 2 * padding[i] - taps[i]) // stride[i] + 1 for i in range(dims)]
    out = [x[0], w[1] * groups if transposed else w[0], *sides]
    if min(out) < 0:
        raise ValueError(call.shapes)
    return 2 * prod(w[1:]) * prod(x if transposed else out), x, w, out, dtype


@operator_model(*_aten("convolution", "_convolution"))
def _convolve(call: Call) -> Work:
    flops, x, w, out, dtype = _convolution(call, 0)
    return Work(flops, [(prod(x), dtype), (prod(w), dtype), (prod(out), dtype)])


@operator_model("aten::convolution_backward")
def _convolve_backward(call: Call) -> Work:
    """The gradients of input and weight cost as much as the convolution each, where they are asked for."""
    flops, x, w, out, dtype = _convolution(call, 1)
    asked = sum(call.flags(10)[:2]) if len(call.values) > 10 and call.values[10] else 2
    return Work(asked * flops, [(asked * (prod(x) + prod(w) + prod(out)), dtype)])


# Attention

ALIKE: Final = "lengths taken to be alike"


def _attention(
    call: Call,
    first: int,
    causal: str,
    *,
    heads_first: bool,
    lengths: tuple[int, int] | None,
    window: Sequence[int],
    backward: bool,
) -> Work:
    """Two products over the pairs of query and key, softmax not counted; backward five (the scores once more).

    first: where the query is. causal and window: see _pairs. lengths: of sequences that are packed, where their starts
    and the longest are; the others are taken to be as long as each other, which is the least they can be.
    """
    tensors = [call.tensor(first + at) for at in range(3)]
    assumed = ""
    if lengths is not None:
        if any(prod(shape[:-3]) != 1 for shape, _ in tensors):  # pages of a cache: their table is not recorded
            raise Unrecorded
        (n, q_heads, width), (m, k_heads, k_width), (_, _, v_width) = (shape[-3:] for shape, _ in tensors)
        batch = 1
        (count, *_), (k_count, *_) = call.shapes[lengths[0]], call.shapes[lengths[0] + 1]
        longest, k_longest = call.whole(lengths[1]), call.whole(lengths[1] + 1)
        others, k_others = count - 2, k_count - 2
        pairs = _pairs(longest, k_longest, causal, window)
        if others > 0:
            pairs += others * _pairs((n - longest) // others, (m - k_longest) // k_others, causal, window)
            assumed = ALIKE if longest * (others + 1) != n or k_longest * (k_others + 1) != m else ""
    else:
        order = (0, 1, 2, 3) if heads_first else (0, 2, 1, 3)
        (batch, q_heads, n, width), (k_batch, k_heads, m, k_width), (_, v_heads, v_m, v_width) = (
            [shape[at] for at in order] for shape, _ in tensors
        )
        if (batch, k_heads, m) != (k_batch, v_heads, v_m):
            raise ValueError(call.shapes)
        pairs = _pairs(n, m, causal, window)
    if width != k_width or not k_heads or q_heads % k_heads:
        raise ValueError(call.shapes)
    q, out = batch * n * q_heads * width, batch * n * q_heads * v_width
    k, v = batch * m * k_heads * width, batch * m * k_heads * v_width
    dtype = tensors[0][1]
    if not backward:
        return Work(batch * q_heads * 2 * pairs * (width + v_width), [(q + k + v + out, dtype)], assumed)
    # heads of the query that share one of the key add up their gradients
    shared = batch * m * (q_heads // k_heads - 1) * (width + v_width) * (pairs / max(1, n * m))
    flops = batch * q_heads * 2 * pairs * (3 * width + 2 * v_width) + shared
    return Work(flops, [(2 * (q + k + v) + out, dtype)], assumed)


def _pairs(n: int, m: int, causal: str, window: Sequence[int]) -> float:
    """Pairs of query and key that a mask leaves; of a causal one the half of the square.

    causal: "" or where the mask is aligned, "top" (torch) or "bottom" (flash-attn 2.1). window: how many keys before
    and behind its own a query looks at, below 0 for all of them.
    """
    ahead = m - n if causal != "top" else 0  # the first query's own key
    left, right = window
    right = 0 if causal else right
    pairs = _below(n, m, ahead + right) if right >= 0 else n * m
    return pairs - _below(n, m, ahead - left - 1) if left >= 0 else pairs


def _below(n: int, m: int, shift: int) -> float:
    """Of n * m the area in which the key is not behind the query by more than this."""

    def until(query: int) -> float:
        inside = min(max(query, 0), m)
        return inside * inside / 2 + m * max(query - m, 0)

    return until(n + shift) - until(shift)


def _register_attention(
    names: str,
    first: int,
    mask: int,
    *,
    heads_first: bool = False,
    packed: int = 0,
    longest: int = 2,
    window: int = 0,
    used: int = 0,
) -> None:
    """mask: where is_causal is, or for the memory-efficient kernels the type of the mask. packed: where the starts of
    packed sequences are, the longest ones so many further on. window: where the keys before and behind are. used: where
    the lengths are told of which not all is used, which are not recorded.
    """
    backward = first == 1

    @operator_model(*names.split())
    def model(call: Call) -> Work:
        if used and len(call.shapes) > used and call.shapes[used]:
            raise Unrecorded
        value = call.values[mask] if mask < len(call.values) else ""
        bottom = value == "2" or (value != "1" and not call.operator.startswith("aten::"))
        causal = ("bottom" if bottom else "top") if value in ("True", "true", "1", "2") else ""
        lengths = (packed, packed + longest) if packed and call.shapes[packed] else None
        sides = [*call.numbers(window), *call.numbers(window + 1)][:2] if window else []
        if len(sides) < len(("before", "behind")):  # memory-efficient kernels count its own key too
            sides = [sides[0] - 1, -1] if sides else [-1, -1]
        return _attention(
            call, first, causal, heads_first=heads_first, lengths=lengths, window=sides, backward=backward
        )


_FLASH = "flash_attn::_flash_attn_forward FlashAttnFunc aiter::_flash_attn_forward aiter::mha_fwd aiter::fmha_v3_fwd"
_register_attention("aten::_scaled_dot_product_flash_attention", 0, 4, heads_first=True)
_register_attention("aten::_scaled_dot_product_efficient_attention", 0, 6, heads_first=True)
_register_attention("aten::_scaled_dot_product_cudnn_attention", 0, 6, heads_first=True)
_register_attention("aten::_scaled_dot_product_fused_attention_overrideable", 0, 5, heads_first=True)
_register_attention("aten::_scaled_dot_product_fused_attention_overrideable_backward", 1, 13, heads_first=True)
_register_attention("aten::_scaled_dot_product_flash_attention_backward", 1, 11, heads_first=True)
_register_attention("aten::_scaled_dot_product_efficient_attention_backward", 1, 11, heads_first=True)
_register_attention("aten::_scaled_dot_product_cudnn_attention_backward", 1, 14, heads_first=True)
_register_attention("aten::_flash_attention_forward", 0, 8, packed=3, window=11, used=13)
_register_attention("aten::_flash_attention_backward", 1, 11, packed=6, window=15)
_register_attention("aten::_efficient_attention_forward", 0, 9, packed=4, window=13, used=12)
_register_attention("aten::_efficient_attention_backward", 1, 14, packed=6, window=18)
_register_attention("xformers::efficient_attention_forward_cutlass", 0, 9, packed=4, window=13, used=12)
_register_attention("xformers::efficient_attention_backward_cutlass", 1, 14, packed=6, window=18)
_register_attention("xformers::efficient_attention_forward_ck", 0, 9, packed=4, window=12, used=11)
_register_attention("xformers::efficient_attention_backward_ck", 1, 15, packed=5, window=17, used=9)
_register_attention("xformers_flash::flash_fwd", 0, 10, packed=3, longest=3, window=11, used=5)
_register_attention(_FLASH, 0, 5, window=6)
_register_attention("flash_attn::_flash_attn_backward", 1, 11, window=12)
_register_attention("aiter::mha_bwd", 1, 8, window=9)
_register_attention("flash_attn_3::fwd", 0, 24, packed=7, longest=5, window=25, used=11)
_register_attention("_vllm_fa2_C::varlen_fwd", 0, 15, packed=4, longest=6, window=16, used=6)
_register_attention("flash_attn::_flash_attn_varlen_forward", 0, 9, packed=3, window=10, used=17)
_register_attention("flash_attn::_flash_attn_varlen_backward", 1, 15, packed=9, window=16)
_register_attention("aiter::mha_varlen_fwd", 0, 12, packed=3, window=13)


# Norms: TraceLens's counts; parameters count whether they are given or not


def _norm(elements: int, channels: int, dtype: str, *, statistics: bool) -> Work:
    """statistics: mean and variance are those of the input; else they are given (batch norm in evaluation)."""
    flops = 6 * channels + (5 if statistics else 2) * elements
    return Work(flops, [(2 * elements + (6 if statistics else 4) * channels, dtype)])


@operator_model(*_aten("layer_norm", "native_layer_norm"))
def _layer_norm(call: Call) -> Work:
    x, dtype = call.tensor(0)
    return _norm(prod(x), _normalized(x, call.numbers(1)), dtype, statistics=True)


def _normalized(x: Shape, sides: list[int]) -> int:
    if not sides or list(x[-len(sides) :]) != sides:
        raise ValueError(sides)
    return prod(sides)


_LIBRARIES: Final = ("", "native_", "cudnn_", "miopen_")


@operator_model(*_aten(*(f"{library}{kind}_norm" for library in _LIBRARIES for kind in ("group", "instance", "batch"))))
def _channel_norm(call: Call) -> Work:
    x, dtype = call.tensor(0)
    given = "group" in call.operator or call.flags(5)[0]
    return _norm(prod(x), x[1], dtype, statistics=given)


@operator_model("aten::_fused_rms_norm")
def _rms_norm(call: Call) -> Work:
    x, dtype = call.tensor(0)
    n, channels = prod(x), _normalized(x, call.numbers(1))
    return Work(4 * n + 2 * (n // max(1, channels)), [(2 * n + channels, dtype)])


def _norm_backward(n: int, channels: float, dtype: str, mask: Sequence[bool], *, statistics: bool) -> Work:
    """mask: which gradients are asked for, of input, weight and bias."""
    into, weight, bias = mask
    flops = 4 * n + (0 if statistics else 3 * channels) + (5 * n * statistics if into else 2 * n)
    moved = n * (3 if into and statistics else 2)
    parameters = statistics + weight * (1 + statistics * (1 + bias))
    return Work(flops, [(int(moved + parameters * channels), dtype)])


@operator_model(*_aten("native_layer_norm_backward", "layer_norm_backward"))
def _layer_norm_backward(call: Call) -> Work:
    x, dtype = call.tensor(1)
    return _norm_backward(prod(x), _normalized(x, call.numbers(2)), dtype, call.flags(7), statistics=True)


@operator_model("aten::native_group_norm_backward")
def _group_norm_backward(call: Call) -> Work:
    x, dtype = call.tensor(1)
    mask = (call.flags(9)[0], True, True)
    return _norm_backward(prod(x), x[1] / call.numbers(8)[0], dtype, mask, statistics=True)


@operator_model(*_aten("native_batch_norm_backward", "cudnn_batch_norm_backward", "miopen_batch_norm_backward"))
def _batch_norm_backward(call: Call) -> Work:
    native = call.operator == "aten::native_batch_norm_backward"
    x, dtype = call.tensor(1 if native else 0)
    training = call.flags(7)[0] if native else True  # the libraries' are for training only
    return _norm_backward(prod(x), x[1], dtype, (True, True, True), statistics=training)


@operator_model("aten::_fused_rms_norm_backward")
def _rms_norm_backward(call: Call) -> Work:
    x, dtype = call.tensor(1)
    n, channels, mask = prod(x), _normalized(x, call.numbers(2)), call.flags(5)
    flops = 2 * n + 6 * n * mask[0] + mask[1] * n * (2 if n > channels else 1)
    return Work(flops, [(3 * n + 2 * channels, dtype)])


# Elementwise, copies, reductions, embeddings: one operation per element


def _broadcast(*shapes: Shape) -> int:
    """Elements of the shape that these are broadcast to."""
    sides = 1
    for place in range(max(map(len, shapes))):
        found = {shape[-1 - place] for shape in shapes if place < len(shape)} - {1}
        if len(found) > 1:
            raise ValueError(shapes)
        sides *= next(iter(found), 1)
    return sides


_UNARY: Final = "copy copy_ clamp_min clamp_min_ clamp_max clamp_max_ sigmoid rsqrt silu neg pow"
_MORE_UNARY: Final = (
    "clamp clamp_ sigmoid_ silu_ gelu relu relu_ tanh tanh_ exp exp_ log sqrt abs sin cos erf reciprocal square round "
    "floor ceil sign softplus mish hardswish leaky_relu elu hardtanh logical_not bitwise_not isnan tril triu"
)
_BINARY: Final = "div div_ mul mul_ add add_ sigmoid_backward threshold_backward"
_MORE_BINARY: Final = (
    "sub sub_ rsub remainder fmod maximum minimum atan2 gelu_backward silu_backward tanh_backward bitwise_and "
    "bitwise_or bitwise_xor logical_and logical_or eq ne lt le gt ge"
)
_COMPARE: Final = frozenset(_aten("eq", "ne", "lt", "le", "gt", "ge"))


@operator_model(*_aten(*_MORE_UNARY.split()), whole=False)
@operator_model(*_aten(*_UNARY.split()))
def _unary(call: Call) -> Work:
    """Reads one and writes one of the first argument's shape; of a copy the second argument is what is read."""
    shape, dtype = call.tensor(0)
    other = call.tensor(1)[1] if len(call.shapes) > 1 and call.shapes[1] else dtype
    return Work(prod(shape), [(prod(shape), dtype), (prod(shape), other)])


@operator_model(*_aten(*_MORE_BINARY.split()), whole=False)
@operator_model(*_aten(*_BINARY.split()), "LigerSiLUMulFunction", "LigerGELUMulFunction")
def _binary(call: Call) -> Work:
    (a, a_type), (b, b_type) = call.tensor(0), call.tensor(1)
    out = _broadcast(a, b)
    widest = max((a_type, b_type), key=lambda dtype: size_of(dtype) or 0) if a and b else a_type if a else b_type
    if call.operator in _COMPARE:
        widest = "bool"
    return Work(out, [(prod(a), a_type), (prod(b), b_type), (out, widest)])


@operator_model("aten::where", "aten::addcmul", "aten::addcmul_", "aten::addcdiv_", "aten::lerp_", whole=False)
def _ternary(call: Call) -> Work:
    tensors = [call.tensor(at) for at in range(3)]
    out = _broadcast(*(shape for shape, _ in tensors))
    return Work(out, [*((prod(shape), dtype) for shape, dtype in tensors), (out, tensors[1][1])])


@operator_model("aten::masked_fill_", "aten::masked_fill", whole=False)
def _masked(call: Call) -> Work:
    (x, dtype), (mask, mask_type) = call.tensor(0), call.tensor(1)
    return Work(_broadcast(x, mask), [(2 * prod(x), dtype), (prod(mask), mask_type)])


@operator_model("aten::native_dropout", "aten::native_dropout_backward", whole=False)
def _dropout(call: Call) -> Work:
    """A mask is written, or read, beside it."""
    x, dtype = call.tensor(0)
    return Work(prod(x), [(2 * prod(x), dtype), (prod(x), "bool")])


_RANDOM: Final = "normal_ uniform_ random_ exponential_ bernoulli_"


@operator_model(*_aten("fill_", "zero_", *_RANDOM.split()), whole=False)
def _fill(call: Call) -> Work:
    """What a random number takes depends on the generator."""
    shape, dtype = call.tensor(0)
    known = call.operator in ("aten::fill_", "aten::zero_")
    return Work(0 if known else None, [(prod(shape), dtype)])


_DIMS: Final = {"norm": 2, "linalg_norm": 2, "linalg_vector_norm": 2}  # where the dimensions are; 1 for the others
_RESULTS: Final = {"argmax": "long int", "argmin": "long int", "all": "bool", "any": "bool"}
_REDUCTIONS: Final = "sum mean max min amax amin norm linalg_norm std var logsumexp cumsum cumprod"


@operator_model(*_aten("prod", "linalg_vector_norm", "argmax", "argmin", "all", "any", "nansum"), whole=False)
@operator_model(*_aten(*_REDUCTIONS.split()))
def _reduction(call: Call) -> Work:
    name = call.operator.removeprefix("aten::")
    if name in ("max", "min") and len(call.shapes) > 1 and call.shapes[1]:
        return _binary(call)
    shape, dtype = call.tensor(0)
    at = _DIMS.get(name, 1)
    dims = call.numbers(at)
    out = prod(shape)
    if not name.startswith("cum"):
        reduced = {dim % len(shape) for dim in dims} if shape and dims else range(len(shape))
        out = prod(size for place, size in enumerate(shape) if place not in reduced)
    moved = [(prod(shape), dtype), (out, _RESULTS.get(name, dtype))]
    return Work(prod(shape), [*moved, (out, "long int")] if name in ("max", "min") and dims else moved)


@operator_model("aten::_softmax", "aten::_log_softmax", whole=False)
def _softmax(call: Call) -> Work:
    shape, dtype = call.tensor(0)
    out = "float" if len(call.values) > 2 and call.flags(2) == [True] else dtype
    return Work(3 * prod(shape), [(prod(shape), dtype), (prod(shape), out)])  # exponential, sum, quotient


@operator_model("aten::_softmax_backward_data", "aten::_log_softmax_backward_data", whole=False)
def _softmax_backward(call: Call) -> Work:
    shape, dtype = call.tensor(0)
    return Work(3 * prod(shape), [(3 * prod(shape), dtype)])


@operator_model("aten::embedding", "aten::gather", whole=False)
@operator_model("aten::index_select")  # may call gather, with an index that is one row seen many times
def _rows(call: Call) -> Work:
    (table, dtype), name = call.tensor(0), call.operator.removeprefix("aten::")
    index, index_type = call.tensor(1 if name == "embedding" else 2)
    out = prod(index)
    if name != "gather":
        dim = 0 if name == "embedding" else call.numbers(1)[0] % len(table)
        out *= prod(table[:dim]) * prod(table[dim + 1 :])
    return Work(0, [(2 * out, dtype), (prod(index), index_type)])


@operator_model("aten::scatter_", "aten::scatter_add_", "aten::index_add_", whole=False)
def _scattered(call: Call) -> Work:
    """What is added to is read too."""
    index, index_type = call.tensor(2)
    if not call.shapes[3]:  # a number is written, which is not read from memory
        return Work(0, [(prod(index), call.tensor(0)[1]), (prod(index), index_type)])
    source, dtype = call.tensor(3)
    n = prod(source if call.operator == "aten::index_add_" else index)
    adds = "add" in call.operator
    return Work(adds * n, [((3 if adds else 2) * n, dtype), (prod(index), index_type)])


@operator_model("aten::_embedding_bag", "aten::_embedding_bag_forward_only", whole=False)
def _bags(call: Call) -> Work:
    (table, dtype), (index, index_type), (bags, bag_type) = (call.tensor(at) for at in range(3))
    n, out = prod(index) * table[-1], prod(bags) * table[-1]
    return Work(n, [(n + out, dtype), (prod(index), index_type), (prod(bags), bag_type)])


@operator_model("aten::sort", "aten::topk", whole=False)
def _sorted(call: Call) -> Work:
    """How often is compared depends on the algorithm; values and their numbers are written."""
    shape, dtype = call.tensor(0)
    out = prod(shape)
    if call.operator == "aten::topk":
        (k,), dim = call.numbers(1), (call.numbers(2) or [-1])[0]
        out = out // shape[dim] * k if shape and shape[dim] else 0
    return Work(None, [(prod(shape) + out, dtype), (out, "long int")])


@operator_model("aten::nll_loss_forward", "aten::nll_loss_backward", whole=False)
def _picked_loss(call: Call) -> Work:
    """Of each row the element of its class; the rest of the gradient is filled by another kernel."""
    backward = call.operator == "aten::nll_loss_backward"
    (scores, dtype), (classes, index_type) = call.tensor(int(backward)), call.tensor(int(backward) + 1)
    if prod(scores[:-1]) != prod(classes):
        raise ValueError(call.shapes)
    return Work(prod(classes), [(prod(classes) + 1, dtype), (prod(classes), index_type)])


@operator_model("aten::embedding_dense_backward", whole=False)
def _rows_backward(call: Call) -> Work:
    (gradient, dtype), (index, index_type) = call.tensor(0), call.tensor(1)
    n = prod(gradient)
    return Work(n, [(n, dtype), (prod(index), index_type), (call.numbers(2)[0] * gradient[-1], dtype)])


_FUSED: Final = ("triton_poi_", "triton_red_", "triton_per_")
# of tensors that are read in part: rows that an index picks, or a piece of one
_PARTS: Final = re.compile(r"_(embedding|index|gather|scatter|select|slice|split|unbind|chunk|narrow|unfold|upsample)")


def triton_fused(call: Call) -> Work:
    """TorchInductor's kernels read or write each of their tensors once; what they compute is not told."""
    tensors = [call.tensor(at) for at, shape in enumerate(call.shapes) if shape]
    if not tensors:
        raise ValueError(call.shapes)
    return Work(None, [(prod(shape), dtype) for shape, dtype in tensors])


def model_of(operator: str) -> Model | None:
    """The model of an operator; None where there is none."""
    fused = operator.startswith(_FUSED) and not _PARTS.search(operator)
    return MODELS.get(operator) or (triton_fused if fused else None)
