"""How the browser tests wait and point: until the page shows what they assert, and at what the timeline has drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from playwright.sync_api import Browser, Locator, Page, Position, ViewportSize, expect

PATIENCE_MS = 300_000  # only a page that hangs gets there: other work may hold the machine
_POLL_MS = 20


def new_page(browser: Browser, width: int = 1280, height: int = 900, **options: Any) -> Page:
    """A page of a fresh profile; close its context when it is done with."""
    context = browser.new_context(viewport=ViewportSize(width=width, height=height), reduced_motion="reduce", **options)
    context.set_default_timeout(PATIENCE_MS)
    return context.new_page()


def becomes(page: Page, read: Callable[[], object], expected: object) -> None:
    """Wait until what is read equals what is expected; a page acts when its turn comes, late on a busy machine."""
    found = read()
    for _ in range(PATIENCE_MS // _POLL_MS):
        if found == expected:
            return
        page.wait_for_timeout(_POLL_MS)
        found = read()
    assert found == expected, f"found {found!r}, expected {expected!r}"


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    becomes(page, holds, True)


def settle(page: Page) -> None:
    """Wait until the script of a page of the dashboard has run to its end, without an exception."""
    still = '[data-test-script-state="notRunning"][data-test-connection-state="CONNECTED"]'
    expect(page.locator(f'[data-testid="stApp"]{still}')).to_have_count(1)
    assert page.locator('[data-testid="stException"]').all_inner_texts() == []
    expect(page.locator("h1").first).to_be_visible()


def cells(page: Page, column: int = 1) -> list[str]:
    """The texts of a column of the first table, which is drawn: read where screen readers do."""
    found = page.locator('[data-testid="stDataFrame"]').first.locator(f'td[aria-colindex="{column}"]')
    return [text.strip() for text in found.all_text_contents()]


# ---- the timeline


def the_canvas(page: Page) -> Locator:
    return page.locator("canvas[aria-label]")


def view(canvas: Locator) -> tuple[float, float]:
    """The times between which the picture was drawn last, in ns of the timeline."""
    first, last = canvas.evaluate("c => [Number(c.dataset.t0), Number(c.dataset.t1)]")
    return first, last


def width(canvas: Locator) -> float:
    first, last = view(canvas)
    return last - first


def marked(canvas: Locator) -> list[float]:
    """The range the picture marks, in ns of the timeline."""
    return [float(part) for part in (canvas.get_attribute("data-range") or "").split(",") if part]


def answered(page: Page) -> None:
    """Wait until the server has answered the last selection, and the answer is drawn."""
    canvas = the_canvas(page)
    expect(canvas).to_have_count(1)  # that of the run shown before is gone
    until(
        page,
        lambda: canvas.evaluate(
            "c => { const one = c.closest('.tl').timeline; return one.answered === one.number && !one.frame; }"
        ),
    )
    settle(page)


def place(canvas: Locator, label: str, time_ns: float) -> Position:
    """Where a time is on the first row of a lane. What clicks or hovers there waits until the canvas stays put."""
    x, y = canvas.evaluate(
        "(c, [label, time]) => { const one = c.closest('.tl').timeline, { tracks, rows } = one.lanes;"
        " const row = rows[tracks.find(track => track.label === label).first];"
        " return [one.x(time), row.y + row.height / 2]; }",
        [label, time_ns],
    )
    return Position(x=x, y=y)


def drag(page: Page, first: float, last: float, *, y: float = 60, shift: bool = True) -> tuple[float, float]:
    """Shift-drag over those shares of the plot; returns what the drag covers, in ns of the timeline."""
    canvas = the_canvas(page)
    gutter, plot, t0, t1 = canvas.evaluate(
        "c => { const { gutter, plot, view } = c.closest('.tl').timeline; return [gutter, plot, view.t0, view.t1]; }"
    )
    canvas.focus()
    if shift:
        page.keyboard.down("Shift")
    canvas.hover(position=Position(x=gutter + plot * first, y=y))
    page.mouse.down()
    canvas.hover(position=Position(x=gutter + plot * last, y=y))
    page.mouse.up()
    if shift:
        page.keyboard.up("Shift")
    return t0 + first * (t1 - t0), t0 + last * (t1 - t0)
