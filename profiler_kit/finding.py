"""A finding: one thing worth saying about a run, with its numbers, the rows that prove it, and what to try.

profiler_kit.findings makes them; the command line, the dashboard, the report, Markdown and notebooks lay them
out, and neither word nor compute anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from profiler_kit.names import printable
from profiler_kit.table import Value
from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns, fmt_path, fmt_percent

Path = tuple[str, ...]
Piece = tuple[str, bool]  # text, and whether to set it bold: the figures and the names that answer the question
Kind = Literal[
    "headline",  # where the time (else the memory) went
    "problem",  # a part of the run that cannot be read
    "lost",  # events that are gone or damaged
    "missing",  # what was not recorded
    "odd",  # recorded, but not to be trusted blindly
    "why",  # what the GPU waited for, what bounds a region
    "advice",  # a cause, what removing it could give back, what to try
    "memory",
    "layers",
    "change",  # what is different in another run
    "ranks",
    "ladder",
    "table",  # what a table says, in a sentence
]
Level = Literal["error", "warning", "note"]
Page = Literal["", "regions", "kernels", "operators", "layers", "ranks", "memory", "requests", "doctor"]
Basis = Literal["measured", "bound", "held", "replayed"]


@dataclass(frozen=True)
class Evidence:
    """The rows that a finding is about. table: of profiler_kit.tables, filled with `options`.

    rows: columns and the values they have in those rows; empty for the whole table.
    """

    table: str
    rows: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Gain:
    """What could be had back, in ns or bytes. share: of the whole. each: of what, in words ("each batch").

    basis: "measured"; "bound", at most that much; "held", the time something takes, of which a faster one saves some;
    "replayed", what a replay without it saves (analyses.gpu.replay), at most that much.
    """

    amount: float
    unit: Literal["ns", "bytes"]
    basis: Basis
    share: float
    each: str = ""

    @property
    def start(self) -> str:
        """The words before the size."""
        return {"measured": "", "bound": "up to", "held": "holds", "replayed": "up to"}[self.basis]

    @property
    def size(self) -> str:
        """How much, and of what."""
        size = fmt_ns(self.amount) if self.unit == "ns" else fmt_bytes(round(self.amount))
        return f"{size} of {self.each}" if self.each else size

    def __str__(self) -> str:
        return f"{self.start} {self.size} ({fmt_percent(self.share)})".strip()


@dataclass(frozen=True)
class Finding:
    """One thing worth saying.

    id: the same for the same cause in every run, and unique among the findings of one. pieces: the sentence. title: a
    heading, "" where the sentence needs none. details: further sentences, for where there is room. where: the deepest
    region that holds most of it, outermost name first. attempt: what to try. affects: what it spoils. names: kernels,
    operators or layers concerned, the most important first. page: of the dashboard, where it can be seen.
    """

    id: str
    kind: Kind
    pieces: tuple[Piece, ...]
    level: Level = "note"
    title: str = ""
    details: tuple[str, ...] = ()
    gain: Gain | None = None
    where: Path = ()
    attempt: str = ""
    affects: str = ""
    evidence: Evidence | None = None
    names: tuple[str, ...] = ()
    page: Page = ""

    @property
    def sentence(self) -> str:
        """The sentence as plain text."""
        return "".join(text for text, _ in self.pieces)

    @property
    def heading(self) -> str:
        """The title, and the gain behind it: `One kernel: gemm (holds 1.081 ms of the recording, 1.9 %)`."""
        if self.gain is None:
            return self.title
        return f"{self.title} ({f'{self.gain.start} {self.gain.size}'.strip()}, {fmt_percent(self.gain.share)})"

    @property
    def line(self) -> str:
        """All that is to be read of it in one line: title, gain, sentence, what to try."""
        head = f"{self.heading}{'. ' if self.gain else ': '}" if self.title else ""
        return f"{head}{self.sentence}{f' Try: {self.attempt}' if self.attempt else ''}"

    @property
    def link(self) -> dict[str, str]:
        """What to open on its page: {"region": "outer > inner"}, {"kernel": …}, {"operator": …}, or nothing."""
        if self.page == "regions":
            return {"region": fmt_path(self.where)} if self.where else {}
        name = {"kernels": "kernel", "operators": "operator"}.get(self.page)
        return {name: self.names[0]} if name and self.names else {}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "id": self.id,
            "kind": self.kind,
            "level": self.level,
            "title": self.title,
            "sentence": self.sentence,
            "details": list(self.details),
            "attempt": self.attempt,
            "affects": self.affects,
            "gain": None if self.gain is None else dataclasses.asdict(self.gain),
            "where": list(self.where),
            "names": list(self.names),
            "evidence": None if self.evidence is None else _plain(dataclasses.asdict(self.evidence)),
            "page": self.page,
        }


def say(*parts: str | Piece) -> tuple[Piece, ...]:
    """The pieces of a sentence: plain text, and what `bold` made. Names come from files, and must not steer a page."""
    return tuple((printable(part), False) if isinstance(part, str) else (printable(part[0]), part[1]) for part in parts)


def bold(text: str) -> Piece:
    """A figure or a name that answers the question; files hold blank names too, which would read as nothing."""
    return text if text.strip() else "(no name)", True


def counted(count: int, one: str, many: str = "") -> str:
    """`1 gap`, `1,234 gaps`."""
    return f"{fmt_count(count)} {one if count == 1 else many or one + 's'}"


def of_the_file(found: Iterable[Finding]) -> list[Finding]:
    """Those about the file: what is broken, lost, odd or not recorded."""
    return [one for one in found if one.page == "doctor"]


def of_kind(found: Iterable[Finding], *kinds: Kind) -> list[Finding]:
    """Those of some kinds, in their order."""
    return [one for one in found if one.kind in kinds]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
