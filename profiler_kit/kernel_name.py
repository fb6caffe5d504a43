"""The short name of a GPU event or operator: what tells kernels apart, without what all of them have.

A kernel is its function, the functor it applies, its dtypes and its sizes; a matrix product its dtype, layout and tile.
"""

from __future__ import annotations

import contextlib
import functools
import re
from typing import Final

# Types as they are written in C++, the longer names first.
_DTYPES: Final = {
    "c10::complex<float>": "c64", "c10::complex<double>": "c128", "c10::Float8_e4m3fnuz": "f8e4m3",
    "c10::Float8_e4m3fn": "f8e4m3", "c10::Float8_e5m2": "f8e5m2", "cutlass::bfloat16_t": "bf16",
    "__hip_bfloat16": "bf16", "__nv_bfloat16": "bf16", "c10::BFloat16": "bf16", "hip_bfloat16": "bf16",
    "cutlass::half_t": "f16", "c10::Half": "f16", "__half": "f16", "unsigned char": "u8", "signed char": "i8",
    "double": "f64", "float": "f32", "short": "i16", "long": "i64", "bool": "bool", "int": "i32",
}  # fmt: skip
_DTYPE: Final = re.compile(
    r"OpaqueType<(\d+)u?>|(?<![\w:])(unsigned (?:int|long)|" + "|".join(_DTYPES) + r")(?!\w)(?! *\*)"
)
_MOST_DTYPES: Final = 3
# What is applied: functors, and functions whose lambdas are; the second are wrapped around others.
_TELLING: Final = re.compile(
    r"\w*[Ff]unctor\w*|\w+_kernel(?:_cuda|_impl)?\b|\w+KernelImpl\b|\w+Ops\b|launch_\w+|(?<=std::)\w+s\b"
)
_AROUND: Final = re.compile(r"gpu_kernel_impl|gpu_kernel_impl_nocast|gpu_index_kernel")
_INDEX_LAMBDA: Final = re.compile(r"::\{lambda\(int\)#\d+\}")
_TRITON_NUMBER: Final = re.compile(r"(?<=\w)_\d+$")
_BUILTINS: Final = {
    "f": "float", "d": "double", "i": "int", "j": "unsigned int", "l": "long", "m": "unsigned long", "x": "long",
    "y": "unsigned long", "b": "bool", "h": "unsigned char", "a": "signed char", "s": "short", "t": "unsigned short",
    "c": "char", "v": "void",
}  # fmt: skip


@functools.lru_cache(maxsize=65_536)
def short_kernel(name: str) -> str:
    """A GPU event's or operator's name without what tells nothing: namespaces, return type, most template arguments.

    `void at::native::elementwise_kernel<128, 2, ...direct_copy_kernel_cuda...lambda(float)...>` reads
    `elementwise direct_copy_kernel_cuda f32 [128,2]`, `nvjet_sm90_tst_128x224_64x4_2x1_v_bz_coopA_bias_TNT` reads
    `nvjet bf16 TNT 128x224x64 s4 2x1 v coopA bias`. A mangled name is read as far as its parameters.
    """
    said, inner = _function(name)
    if not inner:
        return _matrix_product(said[0]) or said[0] or name
    return " ".join(filter(None, [*said, ",".join(_dtypes(inner)), _sizes(inner)])) or name


@functools.lru_cache(maxsize=65_536)
def kernel_key(name: str) -> str:
    """The short name without dtypes and sizes, so that the kernels of float and bfloat16 that do the same meet.

    Triton's running number goes too. Names of library kernels (cuBLAS, cuDNN, NCCL) stay whole, dtype and tile
    included: they say which algorithm was chosen. `elementwise CUDAFunctor_add`, `nvjet_sm90_tst_256x128_64x4_TNT`.
    """
    said, _ = _function(name)
    key = " ".join(filter(None, said)) or name
    return _TRITON_NUMBER.sub("", key) if key.startswith("triton_") else key


def _function(name: str) -> tuple[list[str], str]:
    """The function and what it applies, and the template arguments that tell dtypes and sizes."""
    text = demangled(name).removeprefix("aten::").removeprefix("void ").replace("(anonymous namespace)::", "")
    head, inner = _parted(text)
    head = head.rsplit("::", 1)[-1]
    if head in ("Kernel", "Kernel2") and inner:
        return [inner], ""  # of CUTLASS, whose argument is the name
    applied = _applied(inner)
    return [head.removesuffix("_kernel") if applied and head.endswith("elementwise_kernel") else head, *applied], inner


