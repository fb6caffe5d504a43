"""Decode blocks of trace events: JSON bytes in, typed Event objects out, naming only the fields that are kept."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct, field

MISSING: Final = -(1 << 63)  # stands for an absent integer in numpy columns, which have no nulls
NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # bad UTF-8 is no DecodeError
_NO_TEXT: Final = Raw(b"0")


class Arguments(Struct, gc=False, frozen=True):
    """`args` of an event. Names are Kineto's (libkineto/src/output_json.cpp)."""

    correlation: int = MISSING
    external_id: int = field(default=MISSING, name="External id")
    device: int = MISSING
    stream: int | str = MISSING
    sequence_number: int = field(default=MISSING, name="Sequence number")
    forward_thread: int = field(default=MISSING, name="Fwd thread id")
    python_id: int | None = field(default=MISSING, name="Python id")
    python_parent_id: int | None = field(default=MISSING, name="Python parent id")
    bytes: int | float | str = MISSING
    name: str = ""
    labels: str = ""


_NO_ARGUMENTS: Final = Arguments()


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


class FloatEvent(Event, gc=False):
    """An Event whose time stamp is decoded as a float: exact below 2**43 us."""

    ts: float = 0.0


class TextEvent(Event, gc=False):
    """An Event whose time stamp keeps its decimal text."""

    ts: Raw = _NO_TEXT


_FLOATS: Final = msgspec.json.Decoder(list[FloatEvent])
_TEXTS: Final = msgspec.json.Decoder(list[TextEvent])
_VALUES: Final = msgspec.json.Decoder(list[Raw])
_OBJECT: Final = msgspec.json.Decoder(dict[str, Raw])
_ANY: Final = msgspec.json.Decoder()
_FIELDS: Final = {f.encode_name: f for f in msgspec.structs.fields(Arguments)}


def decode_floats(block: bytes | memoryview) -> list[FloatEvent]:
    """Decode a JSON list of events.

    Raises msgspec.ValidationError on a field of another type, and one of NOT_JSON when the block is no JSON list.
    """
    return _FLOATS.decode(block)


def decode_texts(block: bytes | memoryview) -> list[TextEvent]:
    """As decode_floats, with time stamps as text."""
    return _TEXTS.decode(block)


def decode_loosely(block: bytes) -> list[TextEvent]:
    """Decode a JSON list of anything, one value at a time.

    A field of an odd type is kept where it can be converted and left out where not; a value that is no object
    becomes an Event without a phase. Raises one of NOT_JSON when the block is no JSON list.
    """
    return [_loose(raw) for raw in _VALUES.decode(block)]


def _loose(raw: Raw) -> TextEvent:
    try:
        return msgspec.json.decode(raw, type=TextEvent)
    except NOT_JSON:
        pass
    try:
        fields = _OBJECT.decode(raw)
    except NOT_JSON:
        return TextEvent()
    return TextEvent(
        ph=_text(_value(fields, "ph")),
        cat=_text(_value(fields, "cat")),
        name=_text(_value(fields, "name")),
        pid=_key(_value(fields, "pid")),
        tid=_key(_value(fields, "tid")),
        ts=fields.get("ts", _NO_TEXT),
        dur=_float(_value(fields, "dur")),
        id=_key(_value(fields, "id")),
        args=_arguments(_value(fields, "args")),
    )


def _value(fields: dict[str, Raw], key: str) -> Any:
    try:
        return _ANY.decode(fields[key]) if key in fields else None
    except NOT_JSON:  # a number out of range
        return None


def _arguments(values: Any) -> Arguments:
    if not isinstance(values, dict):
        return _NO_ARGUMENTS
    kept: dict[str, Any] = {}
    for encoded, wanted in _FIELDS.items():
        value = values.get(encoded)
        if value is not None:  # columns.py turns what is no integer into MISSING
            kept[wanted.name] = _text(value) if wanted.type is str else value
    return Arguments(**kept)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _key(value: Any) -> int | str:
    if isinstance(value, int | str):
        return value
    return MISSING if value is None else str(value)


def _float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return -1.0
