"""Serve models in each mode, put each under load, and write what was seen: a table of modes, the tail, broken images.

    python benchmarks/sam_serving.py --serve vit_b:baseline,furious,graphs sam2_large:baseline,furious --out DIR

All servers start at once where the GPU has room for them (--room GiB), else those of one model after the other:
compiling takes the CPU, not the GPU. They are loaded one by one: closed loops of --concurrency clients for --seconds
each, then the last mode of a model an open loop at 0.8 of its throughput for --tail seconds. The last server of all
gets --broken N, so many requests, one in twenty with a broken image, and --profile N, runs of so many requests
under load. --warm: sam export while the servers start, and at the end starts from it with empty caches. What does not
fit before --until is left out and said. All is done by the commands that a user would type, from the same machine.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout works without being installed

import torch
from PIL import Image

from benchmarks.serve import free_port
from profiler_kit.capture.environment import describe_environment
from profiler_kit.files import write_json
from profiler_kit.models.sam.scenes import generate_scenes

SINCE = time.perf_counter()
CLI = [sys.executable, "-m", "profiler_kit.cli", "sam"]
SHARE = 0.8


class Server:
    """A `sam serve` in a process of its own, which is ended with the block."""

    def __init__(
        self, name: str, arguments: list[str], logs: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name, self.port, self.since = name, free_port(), time.perf_counter()
        self.log = logs / f"{name.replace(' ', '-')}.log"
        command = [*CLI, "serve", *arguments, "--port", str(self.port), "--profiles", str(logs.parent / "profiles")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Status and answer, as JSON."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def ready(self, until: float) -> float | None:
        """Seconds from its start to its first answer; None when it ends before or takes too long."""
        while self.process.poll() is None and time.perf_counter() < until:
            with contextlib.suppress(OSError):
                self.ask("GET", "/health")
                return time.perf_counter() - self.since
            time.sleep(0.05)
        print(f"{self.name}: no answer; {self.log.read_text()[-300:]}", flush=True)
        return None

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def load(server: Server, images: Path, out: Path, *how: str) -> list[dict[str, Any]]:
    """The rows of a `sam load`."""
    options = ["--images", str(images), "--out", str(out), "--json", *how]
    done = subprocess.run([*CLI, "load", server.url, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{server.name}: {done.stderr.strip()[-300:]}", flush=True)
        return []
    found: list[dict[str, Any]] = json.loads(done.stdout)
    for row in found:
        print(server.name, {name: value for name, value in row.items() if value is not None}, flush=True)
    return found


def write_images(folder: Path, height: int, width: int, *, broken: bool = False) -> Path:
    """Eight scenes; or a hundred, one in twenty broken in one way or another."""
    folder.mkdir()
    scenes = []
    for scene in generate_scenes(8, height=height, width=width, seed=0):
        data = io.BytesIO()
        Image.fromarray(scene.image).save(data, "JPEG", quality=90)
        scenes.append(data.getvalue())
    if not broken:
        for number, data in enumerate(scenes):
            (folder / f"{number}.jpg").write_bytes(data)
        return folder
    bad = [b"", b"no image", scenes[0][:200], scenes[1][: len(scenes[1]) // 2], b"\x89PNG\r\n\x1a\n" + b"\0" * 40]
    for number in range(100):
        data = scenes[number % 8] if number % 20 else bad[number // 20]
        (folder / f"{number:02d}.jpg").write_bytes(data)
    return folder


@dataclass(frozen=True)
class Export:
    """A `sam export` that was begun."""

    name: str
    target: Path
    log: Path
    process: subprocess.Popen[bytes]
    environment: dict[str, str]


class Session:
    """What is measured, and where it goes."""

    def __init__(self, chosen: argparse.Namespace, scratch: Path) -> None:
        self.chosen, self.scratch, self.out = chosen, scratch, chosen.out
        self.logs = self.out / "logs"
        self.logs.mkdir(parents=True)
        self.images = write_images(scratch / "images", chosen.height, chosen.height * 4 // 3)
        found = describe_environment(chosen.device)
        self.record: dict[str, Any] = {
            "device_name": found.device_name,
            "versions": dict(found.versions),
            "commit": found.git_commit,
            "command": found.command,
            "start_s": {},
            "loads": {},
            "left_out": [],
        }

    @property
    def left_s(self) -> float:
        return float(self.chosen.until) - (time.perf_counter() - SINCE)

    def fits(self, what: str, seconds: float) -> bool:
        """Whether there is time for it; what is left out is kept."""
        if self.left_s >= seconds:
            return True
        self.record["left_out"].append(what)
        print(f"left out: {what} ({self.left_s:.0f} s left)", flush=True)
        return False

    def keep(self) -> None:
        write_json(self.out / "serving.json", self.record)

    def start(self, model: str, modes: list[str], stack: contextlib.ExitStack) -> list[Server]:
        """A server of each mode, which ends with the stack."""
        options = ["--device", self.chosen.device, "--batch-size", str(self.chosen.batch_size), *self.chosen.options]
        started = []
        for mode in modes:
            started.append(Server(f"{model} {mode}", [model, "--mode", mode, *options], self.logs))
            stack.callback(started[-1].close)
        return started

    def wait(self, servers: list[Server]) -> None:
        """Until each is ready, or has ended."""
        limit = time.perf_counter() + min(self.left_s, self.chosen.patience)
        with ThreadPoolExecutor(max(1, len(servers))) as pool:
            for server, seconds in zip(servers, pool.map(lambda one: one.ready(limit), servers), strict=True):
                self.record["start_s"][server.name] = seconds
                print(f"{server.name}: ready after {seconds} s", flush=True)
        self.keep()

    def measure(self, servers: list[Server], *, last: bool) -> None:
        """The loads of one model's modes, the tail of the last, and of the last of all the rest."""
        chosen, base = self.chosen, None
        ready = [server for server in servers if self.record["start_s"][server.name] is not None]
        for server in ready:
            if not self.fits(f"{server.name}, closed loops", 4 * chosen.seconds):
                continue
            out = self.out / f"{server.name.replace(' ', '-')}.jsonl"
            rows = load(
                server, self.images, out, "--concurrency", chosen.concurrency, "--duration", str(chosen.seconds)
            )
            self.record["loads"][server.name] = rows
            if base is not None and rows:
                compared = [*CLI, "compare", str(base), str(out), "--json"]
                done = subprocess.run(compared, capture_output=True, text=True, check=False)
                said = json.loads(done.stdout) if done.returncode == 0 else done.stderr.strip()
                self.record.setdefault("agreement", {})[server.name] = said
            base = base or out
            self.keep()
        if ready and self.fits(f"{ready[-1].name}, tail", chosen.tail):
            self._tail(ready[-1])
        if ready and last and chosen.broken and self.fits("broken images", 30):
            bad = write_images(self.scratch / "broken", chosen.height // 2, chosen.height * 2 // 3, broken=True)
            how = ["--concurrency", "8", "--requests", str(chosen.broken), "--first", "0"]
            self.record["broken"] = load(ready[-1], bad, self.scratch / "broken.jsonl", *how)
            self.record["after_broken"] = ready[-1].ask("GET", "/health")
        for count in chosen.profile if ready and last else []:
            if self.fits(f"profile of {count}", 20):
                self._profile(ready[-1], count)
        self.keep()

    def _tail(self, server: Server) -> None:
        rows = [row for row in self.record["loads"].get(server.name, []) if row["step"].startswith("concurrency")]
        if rows:
            rate = SHARE * max(row["answers_per_s"] for row in rows)
            how = ["--rate", f"{rate:.3g}", "--duration", str(self.chosen.tail)]
            out = self.out / f"{server.name.replace(' ', '-')}-tail.jsonl"
            self.record.setdefault("tail", {})[server.name] = load(server, self.images, out, *how)
            self.keep()

    def _profile(self, server: Server, count: int) -> None:
        found: list[object] = self.record.setdefault("profiles", [])
        path = f"/profile?requests={count}"
        thread = threading.Thread(target=lambda: found.append(server.ask("POST", path)))
        thread.start()
        number = 0
        while thread.is_alive() and number < 5:
            out = self.scratch / f"profile-{count}-{number}.jsonl"
            load(server, self.images, out, "--concurrency", "6", "--requests", str(count), "--first", "0")
            thread.join(5)
            number += 1

    def export(self, model: str, mode: str) -> list[Export]:
        """Begin to export a mode, with and without what dynamo can keep of its tracing."""
        options = ["--device", self.chosen.device, "--mode", mode, "--batch-size", "1", *self.chosen.options]
        begun = []
        for name, more in (("caches", {}), ("caches, precompiled", {"TORCH_CACHING_PRECOMPILE": "1"})):
            target = self.scratch / f"{model}-{name.replace(', ', '-')}"
            log = self.logs / f"export-{target.name}.log"
            with log.open("w") as file:
                process = subprocess.Popen(
                    [*CLI, "export", str(target), model, *options],
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **self._empty(), **more},
                )
            begun.append(Export(f"{model} {mode}, {name}", target, log, process, more))
        return begun

    def start_warm(self, export: Export) -> None:
        """Starts from what was exported, in processes whose compilers have empty caches."""
        try:
            export.process.wait(max(1.0, min(60.0, self.left_s)))
        except subprocess.TimeoutExpired:
            export.process.kill()
        size = sum(path.stat().st_size for path in export.target.glob("*"))
        row: dict[str, Any] = {"bytes": size, "said": export.log.read_text().splitlines()[-4:], "starts_s": []}
        self.record.setdefault("warm", {})[export.name] = row
        for number in range(self.chosen.starts if size else 0):
            if self.fits(f"{export.name}, start {number + 1}", 15):
                arguments = ["--load", str(export.target), "--device", self.chosen.device, *self.chosen.options]
                server = Server(
                    f"{export.name} {number}", arguments, self.logs, {**self._empty(), **export.environment}
                )
                row["starts_s"].append(server.ready(time.perf_counter() + min(60, self.left_s)))
                server.close()
        print(export.name, row, flush=True)

    def _empty(self) -> dict[str, str]:
        folder = tempfile.mkdtemp(dir=self.scratch)
        return {"TORCHINDUCTOR_CACHE_DIR": folder, "TRITON_CACHE_DIR": f"{folder}/triton"}


