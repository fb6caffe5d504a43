"""Decode blocks of trace events to typed objects that name only the fields that are kept."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec
from msgspec import Raw, Struct, field

from profiler_kit.load.integers import MISSING

NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # bad UTF-8 is not a DecodeError
TICK_EVENTS: Final = 1 << 10
ABSENT: Final = Raw(b"")  # the text of an argument that an event does not have
_NO_TEXT: Final = Raw(b"")
COLLECTIVE: Final = "Collective name"  # of a kernel or an operator that communicates


class Arguments(Struct, gc=False, frozen=True):
    """`args` of an event. Names are Kineto's (libkineto/src/output_json.cpp)."""

    correlation: int = MISSING
    external_id: int = field(default=MISSING, name="External id")
    older_external_id: int = field(default=MISSING, name="external id")  # up to torch 1.12
    device: int = MISSING
    stream: int | str = MISSING
    sequence_number: int = field(default=MISSING, name="Sequence number")
    forward_thread: int = field(default=MISSING, name="Fwd thread id")
    python_id: int | None = field(default=MISSING, name="Python id")
    python_parent_id: int | None = field(default=MISSING, name="Python parent id")
    bytes: int | float | str = MISSING
    name: str = ""
    labels: str = ""
    collective: str = field(default="", name=COLLECTIVE)


_NO_ARGUMENTS: Final = Arguments()
OLDER_KEYS: Final = {"Input Dims": "Input dims"}  # up to torch 1.8
KEPT_ARGUMENTS: Final = frozenset(f.encode_name for f in msgspec.structs.fields(Arguments)) - {COLLECTIVE}


class Event(Struct, gc=False):
    """One entry of `traceEvents`; `ts` and `dur` in microseconds."""

    ph: str = ""
    cat: str = ""
    name: str = ""
    pid: int | str = MISSING
    tid: int | str = MISSING
    ts: Any = 0.0
    dur: float = -1.0
    id: int | str = MISSING
    args: Arguments = _NO_ARGUMENTS


_VALUES: Final = msgspec.json.Decoder(list[Raw])
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_ANY: Final = msgspec.json.Decoder()


def nothing() -> None:
    """Do nothing."""


@functools.lru_cache(8)  # as long as it takes to read a small file
def _made_for(
    extra: tuple[str, ...],
) -> tuple[type[Arguments], type[Event], msgspec.json.Decoder[list[Event]], msgspec.json.Decoder[list[Event]]]:
    """The types of arguments with these too, and of an event that has them and `ts` as text; decoders of lists of
    events, with `ts` as a float and as text.
    """
    fields: list[tuple[str, Any, Any]] = [
        (f"extra_{number}", Raw, field(default=ABSENT, name=key)) for number, key in enumerate(extra)
    ]
    fields += [
        (f"older_{number}", Raw, field(default=ABSENT, name=OLDER_KEYS[key]))
        for number, key in enumerate(extra)
        if key in OLDER_KEYS and OLDER_KEYS[key] not in extra
    ]
    if COLLECTIVE in extra:  # two fields of one key cannot be: the builder takes what it needs from the extra one
        fields.append(("collective", str, field(default="", name="(in the extra one)")))
    with_extra = msgspec.defstruct("Arguments", fields, bases=(Arguments,), gc=False, frozen=True)
    arguments = cast("type[Arguments]", with_extra) if extra else Arguments
    with_arguments = ("args", arguments, arguments())
    floats = msgspec.defstruct("FloatEvent", [("ts", float, math.nan), with_arguments], bases=(Event,), gc=False)
    texts = msgspec.defstruct("TextEvent", [("ts", Raw, _NO_TEXT), with_arguments], bases=(Event,), gc=False)
    return (
        arguments,
        cast("type[Event]", texts),
        msgspec.json.Decoder(list[floats]),  # type: ignore[valid-type]  # made at run time
        msgspec.json.Decoder(list[texts]),  # type: ignore[valid-type]  # made at run time
    )


