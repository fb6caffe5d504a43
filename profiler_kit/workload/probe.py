"""Say what a device is and what it can do: `python -m profiler_kit.workload.probe DEVICE OUT ARGV...` (a Probe out)."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from profiler_kit.capture.environment import command_line, describe_environment
from profiler_kit.files import write_json
from profiler_kit.formats.ladder_record import Ceilings
from profiler_kit.workload.ceilings import measure_ceilings


@dataclass(frozen=True)
class Probe:
    """The machine of a ladder. command: the command line of the process that asked."""

    device_name: str
    versions: Mapping[str, str]
    git_commit: str | None
    command: str
    ceilings: Ceilings


def probe(device: torch.device, arguments: list[str]) -> Probe:
    """Describe the device and measure its ceilings."""
    import torchvision

    found = describe_environment(device)
    return Probe(
        found.device_name,
        {**found.versions, "torchvision": str(torchvision.__version__)},
        found.git_commit,
        command_line(arguments),
        measure_ceilings(device),
    )


def main() -> None:
    """Write the Probe of the device named on the command line."""
    write_json(Path(sys.argv[2]), dataclasses.asdict(probe(torch.device(sys.argv[1]), sys.argv[3:])))


if __name__ == "__main__":
    main()
