"""notes.json of a run folder: what people wrote about a part of a run, and the page and selection it is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from profiler_kit.errors import OptionError
from profiler_kit.files import write_json
from profiler_kit.formats.checked import FORMAT, Count, read_as

NOTES: Final = "notes.json"
MOST: Final = 500
MOST_LETTERS: Final = 4000
_HINT: Final = "Rename it to go on without its notes."


@dataclass(frozen=True)
class Note:
    """One note. page: of the dashboard; at: what its address selects there, such as {"region": "outer > inner"}."""

    text: str
    created: str
    page: str = ""
    at: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Notes:
    notes: tuple[Note, ...] = ()
    format: Count = FORMAT


def read_notes(folder: Path) -> tuple[Note, ...]:
    """The notes of a run folder, the oldest first; raises RunFormatError when the file is none of notes."""
    if not (folder / NOTES).is_file():
        return ()
    return read_as(folder / NOTES, _Notes, "the notes of a run", _HINT).notes


def add_note(folder: Path, text: str, page: str = "", at: Mapping[str, str] | None = None) -> None:
    """Write one more note; raises OptionError when there are too many or it is too long, OutputError as it does."""
    found = read_notes(folder)
    if len(text) > MOST_LETTERS or len(found) >= MOST:
        raise OptionError(
            f"{folder / NOTES}: found {len(found)} notes and one of {len(text)} letters, expected at most {MOST} of "
            f"{MOST_LETTERS} letters each. Shorten it, or take another one away."
        )
    new = Note(text, datetime.now(UTC).isoformat(timespec="seconds"), page, dict(at or {}))
    write_json(folder / NOTES, dataclasses.asdict(_Notes((*found, new))))


def remove_note(folder: Path, note: Note) -> None:
    """Take a note away; nothing happens when it is gone already."""
    found = tuple(one for one in read_notes(folder) if one != note)
    write_json(folder / NOTES, dataclasses.asdict(_Notes(found)))
