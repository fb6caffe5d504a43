"""A real Chromium and a real server; the tests skip with the reason when there is no browser.

They end with this package: two of Playwright's loops cannot run at once, and tests elsewhere start loops of their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, expect, sync_playwright

from tests.app.samples import Address, make_runs, serving
from tests.browser.drive import PATIENCE_MS

expect.set_options(timeout=PATIENCE_MS)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-gpu-rasterization", "--disable-software-rasterizer"]  # a GPU that the processor plays is slow
FLAGS += ["--js-flags=--no-opt --no-maglev --liftoff-only"]  # no page lives long enough to gain from optimized code


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        try:
            chromium = playwright.chromium.launch(executable_path=found, args=FLAGS, timeout=PATIENCE_MS)
        except Error as error:
            pytest.skip(f"no Chromium to drive: {str(error).splitlines()[0]}")
        yield chromium
        chromium.close()


@pytest.fixture(scope="package")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    with serving(make_runs(tmp_path_factory.mktemp("browser") / "traces"), "--no-token") as address:
        yield address
