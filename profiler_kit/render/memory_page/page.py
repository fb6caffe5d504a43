"""The memory page: one HTML file that shows a snapshot with no network.

The allocations travel as columns (byte planes, gzip, base64) that the page unpacks into typed arrays; everything it
draws it computes from them. The page may load nothing: its content policy allows its own script and style, by hash.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from profiler_kit.render.html import page
from profiler_kit.render.memory_page.pack import pack

if TYPE_CHECKING:
    from profiler_kit.snapshot import Snapshot

FOLDER: Final = Path(__file__).parent
SCRIPTS: Final = (
    "unpack.js",
    "format.js",
    "theme.js",
    "stacks.js",
    "device.js",
    "layers.js",
    "heap.js",
    "moment.js",
    "axis.js",
    "chart.js",
    "marks.js",
    "lines.js",
    "flame.js",
    "segments.js",
    "elements.js",
    "detail.js",
    "tables.js",
    "views.js",
    "link.js",
    "main.js",
    "input.js",
)


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
        style=(FOLDER / "page.css").read_text(encoding="utf-8"),
        script="\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS),
        title=title,
        data=Markup(base64.b64encode(pack(snapshot, title, device)).decode("ascii")),
    )
