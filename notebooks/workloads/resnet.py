"""A torchvision ResNet as a workload: `profiler-kit capture notebooks/workloads/resnet.py:resnet50`."""

from __future__ import annotations

import torch
import torchvision


class ResNet:
    """A ResNet with random weights on noise of `image_size` pixels."""

    def __init__(self, name: str, image_size: int = 224) -> None:
        self.name = name
        self.image_size = image_size
        self.weights = "random"

    def model(self, device: torch.device) -> torch.nn.Module:
        """The model as torchvision makes it; `weights=None` downloads nothing."""
        return torchvision.models.get_model(self.name, weights=None).to(device)

    def batch(self, size: int, device: torch.device) -> torch.Tensor:
        """float32[size, 3, side, side]: noise runs as fast as photographs do."""
        return torch.randn(size, 3, self.image_size, self.image_size, device=device)

    def step(self, model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Scores of 1,000 classes, float32[size, 1000]."""
        scores: torch.Tensor = model(images)
        return scores

    def at_image_size(self, side: int) -> ResNet:
        """The same for other images: the `image-size` study asks for it."""
        return ResNet(self.name, side)


workload = ResNet("resnet18")
resnet50 = ResNet("resnet50")
small = ResNet("resnet18", image_size=64)
