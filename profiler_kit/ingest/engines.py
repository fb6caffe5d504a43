"""Spread the reading of many ranks: over processes of this machine, or over a cluster (Dask distributed).

Who reads a batch writes it too, so that only names travel, and what is finished stays whatever dies.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import IO, Any, Final, Protocol

from profiler_kit import errors
from profiler_kit.errors import InputError, KitError, OptionError
from profiler_kit.ingest.one_rank import FILE, RankRow, Work, ingest_batch, write_batch
from profiler_kit.load.discover.rank_sources import Source, is_address
from profiler_kit.load.rank_store import BATCH_RANKS
from profiler_kit.progress import Report, silent

BATCH_BYTES: Final = 64 << 20  # of packed traces: a batch is what a killed ingest has to read again
# what it takes here to start a process, and to read a file: when another process pays (benchmarks/ranks.py)
START_S: Final = 0.7
FILE_S: Final = 0.004
BYTE_S: Final = 5e-8
CONNECT_S: Final = 10
_LENGTH_BYTES: Final = 4
_INSTALL: Final = "Install it: pip install 'profiler-kit[cluster]'"


class _Note(Protocol):
    def __call__(self, batch: Sequence[Source]) -> None: ...


class _DiedError(Exception):
    """The process that read a batch has died; how."""


def ingest(
    work: Work,
    sources: Sequence[Source],
    *,
    workers: int | None = None,
    cluster: str | None = None,
    report: Report = silent,
) -> None:
    """Read these files into the store.

    workers: processes of this machine, with this one; as many as pay unless given. cluster: the address of a Dask
    scheduler, whose workers have profiler_kit and see the files and the store under the same paths or addresses.

    Raises OptionError when the cluster cannot be used, and what writing the store raises.
    """
    if not sources:
        return
    total = sum(source.size_bytes for source in sources)
    read: list[Source] = []

    def note(batch: Sequence[Source]) -> None:
        read.extend(batch)
        report(sum(source.size_bytes for source in read), total, f"{len(read)} of {len(sources)} files")

    if cluster is not None:
        _on_cluster(work, [replace(one, where=_everywhere(one.where)) for one in sources], cluster, note)
        return
    of_process = any(where.startswith("memory://") for where in (work.root, *(source.where for source in sources)))
    _on_this_machine(work, sources, 1 if of_process else workers or _that_pay(sources), note)


def _that_pay(sources: Sequence[Source]) -> int:
    seconds = sum(FILE_S + BYTE_S * source.size_bytes for source in sources)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, len(sources), int(seconds / (2 * START_S))))


def _everywhere(where: str) -> str:
    return where if is_address(where) else os.path.abspath(where)  # noqa: PTH100 - keeps links


def _batches(sources: Sequence[Source], readers: int) -> list[list[Source]]:
    """Some 64 files each, fewer where they are large or where a reader would have none."""
    most = min(BATCH_RANKS, -(-len(sources) // readers))
    found: list[list[Source]] = []
    held = BATCH_BYTES
    for source in sources:
        if not found or len(found[-1]) >= most or held + source.size_bytes > BATCH_BYTES:
            found.append([])
            held = 0
        found[-1].append(source)
        held += source.size_bytes
    return found


def _write_lost(work: Work, source: Source, why: str) -> None:
    """Note that reading a file ends the process; without a stamp, so that it is tried again next time."""
    said = (
        f"{FILE}: the process that read it ended ({why}), expected a trace that this machine has the memory to read. "
    )
    row = RankRow(source.name, "", source.size_bytes, InputError.__name__, f"{said}Record fewer steps.")
    write_batch(work.store, [(row, None)])


# ---- processes of this machine


def _on_this_machine(work: Work, sources: Sequence[Source], workers: int, note: _Note) -> None:
    """This process reads as the others do; those are started with subprocess (see load/trace/second_process.py)."""
    waiting: SimpleQueue[list[Source]] = SimpleQueue()
    batches = _batches(sources, workers)
    for batch in batches:
        waiting.put(batch)
    readers = [_Reader(work) for _ in range(min(workers, len(batches)) - 1)]
    threads = [threading.Thread(target=reader.read_all, args=(waiting, note), daemon=True) for reader in readers]
    for thread in threads:
        thread.start()
    try:
        for batch in _taken(waiting):
            ingest_batch(work, batch)
            note(batch)
        for thread in threads:
            thread.join()
    finally:
        for reader in readers:
            reader.end()
        for thread in threads:  # one that writes as the process ends would abort it
            thread.join()
    for reader in readers:
        if reader.problem is not None:
            raise reader.problem


def _taken(waiting: SimpleQueue[list[Source]]) -> Iterator[list[Source]]:
    with contextlib.suppress(Empty):
        while True:
            yield waiting.get_nowait()


class _Reader:
    """A process that reads batches, seen from a thread of this one."""

    def __init__(self, work: Work) -> None:
        self.problem: KitError | None = None
        self._work = work
        self._ended = False
        self._child: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        late = "from profiler_kit.late_import import import_late; import_late('pandas')"  # reading makes no frame
        code = f"import sys; sys.path[:] = {sys.path!r}; {late}; from {__name__} import main; main()"
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert child.stdin is not None
        with contextlib.suppress(OSError):  # it has died: what is sent next says so
            _send(child.stdin, self._work)
        return child

    def read_all(self, waiting: SimpleQueue[list[Source]], note: _Note) -> None:
        """Have the process read batch after batch. One that it dies of is read file by file, to find which it was."""
        for batch in _taken(waiting):
            if self._ended:
                return
            try:
                self._read(batch)
                note(batch)
            except _DiedError as died:
                if self._ended:
                    return
                self._close()
                try:
                    if len(batch) == 1:
                        _write_lost(self._work, batch[0], str(died))
                        note(batch)
                except KitError as error:
                    self.problem = error
                    return
                for source in batch if len(batch) > 1 else ():
                    waiting.put([source])
            except KitError as error:
                self.problem = error
                return

    def _read(self, batch: list[Source]) -> None:
        child = self._child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        if self._ended:  # before it was there to be killed
            child.kill()
        try:
            _send(child.stdin, batch)
            kind, said = _received(child.stdout)
        except (OSError, EOFError, ValueError):  # ValueError: its pipes were closed, as it was killed
            code = child.wait()
            raise _DiedError(signal.Signals(-code).name if code < 0 else f"exit code {code}") from None
        if kind:
            raise getattr(errors, kind)(said)

    def end(self) -> None:
        """Kill the process, whatever it does."""
        self._ended = True
        self._close()

    def _close(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        child.wait()


def _send(pipe: IO[bytes], what: object) -> None:
    data = pickle.dumps(what)  # between this package and itself; a path may be no UTF-8
    pipe.write(len(data).to_bytes(_LENGTH_BYTES, "little") + data)
    pipe.flush()


def _received(pipe: IO[bytes]) -> Any:
    size = int.from_bytes(pipe.read(_LENGTH_BYTES), "little")
    data = pipe.read(size)
    if not data:
        raise EOFError
    return pickle.loads(data)


def main() -> None:
    """The process: read the batches that come, until there are no more or its parent has gone."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(EOFError, BrokenPipeError):
        work = _received(source)
        while True:
            batch = _received(source)
            said = ("", "")
            try:
                ingest_batch(work, batch)
            except KitError as error:
                said = (type(error).__name__, str(error))
            _send(target, said)


