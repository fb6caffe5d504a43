"""The memory page: one HTML file that shows a snapshot with no network.

The allocations travel as columns (byte planes, gzip, base64) that the page unpacks into typed arrays; everything it
draws it computes from them. The page may load nothing: its content policy allows its own script and style, by hash.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from profiler_kit.render.html import page
from profiler_kit.render.memory_page.pack import pack

if TYPE_CHECKING:
    from profiler_kit.snapshot import Snapshot

FOLDER: Final = Path(__file__).parent
ENTRY: Final = "input.js"  # the module that starts the page; the others are those it imports
_IMPORT: Final = re.compile(r'import \{[^}]*\} from "\./([\w-]+\.js)";\n')


def memory_page(snapshot: Snapshot, title: str, *, device: int | None = None) -> str:
    """A self-contained page with every device of the snapshot; `device` is shown first.

    Without it the first one shown is the one with the highest peak. Text of the snapshot reaches the page inside the
    packed data only, and the script writes it as text.

    Raises OptionError for an unknown device.
    """
    if device is None:
        device = max(snapshot.devices, key=lambda one: int(snapshot.replay(one).allocated_bytes.max()), default=None)
    else:
        snapshot.require_device(device)
    return page(
        "memory_page.html.j2",
        style=_read("page.css"),
        script=bundle(),
        title=title,
        data=Markup(base64.b64encode(pack(snapshot, title, device)).decode("ascii")),
    )


def modules(name: str = ENTRY, seen: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The modules that one needs, in the order in which a browser runs them: what is imported comes first."""
    if name in seen:
        return seen
    before = (*seen, name)  # a module that leads back to this one does not wait for it
    for needed in _IMPORT.findall(_read(name)):
        before = modules(needed, before)
    return (*(one for one in before if one != name), name)


def bundle() -> str:
    """Every module of the page as one script: their names are unique, so that imports and exports can go."""
    parts = (_IMPORT.sub("", _read(name)).replace("\nexport ", "\n") for name in modules())
    return '"use strict";\n' + "\n".join(parts)


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
