"""What a reader takes away from the dashboard: tables as CSV, figures as HTML and PNG, and links to a view."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.drive import new_page, settle

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    """One page for all of them: each goes to an address of its own."""
    page = new_page(browser)
    requests: list[str] = []
    page.context.on("request", lambda request: requests.append(request.url))
    yield page
    page.context.close()
    hosts = {urlparse(one).hostname for one in requests if urlparse(one).scheme in ("http", "https", "ws", "wss")}
    assert hosts == {"127.0.0.1"}


def test_a_table_downloads_as_csv(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/regions?run=gpu")
    settle(page)
    with page.expect_download() as download:
        page.locator(".st-key-keep-regions-gpu").get_by_role("button", name="CSV").click()
    assert download.value.suggested_filename == "gpu-regions-gpu.csv"
    download.value.save_as(tmp_path / "regions.csv")
    rows = list(csv.DictReader((tmp_path / "regions.csv").read_text(encoding="utf-8").splitlines()))
    paths = ["timed region", "timed region > image encoder", "timed region > mask decoder"]
    assert [row["path"] for row in rows] == paths and "colour" not in rows[0]
    assert [int(row["busy_ns"]) for row in rows] == [1_000_000, 900_000, 100_000]


def test_a_figure_downloads_as_png_and_as_html_that_works_alone(page: Page, url: str, tmp_path: Path) -> None:
    page.goto(f"{url}/kernels?run=gpu")
    settle(page)
    figure = page.locator(".js-plotly-plot").first
    expect(figure.locator(".scatterlayer .point").first).to_be_visible()
    figure.hover()
    with page.expect_download() as download:
        figure.locator('[data-title*="Download plot"]').click()
    assert download.value.suggested_filename == "gpu-kernel-over-time.png"
    download.value.save_as(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    with page.expect_download() as download:
        page.locator(".st-key-keep-kernel-over-time").get_by_role("button", name="HTML").click()
    assert download.value.suggested_filename == "gpu-kernel-over-time.html"
    download.value.save_as(tmp_path / "figure.html")
    text = (tmp_path / "figure.html").read_text(encoding="utf-8")
    assert not re.search(r"<(script|link)[^>]+(src|href)=[\"']https?:", text)
    alone = page.context.new_page()  # the fixture sees every request it makes
    alone.goto((tmp_path / "figure.html").as_uri())
    expect(alone.locator(".js-plotly-plot .scatterlayer .point").first).to_be_visible()


def test_a_view_is_a_link_that_can_be_sent(page: Page, url: str) -> None:
    page.goto(f"{url}/?run=gpu")
    settle(page)
    page.get_by_role("link", name="Show in Kernels").first.click()
    expect(page.locator("h1").first).to_have_text("Kernels")
    expect(page.locator("h3").filter(has_text="gemm")).to_be_visible()
    page.get_by_text("By kind of work").click()
    page.wait_for_url(re.compile(r"by=By"))
    sent = page.url
    other = page.context.new_page()  # a session of its own
    other.goto(sent)
    settle(other)
    expect(other.get_by_role("radio", name="By kind of work")).to_be_checked()
    expect(other.locator("h3").filter(has_text="matrix products")).to_be_visible()