_NAMED_DTYPE: Final = re.compile(
    r"(?<![a-z0-9])(tf32|bf16|fp?16|f(?:8\w*|32|64)|[ui](?:8|16|32|64)|bool|c(?:64|128))(?![a-z0-9])"
)
_GEMM_DTYPE: Final = {"sgemm": "f32", "hgemm": "f16", "dgemm": "f64"}


def kernel_dtype(name: str) -> str:
    """The dtype that a kernel's name tells first; "" where it tells none."""
    short = short_kernel(name)
    found = _NAMED_DTYPE.search(short)
    if found is not None:
        return "f16" if found[1] == "fp16" else found[1]
    return next((dtype for word, dtype in _GEMM_DTYPE.items() if word in short), "")


def _parted(text: str) -> tuple[str, str]:
    """The function's name, and its template arguments; the parameters go."""
    start = re.match(r"(?: \([^<]*\)$|[^<(])*", text)  # Memcpy HtoD (Pageable -> Device): no parameters
    head = start.group() if start is not None else text
    rest, depth = text[len(head) :], 0
    if not rest.startswith("<"):
        return head.strip(), ""
    for at, letter in enumerate(rest):
        depth += {"<": 1, "(": 1, "{": 1, ">": -1, ")": -1, "}": -1}.get(letter, 0)
        if not depth:
            return head.strip(), rest[1:at]
    return head.strip(), rest[1:]  # cut off


def _applied(inner: str) -> list[str]:
    """The functor, behind what wraps it: `BinaryFunctor<float, …, MulFunctor<float>>` gives Binary, MulFunctor."""
    found = list(dict.fromkeys(word for word in _TELLING.findall(inner) if not _AROUND.fullmatch(word)))
    wrapped = [
        word.removesuffix("Functor")
        for word in found[:1]
        if word in ("AUnaryFunctor", "BUnaryFunctor", "BinaryFunctor")
    ]
    return [*wrapped, *found[len(wrapped) : len(wrapped) + 1]]


def _dtypes(inner: str) -> list[str]:
    def in_text(text: str) -> list[str]:
        pairs = _DTYPE.findall(text)
        named = [f"{size}B" if size else _DTYPES.get(word, "") for size, word in pairs]  # unsigned: of an index
        return list(dict.fromkeys(filter(None, named)))

    return (in_text(_INDEX_LAMBDA.sub("", inner)) or in_text(inner))[:_MOST_DTYPES]


def _sizes(inner: str) -> str:
    """The numbers among the arguments themselves, else those of the first argument that has some: `[128,2]`."""
    flat = inner
    while (inside := re.sub(r"<[^<>]*>|\([^()]*\)|\{[^{}]*\}", "…", flat)) != flat:
        flat = inside
    numbers = re.findall(r"(?:^|, *)(-?\d+)(?=,|$)", flat)
    if not numbers and (nested := re.match(r"[\w:]+<((?:\d+, *)+)", inner)) is not None:
        numbers = re.findall(r"\d+", nested[1])
    return f"[{','.join(numbers)}]" if numbers else ""


_NVJET: Final = re.compile(r"nvjet_(?:sm\d+_)?(\w{3})_(\d+x\d+)_(\d+)x(\d+)_(\d+x\d+)_([vh])_bz_?(.*?)_?([TN]{3})")
_NVJET_TYPES: Final = {"t": "bf16", "h": "f16", "s": "f32", "d": "f64"}
_XMMA: Final = re.compile(
    r"(sm\d+)_xmma_(\w+?)_([a-z]*\d+)[a-z]*\d+_([a-z]*\d+)\w*?_[a-z]*\d+_(\w+?)_tilesize(\d+x\d+x\d+)_?(\w*)"
)
_XMMA_NOISE: Final = re.compile(
    r"_?(?:stage(\d+)|warp(?:group)?size\d+x\d+x\d+|cgasize1x1x1|execute|kernel__\w+|ffma|g1|align[a-z]\d+|segment_k_off|kernel_cudnn_infer)(?=_|$)"
)
_CUTLASS: Final = re.compile(r"cutlass_(\d+)_(\w*gemm\w*?)_(\d+x\d+)_(\d+)x(\d+)_([nt]{2})_align(\d+)")
_CUBLAS: Final = re.compile(r"(ampere|turing|volta|maxwell)_(\w*gemm\w*?)_(\d+x\d+)_?(\w*?)_?([nt]{2})")
_STAGES: Final = re.compile(r"_?stages_(\d+)x(\d+)")
_TENSILE: Final = re.compile(r"Cijk_(A\w+?_B\w+?)_(\w+?)_MT(\d+x\d+x\d+)_.*")


