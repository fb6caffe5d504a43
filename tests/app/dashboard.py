"""The dashboard under AppTest."""

from __future__ import annotations

import functools

from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from tests.app.samples import CHECKOUT, PATIENCE_S

# AppTest looks for components in everything that is installed each time a page is run, which takes nearly all its time.
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)


def dashboard() -> AppTest:
    """Not run yet."""
    return AppTest.from_file(str(CHECKOUT / "app" / "dashboard.py"), default_timeout=PATIENCE_S)
