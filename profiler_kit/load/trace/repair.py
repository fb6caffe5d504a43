"""Save what can be saved of malformed JSON: its whole events, and those that can be mended; the rest is reported.

What really occurs: files cut off, quotes and backslashes that torch does not escape in names and args,
control characters, bad UTF-8, halves of surrogate pairs, bare NaN, Infinity, N/A and None, trailing commas, missing or
surplus brackets. Everything here takes time and memory linear in the text.
"""

from __future__ import annotations

import bisect
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import AnyStr, Final, Literal

import msgspec

from profiler_kit.load.trace.decode import NOT_JSON, Decoders, nothing

MEND_BYTES: Final = 1 << 20  # a malformed event longer than this is dropped, not mended
MOST_INCIDENTS: Final = 20  # told with their place; all of them are counted
SHOWN_BYTES: Final = 80
TICK_BYTES: Final = 1 << 14
LOOK_BYTES: Final = 1 << 10  # behind a `]`, to see whether it closes the list
_LEAST_BYTES: Final = len('{"ph":"X"}')  # of an event
BLANK: Final = b" \t\r\n,\x00"  # may be between two events; a hole in a file is full of NUL

# Where an event may start. Kineto puts no raw newline into strings, so its form is structural; the other one may
# also match an object inside the args of an event, which is why an event is tried with the text up to several starts.
_KEYS: Final = rb'\{\s*+"(?:ph|name|cat|pid|tid|ts|dur|id|args|s|bp)"\s*+:'
_KINETO_START: Final = re.compile(rb"(?<=\n  )\{(?=\r?\n)")
_ANY_START: Final = re.compile(_KEYS)
_OPEN, _CLOSE = frozenset(b"[{"), frozenset(b"]}")
_TRIED_STARTS: Final = 4
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
# What may follow the `]` that closes the events: the rest of the object, the end of the file, or another trace.
# Braces and a comma, or keys, are not the rest of the object where an event comes next.
_KEYS_THEN_EVENT: Final = (
    rb'(?:,\s*+"[^"]*+"\s*+:\s*+(?:"[^"]*+"|\[[^][{}]*+\]|\{[^][{}]*+\}|[^][{}",]++)\s*+)+,\s*+\{\s*+"'
)
_AFTER_LIST: Final = re.compile(
    rb'\s*+(?:(?:\}\s*+)++(?!,\s*+\{[^{}]*(?:"ph"\s*+:\s*+"|\Z))|'
    rb"(?!" + _KEYS_THEN_EVENT + rb'),\s*+"|\Z|\[|\{(?!\s*+"(?:ph|name|cat|pid|tid|ts|dur|id|args|s|bp)"))'
)
CLOSINGS: Final = re.compile(rb"(\](?:\s*+\])*+)")
_CLOSE_LIST: Final = re.compile(rb"[ \t\r\n,\x00}]*+" + CLOSINGS.pattern)  # too many braces are no loss
CLOSING: Final = re.compile(rb"\]")
_END: Final = re.compile(rb'\}\s*+\](?=\s*+(?:\}|,\s*+"|\Z))')
_PHASE_KEY: Final = re.compile(rb'"ph"\s*+:\s*+["\d]')
_PLACE_KEY: Final = re.compile(rb'"(?:ts|pid)"\s*+:')
PHASE: Final = re.compile(rb'"ph"\s*:\s*"[A-Za-z]"')

_BARE: Final = re.compile(
    r"[-+]?(?:nan|inf|infinity|n/a|none|undefined|true|false)(?=\s*[,}\]])", re.IGNORECASE
)  # outside of strings
_LETTER: Final = re.compile(r"[A-Za-z]")
_COMMA: Final = re.compile(r",(?=\s*+[}\]])")
_STRING: Final = re.compile(r'("(?:[^"\\]++|\\.)*+"?)', re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x1f]")
_CONTROL_BETWEEN: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_SURROGATE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_ESCAPE: Final = re.compile(r'["\\/bfnrt]|u[0-9a-fA-F]{4}')
_QUOTE: Final = re.compile(r'["\\]')
_NAME_KEY: Final = re.compile(r'"name"\s*+:\s*+"')
# Kineto writes the name between `"name": "` and one of these; everything in between is the name.
_AFTER_NAME: Final = re.compile(r'"\s*+(?:,\s*+"(?:ph|cat|pid|tid|ts|dur|id|s|bp|args)"\s*+:|\}\s*+\Z)')
# What follows the quote that ends a string: of a value, and of what may be a key.
_AFTER_VALUE: Final = re.compile(r'\s*+(?:[}\]]|,\s*+(?:["\[{}\]\d\-]|true|false|null|NaN|N/A)|\Z)')
_AFTER_KEY: Final = re.compile(rf"\s*+:|{_AFTER_VALUE.pattern}")


