"""FLOPs, bytes and categories: by hand, as TraceLens publishes them, and nothing lost on any trace."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profiler_kit.analyses.gpu.categories import MATRIX, category_of
from profiler_kit.analyses.gpu.operator_models import MODELS, WHOLE, Call, Unrecorded, Work, model_of, operator_model
from profiler_kit.analyses.gpu.peaks import peaks_of, read_peaks
from profiler_kit.analyses.gpu.roofline import ARGUMENTS, _work
from profiler_kit.analyses.gpu.serving_labels import Served, served
from profiler_kit.errors import InputError
from profiler_kit.findings.work import of_table
from profiler_kit.render.layout import layout
from profiler_kit.trace import Trace, load_trace
from tests.builders import SHARED, TraceBuilder, real_traces
from tests.cli.run import profiler_kit

BF16, F32, I64 = "c10::BFloat16", "float", "long int"
H100 = {"deviceProperties": [{"id": 0, "name": "NVIDIA H100 80GB HBM3"}]}


def work(
    operator: str,
    shapes: list[Any],
    dtypes: list[str] | str = BF16,
    values: list[str] | None = None,
    step: Served | None = None,
) -> Work:
    model = model_of(operator)
    assert model is not None
    types = [dtypes] * len(shapes) if isinstance(dtypes, str) else dtypes
    return model(Call(operator, shapes, types, values or [""] * len(shapes), step))


CONV = ["", "", "", "[14, 14]", "[0, 0]", "[1, 1]", "False", "[0, 0]", "1"]
BACK = ["", "", "", "[0]", "[1, 1]", "[0, 0]", "[1, 1]", "False", "[0, 0]", "1", "[True, True, False]"]
SPREAD = ["", "", "", "[2, 2]", "[1, 1]", "[2, 2]", "True", "[1, 1]", "2"]
Q, KV = [2, 8, 64, 32], [2, 2, 64, 32]
FLASH = ["", "", "", "0.", "False", "False", "0.1"]
# name, shapes, values, GFLOP, MiB. Those marked with their project are rows of tables that TraceLens publishes.
PUBLISHED = [
    ("aten::mm", [[8944, 1024], [1024, 2816]], BF16, None, 51.581550592, 71.0078125),
    ("aten::addmm", [[30522], [141, 512], [512, 30522], [], []], BF16, None, 4.41119205, 38.211021423339844),
    ("aten::bmm", [[1, 32, 1], [1, 1, 559]], F32, None, 3.5776e-05, 0.07049179077148438),
    ("aten::convolution", [[1, 3, 1008, 1008], [1024, 3, 14, 14]], BF16, CONV, 6.242697216, 17.08740234375),
    ("aten::convolution_backward", [[2, 896, 59, 91]] * 2 + [[896, 896, 1, 1]], BF16, BACK, 34.482552832, 76.466796875),
    ("aten::convolution_backward", [[2, 896, 59, 91]] * 2 + [[896, 56, 3, 3]], BF16,
     [*BACK[:5], "[1, 1]", *BACK[6:9], "16", BACK[10]], 19.396435968, 75.126953125),
    ("aten::_scaled_dot_product_flash_attention", [[16, 16, 559, 64]] * 3 + [[]] * 4, BF16,
     ["", "", "", "0.", "True", "False", "0.1"], 10.239377408, 69.875),
    ("aten::_scaled_dot_product_flash_attention", [[1, 12, 32256, 128], *[[1, 12, 512, 128]] * 2, [], [], [], []], BF16,
     FLASH, 101.468602368, 192.0),
    ("aten::_flash_attention_forward", [[1, 32256, 12, 128], *[[1, 512, 12, 128]] * 2, *[[]] * 12], BF16,
     ["", "", "", "", "", "32256", "512", "0.", "False", "False"], 101.468602368, 192.0),
    ("aten::_scaled_dot_product_efficient_attention", [[1, 1, 1024, 384]] * 3 + [[]] * 5, BF16,
     ["", "", "", "", "False", "0.", "False", ""], 1.610612736, 3.0),
    ("flash_attn::_flash_attn_backward", [[2, 2048, 32, 128]] * 4, BF16, ["0."] * 4, 343.59738368, 224.0),
    ("aten::layer_norm", [[1, 5185, 1024], [], [1024], [1024], [], []], BF16, ["", "[1024]", "", "", "", ""],
     0.026553344, 20.265625),
    ("aten::copy_", [[16, 559, 1024], [16, 559, 1024], []], [F32, BF16, "Scalar"], None, 0.009158656, 52.40625),
    ("aten::copy_", [[1, 1, 559], [1, 1, 559], []], [F32, I64, "Scalar"], None, 5.59e-07, 0.006397247314453125),
    ("aten::mul", [[16, 16, 559, 64], [1, 1, 559, 64]], BF16, None, 0.009158656, 35.0057373046875),
    ("aten::mul", [[1, 559, 64], []], [F32, "double"], None, 3.5776e-05, 0.27295684814453125),
    ("aten::add", [[16, 559, 1], [], []], [F32, "double", "Scalar"], None, 8.944e-06, 0.06824493408203125),
]  # fmt: skip


PREFILLS = "execute_8192_context_2(sq8155sk8430sqsq7475785sqsk7671310)_generation_37(sq37sk34489sqsq37sqsk34489)"
DECODES = "execute_32_context_0(sq0sk0sqsq0sqsk0)_generation_32(sq32sk55086sqsq32sqsk55086)"
RAGGED = "step[DECODE bs=32 g_sq=32 g_sqsq=32 g_sqsk=32785 g_sk=32785]"
# Rows of theirs of traces of vLLM and SGLang; the sums of lengths are parameters of the rows.
SERVED = [
    ("vllm::unified_attention_with_output", [[32, 64, 64], *[[32, 8, 64]] * 2, [32, 64, 64]], BF16, None, DECODES,
     0.902529024, 108.08984375),
    ("vllm::unified_attention_with_output", [[8192, 64, 64], *[[8192, 8, 64]] * 2, [8192, 64, 64]], BF16, None,
     PREFILLS, 65.010180096, 211.826171875),
    ("sglang_profiler::attention_paged_attention_ragged",
     [[32, 32, 128], [9], [32, 32, 128], *[[835874, 1, 8, 128]] * 2, [33]], BF16, None, RAGGED,
     0.53714944, 128.56640625),
    ("sglang::store_cache", [[32, 1024]] * 2 + [[835874, 1024]] * 2, BF16, None, "", 0, 0.25),
    ("sgl_kernel::rotary_embedding", [[32], [32, 4096], [32, 1024], [], [41216, 128], []], [I64, *[BF16] * 4],
     ["", "", "", "128", "", "True"], "", 0.00049152, 0.625),
    ("aiter::rmsnorm", [[256, 128], [256, 128], [128], []], BF16, None, "", 0.000131584, 0.125244140625),
    ("aiter::rmsnorm2d_fwd_with_add_ck", [[32, 2880]] * 4 + [[2880], [], []], BF16, None, "", 0.000460864,
     0.7086181640625),
    ("aiter::rms_norm", [[32, 2880], [2880], [], []], BF16, None, "", 0.000368704, 0.3570556640625),
    ("sgl_kernel::silu_and_mul", [[32, 12288], [32, 24576]], BF16, None, "", 0.00196608, 2.25),
    ("aiter::fmha_v3_fwd", [[1, 7431, 24, 128]] * 3 + [[]] * 15, BF16,
     ["", "", "", "0.", "0.088388347648318447", "False", "-1", "-1", "True", "False", "2"], "", 678.540423168,
     174.1640625),
    ("aten::convolution", [[1, 128, 19, 242, 242], [128, 128, 3, 3, 3], [128]], BF16,
     ["", "", "", "[1, 1, 1]", "[0, 0, 0]", "[1, 1, 1]", "False", "[0, 0, 0]", "1"], "", 866.3334912, 511.5654296875),
    ("aiter::add_rmsnorm", [[32, 4096]] * 4 + [[4096], []], BF16, None, "", 0.000655424, 1.0078125),
]  # fmt: skip
# Attention on a cache by hand: two decodes that look at 30 and 34 keys, and a prefill of 6 tokens behind 4 others.
PAIR = "execute_2_context_0(sq0sk0sqsq0sqsk0)_generation_2(sq2sk64sqsq2sqsk64)"
BOTH = "execute_8_context_1(sq6sk10sqsq36sqsk60)_generation_2(sq2sk64sqsq2sqsk64)"
FA2 = ["", "", "", "", "", "", "", "", "", "", "6", "6", "0.", "1.", "False", "True", "-1", "-1"]
FA3 = [*[""] * 12, "1", "34", *[""] * 9, "1.", "True", "-1", "-1"]
CACHE = [[2, 4], [2], [], [], [2, 3]]  # behind three tensors and the output: starts, and the table of pages
MLA, BYTE = ["", "", "16"], "unsigned char"
ON_CACHE: list[tuple[str, list[Any], Any, list[str], str, float, float]] = [
    # a key of 20, a value of 16: 64 pairs; 62 tokens were cached; heads 4
    ("vllm::unified_mla_attention_with_output", [[2, 4, 12], [2, 16], [2, 1, 4], [2, 32]], BF16, [], PAIR,
     2 * 64 * 4 * 36, 2 * (2 * (4 * 36 + 20) + 62 * 20)),
    ("sgl_kernel::fwd_kvcache_mla", [[2, 1, 4, 20], [9, 8, 1, 20], [], [2], [2, 3]], [BF16, BYTE], MLA, PAIR,
     2 * 64 * 4 * 36, 2 * 2 * (4 * 36 + 20) + 62 * 20),
    ("flash_mla::fwd_kvcache_mla", [[2, 1, 4, 20], [9, 8, 1, 20], [], [], [2]], BF16, ["", "", "", "16"], PAIR,
     2 * 64 * 4 * 36, 2 * (2 * (4 * 36 + 20) + 62 * 20)),
    ("_C::sm100_cutlass_mla_decode", [[2, 4, 16], [2, 4], [2, 4, 16], [2, 4, 4], [9, 8, 20]], BF16, [], PAIR,
     2 * 64 * 4 * 36, 2 * (2 * (4 * 36 + 20) + 62 * 20)),
    # as FlashAttention 3 has it: the key's turning part, the latent one as value, the query's other part beside it
    ("_vllm_fa3_C::fwd", [[2, 4, 4], [9, 8, 1, 4], [9, 8, 1, 16], [], [], [2, 4, 16], *[[]] * 8, [2, 3]], BF16, FA3,
     PAIR, 2 * 64 * 4 * 36, 2 * (2 * (4 * 36 + 20) + 62 * 20)),
    ("_C::paged_attention_v1", [[2, 4, 8], [2, 4, 8], [9, 2, 1, 8, 8], [9, 2, 8, 8], []], [BF16, BF16, BYTE, BYTE, ""],
     ["", "", "", "", "2"], PAIR, 4 * 64 * 4 * 8, 2 * 2 * (2 * 4 * 8 + 2 * 2 * 8) + 62 * 2 * 2 * 8),
    # all of a mixed step; its prefill alone, and its decodes alone, by how many rows there are
    *(("_vllm_fa2_C::varlen_fwd", [[rows, 4, 8], *[[9, 8, 2, 8]] * 2, [], [2], [2], [2], [], [2, 3]], BF16, FA2, BOTH,
       4 * pairs * 4 * 8, 2 * (tokens * (2 * 4 * 8 + 32) + before * 32))
      for rows, pairs, tokens, before in ((9, 60 - 18 + 64, 8, 66), (6, 60 - 18, 6, 4), (2, 64, 2, 62))),
    # without a table of pages it is packed, whatever the step says: 2 of 6 tokens, the other 4
    ("_vllm_fa2_C::varlen_fwd", [[6, 4, 8]] * 3 + [[], [3], [3]] + [[]] * 12, BF16,
     [*FA2[:10], "4", "4", *FA2[12:15], "False", "-1", "-1"], BOTH, 4 * (16 + 4) * 4 * 8, 2 * 4 * 6 * 4 * 8),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shapes", "dtypes", "values", "step", "flops", "size"), ON_CACHE)
def test_attention_on_a_cache(
    name: str, shapes: list[Any], dtypes: Any, values: list[str], step: str, flops: float, size: float
) -> None:
    types = [*dtypes, *[""] * (len(shapes) - len(dtypes))] if isinstance(dtypes, list) else dtypes
    found = work(name, shapes, types, values + [""] * (len(shapes) - len(values)), served(step))
    assert (found.flops, found.bytes) == (flops, size)
    assert category_of(name, "operator") in ("attention", "other")


@pytest.mark.parametrize(
    ("at", "value", "step"),
    [(0, [3, 4, 8], BOTH), (15, "False", BOTH), (16, "7", BOTH), (0, [9, 4, 8], "context_1(6)_generation_2(2)")],
)  # fmt: skip
def test_attention_on_a_cache_is_not_guessed_at(at: int, value: Any, step: str) -> None:
    """Rows that are none of the step's, no causal mask, a window, a step that does not say its lengths."""
    shapes: list[Any] = [[9, 4, 8], *[[9, 8, 2, 8]] * 2, [], [2], [2], [2], [], [2, 3]]
    values = [*FA2]
    (shapes if at == 0 else values)[at] = value
    with pytest.raises(Unrecorded):
        work("_vllm_fa2_C::varlen_fwd", shapes, BF16, values, served(step))


