"""The server: Streamlit's pages, trace bytes, timeline tiles, memory pages and Perfetto on one port, offline.

Started by `profiler-kit serve` or `streamlit run app/main.py [-- DIR]`.
"""

from __future__ import annotations

import gc
import os
import secrets
import socket
import sys
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

_HERE = Path(__file__).resolve().parent
if str(_HERE.parent) not in sys.path:
    sys.path.insert(0, str(_HERE.parent))  # so that `app` is this package whoever started it

from app.gate import Gate  # noqa: E402
from app.listening import listen_on  # noqa: E402
from app.loading import share_memory  # noqa: E402
from app.routes import Headers, allowed_hosts, routes  # noqa: E402

share_memory()
listen_on()
token = os.environ.get("PROFILER_KIT_TOKEN")  # "" when the user wants none
if token is None:  # started by `streamlit run`, which prints the address
    os.environ["PROFILER_KIT_TOKEN"] = token = secrets.token_urlsafe(24)
    print(f"profiler_kit: add this to the address: ?token={token}", flush=True)
app = st.App(
    _HERE / "dashboard.py",
    routes=routes(),
    middleware=[Middleware(Headers), Middleware(Gate, hosts=allowed_hosts(), token=token)],
)
gc.freeze()  # modules stay: the collection after every page need not walk through them, which took as long as the page


def serve(listening: socket.socket, config: dict[str, object]) -> None:
    """Serve until interrupted, on a socket that listens already."""
    listen_on(listening)
    app.run(config=config)
