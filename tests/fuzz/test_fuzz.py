"""Mutated and generated traces: one line or a loaded trace with its losses counted, in bounded time and memory.

`python benchmarks/fuzz_load.py` runs 10,000 files; here the first few hundred of the same ones, or
PROFILER_KIT_FUZZ_FILES.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.driver import verdicts
from tests.fuzz.mutations import mutate
from tests.fuzz.seeds import cases, seeds
from tests.fuzz.strict import strict_events
from tests.fuzz.worker import check

FILES = int(os.environ.get("PROFILER_KIT_FUZZ_FILES", "80"))


def test_mutated_captures_never_crash_hang_or_lose_events_in_silence(tmp_path: Path) -> None:
    found = list(verdicts(0, FILES, tmp_path))
    assert [verdict["file"] for verdict in found] == list(range(FILES))
    assert {verdict["file"]: verdict["problems"] for verdict in found if verdict["problems"]} == {}
    outcomes = Counter(verdict["outcome"] for verdict in found)
    assert min(outcomes[kind] for kind in ("whole", "mended", "cut", "refused")) >= FILES // 50, outcomes
    assert sum(verdict["repaired"] for verdict in found) > FILES // 10
    assert sum(verdict["dropped"] for verdict in found) > FILES // 10


def test_the_same_number_is_the_same_file() -> None:
    corpus = seeds()
    assert corpus == seeds()
    assert [mutate(number, corpus) for number in range(20)] == [mutate(number, corpus) for number in range(20)]


def test_the_strict_reader_finds_every_span_of_whole_traces() -> None:
    for text in random.Random(1).sample([text for text in seeds() if text not in cases()], 12):
        value = json.loads(text)
        events = value if isinstance(value, list) else value["traceEvents"]
        found = strict_events(gzip.compress(text))
        assert found.spans.total() == sum(event["ph"] == "X" for event in events)
        assert found.others == sum(event["ph"] != "X" for event in events)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.sampled_from(["name", "ph", "ts"]), st.integers(), max_size=2),
)
TIME = st.one_of(
    st.integers(0, 10**7), st.floats(0, 1e7).map(lambda us: round(us, 3)), st.integers(-(2**70), 2**70), ODD
)
ID = st.one_of(st.integers(0, 5), st.sampled_from(["0x0", "Spans", "", "stream 7"]), ODD)
CATEGORY = st.sampled_from(
    ["kernel", "gpu_memcpy", "cuda_runtime", "cpu_op", "user_annotation", "python_function", "ac2g"]
)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


ARGUMENTS = optional(
    **{
        name: st.one_of(st.integers(0, 9), ODD)
        for name in ("correlation", "External id", "device", "stream", "Sequence number", "Fwd thread id", "bytes")
    }
)
EVENT = optional(
    ph=st.sampled_from(["X", "X", "X", "X", "M", "i", "s", "f", "C", ""]) | ODD,
    cat=CATEGORY | ODD,
    name=st.sampled_from(["gemm", "ProfilerStep#3", "autograd::engine::evaluate_function: X", "nccl", 'a "b" c']) | ODD,
    pid=ID,
    tid=ID,
    ts=TIME,
    dur=TIME,
    id=ID,
    args=ARGUMENTS | ODD,
)


@settings(max_examples=150)
@given(
    events=st.lists(EVENT | ODD, max_size=12),
    metadata=st.dictionaries(st.text(max_size=5), ODD, max_size=3),
    after=st.booleans(),
    indent=st.sampled_from([None, 1, 2]),
    bare=st.booleans(),
    readable=st.booleans(),
)
def test_any_types_in_any_field_load_or_are_refused_in_one_line(
    events: list[Any],
    metadata: dict[str, Any],
    after: bool,
    indent: int | None,
    bare: bool,
    readable: bool,
    tmp_path_factory: Any,
) -> None:
    before = {} if after else metadata
    value = events if bare else {**before, "traceEvents": events, **(metadata if after else {})}
    text = json.dumps(value, indent=indent, ensure_ascii=not readable, default=str)
    path = tmp_path_factory.mktemp("any") / "t.json"
    assert check(text.encode("utf-8", "surrogatepass"), 0, path).problems == []