@pytest.mark.parametrize(("name", "shapes", "dtypes", "values", "step", "gflop", "mib"), SERVED)
def test_models_of_serving_give_the_numbers_that_tracelens_publishes(
    name: str, shapes: list[Any], dtypes: Any, values: list[str] | None, step: str, gflop: float, mib: float
) -> None:
    found = work(name, shapes, dtypes, values, served(step))
    assert found.flops == pytest.approx(gflop * 1e9, rel=1e-9)
    assert found.bytes == pytest.approx(mib * (1 << 20), rel=1e-9)


@pytest.mark.parametrize(("name", "shapes", "dtypes", "values", "gflop", "mib"), PUBLISHED)
def test_models_give_the_numbers_that_tracelens_publishes(
    name: str, shapes: list[Any], dtypes: Any, values: list[str] | None, gflop: float, mib: float
) -> None:
    found = work(name, shapes, dtypes, values)
    assert found.flops == pytest.approx(gflop * 1e9, rel=1e-9)
    assert found.bytes == pytest.approx(mib * (1 << 20), rel=1e-9)


@pytest.mark.parametrize(
    ("name", "shapes", "dtypes", "values", "flops", "size"),
    [
        ("aten::baddbmm", [[3, 4, 6], [3, 4, 5], [3, 5, 6]], F32, None,
         3 * (2 * 4 * 5 * 6 + 24), 4 * 3 * (20 + 30 + 24 + 6)),
        ("aten::linear", [[2, 3, 4], [5, 4], [5]], F32, None, 2 * 6 * 4 * 5 + 30, 4 * (24 + 20 + 30 + 5)),
        ("aten::_scaled_mm", [[4, 8], [8, 16]], "c10::Float8_e4m3fn", None, 2 * 4 * 8 * 16, 32 + 128 + 2 * 64),
        ("aten::mv", [[4, 8], [8]], F32, None, 64, 4 * (32 + 8 + 4)),
        # transposed, dilated, in two groups, 5 -> (5 - 1) * 2 - 2 + (2 * 2 + 1) - 1 + 1 + 1 = 12
        ("aten::convolution", [[1, 4, 5, 5], [4, 3, 3, 3]], F32, SPREAD, 2 * 27 * 100, 4 * (100 + 108 + 6 * 144)),
        # one side given for both, 9 -> (9 + 2 - (2 * 2 + 1)) // 2 + 1 = 4
        ("aten::convolution", [[1, 2, 9, 9], [6, 2, 3, 3]], F32,
         ["", "", "", "[2]", "[1]", "[2]", "False", "[0]", "1"], 2 * 18 * 96, 4 * (162 + 108 + 96)),
        # only the gradient of the weight is asked for
        ("aten::convolution_backward", [[1, 6, 4], [1, 2, 9], [6, 2, 3]], F32,
         ["", "", "", "[0]", "[2]", "[1]", "[2]", "False", "[0]", "1", "[False, True, False]"],
         2 * 6 * 24, 4 * (18 + 36 + 24)),
        # heads of the key shared by four; causal with fewer queries than keys, from the top and from the bottom
        ("aten::_scaled_dot_product_flash_attention", [Q, KV, KV, [], [], [], []], BF16, FLASH,
         4 * 2 * 8 * 64 * 64 * 32, 2 * 2 * 64 * 32 * (8 + 2 + 2 + 8)),
        ("aten::_scaled_dot_product_flash_attention", [[1, 1, 4, 8], [1, 1, 10, 8], [1, 1, 10, 8], [], []], BF16,
         ["", "", "", "0.", "True"], 4 * 8 * 4 * 4 / 2, 2 * 8 * (4 + 10 + 10 + 4)),
        ("flash_attn::_flash_attn_forward", [[1, 4, 1, 8], [1, 10, 1, 8], [1, 10, 1, 8], [], [], []], BF16,
         ["", "", "", "0.", "1.", "True"], 4 * 8 * 4 * (10 - 2), 2 * 8 * (4 + 10 + 10 + 4)),
        # three packed sequences of 10 tokens, the longest 6: 6 * 6 + 2 * 2 * 2 pairs
        ("flash_attn::_flash_attn_varlen_forward", [[10, 2, 8], [10, 2, 8], [10, 2, 8], [4], [4], *[[]] * 5], BF16,
         ["", "", "", "", "", "6", "6", "0.", "1.", "False"], 4 * 2 * 8 * (36 + 8), 2 * 2 * 8 * 40),
        ("aten::_efficient_attention_forward", [[1, 10, 2, 8], [1, 10, 2, 8], [1, 10, 2, 8], [], [4], [4], *[[]] * 4],
         BF16, ["", "", "", "", "", "", "6", "6", "0.", "0"], 4 * 2 * 8 * (36 + 8), 2 * 2 * 8 * 40),
        # five products, and eight heads that add up into two
        ("aten::_scaled_dot_product_efficient_attention_backward", [Q, Q, KV, KV, *[[]] * 8], F32, ["False"] * 12,
         2 * 5 * 2 * 8 * 64 * 64 * 32 + 2 * 64 * 3 * 64, 4 * 2 * 64 * 32 * (2 * (8 + 2 + 2) + 8)),
        ("aten::batch_norm", [[2, 3, 4], *[[3]] * 4, *[[]] * 4], F32, [*[""] * 5, "False", "", "", ""],
         6 * 3 + 2 * 24, 4 * (48 + 4 * 3)),
        ("aten::native_layer_norm_backward", [[6, 4], [6, 4], [], [6, 1], [6, 1], [4], [4], []], F32,
         ["", "", "[4]", "", "", "", "", "[True, True, True]"], 9 * 24, 4 * (3 * 24 + 4 * 4)),
        ("aten::_fused_rms_norm", [[6, 4], [], [4], []], F32, ["", "[4]", "", ""], 4 * 24 + 2 * 6, 4 * (48 + 4)),
        ("aten::sum", [[6, 4], [], [], []], F32, ["", "[-1]", "False", ""], 24, 4 * (24 + 6)),
        ("aten::linalg_norm", [[6, 4], [], [], [], []], F32, ["", "2", "[-1]", "True", ""], 24, 4 * (24 + 6)),
        ("LigerSiLUMulFunction", [[6, 4], [6, 4]], F32, None, 24, 4 * 3 * 24),
        ("LigerRMSNormFunction", [[6, 4], [4], [], []], F32, None, 4 * 24 + 2 * 6, 4 * (48 + 4)),
        ("LigerRopeFunction", [[1, 4, 5, 8], [1, 2, 5, 8], [1, 5, 8], [1, 5, 8]], F32, None, 3 * 240, 4 * 2 * 240),
        # half of each head of 8 turns
        ("sgl_kernel::apply_rope_pos_ids_cos_sin_cache", [*[[5, 4, 8], [5, 2, 8]] * 2, [99, 4], [5]], F32, None,
         3 * 5 * 6 * 4, 4 * 2 * 5 * 6 * 4),
        # 2 x 6 channels of 10 tokens, 4 states, 3 taps
        ("MambaInnerFn", [[2, 12, 10], [6, 1, 3], *[[]] * 5, [6, 4]], BF16, None, None,
         2 * (7 * 120 + 2 * 80 + 18 + 24)),
        ("triton_per_fused_add_native_layer_norm_0", [[6, 4], [6, 4], [4], []], BF16, None, None, 2 * 52),
        ("aten::max", [[6, 4], [], []], F32, ["", "0", "False"], 24, 4 * (24 + 4) + 8 * 4),
        ("aten::argmax", [[6, 4], [], []], F32, ["", "", "False"], 24, 4 * 24 + 8),
        ("aten::_softmax", [[6, 4], [], []], "c10::Half", ["", "-1", "True"], 72, 24 * (2 + 4)),
        ("aten::lt", [[6, 4], [4]], F32, None, 24, 4 * 28 + 24),
        ("aten::index_select", [[100, 8], [], [5]], [F32, "Scalar", I64], ["", "0", ""], 0, 4 * 2 * 40 + 40),
        ("aten::embedding_dense_backward", [[5, 8], [5], [], [], []], [F32, I64, "", "", ""],
         ["", "", "100", "-1", "False"], 40, 4 * 40 + 40 + 4 * 800),
        # two bags of five rows in all: 40 sums
        ("aten::_embedding_bag", [[100, 8], [5], [2], *[[]] * 6], [F32, I64, I64], None, 40, 4 * (40 + 16) + 56),
        ("aten::masked_fill_", [[6, 4], [4], []], [F32, "bool", "Scalar"], None, 24, 2 * 4 * 24 + 4),
        ("aten::native_dropout", [[6, 4], [], []], F32, None, 24, 2 * 4 * 24 + 24),
        ("aten::scatter_add_", [[9, 4], [], [6, 4], [6, 4]], [F32, "Scalar", I64, F32], None, 24, 24 * (3 * 4 + 8)),
        ("aten::scatter_", [[9, 4], [], [6, 4], [6, 4]], [F32, "Scalar", I64, F32], None, 0, 24 * (2 * 4 + 8)),
        ("aten::index_add_", [[9, 4], [], [6], [6, 4]], [F32, "Scalar", I64, F32], None, 24, 24 * 12 + 48),
        ("aten::topk", [[6, 10], [], [], [], []], F32, ["", "3", "-1", "True", "True"], None, 4 * (60 + 18) + 8 * 18),
        ("aten::sort", [[6, 10], [], []], F32, ["", "-1", "False"], None, 2 * 4 * 60 + 8 * 60),
        ("aten::nll_loss_forward", [[6, 10], [6], [], [], []], [F32, I64], None, 6, 4 * 7 + 48),
        # three groups: rows of a; parts of what both have; as before, the weights transposed
        ("aten::_grouped_mm", [[10, 8], [3, 8, 5], [3]], BF16, None, 2 * 10 * 8 * 5, 2 * (80 + 120 + 50)),
        ("aten::_grouped_mm", [[8, 10], [10, 5], [3]], BF16, None, 2 * 8 * 10 * 5, 2 * (80 + 50 + 3 * 40)),
        ("aten::_grouped_mm", [[3, 4, 8], [8, 10], [3]], BF16, None, 2 * 4 * 8 * 10, 2 * (96 + 80 + 40)),
        ("aten::_scaled_grouped_mm", [[10, 8], [3, 8, 5], [10], [3, 5], [3]], "c10::Float8_e4m3fn", None,
         2 * 10 * 8 * 5, 80 + 120 + 2 * 50),
        ("primus_turbo::grouped_gemm", [[10, 8], [3, 5, 8], [3], [4]], BF16, None, 800, 2 * (80 + 120 + 50)),
        ("primus_turbo::grouped_gemm_variable_k", [[10, 8], [10, 5], [3], [4]], BF16, None, 800,
         2 * (80 + 50 + 3 * 40)),
        ("aten::_weight_int8pack_mm", [[4, 8], [6, 8], [6]], [BF16, "signed char", BF16], None,
         2 * 4 * 6 * 8, 2 * 32 + 48 + 2 * 24),
        ("_C::cutlass_scaled_mm", [[4, 6], [4, 8], [8, 6], [], [], []], [BF16, *["c10::Float8_e4m3fn"] * 2], None,
         2 * 4 * 6 * 8, 32 + 48 + 2 * 24),
        ("vllm::rocm_unquantized_gemm", [[2, 2, 8], [6, 8], [6]], BF16, None,
         2 * 4 * 6 * 8 + 24, 2 * (32 + 48 + 24 + 6)),
        # one token takes two of four experts: three quarters are not read by a second one with the chance (1/2)^2
        ("vllm::outplace_fused_experts", [[2, 8], [4, 12, 8], [4, 8, 6], [2, 2], [2, 2]], BF16, None,
         2 * 2 * 2 * 8 * (12 + 6) + 2 * 8 * 3, 2 * (16 + 3 / 4 * (384 + 192) + 16)),
        ("_moe_C::topk_softmax", [[6, 2], [6, 2], [6, 2], [6, 8], []], [F32, "int", "int", BF16], None,
         3 * 48, 2 * 48 + 2 * 4 * 12),
        ("_C::fused_add_rms_norm", [[6, 4], [6, 4], [4], []], BF16, None, 5 * 24 + 2 * 6, 2 * (4 * 24 + 4)),
        ("_C::silu_and_mul", [[6, 4], [6, 8]], BF16, None, 5 * 24, 2 * 72),
        ("_C_cache_ops::reshape_and_cache_flash", [[5, 2, 4], [5, 2, 4], [9, 16, 2, 4], [9, 16, 2, 4], [5]],
         [BF16, BF16, "unsigned char", "unsigned char", I64], None, 0, 2 * 80 + 80 + 40),
        # half of each head of 8 turns
        ("_C::rotary_embedding", [[5], [5, 16], [5, 8], [], [100, 4], []], [I64, *[BF16] * 4],
         ["", "", "", "8", "", "True"], 3 * 5 * 12, 2 * 2 * 5 * 12),
        ("DaoAILab::_causal_conv1d_fwd_cpp", [[2, 3, 10], [3, 4], [3]], BF16, None, 2 * 60 * 4, 2 * (120 + 12 + 3)),
        # a query looks at its own key and two before: 3 of each but the first two (half of a triangle of 3)
        ("flash_attn::_flash_attn_forward", [[1, 10, 1, 8]] * 3 + [[]] * 5, BF16,
         ["", "", "", "0.", "1.", "True", "2", "0"], 4 * 8 * (10 * 3 - 3 * 3 / 2), 2 * 8 * 40),
        # one before and one behind: 3 of each but at both ends, where the corners are missing
        ("aiter::mha_fwd", [[1, 10, 1, 8]] * 3 + [[]] * 5, BF16,
         ["", "", "", "0.", "1.", "False", "1", "1"], 4 * 8 * (100 - 9 * 9 / 2 - 8 * 8 / 2), 2 * 8 * 40),
        ("xformers_flash::flash_fwd", [[12, 2, 8], [12, 2, 8], [12, 2, 8], [4], [4], *[[]] * 8], BF16,
         ["", "", "", "", "", "", "4", "4", "0.", "1.", "True", "-1", "-1"], 4 * 2 * 8 * 3 * 8, 2 * 2 * 8 * 48),
        ("xformers::efficient_attention_forward_cutlass", [[1, 4, 1, 8], [1, 10, 1, 8], [1, 10, 1, 8], *[[]] * 10],
         BF16, [*[""] * 8, "0.", "1"], 4 * 8 * 4 * 4 / 2, 2 * 8 * (4 + 10 + 10 + 4)),
        # a key of its own and one before, memory-efficient: they count both
        ("aten::_efficient_attention_forward", [[1, 10, 1, 8]] * 3 + [[]] * 11, BF16,
         [*[""] * 8, "0.", "1", "False", "", "", "2"], 4 * 8 * (10 * 2 - 2), 2 * 8 * 40),
        # two in each element
        ("aten::_scaled_mm", [[4, 8], [8, 16]], "c10::Float4_e2m1fn_x2", None, 2 * 4 * 16 * 16, 32 + 128 + 2 * 64),
        ("aten::_scaled_mm", [[4, 8], [8, 16]], "c10::Float8_e4m3fn", [*[""] * 6, "6", "False"],
         2 * 4 * 8 * 16, 32 + 128 + 4 * 64),
        ("aten::_grouped_mm", [[3, 4, 8], [3, 8, 5]], BF16, None, 2 * 12 * 8 * 5, 2 * (96 + 120 + 60)),
        ("GroupedGemm", [[10, 8], [3, 5, 8], [3], []], BF16, None, 800, 2 * (80 + 120 + 50)),
        ("_C_cache_ops::concat_and_cache_mla", [[5, 16], [5, 4], [9, 8, 20], [5]],
         [BF16, BF16, "unsigned char", I64], None, 0, 2 * 100 + 100 + 40),
        ("SelectiveScanFn", [[2, 6, 10], [2, 6, 10], [6, 4], [2, 1, 4, 10], [2, 1, 4, 10], [6], [2, 6, 10]], BF16, None,
         None, 2 * (4 * 120 + 24 + 2 * 80)),
        # two heads of 4, one group of 3 states, chunks of 5, 4 taps for 8 + 6 channels, 10 tokens of 8 + 8 + 6 + 2
        ("MambaSplitConv1dScanCombinedFn", [[1, 10, 24], [14, 4], [14], [2], [2], [2], *[[]] * 12], BF16,
         [*[""] * 6, "5", *[""] * 8, "4", "1", "True"],
         10 * (2 * 14 * 4 + 2 * 5 * (3 + 8) + 2 * 2 * 8 * 3), 2 * (240 + 56 + 14 + 6 + 80)),
    ],
)  # fmt: skip
def test_models_by_hand(
    name: str, shapes: list[Any], dtypes: Any, values: list[str] | None, flops: float | None, size: float
) -> None:
    found = work(name, shapes, dtypes, values)
    assert (found.flops, found.bytes) == (flops, size)


