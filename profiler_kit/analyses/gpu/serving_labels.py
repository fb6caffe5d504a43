"""What the region around a step of LLM serving says of its requests: vLLM, SGLang and ATOM put it into the name.

    execute_context_1(512)_generation_3(3)                                     vLLM: requests (tokens); newer ones
                                                                               without execute_
    execute_515_context_1(sq512sk700sqsq..sqsk..)_generation_3(sq3sk90..)      the same with lengths
    step[DECODE bs=3], step[EXTEND bs=1 toks=512 c_sq=512 c_sk=700 ..]         SGLang; IDLE, and of speculative decoding
                                                                               TARGET_VERIFY and DRAFT_EXTEND too
    decode[bs=3/4 tok=3 d=3], prefill[bs=1 tok=512 sqsq=.. sqsk=.. sk=700]     ATOM; bs=3/4: padded to 4

sq: tokens of the query, sk: those that they look at, cached ones too; sums over requests of these, of sq * sq and of
sq * sk. They are all that a kernel on a paged cache leaves to be known of how much it read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

PREFILL, DECODE, MIXED, IDLE = "prefill", "decode", "mixed", "idle"
_N: Final = r"(\d{1,18})"
_VLLM: Final = re.compile(rf"(?<![a-zA-Z])context_{_N}\({_N}\)_generation_{_N}\({_N}\)")
_SUMS: Final = rf"\(sq{_N}sk{_N}sqsq{_N}sqsk{_N}\)"
_VLLM_LENGTHS: Final = re.compile(rf"(?<![a-zA-Z])context_{_N}{_SUMS}_generation_{_N}{_SUMS}")
_SGLANG: Final = re.compile(
    r"step\[(EXTEND|SPLIT_PREFILL|DECODE|MIXED|IDLE|TARGET_VERIFY|DRAFT_EXTEND(?:_V2)?)\b([^\]]*)\]"
)
_ATOM: Final = re.compile(r"^(prefill|decode)\[(bs=.*)\]")
_VALUE: Final = re.compile(rf"\b(\w+)={_N}")
_SGLANG_LENGTHS: Final = ("sk", "sqsq", "sqsk")
_LENGTHS: Final = 4


@dataclass(frozen=True)
class Lengths:
    """Sums over requests: tokens of the query, tokens that they look at, and their products as above."""

    tokens: int = 0
    keys: int = 0
    squares: int = 0
    pairs: int = 0


@dataclass(frozen=True)
class Requests:
    """Requests of a step that are in one phase. tokens, lengths: None where the name does not say them."""

    count: int = 0
    tokens: int | None = 0
    lengths: Lengths | None = Lengths()


@dataclass(frozen=True)
class Served:
    """The requests of a step. mixed: said by the name where it does not say how many are of which phase."""

    prefill: Requests
    decode: Requests
    mixed: bool = False

    @property
    def kind(self) -> str:
        """PREFILL, DECODE, MIXED, or IDLE without requests (a rank that takes part for the others)."""
        mixed = self.mixed or (self.prefill.count and self.decode.count)
        return MIXED if mixed else PREFILL if self.prefill.count else DECODE if self.decode.count else IDLE


@lru_cache(maxsize=65_536)
def served(name: str) -> Served | None:
    """What the name of a region says; None where it is no step of serving."""
    if found := _VLLM_LENGTHS.search(name):
        numbers = list(map(int, found.groups()))
        return Served(_requests(*numbers[:5]), _requests(*numbers[5:]))
    if found := _VLLM.search(name):
        numbers = list(map(int, found.groups()))
        return Served(_requests(*numbers[:2]), _requests(*numbers[2:]))
    if found := _SGLANG.search(name):
        return _sglang(found[1], {key: int(value) for key, value in _VALUE.findall(found[2])})
    if found := _ATOM.search(name):
        values = {key: int(value) for key, value in _VALUE.findall(found[2])}
        mine = _requests(values.get("bs", 0), *map(values.get, ("tok", "sk", "sqsq", "sqsk")))
        return Served(mine, Requests()) if found[1] == "prefill" else Served(Requests(), mine)
    return None


def _requests(count: int, tokens: int | None, *lengths: int | None) -> Requests:
    """lengths: as of Lengths behind the tokens, where they are known."""
    known = [length for length in (tokens, *lengths) if length is not None]
    return Requests(count, tokens, Lengths(*known) if len(known) == _LENGTHS else None) if count else Requests()


def _sglang(kind: str, values: dict[str, int]) -> Served:
    """Of a speculative step the tokens of a request, which are as many each time, are not in the name."""
    both = values.get("bs", 0)
    if kind in ("EXTEND", "SPLIT_PREFILL"):
        counts = (both, 0)
    else:
        counts = (values.get("c", both), values.get("g", 0)) if kind == "MIXED" else (0, both)
    tokens = (values.get("toks"), values.get("toks", both if kind == "DECODE" else None))
    prefill, decode = (
        _requests(count, values.get(f"{mark}_sq", known), *(values.get(f"{mark}_{name}") for name in _SGLANG_LENGTHS))
        for mark, count, known in zip("cg", counts, tokens, strict=True)
    )
    return Served(prefill, decode, mixed=kind == "MIXED")
