"""The values that a record may hold, and the one way in which its JSON is read: every value checked, or one line.

A record is written where torch alone is installed, and read where msgspec is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from profiler_kit.errors import RunFormatError
from profiler_kit.files import require_file

try:
    from msgspec import Meta as Meta
except ImportError:

    def Meta(**limits: Any) -> Any:  # type: ignore[no-redef]  # noqa: N802
        """Does nothing: without msgspec no file is read."""


T = TypeVar("T")
FORMAT: Final = 1
MOST: Final = 1 << 53  # what a float still holds exactly: 104 days in nanoseconds, 8 PiB in bytes
Count = Annotated[int, Meta(ge=0, le=MOST)]
Positive = Annotated[int, Meta(ge=1, le=MOST)]
Whole = Annotated[int, Meta(ge=-MOST, le=MOST)]
Amount = Annotated[float, Meta(ge=0, le=MOST)]
Share = Annotated[float, Meta(ge=0, le=1)]
Score = Annotated[float, Meta(ge=-MOST, le=MOST)]


@dataclass(frozen=True)
class _Versioned:
    format: Count = FORMAT


def read_as(path: Path, kind: type[T], what: str, hint: str) -> T:
    """Read a JSON file as that kind of record, every value checked; keys that it does not have are ignored.

    what, hint: what the file should be and how it is made, for the error.

    Raises InputError when there is no such file, RunFormatError when it is not such a record.
    """
    import msgspec

    require_file(path, what, hint)
    try:
        data = path.read_bytes()
        newer = msgspec.json.decode(data, type=_Versioned).format
        if newer > FORMAT:
            raise RunFormatError(
                f"{path}: format {newer}, expected {FORMAT} or less: it was written by a newer profiler_kit. Update "
                "this one."
            )
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())
        raise RunFormatError(f"{path}: {reason}, expected {what}. {hint}") from error