def a_trace(tmp_path: Path, *calls: tuple[str, dict[str, Any]], **metadata: Any) -> Trace:
    """Operators one after the other, each launching one kernel of 10 us."""
    trace = TraceBuilder()
    for number, (name, arguments) in enumerate(calls):
        trace.operator(name, 100 * number, 50, **arguments)
        trace.launch(number + 1, 100 * number + 1)
        trace.kernel(number + 1, 100 * number + 20, 10, name="k")
    file = trace.write(tmp_path / "t.json")
    if metadata:
        file.write_text(json.dumps({**json.loads(file.read_text()), **metadata}))
    return load_trace(file)


def recorded(shapes: list[Any], dtypes: list[str], values: list[str] | None = None) -> dict[str, Any]:
    return {"Input Dims": shapes, "Input type": dtypes, "Concrete Inputs": values or [""] * len(shapes)}


def test_rows_hold_all_calls_and_their_share_of_the_peaks(tmp_path: Path) -> None:
    mm = ("aten::mm", recorded([[1024, 1024], [1024, 1024]], [BF16, BF16]))
    trace = a_trace(tmp_path, mm, mm, ("aten::mm", recorded([[8, 8], [8, 8]], [BF16, BF16])), **H100)
    first, second = trace.table("roofline").records()
    assert first == {
        "operator": "aten::mm",
        "shapes": [[1024, 1024], [1024, 1024]],
        "dtypes": [BF16, BF16],
        "category": "matrix product",
        "count": 2,
        "flops": 2 * 2 * 1024**3,
        "bytes": 2 * 3 * 2 * 1024**2,
        "gpu_ns": 20_000,
        "tflop_per_s": pytest.approx(4 * 1024**3 / 20_000 / 1e3),
        "tb_per_s": pytest.approx(12 * 1024**2 / 20_000 / 1e3),
        "flop_per_byte": pytest.approx(1024 / 3),
        "peak_share": pytest.approx(4 * 1024**3 / 989.4e12 / 20e-6),
        "bound": "compute",
        "modelled": True,
        "why": "",
    }
    assert (second["count"], second["bound"]) == (1, "memory")
    (total,) = trace.table("roofline_by_kernel").records()
    assert (total["flops"], total["modelled_ns"]) == (first["flops"] + 1024, 30_000)
    assert total["mfu"] == pytest.approx((4 * 1024**3 + 1024) / 989.4e12 / 30e-6)
    assert total["mbu"] == pytest.approx((12 * 1024**2 + 384) / 3.35e12 / 30e-6)


