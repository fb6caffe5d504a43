"""Models of operators that other libraries bring: attention on a paged cache, mixtures of experts, grouped products,
rotary embeddings, norms and activations of vLLM, SGLang, AITER and Primus.

The conventions are those of operator_models. What of a call is not in its shapes is taken from the label of the step
(serving_labels); where that does not say it, there is no number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from profiler_kit.analyses.gpu.operator_models import MODELS, Call, Moved, Unrecorded, Work, operator_model, product

BF16 = "c10::BFloat16"


# Products of a row-wise input with weights that stand transposed, [N, K], or as they are


def _register_products(names: str, x: int, *, transposed: bool, bias: int = -1, wide: bool = False) -> None:
    """x: where the input is, the weights behind it. wide: the result has two bytes whatever the input has."""

    @operator_model(*names.split())
    def model(call: Call) -> Work:
        (a, a_type), (b, b_type) = call.tensor(x), call.tensor(x + 1)
        if len(b) != 2:
            raise ValueError(call.shapes)
        added = 0 <= bias < len(call.shapes) and bool(call.shapes[bias])
        matrix = b[::-1] if transposed else b
        return product(1, ((prod(a[:-1]), a[-1]), a_type), (matrix, b_type), BF16 if wide else "", added=added)


_register_products("vllm::rocm_unquantized_gemm aiter::gemm_a16w16", 0, transposed=True, bias=2)
_register_products(
    "aiter::gemm_a16w16_atomic_ aiter::_gemm_a16w16_asm sglang_profiler::gemm_kernels_flydsl_hgemm "
    "aten::_weight_int8pack_mm", 0, transposed=True,
)  # fmt: skip
_register_products(
    "aiter::gemm_a8w8_blockscale aiter::gemm_a8w8_blockscale_ck aiter::gemm_a8w8_blockscale_cktile "
    "aiter::gemm_a8w8_blockscale_bpreshuffle_ck aiter::gemm_a8w8_blockscale_bpreshuffle_cktile "
    "aiter::_gemm_a8w8_blockscale_bpreshuffle_asm aiter::flatmm_a8w8_blockscale_asm aiter::gfx950_a8w8_blockscale_asm "
    "aiter::gemm_a8w8_ck aiter::gemm_a8w8_bpreshuffle aiter::gemm_a8w8_bpreshuffle_ck "
    "vllm::rocm_aiter_gemm_a8w8_blockscale vllm::rocm_aiter_triton_gemm_a8w8_blockscale "
    "vllm::_rocm_aiter_preshuffled_per_token_w8a8_gemm vllm::w8a8_block_fp8_matmul_func "
    "sglang_profiler::fp8_utils_gemm_a8w8_blockscale sglang_profiler::gemm_a8w8_blockscale_gemm_a8w8_blockscale", 0,
    transposed=True, wide=True,
)  # fmt: skip
_register_products("_C::cutlass_scaled_mm", 1, transposed=False, bias=5, wide=True)


def _grouped(call: Call, groups: int, *, transposed: bool = False, wide: bool = False) -> Work:
    """Rows of a, or columns that both have, belong to one group each; groups: where the ends of the groups are.

    One with three dimensions has a matrix for each group. All of these are read, with rows or without.
    """
    (a, a_type), (b, b_type) = call.tensor(0), call.tensor(1)
    sides = (len(a), len(b))
    if sides == (2, 2):  # the weights' gradient: each group adds up its own part of k
        (m, k), (inner, width) = a, b
        out = prod(call.tensor(groups)[0]) * m * width
    elif sides == (2, 3):
        m, k = a
        inner, width = b[:0:-1] if transposed else b[1:]
        out = m * width
    elif sides == (3, 3) and a[0] == b[0]:
        m, k, inner, width = a[0] * a[1], a[2], b[1], b[2]
        out = m * width
    elif sides == (3, 2):
        (_, m, k), (inner, width) = a, b
        out = m * width
    else:
        raise ValueError(call.shapes)
    if k != inner:
        raise ValueError(call.shapes)
    return Work(2 * m * width * k, [(prod(a), a_type), (prod(b), b_type), (out, BF16 if wide else a_type)])


@operator_model("aten::_grouped_mm")
def _grouped_mm(call: Call) -> Work:
    return _grouped(call, 2)


@operator_model("aten::_scaled_grouped_mm")
def _scaled_grouped_mm(call: Call) -> Work:
    return _grouped(call, 4, wide=True)


_PRIMUS = ("primus_turbo", "primus_turbo_cpp_extension")


@operator_model(
    *(f"{library}::{name}" for library in _PRIMUS for name in ("grouped_gemm", "grouped_gemm_impl", "ck_grouped_gemm")),
    *("GroupedGemm", "grouped_gemm::gmm"),
)
def _primus_grouped(call: Call) -> Work:
    """Weights [group, K, N], or [group, N, K] where the other does not fit."""
    (a, _), (b, _) = call.tensor(0), call.tensor(1)
    return _grouped(call, 2, transposed=len(b) == 3 and b[1] != a[-1])


@operator_model(
    *(
        f"{library}::{name}"
        for library in _PRIMUS
        for name in ("grouped_gemm_variable_k", "grouped_gemm_variable_k_impl", "ck_grouped_gemm_variable_k")
    )
)
def _primus_variable_k(call: Call) -> Work:
    """Rows of both belong to a group: [rows, M] and [rows, N] -> [group, M, N]."""
    (a, a_type), (b, b_type) = call.tensor(0), call.tensor(1)
    (rows, m), (same, width) = a, b
    if rows != same:
        raise ValueError(call.shapes)
    moved = [(prod(a), a_type), (prod(b), b_type), (prod(call.tensor(2)[0]) * m * width, a_type)]
    return Work(2 * rows * m * width, moved)


# Mixtures of experts: tokens [T, K], up (and gate) [experts, N or 2 N, K], down [experts, K, N], weights [T, top k]


@operator_model(
    *("vllm::outplace_fused_experts", "vllm::inplace_fused_experts", "vllm::rocm_aiter_fused_moe"),
    *("sglang::outplace_fused_experts", "sglang::inplace_fused_experts"),
)
def _fused_experts(call: Call) -> Work:
    """Which experts are read is not recorded: as many as differ if each token chooses any k of them alike.

    That is all of them as soon as there are a few times more choices than experts. Weights of four bits are packed
    along the last side.
    """
    (x, x_type), (up, up_type), (down, down_type), (chosen, _) = (call.tensor(at) for at in range(4))
    (tokens, width), (experts, rows, packed), (_, out, inner), (_, k) = x, up, down, chosen
    pack = width // packed
    if packed * pack != width or out != width or rows not in (inner * pack, 2 * inner * pack) or not 0 < k <= experts:
        raise ValueError(call.shapes)
    read = 1 - ((experts - k) / experts) ** tokens
    flops = 2 * tokens * k * width * (rows + inner * pack) + tokens * width * (2 * k - 1)  # and their weighted sum
    moved: Moved = [(tokens * width, x_type), (read * prod(up), up_type), (read * prod(down), down_type)]
    return Work(flops, [*moved, (tokens * width, x_type)], "experts taken to be chosen alike")


@operator_model("_moe_C::topk_softmax", "sgl_kernel::topk_softmax")
def _gate(call: Call) -> Work:
    """Softmax of the scores [T, experts], then the k largest and their numbers."""
    (chosen, dtype), (index, index_type) = call.tensor(0), call.tensor(1)
    scores, score_type = call.tensor(3 if len(call.shapes) > 3 and len(call.shapes[3]) == 2 else 2)
    return Work(3 * prod(scores), [(prod(scores), score_type), (prod(chosen), dtype), (prod(index), index_type)])


# Attention on a paged cache: lengths of the sequences are in the label of the step only


def _cached(call: Call, rows: int, heads: int, widths: Sequence[int], entry: int, dtypes: Sequence[str]) -> Work:
    """Of each token of the step, or of its prefills or decodes alone where the query has as many rows as these.

    Prefills attend to what was cached and, causally, to themselves; decodes to all. widths: of a key and of a value.
    entry: elements that the cache has of a token. dtypes: of the query, and of the cache.
    """
    if call.step is None or call.step.prefill.lengths is None or call.step.decode.lengths is None:
        raise Unrecorded
    parts = [call.step.prefill.lengths, call.step.decode.lengths]
    if rows < sum(part.tokens for part in parts):  # a replayed graph may be for more
        parts = [part for part in parts if part.tokens == rows]
        if len(parts) != 1:
            raise Unrecorded
    causal = call.step.prefill.lengths.squares / 2 if call.step.prefill.lengths in parts else 0
    pairs, tokens = sum(part.pairs for part in parts) - causal, sum(part.tokens for part in parts)
    before = sum(part.keys for part in parts) - tokens
    new = tokens * (heads * sum(widths) + entry)
    return Work(2 * pairs * heads * sum(widths), [(new, dtypes[0]), (before * entry, dtypes[1])])


def _register_paged(names: str, query: int, key: int, *, table: int = 0, causal: int = 0, more: int = 0) -> None:
    """table: where the table of pages is; without one the sequences are packed, as in the model that there is already.
    causal: where that is, and behind it the window. more: where the part of the query is that meets the values.
    """
    packed = MODELS.get(names.split()[0])

    @operator_model(*names.split(), of_step=True)
    def model(call: Call) -> Work:
        if packed is not None and not (table < len(call.shapes) and call.shapes[table]):
            return packed(call)
        (q, dtype), (k, cached), (v, _) = call.tensor(query), call.tensor(key), call.tensor(key + 1)
        (rows, heads, width), (k_heads, k_width), v_width = q[-3:], k[-2:], v[-1]
        if width != k_width or not k_heads or heads % k_heads:
            raise ValueError(call.shapes)
        if table and (call.flags(causal) != [True] or max(call.numbers(causal + 1)) >= 0):
            raise Unrecorded
        latent = call.tensor(more)[0][-1] if more and call.shapes[more] else 0
        return _cached(call, rows, heads, (width + latent, v_width), k_heads * (k_width + v_width), (dtype, cached))


_register_paged(
    "vllm::unified_attention_with_output vllm::unified_attention sglang::unified_attention_with_output", 0, 1
)
_register_paged("_vllm_fa2_C::varlen_fwd", 0, 1, table=8, causal=15)
_register_paged("flash_attn_3::fwd _vllm_fa3_C::fwd sgl_kernel::fwd", 0, 1, table=14, causal=24, more=5)
_register_paged("aiter::paged_attention_ragged sglang_profiler::attention_paged_attention_ragged", 2, 3)


def _register_decode(names: str, query: int) -> None:
    """The cache behind the query has its heads first and its keys cut up, how many heads is a number of its own."""

    @operator_model(*names.split(), of_step=True)
    def model(call: Call) -> Work:
        ((rows, heads, width), dtype), (_, cached), k_heads = (
            call.tensor(query),
            call.tensor(query + 1),
            call.whole(query + 3),
        )
        if not k_heads or heads % k_heads:
            raise ValueError(call.shapes)
        return _cached(call, rows, heads, (width, width), 2 * k_heads * width, (dtype, cached))


_register_decode("_C::paged_attention_v1", 1)
_register_decode("_C::paged_attention_v2 _rocm_C::paged_attention", 4)


# Multi-head latent attention (DeepSeek-V2, 2405.04434): a decode's heads share what the cache has of a token, a latent
# part and one that turns, as their key, and the latent part as their value


@operator_model("vllm::unified_mla_attention", "vllm::unified_mla_attention_with_output", whole=False, of_step=True)
def _latent_attention(call: Call) -> Work:
    """What it launches itself in a step of decodes; prefills, and products with projections, are calls inside it."""
    ((rows, heads, _), dtype), ((_, latent), _), (turned, _) = (call.tensor(at) for at in range(3))
    if call.step is None or call.step.prefill.count:
        raise Unrecorded
    entry = latent + turned[-1]
    found = _cached(call, rows, heads, (entry, latent), entry, (dtype, dtype))
    return replace(found, assumed="the cache taken to be in the query's dtype")


@operator_model(
    "sgl_kernel::fwd_kvcache_mla", "_flashmla_C::fwd_kvcache_mla", "flash_mla::fwd_kvcache_mla", of_step=True
)
def _flash_latent(call: Call) -> Work:
    """[batch, tokens, heads, width] on pages of [.., width]; how many keys a sparse one looks at is not recorded."""
    ((batch, tokens, heads, width), dtype), (pages, cached) = call.tensor(0), call.tensor(1)
    values = [int(value) for value in call.values[2:4] if value.isdecimal()]
    if pages[-1] != width or not 0 < values[0] <= width:
        raise ValueError(call.shapes)
    if any(len(shape) == len(("batch", "tokens", "chosen")) for shape in call.shapes[8:]):
        raise Unrecorded
    return _cached(call, batch * tokens, heads, (width, values[0]), width, (dtype, cached))


def _register_latent(names: str, query: int) -> None:
    @operator_model(*names.split(), of_step=True)
    def model(call: Call) -> Work:
        """The query's two parts, then the cache's pages."""
        ((rows, heads, latent), dtype), ((*_, turned), _), (pages, cached) = (
            call.tensor(query + at) for at in range(3)
        )
        if pages[-1] != latent + turned:
            raise ValueError(call.shapes)
        return _cached(call, rows, heads, (pages[-1], latent), pages[-1], (dtype, cached))


_register_latent("sgl_kernel::cutlass_mla_decode _C::cutlass_mla_decode", 1)
_register_latent("_C::sm100_cutlass_mla_decode", 2)


@operator_model("sglang::store_cache")
def _store_cache(call: Call) -> Work:
    (k, dtype), (v, _) = call.tensor(0), call.tensor(1)
    return Work(0, [(2 * (prod(k) + prod(v)), dtype)])


@operator_model("_C_cache_ops::concat_and_cache_mla")
def _concat_and_cache(call: Call) -> Work:
    (latent, dtype), (turned, turned_type), (_, cached), (slots, slot_type) = (call.tensor(at) for at in range(4))
    size = prod(latent) + prod(turned)
    return Work(0, [(prod(latent), dtype), (prod(turned), turned_type), (size, cached), (prod(slots), slot_type)])


@operator_model("_C_cache_ops::reshape_and_cache_flash", "_C_cache_ops::reshape_and_cache")
def _reshape_and_cache(call: Call) -> Work:
    (k, dtype), (v, _), (_, cached), (slots, slot_type) = (*(call.tensor(at) for at in range(3)), call.tensor(4))
    size = prod(k) + prod(v)
    return Work(0, [(size, dtype), (size, cached), (prod(slots), slot_type)])


# Rotary embeddings: four products and two sums for two elements; positions, sines and cosines are not counted


@operator_model("_C::rotary_embedding", "sgl_kernel::rotary_embedding")
def _rotary(call: Call) -> Work:
    (q, dtype), (cache, _) = call.tensor(1), call.tensor(4)
    k = call.tensor(2)[0] if call.shapes[2] else [0]
    head, turned = call.numbers(3)[0], cache[-1]
    if head < turned or (prod(q) + prod(k)) % head:
        raise ValueError(call.shapes)
    size = (prod(q) + prod(k)) // head * turned
    return Work(3 * size, [(2 * size, dtype)])


def _register_rotary(names: str, first: int, angles: int = 0) -> None:
    """first: where the query is, the key behind it. angles: where sine and cosine of what turns of each head are."""

    @operator_model(*names.split())
    def model(call: Call) -> Work:
        (x, dtype), (y, _) = call.tensor(first), call.tensor(first + 1)
        width = call.tensor(angles)[0][-1] if angles else x[-1]
        if x[-1] != y[-1] or not 0 < width <= x[-1]:
            raise ValueError(call.shapes)
        size = (prod(x) + prod(y)) // x[-1] * width
        return Work(3 * size, [(2 * size, dtype)])


_register_rotary("aiter::rope_cached_positions_2c_fwd_impl", 2)
_register_rotary("LigerRopeFunction", 0)
_register_rotary("sgl_kernel::apply_rope_pos_ids_cos_sin_cache", 0, angles=4)


# Norms and activations


def _register_norm(names: str, x: int, weight: int, *, added: bool = False) -> None:
    """added: what is normed is added to a residual first, which is read and written too."""

    @operator_model(*names.split())
    def model(call: Call) -> Work:
        (shape, dtype), (channels, _) = call.tensor(x), call.tensor(weight)
        if len(channels) != 1 or not channels[0] or shape[-1:] != channels:
            raise ValueError(call.shapes)
        size = prod(shape)
        flops = (5 if added else 4) * size + 2 * (size // channels[0])
        return Work(flops, [((4 if added else 2) * size + channels[0], dtype)])


_register_norm("_C::rms_norm sgl_kernel::rmsnorm aiter::rmsnorm", 1, 2)
_register_norm("vllm::rocm_aiter_rms_norm aiter::rms_norm aiter::rmsnorm2d_fwd_ck LigerRMSNormFunction", 0, 1)
_register_norm("_C::fused_add_rms_norm sgl_kernel::fused_add_rmsnorm", 0, 2, added=True)
_register_norm("vllm::rocm_aiter_rmsnorm2d_fwd_with_add", 0, 2, added=True)
_register_norm("aiter::add_rmsnorm aiter::rmsnorm2d_fwd_with_add_ck", 1, 4, added=True)


# TraceLens's counts for each element of the result
_GATES = {"silu": 5, "gelu": 8, "gelu_tanh": 10}


@operator_model(*(f"{library}::{kind}_and_mul" for library in ("_C", "sgl_kernel", "aiter") for kind in _GATES))
def _gated(call: Call) -> Work:
    """The two halves of a row into one: an activation and a product for each element of the result."""
    (out, dtype), (x, x_type) = call.tensor(0), call.tensor(1)
    if prod(x) != 2 * prod(out):
        raise ValueError(call.shapes)
    kind = call.operator.rpartition("::")[2].removesuffix("_and_mul")
    return Work(_GATES[kind] * prod(out), [(prod(x), x_type), (prod(out), dtype)])


# State spaces


@operator_model("DaoAILab::_causal_conv1d_fwd_cpp", "_C::causal_conv1d_fwd")
def _causal_convolution(call: Call) -> Work:
    """Each channel [.., C, T] with taps [C, W] of its own."""
    (x, dtype), (w, w_type) = call.tensor(0), call.tensor(1)
    if len(x) not in (2, 3) or len(w) != 2 or x[-2] != w[0]:
        raise ValueError(call.shapes)
    bias = w[0] if len(call.shapes) > 2 and call.shapes[2] else 0
    return Work(2 * prod(x) * w[1], [(2 * prod(x), dtype), (prod(w) + bias, w_type)])


@operator_model("SelectiveScanFn", "_C::selective_scan_fwd")
def _selective_scan(call: Call) -> Work:
    """Mamba: u, delta [.., D, L], A [D, N], B and C, D, z. How the scan is computed is its kernel's choice."""
    (u, dtype), (delta, _), (a, a_type) = (call.tensor(at) for at in range(3))
    if len(u) < 2 or u != delta or len(a) != 2 or a[0] != u[-2]:
        raise ValueError(call.shapes)
    given = [call.tensor(at) for at in (3, 4, 6) if len(call.shapes) > at and call.shapes[at]]
    return Work(None, [(3 * prod(u), dtype), (prod(a), a_type), *((prod(shape), other) for shape, other in given)])