def matches(
    pattern: re.Pattern[AnyStr], text: AnyStr, tick: Callable[[], None], first: int = 0, stop: int = sys.maxsize
) -> Iterator[re.Match[AnyStr]]:
    """Every match between two places of a text, with a tick now and then when it is long."""
    found = pattern.finditer(text, first, stop)
    return found if min(stop, len(text)) - first < TICK_BYTES else _ticking(found, tick)


def _ticking(found: Iterator[re.Match[AnyStr]], tick: Callable[[], None]) -> Iterator[re.Match[AnyStr]]:
    for number, one in enumerate(found):
        if not number & 0xFFF:
            tick()
        yield one


Kind = Literal["repaired", "dropped", "of no use", "closed early", "after the end", "cut off", "corrupt"]


@dataclass(frozen=True)
class Incident:
    """One thing that was wrong. offset counts bytes of the uncompressed text (as UTF-8); text is how it starts there.

    repaired, dropped: malformed, and mended or not. of no use: valid JSON, but not an event, or a span without a time.
    closed early: a `]` in the middle of the list. after the end: events or junk after the end of the trace.
    cut off: the event that the file ends in. corrupt: the compressed data is damaged there.
    """

    kind: Kind
    offset: int
    text: str


@dataclass(frozen=True)
class Piece:
    """Valid JSON: events with commas between them, and where they begin in the file."""

    offset: int
    text: bytes


def shown(data: bytes) -> str:
    """The start of a piece of the file, on one line."""
    return " ".join(data[: 2 * SHOWN_BYTES].decode("utf-8", "replace").split())[:SHOWN_BYTES]


