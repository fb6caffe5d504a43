"""What the native reader mends, and what it counts, is what repair.py and the decoder make of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from profiler_kit.load.trace.repair import Salvage
from tests.readers import HAVE_NATIVE, differences, read_by

pytestmark = pytest.mark.skipif(not HAVE_NATIVE, reason="no native reader here")
EVENT = """  {
    "ph": "X", "cat": "cpu_op", "name": "op%d", "pid": 1, "tid": %d,
    "ts": %d.125, "dur": 4.250,
    "args": {
      "External id": 1, "Input Dims": [[64, 64], []]
    }
  }"""
BAD = {  # of every third event: what to replace, by what, (repaired, dropped)
    "no number as a duration": ("4.250", "NaN", (1, 1)),
    "inf as an argument": ("[[64, 64], []]", "-inf", (1, 0)),
    "N/A in a list": ("[]", "[N/A, Infinity]", (1, 0)),
    "True": ("[]", "True", (1, 0)),
    "quotes in a name": ('"op', '"say "op', (1, 0)),
    "a backslash in a name": ('"op', '"C:\\work', (1, 0)),
    "a quote and a comma in a name": ('"op', '"a", "b', (1, 0)),
    "quotes in an argument": ("[[64, 64], []]", '"a "b" c"', (1, 0)),
    "a control character": ('"op', '"\x01op', (1, 0)),
    "bad UTF-8": ('"op', '"\udce9\udc80op', (1, 0)),
    "half of a pair": ('"op', '"\\ud800op', (1, 0)),
    "both, the wrong way round": ('"op', '"\\udc00\\ud800op', (1, 0)),
    "a comma too many": ("[]]", "[]],", (1, 0)),
    "a bracket too many": ("[]]", "[]]}", (0, 0)),
    "a bracket too few": ("    }\n  }", "    }\n", (0, 1)),
    "nothing that closes": (
        '"args": {\n      "External id": 1, "Input Dims": [[64, 64], []]\n    }\n  }',
        '"x": 1',
        (0, 1),
    ),
    "a bracket behind": ("    }\n  }", "    }\n  }]", (1, 0)),
    "a word behind": ("    }\n  }", "    }\n  } xyz", (0, 1)),
    "a word behind an event that is mended": ("[]]\n    }\n  }", "inf]\n    }\n  } xyz", (1, 1)),
    "another bracket than opened": ("    }\n  }", "    }\n  ]}", (0, 1)),
    "no text at all": ('"cat": "cpu_op", "name"', '"cat": null, "name"', (0, 0)),
    "a number as text": ('"External id": 1', '"External id": "0x1f"', (0, 0)),
    "a text that is no number": ('"External id": 1', '"External id": "stream 7"', (0, 0)),
    "no text at all for a number": ('"External id": 1', '"External id": ""', (0, 0)),
    "quotes where a number belongs": ('"External id": 1', '"External id": "a "b" c"', (1, 0)),
    "quotes where a number belongs, and a word": ('"External id": 1', '"External id": "a "b", c", "x": nan', (1, 0)),
    "quotes in a name, and a comma too many": ('"name": "op', '"x": [1,], "name": "say "op', (1, 0)),
    "half of a pair and quotes in a name": ('"op', '"\\\\udc00\\\\ud800 "op', (1, 0)),
    "times as text": ("4.250", '"4.250"', (0, 0)),
    "a negative duration": ("4.250", "-4.25", (0, 1)),
    "no start": ('"ts"', '"x"', (0, 1)),
    "no phase": ('"ph"', '"x"', (0, 1)),
    "a begin without an end": ('"X"', '"B"', (0, 1)),
}


@pytest.mark.parametrize("layout", ["kineto", "compact"])
@pytest.mark.parametrize("kind", BAD)
def test_it_is_the_same_and_not_taken_apart_event_by_event(
    kind: str, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, (repaired, dropped) = BAD[kind]
    events = [EVENT % (n, n // 50, n) for n in range(600)]
    for n in range(1, 600, 3):
        assert old in events[n]
        events[n] = events[n].replace(old, new)
    if layout == "compact":
        events = [re.sub(r"\s+", "", event) for event in events]
    for module in ("decompress", "split_events"):
        monkeypatch.setattr(f"profiler_kit.load.trace.{module}.BLOCK_BYTES", 8000)
    path = tmp_path / "t.json"
    path.write_bytes(("[\n" + ",\n".join(events) + "\n]").encode("utf-8", "surrogateescape"))
    looked = [0]
    take = Salvage.take

    def counted(self: Salvage, text: bytes, offset: int, *, last: bool) -> object:
        looked[0] += len(text)
        return take(self, text, offset, last=last)

    monkeypatch.setattr(Salvage, "take", counted)
    native = read_by("native", path, ("input_dims",))
    by_hand = looked[0]
    assert differences(native, read_by("python", path, ("input_dims",))) == []
    assert not isinstance(native, str)
    assert (native.quality.repaired_events, native.quality.dropped_events) == (200 * repaired, 200 * dropped)
    assert by_hand < 12_000 < path.stat().st_size / 5  # where the list ends
