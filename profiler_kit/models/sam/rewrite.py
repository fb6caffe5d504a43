"""Stand-ins for the modules of a SAM: same parameters, same state dict, another forward (a module in, one out)."""

from __future__ import annotations

import torch


class StandIn(torch.nn.Module):
    """Takes the place of `published` and shares everything with it: parameters, children, hooks, plain attributes.

    Keys of the state dict stay what they were, and what was registered on the module before (such as the casts of
    reduced precision) goes on working.
    """

    def __init__(self, published: torch.nn.Module) -> None:
        super().__init__()
        self.__dict__.update(published.__dict__)
