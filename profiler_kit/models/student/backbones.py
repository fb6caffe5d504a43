"""Small convolutional backbones, and the pyramid that brings their maps to the shapes of a teacher's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import nn

from profiler_kit.models.checkpoints import CheckpointKind, State

Tensor = torch.Tensor
STRIDES: Final = (4, 8, 16, 32)  # of the maps that a backbone gives
PYRAMID: Final = 128  # width of the pyramid
INIT: Final = CheckpointKind(
    "weights of the backbone (a state dict written by torch.save)", "Try torchvision's own file of that backbone."
)


@dataclass(frozen=True)
class Level:
    """A map of the teacher's encoder: how many channels, and how many pixels a cell is wide."""

    channels: int
    stride: int


class StudentEncoder(nn.Module):
    """From images to the maps that the teacher's encoder gives.

    float[B, 3, S, S] with S a multiple of 32 to one float[B, channels, S / stride, S / stride] for each level, finest
    first; of a single level the map itself, as the teacher's. img_size: S, as segment-anything's encoders say it.
    """

    def __init__(self, backbone: str, levels: Sequence[Level], side: int) -> None:
        super().__init__()
        self.stages, widths = BACKBONES[backbone]()
        self.img_size = side
        self._strides = tuple(level.stride for level in levels)
        self._first = STRIDES.index(min(self._strides))
        self.laterals = nn.ModuleList(nn.Conv2d(width, PYRAMID, 1) for width in widths[self._first :])
        self.heads = nn.ModuleList(
            nn.Sequential(*conv(PYRAMID, PYRAMID, 3), nn.ReLU(), nn.Conv2d(PYRAMID, level.channels, 1))
            for level in levels
        )

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class."""
        maps, x = [], images
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        found, above = {}, None
        strides = STRIDES[self._first :]
        for stride, lateral, x in reversed(list(zip(strides, self.laterals, maps[self._first :], strict=True))):
            x = lateral(x)
            above = x if above is None else x + F.interpolate(above, scale_factor=2.0, mode="nearest")
            found[stride] = above
        given = tuple(head(found[stride]) for head, stride in zip(self.heads, self._strides, strict=True))
        return given[0] if len(given) == 1 else given


Made = tuple[nn.ModuleList, tuple[int, ...]]


def conv(inside: int, outside: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """A convolution that keeps the size but for its stride, and its batch norm."""
    return nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outside)


def _resnet18() -> Made:
    from torchvision.models import resnet18

    net = resnet18(weights=None)
    stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1)
    return nn.ModuleList([stem, net.layer2, net.layer3, net.layer4]), (64, 128, 256, 512)


def _mobilenet_v3_large() -> Made:
    from torchvision.models import mobilenet_v3_large

    # eps as published; its momentum of 0.01 is for long trainings: after some hundred steps the statistics, and more so
    # their average, were still those of the beginning
    parts = mobilenet_v3_large(weights=None, norm_layer=partial(nn.BatchNorm2d, eps=1e-3)).features
    cuts = pairwise((0, 4, 7, 13, 17))
    return nn.ModuleList(parts[start:end] for start, end in cuts), (24, 40, 112, 960)


class _Gate(nn.Module):
    """The input times what a small network says of it, from 0 to 1."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.says = nn.Sequential(*parts, nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """float[B, C, H, W]."""
        return cast("Tensor", x * self.says(x))


class AdditiveAttention(nn.Module):
    """CAS-ViT's token mixer: what queries and keys say of their context is added, not multiplied.

    Both pass a gate over places and one over channels; their sum, mixed with its neighbours, weighs the values.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.query, self.key = (
            nn.Sequential(
                _Gate(_depthwise(width), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 1, 1, bias=False)),
                _Gate(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1, bias=False)),
            )
            for _ in range(2)
        )
        self.mix, self.project = _depthwise(width), _depthwise(width)

    def forward(self, x: Tensor) -> Tensor:
        """float[B, C, H, W]."""
        query, key, value = self.qkv(x).chunk(3, dim=1)
        return cast("Tensor", self.project(self.mix(self.query(query) + self.key(key)) * value))


class CasBlock(nn.Module):
    """A block of CAS-ViT: local integration, additive attention and an MLP, each added to what it is given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        near = (nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), _depthwise(width), nn.ReLU())
        self.local = nn.Sequential(*near, nn.Conv2d(width, width, 1))
        self.attention = nn.Sequential(nn.BatchNorm2d(width), AdditiveAttention(width))
        self.mlp = nn.Sequential(
            nn.BatchNorm2d(width), nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """float[B, C, H, W]."""
        for part in (self.local, self.attention, self.mlp):
            x = x + part(x)
        return x


def _depthwise(width: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, padding=1, groups=width)


def _cas_vit(widths: Sequence[int], blocks: Sequence[int]) -> Callable[[], Made]:
    """As Zhang et al. describe it (CAS-ViT, arXiv 2408.03703): four stages, each of half the size of the one before."""

    def build() -> Made:
        first = widths[0]
        begin: list[nn.Module] = [*conv(3, first // 2, 3, 2), nn.ReLU(), *conv(first // 2, first, 3, 2), nn.ReLU()]
        stages = []
        for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            entry = begin if number == 0 else [*conv(widths[number - 1], width, 3, 2)]
            stages.append(nn.Sequential(*entry, *(CasBlock(width) for _ in range(count))))
        return nn.ModuleList(stages), tuple(widths)

    return build


BACKBONES: Final[Mapping[str, Callable[[], Made]]] = {
    "resnet18": _resnet18,
    "mobilenet_v3_large": _mobilenet_v3_large,
    "cas_vit_s": _cas_vit((48, 64, 128, 256), (3, 3, 6, 3)),
    "cas_vit_tiny": _cas_vit((8, 16, 24, 32), (1, 1, 1, 1)),
}


def start_from(encoder: StudentEncoder, path: Path, backbone: str) -> str:
    """Load a backbone's own weights, classifier left out; gives their "checkpoint:<sha256>". Raises CheckpointError.

    torchvision's files name the layers otherwise but in our order; those of CAS-ViT are named as ours are.
    """
    state = {key: tensor for key, tensor in INIT.read(path).items() if key.split(".")[0] not in ("fc", "classifier")}
    wanted: State = encoder.stages.state_dict()
    if not set(wanted) & set(state):
        state = dict(zip(wanted, state.values(), strict=False)) if len(wanted) == len(state) else state
    INIT.check(path, state, wanted, backbone)
    encoder.stages.load_state_dict(state)
    return INIT.weights(path, None)
