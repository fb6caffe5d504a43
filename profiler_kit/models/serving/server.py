"""Masks over HTTP, on this machine: uploads, health, metrics, and a profile of requests under load.

POST /upload gives a PNG, /upload_rle JSON, /upload_rle_stream a line of JSON a mask: all masks, or with ?points=x,y;x,y
one of each point. The image is the body, or the field `image` of a form. What goes wrong is one sentence of plain text
with a status; nothing stops the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import math
import signal
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import SplitResult, urlsplit

import torch
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from profiler_kit.capture.device import is_out_of_memory
from profiler_kit.capture.environment import describe_environment
from profiler_kit.capture.phases import Phases
from profiler_kit.capture.run_folder import whole_folder
from profiler_kit.errors import OptionError
from profiler_kit.formats.request_file import write_requests
from profiler_kit.formats.run_record import REQUESTS, TRACE
from profiler_kit.models.serving import images
from profiler_kit.models.serving.images import Limits, Refused
from profiler_kit.models.serving.metrics import Metrics
from profiler_kit.models.serving.service import Service
from profiler_kit.models.serving.worker import Closed, Job, Recording, Worker
from profiler_kit.units import NS_PER_MS, NS_PER_S
from profiler_kit.workload.capture import RUNS, run_name
from profiler_kit.workload.optimizations import parse_optimizations

HUNG_UP: Final = 499  # as nginx has it
MOST_PROFILED: Final = 10_000
_MOST: Final = 1_000_000  # of batch, queue and milliseconds
_ENCODED_S: Final = 5.0  # how long a profile waits at most for the last answers before it writes its trace
_LOCAL: Final = ("127.0.0.1", "localhost", "::1")
_STAGES: Final = (  # of a request: name, and where it ends; each begins where the one before ends
    ("receive", "received_ns"),
    ("decode", "queued_ns"),
    ("queue", "start_ns"),
    ("gpu", "computed_ns"),
    ("encode", "done_ns"),
)
Answer = Callable[[Request, Job], Awaitable[Response]]


@dataclass(frozen=True)
class ServeOptions:
    """How requests are taken in. queue: requests that may wait. profiles: where runs of /profile go. read_s: how long
    a client may take to send an image. answer_s: how long a profile waits for the answers of its requests.
    """

    batch_size: int = 8
    max_wait_ms: float = 5.0
    queue: int = 256
    limits: Limits = field(default_factory=Limits)
    profiles: Path = RUNS
    read_s: float = 30.0
    answer_s: float = 30.0
    threads: int = 4

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("queue", 1), ("max_wait_ms", 0)):
            if not least <= getattr(self, name) <= _MOST:
                flag = name.replace("_", "-")
                raise OptionError(f"--{flag} {getattr(self, name)}: expected {least} to {_MOST:,}.")


class MaskServer:
    """The application and its worker. host: as it is listened on; names other than this machine's are refused."""

    def __init__(self, service: Service, options: ServeOptions, host: str = "127.0.0.1") -> None:
        self.service, self.options, self._host = service, options, host
        self.worker = Worker(
            service.generator.generate_each,
            service.device,
            size=options.batch_size,
            max_wait_s=options.max_wait_ms / 1e3,
            on_their_way=lambda: self._arriving,
            prepare=service.prepare,
        )
        self._count = self._arriving = 0
        self.metrics = Metrics()
        found, workload = describe_environment(service.device), service.workload
        self._facts = {
            "model": workload.name,
            "mode": service.mode,
            "weights": workload.weights,
            "device": str(service.device),
            "device_name": found.device_name,
            "torch": found.versions["torch"],
            "torchvision": found.versions.get("torchvision", ""),
            "commit": found.git_commit or "",
            "batch_size": options.batch_size,
            "queue": options.queue,
            **{name: getattr(workload, name, 0) for name in ("points_per_side", "points_per_batch")},
        }
        if service.device.type == "cuda":
            self._facts["device_memory_bytes"] = torch.cuda.get_device_properties(service.device).total_memory
        self._pool = ThreadPoolExecutor(options.threads, thread_name_prefix="images")
        self._answered: dict[Job, asyncio.Event] = {}
        answers: dict[str, Answer] = {
            "/upload": self._png,
            "/upload_rle": self._json,
            "/upload_rle_stream": self._lines,
        }
        routes = [Route(path, self._upload(answer), methods=["POST"]) for path, answer in answers.items()]
        routes += [Route("/health", self._health), Route("/metrics", self._metrics)]
        routes.append(Route("/profile", self._profile, methods=["POST"]))
        self.app = Starlette(routes=routes, exception_handlers={404: _elsewhere, 405: _elsewhere})

    def close(self) -> None:
        """Requests that wait are told that it is over; the running batch goes on to its end."""
        self.worker.close()

    # -- requests

    def _upload(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            job = Job(self._count, time.time_ns())
            self._count += 1
            self._answered[job] = asyncio.Event()
            try:
                self._check_sender(request)
                await self._take_in(request, job)
                await self._masks(request, job)
                response = await answer(request, job)
            except Refused as refused:
                response = PlainTextResponse(refused.sentence + "\n", refused.status, refused.headers)
            except Closed:
                response = PlainTextResponse("The server is shutting down.\n", 503, {"Retry-After": "1"})
            except ClientDisconnect:
                response = Response(status_code=HUNG_UP)
            except Exception as error:  # of the model, or in what was made of its answer
                full = "the model ran out of memory on this image" if is_out_of_memory(error) else _first_line(error)
                response = PlainTextResponse(f"The request failed: {full}.\n", 500)
            if not isinstance(response, _Stream):
                self._finish(job, response.status_code)
                response.headers.update(_headers(job))
            return response

        return endpoint

    def _finish(self, job: Job, status: int) -> None:
        job.status, job.done_ns, job.image = status, time.time_ns(), None
        self.metrics.statuses[status] += 1
        if status == 200:
            self.metrics.latency.add((job.done_ns - job.arrival_ns) / NS_PER_S)
        self._answered.pop(job).set()

    def _check_sender(self, request: Request) -> None:
        """Only by a name of this machine (where it alone is listened for), and from no page of another server."""
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self._host in _LOCAL and _split(f"//{host}").hostname not in _LOCAL:
            raise Refused(400, "This is not the server's address; use the one that it printed.")
        if origin is not None and _split(origin).netloc != host:
            raise Refused(403, "The request came from a page of another server.")

    async def _take_in(self, request: Request, job: Job) -> None:
        """Read and decode the image, and put the request into the queue, unless that is full."""
        if self.worker.waiting + self._arriving >= self.options.queue:
            batches = math.ceil(self.worker.waiting / self.options.batch_size)
            later = {"Retry-After": str(max(1, math.ceil(batches * self.worker.batch_s)))}
            raise Refused(503, f"The queue is full ({self.options.queue} requests wait); try again later.", **later)
        if (text := request.query_params.get("points")) is not None:
            job.points = images.read_points(text)
        self._arriving += 1
        try:
            async with asyncio.timeout(self.options.read_s):
                data = await self._file(request)
            job.received_ns = time.time_ns()
            loop, limits = asyncio.get_running_loop(), self.options.limits
            job.image = await loop.run_in_executor(self._pool, images.decode_image, data, limits)
            if job.points is not None:
                images.check_points(job.points, job.image)
        except TimeoutError:
            raise Refused(408, f"The image did not arrive within {self.options.read_s:g} s; send it again.") from None
        finally:
            self._arriving -= 1
            self.worker.look_again()
        self.worker.submit(job)

    async def _file(self, request: Request) -> bytes:
        """The bytes of the image: the body, or its field `image`."""
        most = self.options.limits.file_bytes
        body = bytearray()
        over = False
        async for chunk in request.stream():
            if not over:
                body += chunk
            over = over or len(body) > most + (64 << 10)  # of a form's own; the rest is read and dropped
            if over:
                body.clear()
        if not over and request.headers.get("content-type", "").startswith("multipart/form-data"):
            body = bytearray(await _field(request, bytes(body)))
        if over or len(body) > most:
            raise Refused(413, f"The image is larger than {most:,} bytes; send a smaller one.")
        return bytes(body)

    async def _masks(self, request: Request, job: Job) -> None:
        """Wait for the model, or for the client to hang up."""
        done, gone = asyncio.wrap_future(job.result), asyncio.ensure_future(_hung_up(request))
        done.add_done_callback(lambda one: one.cancelled() or one.exception())  # no client may be left
        try:
            await asyncio.wait((done, gone), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                self.worker.give_up(job)
                raise ClientDisconnect
            await done
        finally:
            gone.cancel()

    async def _encoded(self, encode: Callable[..., bytes], job: Job) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, encode, job.image, job.result.result())

    async def _png(self, _request: Request, job: Job) -> Response:
        return Response(await self._encoded(images.overlay, job), media_type="image/png")

    async def _json(self, _request: Request, job: Job) -> Response:
        return Response(await self._encoded(images.run_lengths, job), media_type="application/json")

    async def _lines(self, _request: Request, job: Job) -> Response:
        """All masks are known before the first line, as duplicates are left out; they are sent as they are encoded."""

        found, loop = images.lines(job.result.result()), asyncio.get_running_loop()

        async def body() -> AsyncIterator[bytes]:
            while part := await loop.run_in_executor(self._pool, next, found, b""):
                yield part

        return _Stream(body(), lambda whole: self._finish(job, 200 if whole else HUNG_UP), _headers(job))

    # -- what is known of the server

    def _state(self) -> dict[str, Any]:
        device, found = self.service.device, {}
        if device.type == "cuda":
            found["peak_allocated_bytes"] = torch.cuda.max_memory_allocated(device)
            found["peak_reserved_bytes"] = torch.cuda.max_memory_reserved(device)
        return {"waiting": self.worker.waiting, "batches": self.worker.batches, **found}

    async def _health(self, _request: Request) -> Response:
        alive = self.worker.is_alive()
        return JSONResponse({"ok": alive, **self._facts, **self._state()}, 200 if alive else 503)

    async def _metrics(self, _request: Request) -> Response:
        about = {"waiting": "Requests in the queue.", "batches": "Batches that were run."}
        gauges = {
            f"sam_{name}": (about.get(name, "Highest so far, of torch's allocator."), float(value))
            for name, value in self._state().items()
        }
        text = self.metrics.text(gauges, self.worker.sizes)
        return Response(text, media_type="text/plain; version=0.0.4")

    # -- a profile under load

    async def _profile(self, request: Request) -> Response:
        """Profile the next requests into a run folder; answers when it is written."""
        try:
            self._check_sender(request)
            if request.client is None or not ipaddress.ip_address(request.client.host).is_loopback:
                raise Refused(403, "Profiles are made from this machine only.")
            text = request.query_params.get("requests", "100")
            if not text.isdecimal() or not 1 <= int(text[:9]) <= MOST_PROFILED:
                raise Refused(422, f"requests={text}: expected a whole number, 1 to {MOST_PROFILED}.")
            folder, count = await self._record(request, int(text))
        except Refused as refused:
            return PlainTextResponse(refused.sentence + "\n", refused.status)
        except (Closed, ClientDisconnect):
            return PlainTextResponse("The profile ended before it was complete; nothing is written.\n", 503)
        except Exception as error:  # the disk is full, another profiler is at work
            return PlainTextResponse(f"The profile failed: {_first_line(error)}.\n", 500)
        return JSONResponse({"run": str(folder), "requests": count})

    async def _record(self, request: Request, wanted: int) -> tuple[Path, int]:
        """The run folder, and how many requests it holds: batches are recorded whole."""
        service, device = self.service, self.service.device
        chosen = parse_optimizations(",".join(service.optimizations), service.workload.optimizations)
        target = self.options.profiles / run_name(f"serve-{service.workload.name}", chosen, device)
        with whole_folder(target, overwrite=False, option="") as folder:
            loop = asyncio.get_running_loop()

            def answered() -> None:
                with contextlib.suppress(TimeoutError):
                    asyncio.run_coroutine_threadsafe(self._answers(recording.jobs), loop).result(_ENCODED_S)

            recording = Recording(folder / TRACE, wanted, answered)
            if not self.worker.record(recording):
                raise Refused(409, "Another profile is going on; wait for its end.")
            ended, gone = asyncio.wrap_future(recording.ended), asyncio.ensure_future(_hung_up(request))
            await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            hung_up = not ended.done()
            gone.cancel()
            if hung_up:
                self.worker.end_recording()
            await ended
            if hung_up or len(recording.jobs) < wanted:
                raise ClientDisconnect
            with contextlib.suppress(TimeoutError):  # a client that does not take its answer
                await asyncio.wait_for(self._answers(recording.jobs), self.options.answer_s)
            await asyncio.to_thread(self._write, folder, target.name, recording)
        return target, len(recording.jobs)

    async def _answers(self, jobs: Sequence[Job]) -> None:
        """Wait until they are all sent."""
        await asyncio.gather(*(self._answered[job].wait() for job in jobs if job in self._answered))

    def _write(self, folder: Path, name: str, recording: Recording) -> None:
        write_requests(folder / REQUESTS, [job.row() for job in recording.jobs])
        phases, service = Phases(self.service.device), self.service
        state = self._state()
        phases.peak_bytes, phases.peak_reserved_bytes = (
            state.get(f"peak_{what}_bytes") for what in ("allocated", "reserved")
        )
        o = self.options
        how = f"{service.mode}, batches of {o.batch_size}, {o.max_wait_ms:g} ms at most, queue of {o.queue}"
        phases.record(
            name,
            model=service.workload.name,
            weights=service.workload.weights,
            optimizations=service.optimizations,
            batch_size=o.batch_size,
            image_size=service.workload.image_size,
            dtype=service.dtype,
            workload={**service.workload.facts(), "served": how},
            notes=(),
        ).write(folder)


class _Stream(StreamingResponse):
    """Lines of JSON; says when it has ended, and whether all of it was sent."""

    def __init__(self, parts: AsyncIterator[bytes], ended: Callable[[bool], None], headers: dict[str, str]) -> None:
        self._whole, self._ended = False, ended

        async def sent() -> AsyncIterator[bytes]:
            async for part in parts:
                yield part
            self._whole = True

        super().__init__(sent(), media_type="application/x-ndjson", headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._ended(self._whole)


class _Uvicorn(uvicorn.Server):
    """Ends in order on SIGINT and SIGTERM, and raises neither again."""

    def __init__(self, config: uvicorn.Config, close: Callable[[], None]) -> None:
        super().__init__(config)
        self._close = close

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Those who wait are told first: it then waits for all answers to be sent."""
        self._close()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, whose own ends the process by the signal once more."""
        ours = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        before = {one: signal.signal(one, self.handle_exit) for one in ours}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)


def uvicorn_server(server: MaskServer) -> uvicorn.Server:
    """What runs the application: `run(sockets=[...])` until `should_exit`, or a signal in the main thread."""
    config = uvicorn.Config(
        server.app,
        log_level="critical",  # what fails has its status; what is no HTTP is not worth a traceback
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=60,
        server_header=False,
    )
    return _Uvicorn(config, server.close)


def serve(server: MaskServer, sock: socket.socket, started: Callable[[], object] = lambda: None) -> None:
    """Warm the model up, then answer until SIGINT or SIGTERM. Raises what the warm-up raised."""
    server.worker.start()
    server.worker.ready.result()
    started()
    try:
        uvicorn_server(server).run(sockets=[sock])
    finally:
        server.close()
        server.worker.join()


async def _field(request: Request, body: bytes) -> bytes:
    """The field `image` of a form."""

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, whole(), max_files=8, max_fields=8).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise Refused(400, "The form cannot be read; send the image as the body, or as the field image.") from error
    try:
        found = form.get("image") or form.get("file")
        if found is None or isinstance(found, str):
            raise Refused(400, "The form holds no file named image; send one: curl -F image=@FILE.")
        return await found.read()
    finally:
        await form.close()


def _split(address: str) -> SplitResult:
    try:
        return urlsplit(address)
    except ValueError:  # a bracket without its other
        return urlsplit("")


async def _elsewhere(_request: Request, error: Exception) -> Response:
    """An address that is none, or one that is asked for otherwise."""
    found = cast("HTTPException", error)
    return PlainTextResponse(
        f"{found.detail}. Expected POST /upload, /upload_rle or /upload_rle_stream with an image, POST /profile, GET "
        "/health or GET /metrics.\n",
        found.status_code,
        found.headers,
    )


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _headers(job: Job) -> dict[str, str]:
    """How long each stage took, in milliseconds, as browsers show it; and the batch."""
    since, said = job.arrival_ns, []
    for stage, end in _STAGES:
        until = getattr(job, end)
        if until is None:
            break
        said.append(f"{stage};dur={(until - since) / NS_PER_MS:.3f}")
        since = until
    batch = {"X-Batch": str(job.batch), "X-Batch-Size": str(job.batch_size)} if job.batch_size else {}
    return {"Server-Timing": ", ".join(said), **batch}


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
