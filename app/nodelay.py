"""Answers without a wait: lets Streamlit's server send each piece of an answer at once.

Streamlit binds its socket itself and does not name the protocol, so asyncio does not take it for TCP and leaves
Nagle's algorithm on. An answer's head and body are two writes; the second one then waits for the browser's delayed
acknowledgement, 40 ms on Linux, on every request.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from streamlit.web.server.starlette import starlette_server


def send_at_once() -> None:
    """Have Streamlit's socket hand TCP_NODELAY on to every connection; does nothing where it binds in another way."""
    bind: Callable[..., socket.socket] | None = getattr(starlette_server, "_bind_socket", None)
    if bind is None or getattr(bind, "sends_at_once", False):
        return

    def bound(*args: object, **more: object) -> socket.socket:
        listening = bind(*args, **more)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        return listening

    bound.sends_at_once = True  # type: ignore[attr-defined]  # a mark on a function, which has no such attribute
    starlette_server._bind_socket = bound
