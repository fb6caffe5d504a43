"""Pages under AppTest show what they load, however busy the machine: none gives up waiting for it."""

from __future__ import annotations

import pytest

from app.parts import widgets
from tests.app.samples import PATIENCE_S


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load is waited for, where a user would be shown how far it is after a second and a half."""
    monkeypatch.setattr(widgets, "PATIENCE_S", PATIENCE_S)
