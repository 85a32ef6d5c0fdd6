"""Several teachers as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn


class Ensemble(nn.Module):
    """The weighted mean of the images that several networks restore.

    Args:
        nets: the members.
        weights: their weights; only their ratios count.

    Raises:
        ValueError: no members, a weight that is negative or no number, or only zeros.
    """

    untappable = "an ensemble has an output but no layers to compare"

    def __init__(self, nets: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        for number, weight in enumerate(weights):
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise ValueError(f"ensemble:{number}:weight: {weight!r}, expected a number of at least 0")
        if not sum(weights) > 0:
            raise ValueError(f"ensemble: weights {list(weights)}, expected one above 0")
        self.members = nn.ModuleList(nets)
        self.weights = [weight / sum(weights) for weight in weights]

    def forward(self, x: Tensor) -> Tensor:
        """The mean image of (N, C, H, W).

        Raises:
            ValueError: the members' images differ in shape.
        """
        images = [net(x) for net in self.members]
        shapes = [tuple(map(int, image.shape)) for image in images]  # while it is traced they are tensors
        if len(set(shapes)) > 1:
            raise ValueError(f"ensemble: its members return {', '.join(map(str, shapes))}, expected images of one shape")
        return sum(weight * image for weight, image in zip(self.weights, images, strict=True))  # type: ignore[return-value]
