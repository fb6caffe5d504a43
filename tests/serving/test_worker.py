"""The thread that runs the model, without a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from profiler_kit.models.sam.generator import Pixels, Points
from profiler_kit.models.serving.worker import Job, Worker


def test_who_hangs_up_while_a_batch_is_tried_again_shifts_no_answer() -> None:
    """Each request gets the masks of its own image, although the second one lost its image in the first try."""
    jobs = [Job(number, 0, image=np.full((2, 2, 3), number, np.uint8)) for number in range(5)]
    tries: list[int] = []

    def generate(images: Sequence[Pixels], points: Sequence[Points | None]) -> Iterator[list[dict[str, Any]]]:
        tries.append(len(images))
        if len(tries) == 1:
            jobs[1].image = None
            raise torch.OutOfMemoryError("CUDA out of memory")
        for image in images:
            yield [{"of": int(image[0, 0, 0])}]

    worker = Worker(generate, torch.device("cpu"), size=8, max_wait_s=0, on_their_way=lambda: 0)
    worker._run_batch(jobs)
    assert tries == [5, 2, 2]
    assert not jobs[1].result.done()
    assert [jobs[at].result.result() for at in (0, 2, 3, 4)] == [[{"of": at}] for at in (0, 2, 3, 4)]
