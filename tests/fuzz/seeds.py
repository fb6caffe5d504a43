"""Small whole traces to mutate: windows of real captures and of the golden trace, each in several layouts."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from tests.builders import TraceBuilder, real_traces

CASES = Path(__file__).parents[1] / "cases" / "traces"
GOLDEN = Path(__file__).parents[1] / "golden" / "streams_graph.json.gz"
WINDOW = 40  # events cut out of a capture
_BOUNDARY = re.compile(rb"\n  \},\n  \{")
_OPENING = re.compile(rb'"traceEvents"\s*:\s*\[')


def seeds(windows_per_capture: int = 6) -> list[bytes]:
    """Uncompressed traces of up to 40 kB, the same ones in every run that finds the same captures."""
    found = [layout for path in [GOLDEN, *real_traces()] for layout in _layouts_of(path, windows_per_capture)]
    return [*found, _tiny().kineto(), *cases()]


def cases() -> list[bytes]:
    """The cases, as they are and, those that are JSON, on one line."""
    texts = [path.read_bytes() for path in sorted(CASES.rglob("*.json"))]
    lines = []
    for text in texts:
        with contextlib.suppress(ValueError):
            lines.append(json.dumps(json.loads(text), separators=(",", ":")).encode())
    return texts + lines


def _layouts_of(path: Path, windows: int) -> Iterator[bytes]:
    draw = random.Random(path.parent.name + path.name)
    text = gzip.decompress(path.read_bytes())
    opening = _OPENING.search(text)
    assert opening is not None
    parts = _BOUNDARY.split(text[opening.end() :])
    head = text[: opening.end()]
    head = head if len(head) < 20_000 else b'{\n  "schemaVersion": 1,\n  "traceEvents": ['
    for _ in range(windows if len(parts) > WINDOW + 2 else 0):  # not in Kineto's layout
        first = draw.randrange(1, len(parts) - WINDOW)
        body = b"\n  },\n  {".join(parts[first : first + WINDOW])
        kineto = head + b"\n  {" + body + b'\n  }\n  ],\n  "traceName": "window.json",\n  "displayTimeUnit": "ms"\n}\n'
        yield kineto
        value = json.loads(kineto, strict=False)
        yield json.dumps(value, separators=(",", ":")).encode()
        yield json.dumps(value, indent=2).encode()
        yield json.dumps(value["traceEvents"]).encode()


def _tiny() -> TraceBuilder:
    trace = TraceBuilder()
    for number in range(8):
        trace.region(f'region "{number % 3}"', 100 * number, 90)
        trace.operator("aten::mm", 100 * number + 1, 20, **{"External id": number, "Input Dims": [[1, 2], [3]]})
        trace.launch(number, 100 * number + 2)
        trace.kernel(number, 100 * number + 30, 5.125)
    return trace