@operator_model("MambaInnerFn", whole=False)
def _mamba(call: Call) -> Work:
    """What Mamba launches itself, [batch, 2 D, L] -> the convolution of x, and the scan, which reads z and the steps
    too and writes its result without and with the gate; its products are calls inside it.
    """
    ((batch, wide, tokens), dtype), (w, w_type), (a, a_type) = call.tensor(0), call.tensor(1), call.tensor(7)
    if len(a) != 2 or wide != 2 * a[0] or prod(w) % a[0]:
        raise ValueError(call.shapes)
    size, states = batch * a[0] * tokens, batch * a[1] * tokens
    return Work(None, [(7 * size + 2 * states, dtype), (prod(w), w_type), (prod(a), a_type)])


@operator_model("MambaSplitConv1dScanCombinedFn")
def _split_conv_scan(call: Call) -> Work:
    """Mamba 2, by chunks of C (Dao and Gu, 2405.21060): convolution, C B^T, its product with x, the states and their
    share of the output, and the projection of the output, where it is part of the call.

    [batch, T, 2 d + 2 G N + H] -> z, x, B, C, dt, with d = H P; d + 2 G N channels are convolved.
    """
    (x, dtype), (w, w_type), (bias, _), (heads, head_type) = (call.tensor(at) for at in range(4))
    (batch, tokens, wide), (channels, taps), (h,) = x, w, heads
    inner = wide - h - channels
    both = channels - inner  # 2 G N
    at = next(at for at in (15, 16) if call.numbers(at) == [inner // h])
    (groups,), (chunk,) = call.numbers(at + 1), call.numbers(6)
    if inner % h or both <= 0 or both % (2 * groups):
        raise ValueError(call.shapes)
    projected = call.tensor(at - 2)[0][0] if len(call.shapes[at - 2]) == 2 else 0
    per_token = 2 * channels * taps + chunk * (both + 2 * inner) + 4 * inner * (both // (2 * groups))
    flops = batch * tokens * (per_token + 2 * inner * projected)
    moved: Moved = [(batch * tokens * (wide + (projected or inner)) + inner * projected, dtype)]
    return Work(flops, [*moved, (prod(w) + prod(bias), w_type), (3 * h, head_type)])
