"""Build tiny chrome traces in tests: events in microseconds in, a file in Kineto's layout out."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONG_AGO = 1e9  # in 2001: nobody is writing it any more
LONG_AFTER = 1e10  # in 2286: as young as a file can be, whenever it is read
SHARED = Path(__file__).parents[2] / "shared" / "traces"


@dataclass
class TraceBuilder:
    """Collects events; every method takes start and duration in microseconds and returns the event."""

    events: list[dict[str, Any]] = field(default_factory=list)
    pid: int = 100

    def span(self, category: str, name: str, start: float, dur: float, tid: Any = 1, **args: Any) -> dict[str, Any]:
        event = {
            "ph": "X",
            "cat": category,
            "name": name,
            "pid": self.pid,
            "tid": tid,
            "ts": start,
            "dur": dur,
            "args": args,
        }
        self.events.append(event)
        return event

    def region(self, name: str, start: float, dur: float, tid: Any = 1) -> dict[str, Any]:
        return self.span("user_annotation", name, start, dur, tid)

    def operator(self, name: str, start: float, dur: float, tid: Any = 1, **args: Any) -> dict[str, Any]:
        return self.span("cpu_op", name, start, dur, tid, **args)

    def launch(
        self, correlation: int, at: float, tid: Any = 1, dur: float = 1.0, name: str = "cudaLaunchKernel"
    ) -> None:
        self.span("cuda_runtime", name, at, dur, tid, correlation=correlation)
        self.events.append(
            {"ph": "s", "cat": "ac2g", "name": "ac2g", "id": correlation, "pid": self.pid, "tid": tid, "ts": at}
        )

    def kernel(
        self, correlation: int | None, start: float, dur: float, *, name: str = "gemm", stream: Any = 7, device: int = 0
    ) -> dict[str, Any]:
        args = {"stream": stream, "device": device}
        if correlation is not None:
            args["correlation"] = correlation
        event = self.span("kernel", name, start, dur, stream, **args)
        event["pid"] = device
        return event

    def number(self) -> TraceBuilder:
        """Give spans on the host the ids that Kineto would: otherwise the order of the file breaks ties."""
        keys = {"cpu_op": "External id", "user_annotation": "External id", "python_function": "Python id"}
        for number, event in enumerate([event for event in self.events if event.get("cat") in keys], 1):
            event["args"].setdefault(keys[event["cat"]], number)
        return self

    def kineto(self) -> bytes:
        """The file as Kineto lays it out."""
        head = b'{\n  "schemaVersion": 1,\n  "baseTimeNanoseconds": 1700000000000000000,\n  "traceEvents": [\n'
        body = ",\n".join("  {\n    " + json.dumps(event)[1:-1] + "\n  }" for event in self.events)
        return head + body.encode() + b'\n  ],\n  "traceName": "trace.json"\n}\n'

    def write(self, path: Path) -> Path:
        data = self.kineto()
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return path


def real_traces() -> list[Path]:
    """The real captures beside the project; an empty list where it stands alone."""
    return sorted(SHARED.glob("h200/*.json.gz")) + sorted(SHARED.glob("peers/**/*.json.gz"))