class Salvage:
    """Takes malformed text apart: whole events and mended ones come out as valid JSON, the rest is counted.

    closed: the `]` that ends the list was found; what `take` left then comes after it.
    """

    def __init__(self, decoders: Decoders) -> None:
        self.repaired = 0
        self.dropped = 0
        self.closed = False
        self.incidents: list[Incident] = []
        self._decoders = decoders
        self._pieces: list[Piece] = []
        self._text = b""
        self._phases: list[tuple[int, int]] = []  # of the text, looked for once: where they begin and end
        self._ends: list[tuple[int, int]] = []
        self._anywhere: list[int] = []  # where an event may start in any layout
        self._begun: list[int] = []  # ... and in Kineto's
        self._offset = 0
        self._last = False

    def notes(self, offset: int) -> bool:
        """Whether something at this place is among the first few."""
        return len(self.incidents) < MOST_INCIDENTS or offset < self.incidents[-1].offset

    def note(self, kind: Kind, offset: int, data: bytes) -> None:
        """Remember what was wrong where: what is first in the file."""
        if self.notes(offset):
            bisect.insort(self.incidents, Incident(kind, offset, shown(data)), key=lambda one: one.offset)
            del self.incidents[MOST_INCIDENTS:]

    def take(self, text: bytes, offset: int, *, last: bool) -> tuple[list[Piece], int]:
        """Save the events in `text`; return them, and how many bytes are done with, all of them when `last`.

        offset: where the text begins in the file. Unless it is the `last`, the text from the last start of an event on
        is left, since that event may go on.
        """
        self._text, self._offset, self._last = text, offset, last
        self._phases = [found.span() for found in matches(PHASE, text, self._decoders.tick)]
        self._ends = [found.span() for found in matches(_END, text, self._decoders.tick)]
        anywhere = self._anywhere = self._starts(_ANY_START)
        starts = self._starts(_KINETO_START) or anywhere
        stop = len(text) if last else starts[-1] if starts else 0
        first = starts[0] if starts else stop
        before = anywhere[: bisect.bisect_left(anywhere, first)]  # events of another layout, where files were joined
        self._begun = sorted({*anywhere, *starts})
        self._drop(0, before[0] if before else first)
        done = self._take_pieces(before, first)
        if not self.closed:
            done = self._take_pieces([start for start in starts if start < stop], stop)
        self._text, self._phases, self._ends, self._anywhere, self._begun = b"", [], [], [], []
        pieces, self._pieces = self._pieces, []
        return pieces, done

    def _take_pieces(self, starts: list[int], stop: int) -> int:
        """Take the events that begin at `starts`, as many at once as the decoder accepts; return where it ended."""
        ends = [*starts[1:], stop]
        at, run = 0, 1
        while at < len(starts):
            upto = min(at + run, len(starts))
            if self._whole(starts[at], ends[upto - 1]):
                at, run = upto, 2 * run
            elif run > 1:
                run //= 2
            else:
                at, end = self._take_broken(starts, ends, at)
                if self.closed:
                    return end
        return stop

    def _whole(self, first: int, stop: int) -> bool:
        self._decoders.tick()
        piece = self._text[first:stop].rstrip(BLANK)
        count = values_in(b"[" + piece + b"]", self._decoders)
        if count < 0:
            return False
        begun = bisect.bisect_right(self._begun, first)
        several = begun < len(self._begun) and self._begun[begun] < stop
        if several and self._phases_between(first, stop) > count and self._events_after(first, stop) >= count:
            return False  # one whose bracket never closes would hold those after it
        self._pieces.append(Piece(self._offset + first, piece))
        return True

    def _take_broken(self, starts: list[int], ends: list[int], at: int) -> tuple[int, int]:
        """Take the event at starts[at], which is not whole up to the next start; return the next start and place.

        What looked like the next event may be an object inside this one: then it has no phase, or the text up to a
        later start is whole.
        """
        first = starts[at]
        later = range(at + 1, min(at + _TRIED_STARTS, len(starts)))
        for upto in later if later and self._may_go_on(first, ends[at]) else ():
            if self._whole(first, ends[upto]):
                return upto + 1, ends[upto]
        end = first + closing_bracket(self._text[first : ends[at]], self._decoders.tick) + 1 if not later else first
        if first < end < ends[at] and self._list_ends(end, ends[at]) and self._whole(first, end):
            return at + 1, self._take_behind(first, end, ends[at])
        if _PHASE_KEY.search(self._text, first, ends[later[-1] if later else at]):
            inside = [upto for upto in later if not self._two_events(first, ends[upto])]
            for upto in (*inside[-1:], at):
                if not self._two_events(first, ends[upto]) and self._mend(first, ends[upto]):
                    return upto + 1, ends[upto]
        return at + 1, self._take_alone(first, ends[at])

    def _may_go_on(self, first: int, stop: int) -> bool:
        """Whether the text is the beginning of valid JSON, so that more of it may make it whole."""
        try:
            self._decoders.texts(b"[" + self._text[first:stop])
        except msgspec.ValidationError:
            return True
        except msgspec.DecodeError as error:
            return "truncated" in str(error)
        except NOT_JSON:  # bad UTF-8 and deep nesting do not say
            return True
        return True

    def _take_alone(self, first: int, stop: int) -> int:
        """Take one event that ends somewhere before `stop`, and what else may be there; return where it ended."""
        short = stop - first < _LEAST_BYTES
        end = first if short else first + closing_bracket(self._text[first:stop], self._decoders.tick) + 1
        if first < end < stop and (self._whole(first, end) or self._mend(first, end)):
            return self._take_behind(first, end, stop)
        endings = self._endings(first)
        for begin, end in endings:
            if self._mend(first, begin + 1):
                self.closed = True
                return end
        inner = self._inside(first + 1, stop)
        if inner:
            if not self._mend(first, inner[0]):
                self._drop(first, inner[0])
            return self._take_pieces(inner, stop)
        if endings:
            self._drop(first, endings[0][0] + 1)
            self.closed = True
            return endings[0][1]
        end = self._text.rfind(b"}", first, stop) + 1
        if end and self._mend(first, end):
            return self._take_behind(first, end, stop)
        self._drop(first, stop)
        return stop

    def _endings(self, first: int) -> list[tuple[int, int]]:
        """Where the list may be closed after the event at `first`: the place of the `}` and the one after the `]`."""
        after = bisect.bisect_right(self._begun, first)
        if after < len(self._begun) and self._phases and self._phases[-1][0] > self._begun[after]:
            return []  # another event follows
        at = bisect.bisect_left(self._ends, (first, 0))
        return self._ends[at : at + _TRIED_STARTS]

    def _list_ends(self, end: int, stop: int) -> re.Match[bytes] | None:
        """The brackets that close the list right after an event's end."""
        found = _CLOSE_LIST.match(self._text, end, stop)
        return found if found and self._is_end(found) else None

    def _take_behind(self, first: int, end: int, stop: int) -> int:
        """Look at what is between a whole event and the next: the end of the list, or what does not belong there."""
        ending = self._list_ends(end, stop) if PHASE.search(self._text, first, end) else None
        ending = ending or self._ends_behind_junk(end, stop)
        if ending:
            self._drop(end, ending.start(1))
            for closing in itertools.pairwise(CLOSING.finditer(ending[0])):
                self.closed_early(self._offset + ending.start() + closing[0].start())
            self.closed = True
            return ending.end()
        early = _CLOSE_LIST.match(self._text, end, stop)
        if early:
            self.closed_early(self._offset + early.start(1))
            end = early.start(1) + 1
        inner = self._inside(end, stop)
        self._drop(end, inner[0] if inner else stop)
        return self._take_pieces(inner, stop) if inner else stop

    def closed_early(self, place: int) -> None:
        """Count a `]` at this place of the text that does not close the list."""
        self.repaired += 1
        self.note("closed early", place, b"]")

    def _ends_behind_junk(self, first: int, stop: int) -> re.Match[bytes] | None:
        """The brackets that close the list although it is not an event that ends there: only where no event follows."""
        if not self._last or (self._phases and self._phases[-1][0] >= first):
            return None
        closings = matches(CLOSINGS, self._text, self._decoders.tick, first, stop)
        return next((found for found in closings if self._is_end(found)), None)

    def _is_end(self, closings: re.Match[bytes]) -> bool:
        return ends_list(self._text[closings.end() : closings.end() + LOOK_BYTES])

    def _inside(self, first: int, stop: int) -> list[int]:
        """Where an event may start between two places, in any layout."""
        return self._anywhere[bisect.bisect_left(self._anywhere, first) : bisect.bisect_left(self._anywhere, stop)]

    def _starts(self, pattern: re.Pattern[bytes]) -> list[int]:
        """Where an event may start: not right after a colon, where a value inside one starts."""
        text, starts = self._text, []
        for match in matches(pattern, text, self._decoders.tick):
            at = match.start()
            while at and text[at - 1] in b" \t\r\n":
                at -= 1
            if text[at - 1 : at] != b":":
                starts.append(match.start())
        return starts

    def _two_events(self, first: int, stop: int) -> bool:
        second = bisect.bisect_left(self._phases, (first, 0)) + 1
        return second < len(self._phases) and self._phases[second][1] <= stop

    def _events_after(self, first: int, stop: int) -> int:
        """How many starts after the first one are of whole events, and not of an object with a phase inside one."""
        begun = self._begun[bisect.bisect_right(self._begun, first) : bisect.bisect_left(self._begun, stop)]
        return sum(
            1
            for at, end in itertools.pairwise((*begun, stop))
            if PHASE.search(self._text, at, end) and _PLACE_KEY.search(self._text, at, end)
        )

    def _phases_between(self, first: int, stop: int) -> int:
        return bisect.bisect_right(self._phases, (stop, 0)) - bisect.bisect_left(self._phases, (first, 0))

    def _mend(self, first: int, stop: int) -> bool:
        if not _PHASE_KEY.search(self._text, first, stop):
            return False
        piece = self._text[first:stop].rstrip(BLANK)
        mended = mend(piece, self._decoders)
        if mended is None:
            return False
        self._pieces.append(Piece(self._offset + first, mended))
        self.repaired += 1
        self.note("repaired", self._offset + first, piece)
        return True

    def _drop(self, first: int, stop: int) -> None:
        """Count what cannot be read; not the event that a file ends in the middle of."""
        junk = self._text[first:stop].lstrip(BLANK)
        first = stop - len(junk)
        if not junk.strip(BLANK + b"[]{}"):
            return
        if (
            self._last
            and stop == len(self._text)
            and junk.startswith(b"{")
            and closing_bracket(junk, self._decoders.tick) < 0
        ):
            self.note("cut off", self._offset + first, junk)
            return
        self.dropped += 1
        self.note("dropped", self._offset + first, junk)