def _matrix_product(name: str) -> str:
    """A matrix product or convolution of cuBLAS, CUTLASS, cuDNN or Tensile: dtype, layout, tile; "" for others."""
    if (found := _NVJET.fullmatch(name)) is not None:
        types, tile, depth, stages, cluster, order, more, layout = found.groups()
        said = ["nvjet", _NVJET_TYPES.get(types[0], types), layout, f"{tile}x{depth}", f"s{stages}", cluster, order]
        return " ".join([*said, *filter(None, more.split("_"))])
    if (found := _XMMA.fullmatch(name)) is not None:
        arch, what, inputs, computed, layout, tile, more = found.groups()
        stages = re.search(r"stage(\d+)", more)
        dtype = "tf32" if computed == "tf32" else inputs
        rest = " ".join(filter(None, _XMMA_NOISE.sub("", more.replace("segment_k_on", "segmentK")).split("_")))
        return " ".join(
            filter(None, [f"xmma_{what}", dtype, layout, tile, f"s{stages[1]}" if stages else "", rest, arch])
        )
    if (found := _CUTLASS.fullmatch(name)) is not None:
        arch, what, tile, depth, stages, layout, align = found.groups()
        return f"cutlass {what} {layout} {tile}x{depth} s{stages} align{align} sm{arch}"
    if (found := _CUBLAS.fullmatch(name)) is not None:
        arch, what, tile, more, layout = found.groups()
        staged = _STAGES.search(more)
        depth, stages = (f"x{staged[1]}", f"s{staged[2]}") if staged else ("", "")
        words = [word for word in _STAGES.sub("", more).split("_") if word not in ("ldg8", "f2f")]
        return " ".join(filter(None, [arch, what, layout, tile + depth, stages, *words]))
    if (found := _TENSILE.fullmatch(name)) is not None:
        layout, types, tile = found.groups()
        return f"Cijk {layout} {types.removesuffix('_UserArgs')} {tile}"
    return ""


def demangled(name: str) -> str:
    """The function of a mangled C++ name with its namespaces and template arguments; what is not one as it is."""
    if not re.match(r"_ZN?K?\d", name):
        return name
    with contextlib.suppress(ValueError, RecursionError):  # it only looks like one
        return _nested(name, 2)[0]
    return name


def _nested(name: str, at: int) -> tuple[str, int]:
    """The name at that place and where it ends: N <length><identifier>… E, or one identifier."""
    parts, many = "", name.startswith("N", at)
    at += many
    while at < len(name):
        if (found := re.match(r"[KL]*(\d+)", name[at:])) is not None and (not parts or many):
            start = at + found.end()
            at = start + int(found[1])
            word = name[start:at]
            if not word.isidentifier():
                raise ValueError(name)
            parts += ("::" if parts else "") + ("(anonymous namespace)" if word.startswith("_GLOBAL__N") else word)
        elif name[at] == "I" and parts:
            arguments, at = _arguments(name, at + 1)
            parts += f"<{', '.join(arguments)}>"
        elif many and name[at] == "S" and (found := re.match(r"S[\da-zA-Z]?_?", name[at:])) is not None:
            at += found.end()  # std, or something that was there before
        else:
            return parts, at + many
    return parts, at


def _arguments(name: str, at: int) -> tuple[list[str], int]:
    """Template arguments up to their E; of what was there before (S_, T_) nothing is said."""
    found: list[str] = []
    while at < len(name) and name[at] != "E":
        letter = name[at]
        if (literal := re.match(r"L([a-z])(n?)(\d+)E", name[at:])) is not None:
            number = ("-" if literal[2] else "") + literal[3]
            found.append({"b0": "false", "b1": "true"}.get(literal[1] + number, number))
            at += literal.end()
        elif letter == "N" or letter.isdigit():
            word, at = _nested(name, at)
            found.append(word)
        elif letter in "IJ":
            more, at = _arguments(name, at + 1)
            found += more
        else:
            at += 1
            if letter in _BUILTINS:
                found.append(_BUILTINS[letter])
            elif letter in "ST" and (before := re.match(r"[\da-zA-Z]?_?", name[at:])) is not None:
                at += before.end()
    return found, at + 1