# ---- a cluster


def _on_cluster(work: Work, sources: Sequence[Source], address: str, note: _Note) -> None:
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError as error:
        raise OptionError(f"--cluster {address}: Dask distributed is not installed ({error}). {_INSTALL}") from error
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"--cluster {address}: no Dask scheduler answers there ({' '.join(str(error).split())[:200]}), expected an "
            "address such as tcp://host:8786. Start one: dask scheduler"
        ) from error
    with client:
        readers = sum(client.nthreads().values()) or 1
        work = replace(work, root=_everywhere(work.root))
        reading = {client.submit(ingest_batch, work, one, pure=False): one for one in _batches(sources, readers)}
        finished = as_completed(list(reading), loop=client.loop)
        for future in finished:
            batch = reading.pop(future)
            problem = future.exception()
            if isinstance(problem, KilledWorker) and len(batch) > 1:
                again = {client.submit(ingest_batch, work, [one], pure=False): [one] for one in batch}
                reading |= again
                finished.update(again)
                continue
            if isinstance(problem, KilledWorker):
                _write_lost(work, batch[0], "its worker died")
            elif isinstance(problem, KitError):
                raise problem
            elif problem is not None:
                raise OptionError(
                    f"--cluster {address}: its workers cannot read ranks ({type(problem).__name__}: {problem}), "
                    f"expected workers with this version of profiler_kit that see {work.root}. {_INSTALL} there."
                )
            note(batch)