def closing_bracket(text: bytes, tick: Callable[[], None] = nothing) -> int:
    """Position of the bracket that closes the one `text` starts with; -1 when it has not come."""
    depth = 0
    for found in matches(_TOKEN, text, tick):
        token = text[found.start()]
        if token in _OPEN:
            depth += 1
        elif token in _CLOSE:
            depth -= 1
            if depth <= 0:
                return found.start()
    return -1


def ends_list(rest: bytes) -> bool:
    """Whether a `]` followed by `rest` closes the list of events: the object goes on or ends, or the file does."""
    return _AFTER_LIST.match(rest) is not None


def is_json(text: bytes) -> bool:
    """Whether it is one JSON value."""
    try:
        msgspec.json.decode(text)
    except NOT_JSON:
        return False
    return True


def is_valid(block: bytes, decoders: Decoders) -> bool:
    """Whether the loader can decode this JSON list, odd types and all."""
    return values_in(block, decoders) >= 0


def values_in(block: bytes, decoders: Decoders) -> int:
    """How many values this JSON list has; -1 when the loader cannot decode it."""
    try:
        return len(decoders.texts(block))
    except msgspec.ValidationError:
        try:
            return len(decoders.of_odd_types(block))
        except NOT_JSON:
            return -1
    except NOT_JSON:
        return -1