def main() -> None:
    """Measure and write DIR/serving.json, the samples of each load, and the run folder of the profile."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--serve", nargs="+", required=True, metavar="MODEL:MODE,...")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--device", default="cuda")
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--height", type=int, default=768, help="of the images; they are 4/3 as wide")
    options.add_argument("--concurrency", default="1,4,16")
    options.add_argument("--seconds", type=float, default=5)
    options.add_argument("--tail", type=float, default=60)
    options.add_argument("--broken", type=int, default=0)
    options.add_argument("--profile", type=int, nargs="*", default=[], metavar="N")
    options.add_argument("--warm", nargs="*", default=[], metavar="MODEL:MODE")
    options.add_argument("--starts", type=int, default=2)
    options.add_argument("--room", type=float, default=120, help="GiB of GPU memory for all servers at once")
    options.add_argument("--patience", type=float, default=300, help="seconds for servers to be ready")
    options.add_argument("--until", type=float, default=540, help="seconds after which nothing more is begun")
    options.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="more, of sam serve and sam export")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        session = Session(chosen, Path(scratch))
        plan = [(model, modes.split(",")) for model, _, modes in (one.partition(":") for one in chosen.serve)]
        together = chosen.device == "cpu" or torch.cuda.get_device_properties(0).total_memory > chosen.room * 2**30
        exports = [export for one in chosen.warm for export in session.export(*one.split(":"))]
        with contextlib.ExitStack() as stack:
            every = {model: session.start(model, modes, stack) for model, modes in plan if together}
            session.wait([server for servers in every.values() for server in servers])
            for model, modes in plan:
                with contextlib.ExitStack() as alone:
                    if not together:
                        every[model] = session.start(model, modes, alone)
                        session.wait(every[model])
                    session.measure(every[model], last=model == plan[-1][0])
                for server in every[model]:
                    server.close()
        for export in exports:
            session.start_warm(export)
        session.keep()


if __name__ == "__main__":
    main()