def test_what_cannot_be_told_is_counted_and_said(tmp_path: Path) -> None:
    trace = a_trace(
        tmp_path,
        ("aten::mm", {}),
        ("aten::mm", recorded([[8, 7], [8, 8]], [F32, F32])),
        ("aten::mm", recorded([[8, 8], "x"], [F32, F32])),
        ("aten::mm", recorded([[1 << 40, 1 << 40], [1 << 40, 1 << 40]], [F32, F32])),
        ("aten::add", recorded([[4], [-4]], [F32, F32])),
        ("aten::mm", recorded([[8, 8], [8, 8]], ["c10::Float3_x", F32])),
        ("my::op", recorded([[8, 8]], [F32])),
        ("aten::mul", recorded([[], []], ["", ""])),  # nested tensors, as torch records them
        deviceProperties=[{"id": 0, "name": None}, {"id": "0", "name": "NVIDIA H100"}, 5],
    )
    rows = trace.roofline().set_index("shapes")
    assert rows["why"].to_dict() == {
        "": "no shapes recorded",
        "[[8,7],[8,8]]": "shapes do not fit",
        '[[8,8],"x"]': "shapes do not fit",
        f"[[{1 << 40},{1 << 40}],[{1 << 40},{1 << 40}]]": "shapes do not fit",
        "[[4],[-4]]": "shapes do not fit",
        "[[8,8],[8,8]]": "unknown dtype",
        "[[8,8]]": "no model",
        "[[],[]]": "no lengths recorded",
    }
    known = rows[rows["modelled"]]
    assert known["flops"].tolist() == [1024] and known["bytes"].isna().all()
    assert rows["peak_share"].isna().all() and not rows["bound"].any()
    said = of_table(trace.table("roofline"))
    assert said is not None
    assert said.line == (
        "Operators with a model take 12 % of 80.00 µs of GPU time. The peaks of a GPU without a name are not known. "
        "Not modelled: 1 call without recorded shapes, 4 calls whose shapes do not fit the operator, 1 call with an "
        "unknown dtype, 1 call whose sequences' lengths are not recorded. "
        'Try: --peaks FILE, with {"bf16": 989, "fp32": 67, "tb_per_s": 3.35} in it'
    )