def mend(piece: bytes, decoders: Decoders) -> bytes | None:
    """`piece` as the valid JSON of one event, changed as little as possible; None when nothing helps."""
    if len(piece) > MEND_BYTES or not piece.endswith(b"}"):
        return None
    text = piece.decode("utf-8", "replace")
    for candidate in _candidates(text, decoders.tick):
        decoders.tick()
        mended = _mend_tokens(candidate).encode("utf-8", "replace")
        try:
            events = decoders.loosely(b"[" + mended + b"]")
        except NOT_JSON:
            continue
        if len(events) == 1 and len(events[0].ph) == 1 and (events[0].name or '"name"' not in text):
            return mended
    return None


def _candidates(text: str, tick: Callable[[], None]) -> Iterator[str]:
    """The text, and what it may have been before its strings were written as they are."""
    yield text
    named = _mend_name(text)
    if named != text:
        yield named
    mended = _mend_strings(named, tick)
    if mended != named:
        yield mended
    if named != text:
        yield _mend_strings(text, tick)


def _mend_tokens(text: str) -> str:
    """Mend what is not JSON outside of strings, and in them control characters and halves of surrogate pairs."""
    parts = _STRING.split(text)
    strings = parts[1::2]
    inside = "".join(strings)
    if _CONTROL.search(inside) or "\\u" in inside:
        strings = [_SURROGATE.sub(r"\\ufffd", _CONTROL.sub(" ", string)) for string in strings]
    outside = _COMMA.sub("", '"'.join(parts[::2]))  # a quote stands for each string
    if _LETTER.search(outside):
        outside = _BARE.sub(_mend_word, outside)
    parts[::2], parts[1::2] = _CONTROL_BETWEEN.sub(" ", outside).split('"'), strings
    return "".join(parts)


def _mend_word(found: re.Match[str]) -> str:
    word = found[0].lower()
    return word if word in ("true", "false") else "null"


def _mend_name(text: str) -> str:
    """Escape what is inside the name."""
    key = _NAME_KEY.search(text)
    end = _AFTER_NAME.search(text, key.end()) if key else None
    if key is None or end is None:
        return text
    name = text[key.end() : end.start()].replace("\\", "\\\\").replace('"', '\\"')
    return text[: key.end()] + name + text[end.start() :]


def _mend_strings(text: str, tick: Callable[[], None]) -> str:
    """Escape lone backslashes, and each quote inside a string that is not followed by what may follow its end."""
    out: list[str] = []
    done = 0
    inside = False
    ends = _AFTER_KEY
    escaped = -1
    for found in matches(_QUOTE, text, tick):
        at = found.start()
        if at == escaped:
            continue
        lone = False
        if found[0] == "\\":
            follows = _ESCAPE.match(text, at + 1) if inside else None
            lone = inside and follows is None
            escaped = at + 1 if follows else -1
        elif not inside:
            # after a bracket or comma a string may be a key; anywhere else it is a value
            inside, ends = True, _AFTER_KEY if text[done:at].rstrip()[-1:] in ("{", ",") else _AFTER_VALUE
            out.append(text[done:at])
            done = at
        elif ends.match(text, at + 1):
            inside = False
        else:
            lone = True
        if lone:
            out += (text[done:at], "\\")
            done = at
    return "".join((*out, text[done:]))
