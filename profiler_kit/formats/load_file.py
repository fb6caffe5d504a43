"""What a load test saw, one JSON line a request, written as the answers come: a run that is cut short is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from profiler_kit.errors import InputError, RunFormatError
from profiler_kit.files import require_file
from profiler_kit.formats.checked import Amount, Count, Positive, Score, Whole

_WHAT: Final = "the JSON lines of a load test"
_HINT: Final = "Record them with: profiler-kit sam load URL --out FILE.jsonl"


@dataclass(frozen=True)
class Rle:
    """A mask as COCO's run lengths. size: height, width."""

    size: tuple[Positive, Positive]
    counts: str


@dataclass(frozen=True)
class Sample:
    """One request. Times are nanoseconds on one clock; the latency is counted from the scheduled time.

    step: the load it was part of ("rate 5", "concurrency 4"). first: sent before the measured ones. status: of HTTP, 0
    where no answer came, which `error` tells. timing_ms: what the server says of its stages. masks, scores: of the
    first answer to an image, None for the others.
    """

    step: str
    image: str
    scheduled_ns: Whole
    sent_ns: Whole
    done_ns: Whole
    status: Count
    first: bool = False
    error: str = ""
    batch_size: Count = 0
    timing_ms: Mapping[str, Amount] = field(default_factory=dict)
    masks: tuple[Rle, ...] | None = None
    scores: tuple[Score, ...] = ()

    @property
    def latency_ns(self) -> int:
        """From when it should have been sent to the end of its answer."""
        return self.done_ns - self.scheduled_ns

    def line(self) -> str:
        """The sample as a line of JSON."""
        return json.dumps({name: value for name, value in asdict(self).items() if value or name in _ALWAYS}) + "\n"


@dataclass(frozen=True)
class Peaks:
    """What the server says of its memory at the end of a step."""

    step: str
    peak_allocated_bytes: Count | None = None
    peak_reserved_bytes: Count | None = None

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps(asdict(self)) + "\n"


@dataclass(frozen=True)
class Server:
    """What the server said of itself before the first request; 0 or "" where it did not. points: asked of each image, 0
    for all masks. batch_size, queue: at most.
    """

    url: str = ""
    model: str = ""
    mode: str = ""
    weights: str = ""
    device_name: str = ""
    device_memory_bytes: Count = 0
    torch: str = ""
    torchvision: str = ""
    commit: str = ""
    batch_size: Count = 0
    queue: Count = 0
    points: Count = 0
    points_per_side: Count = 0
    points_per_batch: Count = 0

    def line(self) -> str:
        """As a line of JSON."""
        return json.dumps({"server": asdict(self)}) + "\n"


@dataclass(frozen=True)
class _First:
    server: Server


_ALWAYS: Final = ("step", "image", "scheduled_ns", "sent_ns", "done_ns", "status", "masks")


@dataclass(frozen=True, eq=False)
class LoadFile:
    """What was read. cut: whether the last line was cut off, and is left out."""

    path: Path
    samples: tuple[Sample, ...]
    peaks: Mapping[str, Peaks]
    server: Server = Server()
    cut: bool = False


def read_load(path: Path) -> LoadFile:
    """Read the lines; raises InputError or RunFormatError, with the number of a line that is none of these."""
    import msgspec

    require_file(path, _WHAT, _HINT)
    samples, peaks, server, cut = [], {}, Server(), False
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {_WHAT}. {_HINT}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            if line.startswith(b'{"server"'):
                server = msgspec.json.decode(line, type=_First).server
            elif b'"image"' in line:
                sample = msgspec.json.decode(line, type=Sample)
                if sample.done_ns < sample.scheduled_ns:
                    raise msgspec.ValidationError("done_ns is before scheduled_ns")
                samples.append(sample)
            else:
                one = msgspec.json.decode(line, type=Peaks)
                peaks[one.step] = one
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            if number == len(lines) and len(lines) > 1:  # a whole one ends with a newline
                cut = True
                continue
            reason = " ".join(str(error).split())
            raise RunFormatError(f"{path}: line {number}: {reason}, expected {_WHAT}. {_HINT}") from error
    return LoadFile(path, tuple(samples), peaks, server, cut)