@pytest.mark.parametrize(
    ("dtype", "said_text"),
    [
        ("c10::Float3_x", ". Not modelled: 1 call with an unknown dtype."),
        ("long", ". A peak of NVIDIA H100 80GB HBM3 for them is not known. Try: --peaks FILE, with "),
    ],
)
def test_a_gpu_with_a_data_sheet_is_not_called_unknown(dtype: str, said_text: str, tmp_path: Path) -> None:
    trace = a_trace(tmp_path, ("aten::mm", recorded([[8, 8], [8, 8]], [dtype, dtype])), **H100)
    said = of_table(trace.table("roofline"))
    assert said is not None
    line, _, _ = said.line.partition("{")
    assert line == f"Operators with a model take 100 % of 10.00 µs of GPU time{said_text}"


def test_what_was_assumed_is_said_and_a_sparse_product_has_no_model(tmp_path: Path) -> None:
    trace = TraceBuilder()
    lengths = ["", "", "", "", "", "6", "6", "0.", "1.", "False"]
    packed = recorded([*[[10, 2, 8]] * 3, [4], [4], *[[]] * 5], [BF16] * 10, lengths)
    trace.operator("flash_attn::_flash_attn_varlen_forward", 0, 50, **packed)
    trace.operator("aten::addmm", 100, 50, **recorded([[4, 5], [4, 4], [4, 5], [], []], [F32] * 3 + ["Scalar"] * 2))
    for number, name in enumerate(("flash_fwd_kernel", "void cusparse::csrmm_alg2_kernel<float>(int)")):
        trace.launch(number + 1, 100 * number + 1)
        trace.kernel(number + 1, 100 * number + 20, 10, name=name)
    found = load_trace(trace.write(tmp_path / "t.json"))
    assert found.roofline()[["modelled", "why"]].to_numpy().tolist() == [
        [False, "how sparse is not recorded"],
        [True, "lengths taken to be alike"],
    ]
    said = of_table(found.table("roofline"))
    assert said is not None
    assert (
        "Not modelled: 1 call with a sparse matrix, whose nonzeros are not recorded. "
        "Assumed in 1 call: lengths taken to be alike." in said.line
    )


def test_attention_on_a_cache_is_modelled_where_the_step_says_its_lengths(tmp_path: Path) -> None:
    trace = TraceBuilder()
    shapes = [[4, 8, 64], [4, 2, 64], [4, 2, 64], [4, 8, 64]]
    for number, lengths in enumerate(("sq4sk100sqsq4sqsk100", "sq4sk104sqsq4sqsk104")):
        trace.region(f"execute_4_context_0(sq0sk0sqsq0sqsk0)_generation_4({lengths})", 100 * number, 90)
    trace.region("execute_context_0(0)_generation_4(4)", 200, 90)
    trace.region("warm up", 300, 90)
    for number in range(4):
        name = "vllm::unified_attention_with_output"
        trace.operator(name, 100 * number + 1, 50, **recorded(shapes, [BF16] * 4))
        trace.launch(number + 1, 100 * number + 2)
        trace.kernel(number + 1, 100 * number + 20, 10, name="k")
    found = load_trace(trace.write(tmp_path / "t.json"))
    known, unknown = found.roofline().sort_values("modelled", ascending=False).to_dict("records")
    # 100 and 104 pairs of a query and a key; of these keys 4 are new each time
    size = 2 * 2 * (4 * (2 * 8 + 2 * 2) * 64) + 2 * 2 * 64 * 2 * (96 + 100)
    assert (known["count"], known["flops"], known["bytes"]) == (2, 4 * 64 * 8 * (100 + 104), size)
    assert (unknown["count"], unknown["why"], unknown["category"]) == (2, "no lengths recorded", "attention")
    said = of_table(found.table("roofline"))
    assert said is not None
    assert "Not modelled: 2 calls whose sequences' lengths are not recorded." in said.line


def test_without_shapes_it_says_which_flag_gives_them(tmp_path: Path) -> None:
    a_trace(tmp_path, ("aten::mm", {}))
    done = profiler_kit("roofline", tmp_path / "t.json")
    assert done.out.endswith(
        "Operators with a model take 0 % of 10.00 µs of GPU time. Not modelled: 1 call without recorded shapes. Try: "
        "profiler_runner(path, record_shapes=True)\n"
    )


@pytest.fixture
def own_model() -> Iterator[None]:
    @operator_model("my::op")
    def scale(call: Call) -> Work:
        (shape, dtype) = call.tensor(0)
        return Work(shape[0], [(2 * shape[0], dtype)])

    yield
    del MODELS["my::op"]
    WHOLE.discard("my::op")


@pytest.mark.usefixtures("own_model")
def test_an_operator_of_ones_own_has_the_model_that_is_registered(tmp_path: Path) -> None:
    (row,) = a_trace(tmp_path, ("my::op", recorded([[100]], [F32]))).table("roofline").records()
    assert (row["flops"], row["bytes"], row["modelled"]) == (100, 800, True)


def test_work_belongs_to_the_outermost_operator_with_a_model_for_it_all(tmp_path: Path) -> None:
    """linear > addmm: addmm's. layer_norm > native_layer_norm: layer_norm's. gelu, which launches itself, > copy_."""
    trace = TraceBuilder()
    for number, (outer, inner) in enumerate((("linear", "addmm"), ("layer_norm", "native_layer_norm"))):
        trace.operator(f"aten::{outer}", 100 * number, 50)
        trace.operator(f"aten::{inner}", 100 * number + 1, 40)
        trace.launch(number + 1, 100 * number + 2)
        trace.kernel(number + 1, 100 * number + 20, 10, name="k")
    trace.operator("aten::upsample", 200, 60)  # launches itself, and what it calls has no call with a model inside
    trace.launch(3, 201)
    trace.kernel(3, 230, 10, name="k")
    trace.operator("aten::contiguous", 210, 20)
    trace.operator("aten::copy_", 211, 10)
    trace.launch(4, 212)
    trace.kernel(4, 240, 10, name="k")
    found = load_trace(trace.write(tmp_path / "t.json")).roofline()
    assert dict(zip(found["operator"], found["gpu_ns"], strict=True)) == {
        "aten::upsample": 20_000,
        "aten::addmm": 10_000,
        "aten::layer_norm": 10_000,
    }


