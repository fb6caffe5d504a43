"""Repair one malformed event: its JSON text in, an Event out, or None when nothing helps.

What really occurs (FACTS.md): quotes and backslashes that torch does not escape in names and args, control
characters, bad UTF-8, bare NaN, Infinity and N/A, trailing commas.
"""

from __future__ import annotations

import re
from typing import Final

from profiler_kit.load.events import NOT_JSON, Decoders, Event

_NOT_A_NUMBER: Final = re.compile(r"(:\s*|\[\s*|,\s*)[-+]?(?:nan|inf|infinity|n/a)(?=\s*[,}\]])", re.IGNORECASE)
_LAST_COMMA: Final = re.compile(r",(\s*[}\]])")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
# Kineto writes the name between these two; everything in between is the name, whatever quotes it holds.
_NAME: Final = re.compile(r'("name"\s*:\s*")(.*?)("\s*,\s*"(?:ph|cat|pid|tid|ts|dur|id|s|bp|args)"\s*:)', re.DOTALL)
_ENDS_STRING: Final = re.compile(r"\s*(?:[,:}\]]|$)")
_ESCAPES: Final = '"\\/bfnrtu'


def repair(piece: bytes, decoders: Decoders) -> Event | None:
    """The event in `piece`, mended as little as possible."""
    text = _CONTROL.sub(" ", piece.decode("utf-8", "replace"))
    for candidate in (text, _mend_name(text), _mend_strings(text)):
        mended = _LAST_COMMA.sub(r"\1", _NOT_A_NUMBER.sub(r"\1null", candidate))
        try:
            events = decoders.loosely(b"[" + mended.encode("utf-8", "replace") + b"]")
        except NOT_JSON:
            continue
        if len(events) == 1 and events[0].ph:
            return events[0]
    return None


def _mend_name(text: str) -> str:
    found = _NAME.search(text)
    if found is None:
        return text
    name = found[2].replace("\\", "\\\\").replace('"', '\\"')
    return text[: found.start(2)] + name + text[found.end(2) :]


def _mend_strings(text: str) -> str:
    """Escape each quote inside a string that nothing like `,`, `:`, `}` or `]` follows, and lone backslashes."""
    out: list[str] = []
    inside = False
    skip = False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif inside and char == "\\":
            if text[at + 1 : at + 2] and text[at + 1] in _ESCAPES:
                skip = True
            else:
                out.append("\\")
        elif char == '"':
            if inside and not _ENDS_STRING.match(text, at + 1):
                out.append("\\")
            else:
                inside = not inside
        out.append(char)
    return "".join(out)
