"""The server: Streamlit's pages, trace bytes, timeline tiles, memory pages and Perfetto on one port, offline.

Started by `profiler-kit serve` or `streamlit run app/main.py [-- DIR]`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

_HERE = Path(__file__).resolve().parent
if str(_HERE.parent) not in sys.path:
    sys.path.insert(0, str(_HERE.parent))  # so that `app` is this package whoever started it

from app.nodelay import send_at_once  # noqa: E402
from app.routes import Headers, allowed_hosts, routes  # noqa: E402

send_at_once()
app = st.App(
    _HERE / "dashboard.py",
    routes=routes(),
    middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts()), Middleware(Headers)],
)
