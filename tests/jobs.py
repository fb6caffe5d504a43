"""Jobs of several ranks made by a small simulation, with their truth: who is slow by what, and which kernels are one
collective.

Each rank has a host that launches, a stream that computes and one that communicates. A collective's kernel starts when
the rank has launched it, what was launched before is done and the stream is free; it ends on all members a transfer
after the last one started. Then the clock of each rank is shifted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LAUNCH_US = 4.0
COMPUTE, COMMUNICATE = 7, 17
KERNELS = {
    "allreduce": "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
    "_allgather_base": "ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
    "all_to_allv": "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)",
    "send": "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)",
    "recv": "ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)",
}


@dataclass
class SimulatedJob:
    """How a job is made. layout: dp, tp (pairs), 3d (pairs of tensor, data and pipeline ranks) or experts (all-to-all).

    slow: who; cause: by what (compute, host, data, copies, link, or nothing); since: from which step on; only: in that
    step alone. also: others that are slow, by what each. dropped: a rank that loses a kernel in the middle. late: ranks
    of odd number begin recording so many collectives later. arguments: whether kernels say what they communicate;
    numbers: whether they are numbered. slower: times as long, all kernels but copies.
    """

    ranks: int = 4
    layout: str = "dp"
    slow: int | tuple[int, ...] = 2
    cause: str = ""
    since: int = 0
    only: bool = False
    also: Mapping[int, str] = field(default_factory=dict)
    steps: int = 4
    jitter: float = 0.02
    skew_us: float = 10_000.0
    drift_ppm: float = 0.0
    late: int = 0
    dropped: int | None = None
    arguments: bool = True
    numbers: bool = True
    seed: int = 0
    nodes: int = 1
    slower: float = 1.0
    truth: dict[int, list[int]] = field(default_factory=dict)  # of each rank, which collective each kernel is
    skew: dict[int, float] = field(default_factory=dict)
    span_us: float = 0.0  # from the first arrival at a collective to the end of the last one

    def write(self, folder: Path, left_out: Sequence[int] = ()) -> Path:
        """Write the trace of each rank."""
        for rank, events in self.run().items():
            if rank in left_out:
                continue
            where = folder / f"node{rank * self.nodes // self.ranks}" if self.nodes > 1 else folder
            where.mkdir(parents=True, exist_ok=True)
            info = {"rank": rank, "world_size": self.ranks, "backend": "nccl", "pg_config": self._config(rank)}
            text = json.dumps({"schemaVersion": 1, "distributedInfo": info, "traceEvents": events})
            (where / f"rank{rank}.json").write_text(text.replace('}, {"ph"', '},\n{"ph"'))
        return folder

    @property
    def slow_ranks(self) -> list[int]:
        return [self.slow] if isinstance(self.slow, int) else list(self.slow)

    # ---- groups

    def _members(self, rank: int, kind: str) -> list[int]:
        tensor, pipeline = (2, 2) if self.layout == "3d" else (2, 1) if self.layout == "tp" else (1, 1)
        data = self.ranks // (tensor * pipeline)
        t, d, p = rank % tensor, rank // tensor % data, rank // (tensor * data)
        if kind == "tp":
            return [p * tensor * data + d * tensor + one for one in range(tensor)]
        if kind == "pp":
            return [one * tensor * data + d * tensor + t for one in range(pipeline)]
        return [p * tensor * data + one * tensor + t for one in range(data)]

    def _kinds(self) -> list[str]:
        return {"dp": ["dp"], "experts": ["dp"], "tp": ["tp"], "3d": ["tp", "dp", "pp"]}[self.layout]

    def _name(self, rank: int, kind: str) -> str:
        return str(1 + 100 * self._kinds().index(kind) + self._members(rank, kind)[0])

    def _config(self, rank: int) -> list[dict[str, Any]]:
        return [
            {"pg_name": self._name(rank, kind), "pg_desc": kind, "pg_size": len(self._members(rank, kind)),
             "ranks": self._members(rank, kind)}
            for kind in self._kinds()
        ]  # fmt: skip

    # ---- time

    def _program(self) -> list[tuple[str, Any]]:
        """One step: (what, of what)."""
        found: list[tuple[str, Any]] = [("region", "data"), ("host", 200.0), ("copy", 150.0), ("end", "")]
        found.append(("region", "forward"))
        for layer in range(3):
            found.append(("gemm", (f"gemm_{layer}", 400.0)))
            if self.layout == "experts":
                found += [("collective", ("dp", "all_to_allv", 90.0)), ("wait", "")]
            if self.layout in ("tp", "3d"):
                kind = "allreduce" if layer % 2 else "_allgather_base"
                found += [("collective", ("tp", kind, 40.0)), ("wait", "")]
        found.append(("end", ""))
        if self.layout == "3d":
            found += [("collective", ("pp", "p2p", 60.0)), ("wait", "")]
        found.append(("region", "backward"))
        for layer in range(3):
            found.append(("gemm", (f"backward_{layer}", 700.0)))
            if self.layout != "tp":
                found.append(("collective", ("dp", "allreduce", 120.0)))
        found += [("wait", ""), ("end", ""), ("gemm", ("optimizer", 200.0)), ("sync", "")]
        return [(what, self._longer(of)) for what, of in found]

    def _longer(self, of: Any) -> Any:
        """What takes so long, `slower` times as long."""
        return (*of[:-1], of[-1] * self.slower) if isinstance(of, tuple) else of

    def _slow_by(self, step: int, cause: str) -> list[int]:
        """The ranks that are slow by that in that step."""
        if not (step == self.since if self.only else step >= self.since):
            return []
        return [
            *(self.slow_ranks if self.cause == cause else ()),
            *(one for one in self.also if self.also[one] == cause),
        ]

    def _factor(self, rank: int, step: int, kind: str) -> float:
        return {"compute": 1.4, "copies": 8.0}[kind] if rank in self._slow_by(step, kind) else 1.0

    def run(self) -> dict[int, list[dict[str, Any]]]:
        """The events of each rank."""
        rng = np.random.default_rng(self.seed)
        offsets = {rank: float((rng.random() * 2 - 1) * self.skew_us) if rank else 0.0 for rank in range(self.ranks)}
        self.skew = offsets
        host, stream, wire = (np.zeros(self.ranks) for _ in range(3))
        last = np.zeros(self.ranks)  # the end of the last collective
        events: dict[int, list[dict[str, Any]]] = {rank: [] for rank in range(self.ranks)}
        made: dict[int, list[tuple[int, dict[str, Any]]]] = {rank: [] for rank in range(self.ranks)}
        opened: dict[int, list[tuple[str, float]]] = {rank: [] for rank in range(self.ranks)}
        correlation, number = 0, 0
        counts: dict[tuple[int, str], int] = {}
        for step in range(self.steps):
            begin = host.copy()
            for what, of in self._program():
                noise = 1 + np.abs(rng.normal(0, self.jitter, self.ranks))
                correlation += 1
                if what in ("gemm", "copy"):
                    name, took = of if what == "gemm" else ("Memcpy HtoD (Pinned -> Device)", of)
                    for rank in range(self.ranks):
                        self._launch(events[rank], correlation, host[rank])
                        host[rank] += LAUNCH_US
                        start = max(host[rank] + 2, stream[rank])
                        length = (
                            took * noise[rank] * self._factor(rank, step, "compute" if what == "gemm" else "copies")
                        )
                        events[rank].append(_gpu(what, name, start, length, COMPUTE, correlation))
                        stream[rank] = start + length
                elif what == "host":
                    host += of * noise
                    host[self._slow_by(step, "data")] += 2_500
                elif what == "region":
                    for rank in range(self.ranks):
                        opened[rank].append((of, host[rank]))
                    if of == "forward":
                        host[self._slow_by(step, "host")] += 2_500
                elif what == "end":
                    for rank in range(self.ranks):
                        name, since = opened[rank].pop()
                        events[rank].append(_span("user_annotation", name, since, host[rank] - since))
                elif what == "wait":
                    stream = np.maximum(stream, last)
                elif what == "sync":
                    for rank in range(self.ranks):
                        events[rank].append(_span("cuda_runtime", "cudaStreamSynchronize", host[rank],
                                                  max(stream[rank] - host[rank], 1.0)))  # fmt: skip
                    host = np.maximum(host, stream) + 3
                else:
                    kind, operation, transfer = of
                    for rank in range(self.ranks):
                        self._launch(events[rank], correlation, host[rank])
                        host[rank] += LAUNCH_US
                    start = np.maximum(np.maximum(host + 2, stream), wire)
                    done: set[int] = set()
                    for rank in range(self.ranks):
                        members = self._members(rank, kind)
                        if rank in done:
                            continue
                        done |= set(members)
                        number += 1
                        took = transfer * (1 + abs(float(rng.normal(0, 0.02))))
                        if not set(members).isdisjoint(self._slow_by(step, "link")):
                            took *= 8
                        end = max(start[one] for one in members) + took
                        for one in members:
                            key = one, self._name(one, kind)
                            counts[key] = counts.get(key, 0) + 1
                            event = self._collective(one, kind, operation, members, counts[key])
                            event |= {"ts": start[one], "dur": end - start[one]}
                            event["args"] |= {"correlation": correlation}
                            made[one].append((number, event))
                            last[one] = wire[one] = end
            for rank in range(self.ranks):
                events[rank].append(
                    _span("user_annotation", f"ProfilerStep#{step}", begin[rank], host[rank] - begin[rank])
                )
        self.span_us = float(wire.max()) - min(one[0][1]["ts"] for one in made.values())
        return {rank: self._recorded(rank, events[rank], made[rank], offsets[rank]) for rank in range(self.ranks)}

    def _launch(self, events: list[dict[str, Any]], correlation: int, at: float) -> None:
        events.append(_span("cuda_runtime", "cudaLaunchKernel", at, LAUNCH_US - 1, correlation=correlation))

    def _collective(self, rank: int, kind: str, operation: str, members: list[int], count: int) -> dict[str, Any]:
        peer: Mapping[str, int] = {}
        if operation == "p2p":
            sends = rank == members[0]
            operation = "send" if sends else "recv"
            peer = {"Dst Rank": members[1]} if sends else {"Src Rank": members[0]}
        event = _gpu("gemm", KERNELS[operation], 0.0, 0.0, COMMUNICATE, 0)
        if self.arguments:
            event["args"] |= {
                "Collective name": operation, "Process Group Name": self._name(rank, kind), "Group size": len(members),
                "Process Group Ranks": json.dumps(members), "In msg nelems": 1 << 20, "Out msg nelems": 1 << 20,
                "dtype": "Float", **peer, **({"Seq": count} if self.numbers else {}),
            }  # fmt: skip
        return event

    def _recorded(
        self, rank: int, events: list[dict[str, Any]], made: list[tuple[int, dict[str, Any]]], offset: float
    ) -> list[dict[str, Any]]:
        late = self.late if rank % 2 else 0
        cut = made[late][1]["ts"] - 1 if late else -1.0
        kept = [
            one for at, one in enumerate(made) if at >= late and not (rank == self.dropped and at == len(made) // 2)
        ]
        self.truth[rank] = [number for number, _ in kept]
        every = [*(one for one in events if one["ts"] >= cut), *(event for _, event in kept)]
        speed = 1 + (self.drift_ppm * 1e-6 if rank else 0)
        return [
            one | {"ts": round(1e9 + one["ts"] * speed + offset, 3), "dur": round(max(one["dur"], 0.001), 3)}
            for one in every
        ]


def _span(category: str, name: str, start: float, length: float, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": category, "name": name, "pid": 1, "tid": 1, "ts": start, "dur": length, "args": args}


def _gpu(what: str, name: str, start: float, length: float, stream: int, correlation: int) -> dict[str, Any]:
    category = "gpu_memcpy" if what == "copy" else "kernel"
    args = {"device": 0, "stream": stream, "correlation": correlation}
    return {"ph": "X", "cat": category, "name": name, "pid": 0, "tid": stream, "ts": start, "dur": length, "args": args}
