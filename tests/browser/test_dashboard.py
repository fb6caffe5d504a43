"""The dashboard in a real browser: every page draws, the timeline answers, nothing leaves the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.browser
INK = """canvas => {
    const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set();
    for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) colours.add(pixels.slice(i, i + 3).join());
    return colours.size;
}"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a fresh profile; at the end no request may have left this machine and no script may have failed."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(20_000)
    requests: list[str] = []
    failures: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    context.on("weberror", lambda error: failures.append(str(error.error)))
    yield context.new_page()
    context.close()
    away = [r for r in requests if urlparse(r).scheme in ("http", "https", "ws", "wss")]
    assert away and {urlparse(r).hostname for r in away} == {"127.0.0.1"}
    assert failures == []


def settle(page: Page) -> None:
    expect(page.locator("h1").first).to_be_visible()
    expect(page.locator('[data-testid="stStatusWidget"]')).to_have_count(0)
    expect(page.locator('[data-testid="stException"]')).to_have_count(0)


def canvas_number(page: Page, name: str) -> float:
    return float(page.locator("canvas[aria-label]").get_attribute(f"data-{name}") or "nan")


def timeline(page: Page, url: str, run: str = "gpu") -> None:
    page.goto(f"{url}/regions?run={run}")
    settle(page)
    expect(page.locator("canvas[aria-label]")).to_have_attribute("data-rows", re.compile("[1-9]"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 2560])
def test_the_overview_draws(browser: Browser, url: str, scheme: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 1000}, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{url}/overview?run=gpu")
    settle(page)
    expect(page.locator(".js-plotly-plot")).to_have_count(4)
    expect(page.get_by_text("The GPU was busy")).to_be_visible()
    back = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    red = int(re.findall(r"\d+", back)[0])
    assert red < 60 if scheme == "dark" else red > 200
    context.close()


@pytest.mark.parametrize("name", ["", "overview", "regions", "layers", "memory"])
@pytest.mark.parametrize("run", ["gpu", "host", "bare.json.gz", "broken"])
def test_every_page_of_every_run_has_an_address(page: Page, url: str, name: str, run: str) -> None:
    page.goto(f"{url}/{name}?run={run}")
    settle(page)
    assert f"run={run}" in page.url
    expect(page.locator('[data-testid="stMain"]')).to_contain_text(re.compile(r"[\s\S]{40}"))  # never an empty page


def test_the_run_stays_from_page_to_page_and_in_the_address(page: Page, url: str) -> None:
    page.goto(f"{url}/?run=host")
    settle(page)
    page.get_by_role("link", name="Regions").click()
    expect(page.locator("h1").first).to_have_text("Regions")
    settle(page)
    page.wait_for_url(re.compile(r"/regions\?run=host$"))
    expect(page.locator("canvas[aria-label]")).to_have_attribute("data-rows", re.compile("[1-9]"))


def test_the_timeline_has_pixels_zooms_pans_and_fits(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = page.locator("canvas[aria-label]")
    assert canvas.evaluate(INK) >= 3
    first, last = canvas_number(page, "t0"), canvas_number(page, "t1")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + 60)
    page.mouse.wheel(0, -600)
    expect(canvas).not_to_have_attribute("data-t1", str(last))
    zoomed = canvas_number(page, "t1") - canvas_number(page, "t0")
    assert zoomed < (last - first) * 0.9
    before = canvas_number(page, "t0")
    page.keyboard.press("d")
    canvas.focus()
    page.keyboard.press("d")
    page.wait_for_timeout(200)
    assert canvas_number(page, "t0") > before
    page.get_by_title("Show everything (F)").click()
    page.wait_for_timeout(200)
    assert canvas_number(page, "t1") - canvas_number(page, "t0") >= (last - first) * 0.99


def test_hovering_names_the_kernel(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = page.locator("canvas[aria-label]")
    box = canvas.bounding_box()
    assert box is not None
    for y in range(30, int(box["height"]), 6):
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + y)
        tip = page.locator(".tl .tip")
        if tip.is_visible() and "gemm" in tip.inner_text():
            said = tip.inner_text()
            assert "600.00 µs" in said and "Launch delay" in said and "70.00 µs" in said
            assert "timed region › image encoder" in said
            return
    pytest.fail("no kernel under the pointer")


def test_a_range_selected_on_the_axis_gets_its_kernels(page: Page, url: str) -> None:
    timeline(page, url)
    canvas = page.locator("canvas[aria-label]")
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 8)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 8, steps=4)
    page.mouse.up()
    expect(page.get_by_text(re.compile(r"Kernels in the selected"))).to_be_visible()
    canvas.focus()
    page.keyboard.press("Escape")
    expect(page.get_by_text("Kernels of all regions")).to_be_visible()


def test_files_download_and_the_memory_page_opens(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/memory?run=gpu")
    settle(page)
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Open memory page").first.click()
    expect(popup.value.locator("body")).not_to_be_empty()
    trace = page.request.get(f"{url}/kit/trace?run=gpu")
    assert trace.body()[:2] == b"\x1f\x8b"
    with page.expect_download() as download:
        page.evaluate("location.href = document.querySelector('a[href*=\"/kit/trace\"]').href")
    download.value.save_as(tmp_path / "trace.json.gz")
    assert (tmp_path / "trace.json.gz").read_bytes() == trace.body()


def test_perfetto_opens_the_trace_offline(page: Page, url: str) -> None:
    page.goto(f"{url}/kit/perfetto?run=gpu")
    page.wait_for_selector("body[data-sent]", timeout=60_000)
    frame = page.frame_locator("#ui")
    expect(frame.get_by_text("Process 100").first).to_be_visible(timeout=60_000)
