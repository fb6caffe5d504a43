"""A server in a thread, asked over real HTTP; its model is vit_small at 128 px, or one that tests hold and break."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image

from profiler_kit.models.sam.generator import MaskGenerator, Pixels, Points
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.models.serving.server import MaskServer, ServeOptions, uvicorn_server
from profiler_kit.models.serving.service import Service, make_service

HANGS_S = 600
MASK = {"segmentation": {"size": [2, 2], "counts": [0, 4]}, "area": 4, "predicted_iou": 0.5}


def until(state: Callable[[], object]) -> None:
    """Wait for a state; only what hangs gets to the end."""
    end = time.monotonic() + HANGS_S
    while not state():
        assert time.monotonic() < end
        time.sleep(0.005)


class Held:
    """A model that runs when the test lets it; the first pixel of an image tells what becomes of it."""

    model = None
    # raises; runs out of memory unless it is alone or with one other; always runs out of memory; raises, but after
    # those before it were answered; waits for `late`
    BROKEN, HUNGRY, STARVING, BROKEN_LATE, LATE = 1, 2, 3, 4, 5

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.late = threading.Event()
        self.running = 0
        self.batches: list[int] = []

    def generate_each(
        self, images: Sequence[Pixels], points: Sequence[Points | None]
    ) -> Iterator[list[dict[str, Any]]]:
        self.running += 1
        assert self.go.wait(HANGS_S)
        self.batches.append(len(images))
        kinds = [int(image[0, 0, 0]) for image in images]
        if self.BROKEN in kinds:
            raise ValueError("the third layer is upside down")
        if (self.HUNGRY in kinds and len(images) > 2) or self.STARVING in kinds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        for kind, some in zip(kinds, points, strict=True):
            if kind == self.BROKEN_LATE:
                raise ValueError("the last layer is upside down")
            assert kind != self.LATE or self.late.wait(HANGS_S)
            yield [MASK] * (1 if some is None else len(some))


@dataclass
class Client:
    """Asks a server that runs in a thread."""

    server: MaskServer
    port: int
    uvicorn: uvicorn.Server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, data: bytes = b"", method: str = "POST", **headers: str) -> http.client.HTTPResponse:
        """The answer, read; its body is `text`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANGS_S)
        with contextlib.closing(connection):
            connection.request(method, path, data, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            answer.text = answer.read().decode("utf-8", "replace")  # type: ignore[attr-defined]
            return answer

    def said(self, path: str, data: bytes = b"", **headers: str) -> tuple[int, str]:
        """Status and text."""
        answer = self.ask(path, data, **headers)
        return answer.status, answer.text  # type: ignore[attr-defined]

    def later(self, data: bytes, path: str = "/upload_rle") -> Callable[[], tuple[int, str]]:
        """Ask in a thread; calling what this gives waits for the answer."""
        found: list[tuple[int, str]] = []
        thread = threading.Thread(target=lambda: found.append(self.said(path, data)), daemon=True)
        thread.start()

        def answer() -> tuple[int, str]:
            thread.join(HANGS_S)
            return found[0]

        return answer


@contextlib.contextmanager
def running(service: Service, options: ServeOptions) -> Iterator[Client]:
    server = MaskServer(service, options)
    server.worker.start()
    server.worker.ready.result(HANGS_S)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        web = uvicorn_server(server)
        thread = threading.Thread(target=lambda: web.run(sockets=[sock]), daemon=True)
        thread.start()
        yield Client(server, sock.getsockname()[1], web)
        web.should_exit = True
        thread.join(HANGS_S)
        server.worker.join(HANGS_S)
        assert not thread.is_alive() and not server.worker.is_alive()


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def serve_held(held: Held, tmp_path: Path) -> Iterator[Callable[..., Client]]:
    """Starts a server of the model that is held, with options."""
    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> Client:
            model = cast(MaskGenerator, held)
            service = Service(model, torch.device("cpu"), SamWorkload(task="amg"), "held", (), "float32", ())
            return stack.enter_context(running(service, ServeOptions(profiles=tmp_path, **options)))

        yield start
        held.go.set()
        held.late.set()


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A server of vit_small."""
    workload = SamWorkload(
        name="vit_small", task="amg", side=128, points_per_side=2, pred_iou_thresh=0.0, stability_score_thresh=0.1
    )
    with contextlib.ExitStack() as stack:
        service = make_service(
            workload,
            "baseline",
            torch.device("cpu"),
            stack,
            batch_size=4,
        )
        options = ServeOptions(batch_size=4, profiles=tmp_path_factory.mktemp("profiles"))
        yield stack.enter_context(running(service, options))


def png(first: int = 0, size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    """An image whose first pixel has that value."""
    pixels = np.zeros((*size, 3), dtype=np.uint8)
    pixels[0, 0] = first
    return packed(pixels, kind)


def packed(pixels: Pixels, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()