@pytest.mark.parametrize(
    ("name", "kind", "category"),
    [
        ("aten::addmm", "operator", "matrix product"),
        ("aten::_scaled_dot_product_flash_attention_backward", "operator", "attention backward"),
        ("vllm::unified_attention_with_output", "operator", "attention"),
        ("aten::miopen_convolution", "operator", "convolution"),
        ("aten::convolution_backward", "operator", "convolution"),
        ("aten::cudnn_batch_norm_backward", "operator", "norm"),
        ("aten::linalg_vector_norm", "operator", "reduction"),
        ("aten::_softmax", "operator", "reduction"),
        ("aten::add_", "operator", "elementwise"),
        ("aten::gelu_backward", "operator", "elementwise"),
        ("aten::copy_", "operator", "copy"),
        ("c10d::allreduce_", "operator", "communication"),
        ("my::op", "operator", "other"),
        ("Cijk_Alik_Bljk_B_BS", "kernel", "matrix product"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32", "kernel", "matrix product"),
        ("nvjet_tst_128x64", "kernel", "matrix product"),
        ("sm80_xmma_fprop_implicit_gemm_f32f32", "kernel", "convolution"),
        ("fmha_cutlassB_f32_aligned", "kernel", "attention backward"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop", "kernel", "attention backward"),
        ("void at::native::vectorized_elementwise_kernel<4>", "kernel", "elementwise"),
        ("triton_red_fused_native_layer_norm_0", "kernel", "norm"),
        # made of all in its part of the graph, it computes no product itself
        ("triton_poi_fused_convolution_0", "kernel", "elementwise"),
        ("triton_poi_fused_addmm_gelu_view_3", "kernel", "elementwise"),
        ("triton_red_fused__scaled_dot_product_flash_attention_mean_1", "kernel", "reduction"),
        ("triton_tem_fused_mm_0", "kernel", "matrix product"),
        ("void at::native::reduce_kernel<512>", "kernel", "reduction"),
        ("xyz", "kernel", "other"),
    ],
)
def test_a_name_tells_the_category(name: str, kind: str, category: str) -> None:
    assert category_of(name, kind) == category


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_no_time_is_lost(path: Path) -> None:
    trace = load_trace(path, arguments=("input_dims", "input_type", "concrete_inputs"))
    whole = int(trace.gpu_events()["dur_ns"].sum())
    assert int(trace.roofline()["gpu_ns"].sum()) == whole
    assert int(trace.categories()["sum_ns"].sum()) == whole
    assert int(trace.roofline_totals("kernel")["gpu_ns"].sum()) == whole
    merged = trace.roofline()
    assert int(merged["flops"].sum()) == pytest.approx(int(trace.roofline_totals("kernel")["flops"].sum()), rel=1e-9)


HEADS = 2 * 2 * (2 * 8 * 256 * 256 * 64)  # two products, batch 2, 8 heads, 256 tokens of 64; backward five
# What torch's counter counts otherwise: it leaves out what is added (m n) and whole products of which it has no
# formula, takes a causal mask for none, and the gradient of a depthwise convolution's weight for that of a full one.
OTHERWISE = {
    "linear": 2 * 3 * 128 * 128 * 256 + 128 * 256,
    "baddbmm": 4 * (2 * 32 * 64 * 48 + 32 * 48),
    "int_mm": 2 * 256 * 512 * 384,
    "grouped_mm": 2 * 256 * 512 * 384,
    "grouped_mm of weights": 2 * 512 * 256 * 512,
    "scaled_grouped_mm": 2 * 256 * 512 * 384,
    "depthwise": 3 * 2 * 9 * 4 * 32 * 32 * 32,
    "flash causal": HEADS * 7 // 4,
    # shared by four heads, whose gradients are added
    "flash shared heads": HEADS * 7 // 2 + 2 * 256 * 3 * 128,
    "packed": 4 * 4 * 64 * (32**2 + 64**2) // 2,
}


# What it counted when the capture was recorded (make_captures.py operators writes it).
COUNTED = {
    "mm": 25165824, "scaled_mm": 100663296, "conv1d": 6082560, "conv2d": 113246208, "conv3d": 48771072,
    "transposed": 12582912, "flash": 939524096, "efficient": 939524096, "cudnn": 939524096,
}  # fmt: skip


def test_flops_of_a_real_capture_are_those_of_torchs_counter() -> None:
    trace = load_trace(Path(__file__).parents[1] / "golden" / "operators_h200.json.gz", arguments=ARGUMENTS)
    worked, found = trace._worked(), dict[str, float]()
    counted = worked.carries & worked.category.isin(list(MATRIX))
    for path, kind in zip(trace.gpu_events()["path"][counted], worked.kind[counted].tolist(), strict=True):
        done = worked.kinds[kind].work
        assert done is not None and done.flops is not None
        found[path[0]] = found.get(path[0], 0) + done.flops
    assert found == {**COUNTED, **OTHERWISE}


QWEN = "h100/Qwen_Qwen1.5-0.5B-Chat__1016005"
BERT = "gaunernst_bert-small-uncased__1016001"
SDPA = "aten::_scaled_dot_product_flash_attention"
INDEX, SCALAR = "aten::index_select", "aten::_local_scalar_dense"
# Every row of unified_perf_summary.csv beside each trace: operator, shapes, calls, GFLOP of one, MiB of one, us of all.
# None: they have no model. A sum: rows that they tell apart by strides or dtypes.
TABLES: dict[str, list[tuple[str, str, int, float | None, float | None, float]]] = {
    QWEN: [
        ("aten::mm", "[[8944,1024],[1024,2816]]", 48, 51.581550592, 71.0078125, 4055.25244140625),
        ("aten::mm", "[[8944,2816],[2816,1024]]", 24, 51.581550592, 71.0078125, 1835.287109375),
        ("aten::mm", "[[8944,1024],[1024,1024]]", 24, 18.756927488, 36.9375, 778.14208984375),
        ("aten::addmm", "[[1024],[8944,1024],[1024,1024],[],[]]", 72, 18.766086144, 36.939453125, 2329.075927734375),
        ("aten::bmm", "[[1,32,1],[1,1,559]]", 1, 3.5776e-05, 0.07049179077148438, 3.52001953125),
        (SDPA, "[[16,16,559,64],[16,16,559,64],[16,16,559,64],[],[],[],[]]", 24, 10.239377408, 69.875,
         2722.704345703125),
        ("aten::copy_", "[[16,16,559,64],[16,16,559,64],[]]", 72, 0.009158656, 34.9375, 2108.187744140625),
        ("aten::copy_", "[[16,559,16,64],[16,559,16,64],[]]", 24, 0.009158656, 34.9375, 658.080322265625),
        ("aten::copy_", "[[16,559,1024],[16,559,1024],[]]", 98, 0.009158656, 52.40625,
         1431.67236328125 + 898.427490234375),
        ("aten::copy_", "[[1,559,64],[1,559,64],[]]", 2, 3.5776e-05, 0.2047119140625, 2.974853515625),
        ("aten::copy_", "[[1,1,559],[1,1,559],[]]", 1, 5.59e-07, 0.006397247314453125, 2.592041015625),
        ("aten::add", "[[16,16,559,64],[16,16,559,64],[]]", 48, 0.009158656, 52.40625, 1671.095947265625),
        ("aten::add", "[[16,559,1024],[16,559,1024],[]]", 48, 0.009158656, 52.40625, 854.619384765625),
        ("aten::add", "[[16,559,1],[],[]]", 49, 8.944e-06, 0.06824493408203125, 81.7998046875),
        ("aten::mul", "[[16,559,1024],[16,559,1]]", 49, 0.009158656, 69.90911865234375, 1608.922119140625),
        ("aten::mul", "[[1024],[16,559,1024]]", 49, 0.009158656, 34.939453125, 1233.9794921875),
        ("aten::mul", "[[16,16,559,64],[1,1,559,64]]", 96, 0.009158656, 35.0057373046875,
         1537.848388671875 + 1141.8828125),
        ("aten::mul", "[[16,559,2816],[16,559,2816]]", 24, 0.025186304, 144.1171875, 1227.130859375),
        ("aten::mul", "[[1,559,64],[]]", 2, 3.5776e-05, 0.27295684814453125, 3.13623046875),
        ("aten::cat", "[[[16,16,559,32],[16,16,559,32]],[]]", 48, None, None, 2014.326904296875),
        ("aten::cat", "[[[1,559,32],[1,559,32]],[]]", 1, None, None, 3.4560546875),
        ("aten::pow", "[[16,559,1024],[]]", 49, None, None, 1300.794921875),
        ("aten::silu", "[[16,559,2816]]", 24, None, None, 925.11474609375),
        ("aten::neg", "[[16,16,559,32]]", 48, None, None, 587.3271484375),
        ("aten::rsqrt", "[[16,559,1]]", 49, None, None, 79.076416015625),
        ("aten::cos", "[[1,559,64]]", 1, None, None, 2.080078125),
        ("aten::sin", "[[1,559,64]]", 1, None, None, 2.01611328125),
        ("aten::eq", "[[16,559],[]]", 1, None, None, 1.85595703125),
        ("aten::arange", "[[],[],[],[0]]", 1, None, None, 1.50390625),
        (INDEX, "[[151936,1024],[],[8944]]", 1, None, None, 51.77587890625),
        (SCALAR, "[[]]", 1, None, None, 2.367919921875),
        ("aten::all", "[[16,559]]", 1, None, None, 4.1279296875),
        # their table counts one element of the result, for they do not read the dimension: 8,944 are written
        ("aten::mean", "[[16,559,1024],[],[],[]]", 49, 0.009158656, 34.937503814697266 + 8943 * 4 / 2**20,
         743.327392578125),
    ],
    f"h100/{BERT}": [
        ("aten::addmm", "[[512],[141,512],[512,512],[],[]]", 17, 0.0739968, 0.7763671875, 98.718017578125),
        ("aten::addmm", "[[30522],[141,512],[512,30522],[],[]]", 1, 4.41119205, 38.211021423339844, 41.280029296875),
        ("aten::addmm", "[[512],[141,2048],[2048,512],[],[]]", 4, 0.295770624, 2.689453125, 33.089111328125),
        ("aten::addmm", "[[2048],[141,512],[512,2048],[],[]]", 4, 0.2959872, 2.6923828125, 24.510986328125),
        (SDPA, "[[1,8,141,64],[1,8,141,64],[1,8,141,64],[],[],[],[]]", 4, 0.040716288, 0.55078125, 37.408203125),
        ("aten::layer_norm", "[[1,141,512],[],[512],[512],[],[]]", 10, 0.000364032, 0.28125, 30.912109375),
        ("aten::add", "[[1,141,512],[1,141,512],[]]", 9, 7.2192e-05, 0.4130859375, 14.752685546875),
        ("aten::add_", "[[1,141,512],[1,141,512],[]]", 1, 7.2192e-05, 0.4130859375, 1.696044921875),
        ("aten::gelu", "[[1,141,2048],[]]", 4, None, None, 7.87060546875),
        ("aten::gelu", "[[1,141,512],[]]", 1, None, None, 1.72802734375),
        ("aten::all", "[[1,141]]", 1, None, None, 3.64794921875),
        ("aten::eq", "[[1,141],[]]", 1, None, None, 1.760009765625),
        (INDEX, "[[512,512],[],[141]]", 1, None, None, 3.424072265625),
        (INDEX, "[[2,512],[],[141]]", 1, None, None, 3.263916015625),
        (INDEX, "[[30522,512],[],[141]]", 1, None, None, 3.135986328125),
        (SCALAR, "[[]]", 1, None, None, 2.239990234375),
    ],
    f"mi300/{BERT}": [
        (SDPA, "[[1,8,141,64],[1,8,141,64],[1,8,141,64],[],[],[],[]]", 4, 0.040716288, 0.55078125, 113.65576171875),
        ("aten::addmm", "[[512],[141,512],[512,512],[],[]]", 17, 0.0739968, 0.7763671875, 85.736328125),
        ("aten::addmm", "[[2048],[141,512],[512,2048],[],[]]", 4, 0.2959872, 2.6923828125, 33.79443359375),
        ("aten::addmm", "[[512],[141,2048],[2048,512],[],[]]", 4, 0.295770624, 2.689453125, 29.06298828125),
        ("aten::addmm", "[[30522],[141,512],[512,30522],[],[]]", 1, 4.41119205, 38.211021423339844, 25.537109375),
        ("aten::layer_norm", "[[1,141,512],[],[512],[512],[],[]]", 10, 0.000364032, 0.28125, 39.51904296875),
        ("aten::add", "[[1,141,512],[1,141,512],[]]", 9, 7.2192e-05, 0.4130859375, 19.3154296875),
        ("aten::add_", "[[1,141,512],[1,141,512],[]]", 1, 7.2192e-05, 0.4130859375, 2.56494140625),
        ("aten::gelu", "[[1,141,2048],[]]", 4, None, None, 18.6376953125),
        ("aten::gelu", "[[1,141,512],[]]", 1, None, None, 3.0859375),
        ("aten::all", "[[1,141]]", 1, None, None, 4.3291015625),
        ("aten::eq", "[[1,141],[]]", 1, None, None, 4.0478515625),
        (INDEX, "[[512,512],[],[141]]", 1, None, None, 3.3271484375),
        (INDEX, "[[30522,512],[],[141]]", 1, None, None, 3.0859375),
        (INDEX, "[[2,512],[],[141]]", 1, None, None, 2.64501953125),
        (SCALAR, "[[]]", 1, None, None, 2.40380859375),
    ],
}  # fmt: skip
peers = pytest.mark.skipif(not (SHARED / "peers").is_dir(), reason="other projects' traces are not beside the project")


@peers
@pytest.mark.parametrize("folder", TABLES)
def test_rows_are_those_of_the_tables_that_tracelens_publishes(folder: str) -> None:
    """Calls, FLOPs and bytes to 1e-6; time to the last bit of their floats, a quarter of a nanosecond each.

    Every row of theirs is one of ours, and the other way round, but for what has no operator on the host or no launch
    in the file, which they leave out. The sheets GEMM, SDPA_fwd, Normalization, BinaryElementwise, UnaryElementwise and
    Reduce_fwd are the same rows by category.
    """
    ours = load_trace(SHARED / "peers" / "tracelens" / folder / "trace.json.gz").roofline()
    ours = ours[~ours["operator"].str.startswith("(")]
    assert {(row[0], row[1]) for row in TABLES[folder]} == set(zip(ours["operator"], ours["shapes"], strict=True))
    for operator, shapes, count, gflop, mib, us in TABLES[folder]:
        rows = ours[(ours["operator"] == operator) & (ours["shapes"] == shapes)]
        assert int(rows["count"].sum()) == count
        assert int(rows["gpu_ns"].sum()) == pytest.approx(us * 1e3, rel=1e-6, abs=count / 4)
        if gflop is not None and mib is not None:
            assert int(rows["flops"].sum()) == pytest.approx(gflop * 1e9 * count, rel=1e-6)
            assert int(rows["bytes"].sum()) == pytest.approx(mib * (1 << 20) * count, rel=1e-6)


# ops_summary.csv: total_direct_kernel_time_sum (us) and Count.
OPS = {
    QWEN: {
        "aten::mul": (6752.89990234375, 220), "aten::mm": (6668.681640625, 96), "aten::copy_": (5101.934814453125, 197),
        "aten::_flash_attention_forward": (2722.704345703125, 24), "aten::add": (2607.51513671875, 145),
        "aten::addmm": (2329.075927734375, 72), "aten::cat": (2017.782958984375, 49),
        "aten::pow": (1300.794921875, 49), "aten::silu": (925.11474609375, 24), "aten::mean": (743.327392578125, 49),
        "aten::neg": (587.3271484375, 48), "aten::rsqrt": (79.076416015625, 49),
        INDEX: (51.77587890625, 1), "aten::all": (4.1279296875, 1), "aten::bmm": (3.52001953125, 1),
        SCALAR: (2.367919921875, 1), "aten::cos": (2.080078125, 1), "aten::sin": (2.01611328125, 1),
        "aten::eq": (1.85595703125, 1), "aten::arange": (1.50390625, 1),
    },
    f"h100/{BERT}": {
        "aten::addmm": (197.59814453125, 26), "aten::_flash_attention_forward": (37.408203125, 4),
        "aten::native_layer_norm": (30.912109375, 10), "aten::add": (14.752685546875, 9),
        INDEX: (9.823974609375, 3), "aten::gelu": (9.5986328125, 5), "aten::all": (3.64794921875, 1),
        SCALAR: (2.239990234375, 1), "aten::eq": (1.760009765625, 1), "aten::add_": (1.696044921875, 1),
    },
    f"mi300/{BERT}": {
        "aten::addmm": (174.130859375, 26), "aten::_flash_attention_forward": (113.65576171875, 4),
        "aten::native_layer_norm": (39.51904296875, 10), "aten::gelu": (21.7236328125, 5),
        "aten::add": (19.3154296875, 9), INDEX: (9.05810546875, 3), "aten::all": (4.3291015625, 1),
        "aten::eq": (4.0478515625, 1), "aten::add_": (2.56494140625, 1), SCALAR: (2.40380859375, 1),
    },
}  # fmt: skip


@peers
@pytest.mark.parametrize("folder", OPS)
def test_operators_are_those_of_their_ops_summary(folder: str) -> None:
    """To the last bit of their floats. The calls that launch something are counted, as they do."""
    trace = load_trace(SHARED / "peers" / "tracelens" / folder / "trace.json.gz")
    ours = trace.operator_work()
    ours = ours[(ours["gpu_events"] > 0) & ~ours["name"].str.startswith("(")].set_index("name")
    assert ours["gpu_ns"].to_dict() == {
        name: pytest.approx(us * 1e3, abs=1 + count / 4) for name, (us, count) in OPS[folder].items()
    }
    details = trace.kernel_details()
    launching = details.drop_duplicates("operator_event").groupby("operator", observed=True).size()
    assert {name: launching[name] for name in OPS[folder]} == {name: count for name, (_, count) in OPS[folder].items()}


# ops_summary_by_category.csv: Count and total_direct_kernel_time_ms; what they call elementwise are copies too.
BY_CATEGORY = {
    QWEN: {"elementwise": (735, 17.360615234375), "matrix product": (169, 9.001277587890625),
           "attention": (24, 2.722704345703125), "other": (52, 2.0734306640625), "reduction": (50, 0.747455322265625)},
    f"mi300/{BERT}": {"matrix product": (26, 0.174130859375), "attention": (4, 0.11365576171875),
                      "elementwise": (16, 0.04765185546875), "norm": (10, 0.03951904296875),
                      "other": (4, 0.0114619140625), "reduction": (1, 0.0043291015625)},
}  # fmt: skip


@peers
@pytest.mark.parametrize("folder", BY_CATEGORY)
def test_categories_are_those_of_their_summary(folder: str) -> None:
    """With three names of their own: copy_ is elementwise; what joins, makes or fetches a tensor is other."""
    theirs = {"aten::copy_": "elementwise", "aten::cat": "other", "aten::arange": "other", SCALAR: "other"}
    ours = load_trace(SHARED / "peers" / "tracelens" / folder / "trace.json.gz").roofline()
    ours = ours[~ours["operator"].str.startswith("(")]
    sums = ours.groupby(ours["operator"].map(theirs).fillna(ours["category"]))[["count", "gpu_ns"]].sum()
    assert {name: (count, ns) for name, count, ns in sums.itertuples()} == {
        name: (count, pytest.approx(ms * 1e6, abs=count)) for name, (count, ms) in BY_CATEGORY[folder].items()
    }


def test_no_model_breaks_on_arguments_that_are_none_of_its_own() -> None:
    draw = random.Random(1)
    sizes: list[Any] = [0, 1, 2, 3, 8, -1, 1 << 40, 10**30, 2.5, None, "x", True, [2, 3]]
    texts: list[Any] = ["", "True", "[1, 1]", "0", "-1", "[]", "x", "1e400", "[True, False, True]", None, 5, "3"]
    types: list[Any] = ["float", BF16, "", "ScalarList", "TensorList", I64, "zzz", None, 3]
    steps = [None, served("prefill[bs=1 tok=5 sk=3 sqsq=25 sqsk=15]"), served("execute_context_1(5)_generation_0(0)")]

    def shape() -> Any:
        known = sizes[: 5 if draw.random() < 0.7 else None]
        return draw.choice((None, "x", 3, {})) if draw.random() < 0.1 else draw.choices(known, k=draw.randint(0, 5))

    for name, model in MODELS.items():
        for _ in range(30):
            count = draw.randint(0, 16)
            shapes = [shape() for _ in range(count)]
            call = Call(name, shapes, draw.choices(types, k=count), draw.choices(texts, k=count), draw.choice(steps))
            found, why = _work(call, model)
            assert (found is None or (found.flops or 0) >= 0 <= (found.bytes or 0)) and (found is not None or why)


def test_peaks_of_data_sheets_and_of_files(tmp_path: Path) -> None:
    for name, half, bandwidth in (
        ("NVIDIA A100-SXM4-40GB", 312, 1.555),
        ("NVIDIA A100-SXM4-80GB", 312, 2.039),
        ("NVIDIA H100 80GB HBM3", 989.4, 3.35),
        ("NVIDIA H100 PCIe", 756, 2.0),
        ("NVIDIA H200", 989.4, 4.8),
        ("NVIDIA B200", 2250, 8.0),
        ("NVIDIA L4", 121, 0.3),
        ("NVIDIA L40S", 362, 0.864),
        ("NVIDIA GeForce RTX 4090", 165.2, 1.008),
        ("AMD Instinct MI300X VF", 1307.4, 5.3),
        ("AMD Instinct MI250X", 191.5, 1.6384),
    ):
        found = peaks_of(name)
        assert found is not None and (found.tflop_per_s["bf16"], found.tb_per_s) == (half, bandwidth), name
    assert peaks_of("NVIDIA GB200") is None and peaks_of("Tesla V100-SXM2-32GB") is None and peaks_of("") is None
    file = tmp_path / "p.json"
    file.write_text('{"bf16": 700, "tb_per_s": 4}')
    assert read_peaks(str(file)).tflop_per_s == {"bf16": 700.0}
    file.write_text('{"ceilings": {"matrix_tflops": {"bfloat16": 790, "tf32": 400}, "copy_gb_per_s": 4300}}')
    assert read_peaks(str(file)).tflop_per_s == {"bf16": 790.0, "tf32": 400.0}
    assert read_peaks(str(file)).tb_per_s == 4.3
    for text, found_text in (("[]", "no peaks"), ('{"bf16": "x", "tb_per_s": 1}', 'bf16 = "x"'), ("{", "no peaks")):
        file.write_text(text)
        with pytest.raises(InputError) as caught:
            read_peaks(str(file))
        assert str(caught.value) == (
            f"{file}: found {found_text}, expected TFLOP/s by dtype (fp64, fp32, tf32, bf16, fp16, fp8, int8) and "
            'tb_per_s. Try: {"bf16": 989, "fp32": 67, "tb_per_s": 3.35}'
        )


def test_the_example_of_the_readme_is_a_real_one() -> None:
    root = Path(__file__).parents[2]
    readme = (root / "README.md").read_text(encoding="utf-8")
    found = load_trace(root / "traces" / "h200-vit_b-eager-fp32" / "trace.json.gz").table("roofline")
    cells = {one.name: list(one.cells) for one in layout(found)}
    rows = [
        line.split() for line in readme.partition("$ profiler-kit roofline")[2].partition("```")[0].splitlines()[2:]
    ]
    assert len(rows) == 3
    numbers = ("count", "bound", "peak_share", "gpu_ns", "tflop_per_s", "tb_per_s")
    shown = [" ".join(cells[name][at] for name in numbers).split() for at in range(len(found))]
    assert all(any(row[-len(one) :] == one for one in shown) for row in rows)
