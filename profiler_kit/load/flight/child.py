"""Read dumps of the flight recorder, named on standard input, in a process of its own; write a line of JSON for each.

Runs as a script (reader.py starts it), under limits of memory and time, with an unpickler that refuses every global: a
hostile pickle can at most kill this process. Imports only the standard library.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from typing import IO, Any, Final

EXPECTED: Final = "expected a dump of torch's flight recorder (plain dicts, lists, numbers and strings)"
TEXT_LENGTH: Final = 512
MOST_ENTRIES: Final = 512  # the last ones of each rank
_FIRST: Final = "0"  # number and name of the group of all ranks
_TIMES: Final = ("time_created_ns", "time_discovered_started_ns", "time_discovered_completed_ns")


class Refused(Exception):
    """It is not a dump; the message ends the line "<path>: "."""


class PlainUnpickler(pickle.Unpickler):
    """Builds dicts, lists, tuples, numbers and strings; anything that names code is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise Refused(f"the pickle asks for the global {_text(module)}.{_text(name)}, {EXPECTED}. Nothing was run")

    def persistent_load(self, pid: Any) -> Any:
        raise Refused(f"the pickle holds a persistent id, {EXPECTED}")


def read(file: IO[bytes]) -> dict[str, Any]:
    """A dump as plain JSON: config (name, description, ranks), status (last sequences), entries, and whether these are
    all from the first one on; raises Refused.

    torch numbers groups in pg_status as the process made them (pg_id), and names them everywhere else.
    """
    head = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")
    file.seek(0)
    try:
        found = json.load(file) if head[:1] in (b"{", b"[") else PlainUnpickler(file).load()
    except (Refused, MemoryError):
        raise
    except Exception as error:  # whatever a broken pickle does to the unpickler
        raise Refused(f"no pickle and no JSON that can be read ({type(error).__name__}), {EXPECTED}") from None
    if not isinstance(found, dict) or not isinstance(found.get("entries"), list):
        names = sorted(map(_text, found))[:8] if isinstance(found, dict) else type(found).__name__
        raise Refused(f"it has no list of entries (found {names}), {EXPECTED}")
    entries = [one for one in found["entries"][-MOST_ENTRIES:] if isinstance(one, dict)]
    numbered = [one for one in map(_entry, entries) if one[1] is not None or (one[3] and one[2] is not None)]
    if entries and not numbered:
        raise Refused(f"none of its {len(entries)} entries has a number (collective_seq_id or seq_id), {EXPECTED}")
    named = {_text(one.get("pg_id")): _name(one) for one in entries}
    return {
        "rank": _integer(found.get("rank")),
        "config": [
            [_text(name), _text(one.get("desc")), _ranks(one.get("ranks"))]
            for name, one in _objects(found, "pg_config")
        ],
        "status": [
            [named.get(_text(number), _FIRST), _integer(one.get("last_enqueued_collective"))]
            for number, one in _objects(found, "pg_status")
            if _text(number) in named or _text(number) == _FIRST
        ],
        "whole": len(found["entries"]) == len(numbered) and (not entries or entries[0].get("record_id") == 0),
        "entries": numbered,
    }


def _objects(found: dict[Any, Any], key: str) -> list[tuple[Any, dict[Any, Any]]]:
    held = found.get(key)
    return [(name, one) for name, one in held.items() if isinstance(one, dict)] if isinstance(held, dict) else []


def _entry(one: dict[Any, Any]) -> list[Any]:
    """Group, sequence, sequence of a point to point operation, whether it is one, name, state, sizes, times, line."""
    sizes = json.dumps(
        [one.get(f"{side}_{what}") for side in ("input", "output") for what in ("sizes", "dtypes")], default=_text
    )
    return [
        _name(one),
        _integer(one.get("collective_seq_id", one.get("seq_id"))),
        _integer(one.get("p2p_seq_id")),
        bool(one.get("is_p2p")),
        _text(one.get("profiling_name")),
        _text(one.get("state")),
        sizes[:TEXT_LENGTH],
        *(_integer(one.get(name)) for name in _TIMES),
        _line(one.get("frames")),
    ]


def _name(one: dict[Any, Any]) -> str:
    group = one.get("process_group")
    return _text(group[0] if isinstance(group, (list, tuple)) and group else one.get("pg_name", one.get("pg_id")))


def _line(frames: Any) -> str:
    """The innermost line that is not torch's own."""
    listed = [one for one in frames if isinstance(one, dict)] if isinstance(frames, list) else []
    own = [one for one in listed if "/torch/" not in _text(one.get("filename"))]
    frame = (own or listed or [{}])[0]
    return f"{_text(frame.get('filename'))}:{_text(frame.get('line'))} {_text(frame.get('name'))}" if frame else ""


def _ranks(value: Any) -> list[int]:
    if isinstance(value, str):
        value = [part.strip() for part in value.strip("[]() ").split(",")]
    listed = value if isinstance(value, (list, tuple)) else []
    found = [_integer(int(one) if isinstance(one, str) and one.isascii() and one.isdigit() else one) for one in listed]
    return [one for one in found if one is not None and one >= 0]


def _integer(value: Any) -> int | None:
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _text(value: Any) -> str:
    return str(value)[:TEXT_LENGTH] if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def main() -> None:
    """Arguments: bytes of address space, seconds of CPU time for one file. A name comes as a line of JSON."""
    import resource

    space, seconds = map(int, sys.argv[1:3])
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        path = json.loads(line)
        used = sum(os.times()[:2])
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + seconds, int(used) + seconds + 1))
        try:
            with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes half as long to import as all else
                said = read(file)
        except Refused as refused:
            said = {"error": str(refused)}
        except MemoryError:
            said = {"error": f"reading it takes more than {space >> 20} MiB of memory, {EXPECTED}"}
        except OSError as error:
            said = {"error": f"cannot be read ({error.strerror}), {EXPECTED}"}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
