"""Send images to a server as many clients do, and write down each answer.

Open loop: requests leave at random times of a given rate (a Poisson process), however long the answers take, and
latency is counted from the time a request should have left. Closed loop: so many clients, each waiting for its answer.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from email.message import Message
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from profiler_kit.errors import InputError, OptionError, OutputError
from profiler_kit.formats.load_file import Peaks, Rle, Sample, Server
from profiler_kit.models.sam.scenes import SUFFIXES, generate_scenes
from profiler_kit.units import NS_PER_S

ENDPOINT: Final = "/upload_rle"
_START: Final = "Start one with: profiler-kit sam serve"


@dataclass(frozen=True)
class Plan:
    """What to send. rates: requests a second; concurrencies: clients at once; one step each, of duration_s, or of so
    many requests. first: requests before them, one by one, at most one an image.
    """

    url: str
    images: Sequence[tuple[str, bytes]]
    rates: Sequence[float] = ()
    concurrencies: Sequence[int] = ()
    duration_s: float = 10.0
    requests: int | None = None
    first: int = 8
    seed: int = 0
    timeout_s: float = 120.0

    @property
    def limit_s(self) -> float:
        """When a step ends at the latest."""
        return self.duration_s if self.requests is None else math.inf


def arrivals(rate: float, duration_s: float, seed: int) -> Iterator[int]:
    """When requests leave, in nanoseconds after the start: a Poisson process."""
    source, at = random.Random(seed), 0.0
    while (at := at + source.expovariate(rate)) < duration_s:
        yield int(at * NS_PER_S)


def read_files(folder: Path | None, count: int = 8) -> list[tuple[str, bytes]]:
    """Names and bytes of the image files of a folder, broken ones too; without one, of `count` generated scenes."""
    if folder is None:
        from PIL import Image

        made = []
        for scene in generate_scenes(count, height=384, width=512, seed=0):
            out = io.BytesIO()
            Image.fromarray(scene.image).save(out, "JPEG", quality=90)
            made.append((f"{scene.name}.jpg", out.getvalue()))
        return made
    files = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not files:
        raise InputError(f"{folder}: no image in the folder, expected files ending in {', '.join(SUFFIXES)}.")
    return [(path.name, path.read_bytes()) for path in files]


def run_load(plan: Plan, out: Path, report: Callable[[str], object] = lambda step: None) -> None:
    """Carry the plan out; the samples go to `out` as they come. Raises OptionError, InputError, OutputError."""
    client = _Client(plan)
    server = client.server()
    with contextlib.ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(out.open("x", encoding="utf-8"))
        except FileExistsError as error:
            raise OptionError(f"--out {out}: this file exists already. Choose another name.") from error
        except OSError as error:
            raise OutputError(f"{out}: cannot be written ({error.strerror}). Choose another name.") from error
        writer = _Writer(file.write, file.flush)
        writer.write(server)
        for number in range(min(plan.first, len(plan.images))):
            writer.add(client.send("first", number, first=True))
        steps = [(f"rate {rate:g}", partial(_open, rate=rate)) for rate in plan.rates]
        steps += [(f"concurrency {count}", partial(_closed, count=count)) for count in plan.concurrencies]
        for step, run in steps:
            report(step)
            run(client, writer, step)
            writer.write(Peaks(step, *(client.health().get(f"peak_{one}_bytes") for one in ("allocated", "reserved"))))


def _open(client: _Client, writer: _Writer, step: str, rate: float) -> None:
    """A thread for each request, started when it is due, whatever became of those before."""
    start, threads = time.perf_counter_ns(), []
    due_after = arrivals(rate, client.plan.limit_s, client.plan.seed)
    for number, after_ns in enumerate(itertools.islice(due_after, client.plan.requests)):
        due = start + after_ns
        while (left := due - time.perf_counter_ns()) > 0:
            time.sleep(left / NS_PER_S)
        thread = threading.Thread(
            target=lambda number=number, due=due: writer.add(client.send(step, number, scheduled_ns=due)), daemon=True
        )
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()


def _closed(client: _Client, writer: _Writer, step: str, count: int) -> None:
    until = time.perf_counter_ns() + client.plan.limit_s * NS_PER_S
    numbers, lock = itertools.islice(itertools.count(), client.plan.requests), threading.Lock()

    def one() -> None:
        while time.perf_counter_ns() < until:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            writer.add(client.send(step, number))

    threads = [threading.Thread(target=one, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class _Writer:
    """Writes samples as they come, masks of each image once."""

    def __init__(self, write: Callable[[str], object], flush: Callable[[], object]) -> None:
        self._write, self._flush, self._lock = write, flush, threading.Lock()
        self._seen: set[str] = set()

    def add(self, made: tuple[Sample, Callable[[], dict[str, Any]]]) -> None:
        """Write a sample, with its masks if they are the first of their image."""
        sample, masks = made
        with self._lock:
            if sample.status == 200 and sample.image not in self._seen:
                self._seen.add(sample.image)
                sample = Sample(**{**vars(sample), **masks()})
            self.write(sample)

    def write(self, line: Sample | Peaks | Server) -> None:
        """Write a line whole."""
        self._write(line.line())
        self._flush()


class _Client:
    """Sends images, each request on a connection of its own as a new client's is."""

    def __init__(self, plan: Plan) -> None:
        parts = urlsplit(plan.url if "//" in plan.url else f"http://{plan.url}")
        try:
            port = parts.port
        except ValueError as error:
            raise OptionError(f"URL {plan.url}: {error}, expected one such as http://127.0.0.1:8600.") from error
        if parts.scheme != "http" or not parts.hostname:
            raise OptionError(f"URL {plan.url}: expected one such as http://127.0.0.1:8600.")
        path = parts.path.rstrip("/") or ENDPOINT
        self._path = f"{path}?{parts.query}" if parts.query else path
        self.plan, self._host, self._port = plan, parts.hostname, port or 80

    def health(self) -> dict[str, Any]:
        """What the server says of itself; raises InputError when there is none."""
        try:
            status, _, body = self._ask("GET", "/health", b"")
            found = json.loads(body)
            if status != 200 or not isinstance(found, dict):
                raise ValueError(f"status {status}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise InputError(
                f"{self.plan.url}: no server of masks answers ({error or type(error).__name__}). {_START}"
            ) from error
        return found

    def server(self) -> Server:
        """What the server says of itself; raises as `health`."""
        said = self.health()
        points = parse_qs(urlsplit(self._path).query).get("points", [""])[0]
        kinds = {one.name: type(one.default) for one in fields(Server)}
        known = {name: said[name] for name, kind in kinds.items() if isinstance(said.get(name), kind)}
        return Server(**{**known, "url": self.plan.url, "points": len(points.split(";")) if points else 0})

    def send(
        self, step: str, number: int, *, scheduled_ns: int | None = None, first: bool = False
    ) -> tuple[Sample, Callable[[], dict[str, Any]]]:
        """Send image `number`, starting over after the last; gives the sample, and what gives its masks."""
        name, data = self.plan.images[number % len(self.plan.images)]
        sent, status, error, headers, body = time.perf_counter_ns(), 0, "", Message(), b""
        try:
            status, headers, body = self._ask("POST", self._path, data)
            error = "" if status == 200 else body[:200].decode("utf-8", "replace").strip()
        except (OSError, http.client.HTTPException) as problem:
            error = str(problem) or type(problem).__name__
        done = time.perf_counter_ns()
        timing = dict(_stage(one) for one in headers.get("Server-Timing", "").split(",") if ";dur=" in one)
        size = int(text) if (text := headers.get("X-Batch-Size", "")).isdecimal() else 0
        due = sent if scheduled_ns is None else scheduled_ns
        return Sample(step, name, due, sent, done, status, first, error, size, timing), lambda: _masks(body)

    def _ask(self, method: str, path: str, data: bytes) -> tuple[int, Message, bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self.plan.timeout_s)
        with contextlib.closing(connection):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was read
                connection.request(method, path, data)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()


def _stage(text: str) -> tuple[str, float]:
    name, _, duration = text.strip().partition(";dur=")
    return name, float(duration)


def _masks(body: bytes) -> dict[str, Any]:
    """The masks of an answer of /upload_rle, nothing of another's."""
    import pycocotools.mask

    try:
        found = [{"size": list(one["size"]), "counts": list(one["counts"])} for one in json.loads(body).values()]
        packed = [pycocotools.mask.frPyObjects(one, *one["size"]) for one in found]
        return {"masks": tuple(Rle(tuple(one["size"]), one["counts"].decode("ascii")) for one in packed)}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return {}
