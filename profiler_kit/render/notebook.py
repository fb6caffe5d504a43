"""Show a whole page in a notebook cell with no network (HTML page -> HTML that `_repr_html_` returns)."""

from __future__ import annotations

import html
from typing import Final

HEIGHT_PX: Final = 720
LARGEST_BYTES: Final = 16 << 20  # a notebook keeps what its cells show, once for every time they ran


def framed(page: str, *, instead: str, height_px: int = HEIGHT_PX, largest_bytes: int = LARGEST_BYTES) -> str:
    """`page` in a frame of its own, cut off from the notebook around it.

    The frame may run the page's scripts and nothing else: it has an origin of its own, so that neither the page nor
    a name in it reaches the notebook. A page above `largest_bytes` (UTF-8) is left out; the cell then shows its size
    and `instead`, plain text that says how to see it ("trace.report('report.html') writes it to a file").
    """
    size = len(page.encode())
    if size > largest_bytes:
        most = f"{largest_bytes / 1e6:.1f} MB"
        note = f"This page takes {size / 1e6:.1f} MB, more than the {most} a notebook should keep."
        return f"<p>{html.escape(f'{note} {instead}')}</p>"
    return (
        f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts allow-downloads allow-popups" '
        f'allow="clipboard-write" style="width:100%;height:{height_px}px;border:0;color-scheme:light dark"></iframe>'
    )