@functools.lru_cache(8)
def _fields_of(arguments: type[Arguments]) -> dict[str, Any]:
    return {f.encode_name: f for f in msgspec.structs.fields(arguments)}


class Decoders:
    """Decoders of a JSON list of events that keep the usual arguments, and those asked for.

    tick: is called often during long work, and may raise to end it.

    extra: keys of `args` as Kineto writes them ("Input Dims"); their JSON text is kept in the fields `extra_0`,
    `extra_1`, ... of Arguments. Asking for none costs nothing.
    """

    def __init__(self, extra: Sequence[str] = ()) -> None:
        self.extra = tuple(extra)
        self.tick: Callable[[], None] = nothing
        self._arguments, self._text_event, self._floats, self._texts = _made_for(self.extra)

    def floats(self, block: bytes | memoryview) -> list[Event]:
        """Decode events with `ts` as a float: exact below 2**43 us.

        Raises msgspec.ValidationError on a field of another type, and one of NOT_JSON unless the block is a JSON list.
        """
        return self._floats.decode(bytes(block) if self.extra else block)  # a Raw would keep the buffer from growing

    def texts(self, block: bytes | memoryview) -> list[Event]:
        """As `floats`, with `ts` as decimal text."""
        return self._texts.decode(bytes(block))

    def loosely(self, block: bytes | memoryview) -> list[Event]:
        """Decode a JSON list of anything, one value at a time, with `ts` as decimal text.

        A field of an odd type is kept if it can be converted, else left out; a value that is not an object becomes an
        Event without a phase. Raises one of NOT_JSON unless the block is a JSON list.
        """
        values = _VALUES.decode(bytes(block))
        parts = [values[at : at + TICK_EVENTS] for at in range(0, len(values), TICK_EVENTS)]
        return [event for part in parts for event in self._loose_part(part)]

    def of_odd_types(self, block: bytes | memoryview) -> list[Event]:
        """The same of a block in which a field has an odd type, all of which has to be UTF-8."""
        bytes(block).decode()
        return self.loosely(block)

    def _loose_part(self, values: list[Raw]) -> list[Event]:
        self.tick()
        return [self._loose(value) for value in values]

    def _loose(self, raw: Raw) -> Event:
        try:
            return msgspec.json.decode(raw, type=self._text_event)
        except NOT_JSON:
            pass
        try:
            fields = _OBJECT.decode(raw)
        except NOT_JSON:
            return self._text_event()
        return self._text_event(
            ph=_text(_value(fields, "ph")),
            cat=_text(_value(fields, "cat")),
            name=_text(_value(fields, "name")),
            pid=_key(_value(fields, "pid")),
            tid=_key(_value(fields, "tid")),
            ts=fields.get("ts", _NO_TEXT),
            dur=_float(_value(fields, "dur")),
            id=_key(_value(fields, "id")),
            args=self._loose_arguments(fields.get("args")),
        )

    def _loose_arguments(self, raw: Raw | None) -> Arguments:
        try:
            values = _OBJECT.decode(raw) if raw is not None else {}
        except NOT_JSON:
            values = {}
        kept: dict[str, Any] = {}
        for encoded, wanted in _fields_of(self._arguments).items():
            if wanted.type is Raw:
                kept[wanted.name] = values.get(encoded, ABSENT)
                continue
            value = _value(values, encoded)
            if value is not None:  # column_builder.py turns what is not an integer into MISSING
                kept[wanted.name] = _text(value) if wanted.type is str else value
        return self._arguments(**kept)


def _value(fields: dict[str, Raw], key: str) -> Any:
    try:
        return _ANY.decode(fields[key]) if key in fields else None
    except NOT_JSON:  # a number out of range
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _key(value: Any) -> int | str:
    if isinstance(value, int | str):
        return int(value) if isinstance(value, bool) else value
    return MISSING if value is None else str(value)


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return -1.0
