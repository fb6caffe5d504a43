"""A server of masks: every request gets its answer or one clear sentence, and nothing stops it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from profiler_kit.cli.serve import take_port
from profiler_kit.errors import OptionError
from profiler_kit.models.sam.accuracy import encode, paired_iou
from profiler_kit.models.sam.generator import mask_of
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.models.sam2.workload import Sam2Workload
from profiler_kit.models.serving import images, worker
from profiler_kit.models.serving.images import Limits
from profiler_kit.models.serving.server import ServeOptions
from profiler_kit.models.serving.service import Bucketed, buckets_up_to
from profiler_kit.workload.optimizations import parse_optimizations
from tests.serving.conftest import Client, Held, packed, png, until

Start = Callable[..., Client]
SCENES = [one.image for one in generate_scenes(4, height=96, width=128, seed=2)]


def test_forty_requests_some_of_them_broken(small: Client) -> None:
    good = [packed(image, kind) for image in SCENES for kind in ("PNG", "WEBP")]
    whole = good[0]
    broken = [b"", b"GIF89a no image", whole[: len(whole) // 2], png(size=(1, 200)), b"\x89PNG\r\n\x1a\n" + b"\0" * 40]
    asked = [good[at % len(good)] if at % 8 else broken[at // 8] for at in range(40)]
    before = counts(small)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda data: small.said("/upload_rle", data), asked))
    assert [status for status, _ in answers[::8]] == [400, 400, 400, 422, 400]
    assert all(text.count("\n") == 1 and text.endswith(".\n") for _, text in answers[::8])
    right = {packed(image): small.server.service.generator.generate(image) for image in SCENES}
    for data, (status, text) in zip(asked, answers, strict=True):
        if data in broken:
            continue
        assert status == 200
        if data in right:  # WebP loses a little; a batch rounds otherwise than an image alone
            found, wanted = json.loads(text), right[data]
            assert wanted and list(found) == [f"mask_{number}" for number in range(len(wanted))]
            assert found["mask_0"]["size"] == [96, 128] and sum(found["mask_0"]["counts"]) == 96 * 128
            pairs = (packed_rles(one) for one in (found.values(), [one["segmentation"] for one in wanted]))
            assert min(paired_iou(*pairs)) > 0.99
    after = counts(small)
    more = {name: after[name] - before.get(name, 0) for name in after}
    assert more['sam_requests_total{status="200"}'] == more["sam_batch_size_sum"] == 35
    assert more['sam_requests_total{status="422"}'] == 1 and more['sam_requests_total{status="400"}'] == 4
    assert more['sam_latency_seconds_bucket{le="+Inf"}'] == more["sam_latency_seconds_count"] == 35


def packed_rles(runs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return encode(np.array([mask_of(one) for one in runs]))


def counts(client: Client) -> dict[str, float]:
    """What /metrics says."""
    lines = client.ask("/metrics", method="GET").text.splitlines()  # type: ignore[attr-defined]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_the_three_forms_of_an_answer(small: Client) -> None:
    wanted = small.server.service.generator.generate(SCENES[0])
    answer = small.ask("/upload", packed(SCENES[0]))
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    stages = [one.split(";")[0] for one in answer.headers["server-timing"].split(", ")]
    assert stages == ["receive", "decode", "queue", "gpu", "encode"] and answer.headers["x-batch-size"] == "1"
    lines = small.said("/upload_rle_stream", packed(SCENES[0]))[1].splitlines()
    assert [json.loads(line) for line in lines] == wanted
    form = (
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + packed(SCENES[0]) + b"\r\n--b--"
    )
    status, text = small.said("/upload_rle", form, Content_Type="multipart/form-data; boundary=b")
    assert status == 200 and len(json.loads(text)) == len(wanted)
    for body in (b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--', b"--c"):
        status, text = small.said("/upload", body, Content_Type="multipart/form-data; boundary=b")
        assert status == 400 and text.startswith("The form ")
    assert small.said("/upload", form, Content_Type="multipart/form-data")[0] == 400


def test_a_mask_of_each_point(small: Client) -> None:
    """Requests with points and without share a batch; a mask comes back for each point, in order."""
    points = ("20,30", "100.5,80;20,30;3,90")
    model = small.server.service.generator
    asked = [small.later(packed(SCENES[0]), f"/upload_rle?points={one}") for one in points]
    every, answers = small.later(packed(SCENES[0])), [json.loads(answer()[1]) for answer in asked]
    assert every()[0] == 200
    for text, found in zip(points, answers, strict=True):
        wanted = model.segment(SCENES[0], images.read_points(text))
        assert len(found) == len(wanted) == text.count(";") + 1
        same = paired_iou(packed_rles(found.values()), packed_rles(one["segmentation"] for one in wanted))
        assert min(same) > 0.98
    assert small.ask(f"/upload?points={points[0]}", packed(SCENES[0])).headers["content-type"] == "image/png"
    lines = small.said(f"/upload_rle_stream?points={points[1]}", packed(SCENES[0]))[1].splitlines()
    assert [json.loads(line)["point_coords"] for line in lines] == [[[100.5, 80.0]], [[20.0, 30.0]], [[3.0, 90.0]]]


def test_points_that_cannot_be_asked(serve_held: Start) -> None:
    client = serve_held()
    for text in ("", "1;2", "1,2;3", "1,2,3", "nan,2", "1e999,2"):
        said = f"points={text}: expected pixels, x then y, such as 120,80;30,40.\n"
        assert client.said(f"/upload_rle?points={text}", png(size=(9, 8))) == (422, said)
    for text, said in (
        ("1,2;8,3", "points: 8,3 is outside of the image of 8 x 9 pixels.\n"),
        ("-1,2", "points: -1,2 is outside of the image of 8 x 9 pixels.\n"),
        (";".join(["1,1"] * 1025), "points: found 1,025, expected at most 1,024; ask several times.\n"),
    ):
        assert client.said(f"/upload_rle?points={text}", png(size=(9, 8))) == (422, said)
    assert client.said("/upload_rle?points=1,2", png(size=(9, 8)))[0] == 200


def test_limits_names_and_pages_of_others(serve_held: Start) -> None:
    client = serve_held(limits=Limits(file_bytes=2_000, pixels=10_000))
    assert client.said("/upload", png(size=(200, 200))) == (
        413,
        "The image has 200 x 200 pixels, expected at most 10,000; send a smaller one.\n",
    )
    too_large = (413, "The image is larger than 2,000 bytes; send a smaller one.\n")
    assert client.said("/upload", b"x" * 2_001) == too_large == client.said("/upload", b"x" * 5_000_000)
    for name in ("example.org", "[::1", ""):
        assert client.said("/upload", png(), Host=name)[0] == 400
    assert client.said("/upload", png(), Origin="http://[::1")[0] == 403
    assert client.said("/upload", png(), Origin="http://example.org") == (
        403,
        "The request came from a page of another server.\n",
    )
    assert client.said("/profile?requests=1", Origin="http://example.org")[0] == 403
    assert client.said("/upload_rle", png(), Origin=client.url)[0] == 200
    for count in ("0", "x", "-1", "1e3", "99999999999999999999"):
        assert client.said(f"/profile?requests={count}") == (
            422,
            f"requests={count}: expected a whole number, 1 to 10000.\n",
        )
    for path, method, status in (("/upload", "GET", 405), ("/", "GET", 404), ("/metrics", "POST", 405)):
        answer = client.ask(path, method=method)
        assert answer.status == status and "Expected POST /upload" in answer.text  # type: ignore[attr-defined]


def test_profiles_are_for_this_machine_only(serve_held: Start) -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/profile", "query_string": b"", "client": ("10.0.0.7", 5)}
    scope |= {"headers": [(b"host", b"localhost")], "http_version": "1.1", "scheme": "http", "root_path": ""}
    asyncio.run(serve_held().server.app(scope, receive, send))
    assert (sent[0]["status"], sent[1]["body"]) == (403, b"Profiles are made from this machine only.\n")


def test_a_full_queue_says_when_to_come_again(serve_held: Start, held: Held) -> None:
    client = serve_held(batch_size=1, queue=2)
    held.go.clear()
    answers = [client.later(png())]
    until(lambda: held.running)
    answers += [client.later(png()) for _ in range(2)]
    until(lambda: client.server.worker.waiting == 2)
    answer = client.ask("/upload", png())
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert answer.text == "The queue is full (2 requests wait); try again later.\n"  # type: ignore[attr-defined]
    held.go.set()
    assert [answer()[0] for answer in answers] == [200, 200, 200]
    assert client.said("/upload_rle", png())[0] == 200


def test_who_hangs_up_is_not_run(serve_held: Start, held: Held) -> None:
    client = serve_held(batch_size=1)
    held.go.clear()
    first = client.later(png())
    until(lambda: held.running)
    with socket.create_connection(("127.0.0.1", client.port)) as waiting:
        data = png()
        waiting.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        until(lambda: client.server.worker.waiting == 1)
    with socket.create_connection(("127.0.0.1", client.port)) as halfway:
        halfway.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n" + b"x" * 90)
        until(lambda: client.server._arriving == 1)
    until(lambda: client.server.metrics.statuses[499] == 2)
    held.go.set()
    assert first()[0] == 200
    assert client.said("/upload_rle", png())[0] == 200
    assert held.batches == [1, 1]


def test_who_hangs_up_leaves_the_queue(serve_held: Start, held: Held) -> None:
    client = serve_held(batch_size=1, queue=1)
    held.go.clear()
    first = client.later(png())
    until(lambda: held.running)
    data = png()
    with socket.create_connection(("127.0.0.1", client.port)) as waiting:
        waiting.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        until(lambda: client.server.worker.waiting == 1)
    until(lambda: client.server.worker.waiting == 0)
    second = client.later(png())
    until(lambda: client.server.worker.waiting == 1)
    held.go.set()
    assert (first()[0], second()[0]) == (200, 200)


def test_what_is_no_http_ends_that_connection_alone(serve_held: Start, capfd: pytest.CaptureFixture[str]) -> None:
    client = serve_held()
    with socket.create_connection(("127.0.0.1", client.port)) as odd:
        odd.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n")
        assert odd.recv(100).startswith(b"HTTP/1.1 400 ")
    until(lambda: client.server.metrics.statuses[499] == 1)
    assert client.said("/upload_rle", png())[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_an_image_that_does_not_arrive(serve_held: Start) -> None:
    client = serve_held(read_s=0.05)
    with socket.create_connection(("127.0.0.1", client.port)) as slow:
        slow.sendall(b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n")
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_a_batch_waits_for_what_is_on_its_way_and_for_nothing_else(serve_held: Start, held: Held) -> None:
    client = serve_held(batch_size=2, max_wait_ms=1e6)
    assert client.said("/upload_rle", png())[0] == 200  # nobody else has come
    data = png()
    with socket.create_connection(("127.0.0.1", client.port)) as slow:
        slow.sendall(b"POST /upload_rle HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(data))
        until(lambda: client.server._arriving == 1)
        first = client.later(data)
        until(lambda: client.server.worker.waiting == 1)
        slow.sendall(data)
        assert first()[0] == 200 and slow.recv(100).startswith(b"HTTP/1.1 200 ")
    assert held.batches == [1, 2]


def batch_of(client: Client, held: Held, kinds: list[int]) -> list[tuple[int, str]]:
    """The answers to requests that are run in one batch."""
    return [answer() for answer in begun_batch(client, held, kinds)]


def begun_batch(client: Client, held: Held, kinds: list[int]) -> list[Callable[[], tuple[int, str]]]:
    """What waits for each of them."""
    held.go.clear()
    before = held.running
    first = client.later(png())
    until(lambda: held.running > before)
    answers = []
    for number, kind in enumerate(kinds, start=1):  # one after the other, so that their order is known
        answers.append(client.later(png(kind)))
        until(lambda number=number: client.server.worker.waiting == number)
    held.go.set()
    assert first()[0] == 200
    return answers


def test_each_is_answered_as_soon_as_its_masks_are_known(serve_held: Start, held: Held) -> None:
    client = serve_held(batch_size=4)
    first, late = begun_batch(client, held, [0, Held.LATE])
    assert first()[0] == 200 and not held.late.is_set()
    held.late.set()
    assert late()[0] == 200 and held.batches == [1, 2]


def test_an_exception_fails_its_own_request_alone(serve_held: Start, held: Held) -> None:
    client = serve_held(batch_size=4)
    answers = batch_of(client, held, [0, Held.BROKEN, 0])
    assert [status for status, _ in answers] == [200, 500, 200]
    assert answers[1][1] == "The request failed: the third layer is upside down.\n"
    assert held.batches == [1, 3, 1, 1, 1]
    assert [status for status, _ in batch_of(client, held, [Held.BROKEN])] == [500]
    # what was answered before it is not run again
    assert [status for status, _ in batch_of(client, held, [0, Held.BROKEN_LATE, 0])] == [200, 500, 200]
    assert held.batches[-4:] == [1, 3, 1, 1]
    assert client.said("/upload_rle", png())[0] == 200


def test_out_of_memory_halves_the_batch(serve_held: Start, held: Held) -> None:
    client = serve_held(batch_size=4)
    assert [status for status, _ in batch_of(client, held, [Held.HUNGRY] * 4)] == [200] * 4
    assert held.batches == [1, 4, 2, 2]


def test_a_request_that_needs_more_memory_than_there_is_fails_alone(
    serve_held: Start, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: list[torch.device] = []
    monkeypatch.setattr(worker, "free_memory", freed.append)
    client = serve_held(batch_size=4)
    answers = batch_of(client, held, [0, Held.STARVING, 0, 0])
    assert [status for status, _ in answers] == [200, 500, 200, 200]
    assert answers[1][1] == "The request failed: the model ran out of memory on this image.\n"
    assert held.batches == [1, 4, 2, 1, 1, 2]
    assert len(freed) == 3  # after the batch, its half and the request alone
    assert client.said("/upload_rle", png())[0] == 200


def test_shutting_down_answers_the_running_batch_and_refuses_the_others(serve_held: Start, held: Held) -> None:
    client = serve_held(batch_size=1)
    held.go.clear()
    first = client.later(png())
    until(lambda: held.running)
    second = client.later(png())
    until(lambda: client.server.worker.waiting == 1)
    client.uvicorn.should_exit = True
    assert second() == (503, "The server is shutting down.\n")
    held.go.set()
    assert first()[0] == 200
    until(lambda: not client.server.worker.is_alive())
    with contextlib.suppress(OSError):  # nobody listens any more
        assert client.said("/upload", png())[0] == 503


def test_a_model_that_cannot_warm_up_is_not_served(held: Held, serve_held: Start) -> None:
    client = serve_held()
    service = client.server.service

    class Broken:
        generate_each = None

        def generate_batch(self, images: object) -> None:
            raise ValueError("no such kernel")

    worker = type(client.server)(replace(service, generator=Broken(), buckets=(1,)), ServeOptions()).worker  # type: ignore[arg-type]
    worker.start()
    with pytest.raises(ValueError, match=r"^no such kernel$"):
        worker.ready.result()


def test_batches_come_in_a_few_sizes() -> None:
    class Model:
        mask_threshold = 0.0
        seen: list[int] = []  # noqa: RUF012
        asked: list[int] = []  # noqa: RUF012

        def embed(self, images: list[int]) -> list[int]:
            self.seen.append(len(images))
            return list(images)

        def decode(self, _: None, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            self.asked.append(len(points))
            return points, points

    assert (buckets_up_to(1), buckets_up_to(6), buckets_up_to(8)) == ((1,), (1, 2, 4, 6), (1, 2, 4, 8))
    model = Model()
    bucketed = Bucketed(model, buckets_up_to(6), 20)  # type: ignore[arg-type]
    for count in (1, 2, 3, 5, 6):
        images = [np.full((1, 1, 3), number, np.uint8) for number in range(count)]
        assert all(map(np.array_equal, bucketed.embed(images), images))
    assert model.seen == [1, 2, 4, 6, 6]
    assert bucketed.points == (1, 8, 20)
    for count in (1, 2, 8, 9, 20):
        points = np.arange(2.0 * count).reshape(count, 2)
        logits, iou = bucketed.decode(None, points)
        assert np.array_equal(logits, points) and len(iou) == count
    assert model.asked == [1, 8, 8, 20, 20]


@pytest.mark.parametrize("workload", [SamWorkload(task="amg"), Sam2Workload(task="amg")], ids=lambda one: one.family)
def test_every_mode_can_be_asked_for(workload: SamWorkload) -> None:
    for names in workload.modes.values():
        assert [one.name for one in parse_optimizations(",".join(names), workload.optimizations)] == [*names]


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OptionError) as caught:
            take_port("127.0.0.1", port)
    said = f"--port {port}: taken by another process. Leave --port out to use the next free one"
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("name", "value"), [("batch_size", 0), ("queue", 0), ("max_wait_ms", -1), ("max_wait_ms", math.nan)]
)
def test_options_that_cannot_be_used(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=f"^--{name.replace('_', '-')} {value}: expected . to 1,000,000.$"):
        ServeOptions(**{name: value})  # type: ignore[arg-type]
