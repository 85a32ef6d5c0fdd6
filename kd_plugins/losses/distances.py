"""What contrastive losses share: the levels' weights, and the distance from several images without keeping all differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

DEFAULT_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def precise(x: Tensor) -> Tensor:
    """In float32; float64 stays float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def level_weights(loss: nn.Module, weights: Sequence[float] | None, levels: int) -> Sequence[float]:
    """One weight for each level, shallow to deep.

    Args:
        loss: the loss, and by its `extractor` the feature space, for the message.
        weights: those of the option file; None for 1/32, 1/16, 1/8, 1/4, 1, the last of them for fewer levels.
        levels: how many there are.

    Raises:
        ValueError: not as many weights as levels.
    """
    if weights is None and levels <= len(DEFAULT_WEIGHTS):
        return DEFAULT_WEIGHTS[-levels:]
    if weights is None or len(weights) != levels:
        given = "no `weights`, and only 5 by default" if weights is None else f"weights={list(weights)}"
        raise ValueError(
            f"{type(loss).__name__}: {type(loss.extractor).__name__} has {levels} levels, but {given}; expected {levels}"
        )
    return weights


def summed_distance(anchor: Tensor, others: Iterable[Tensor]) -> Tensor:
    """The mean absolute difference of each sample from its own in each of the others, summed over the others.

    Autograd would keep one tensor of the features' size for each of the others; the sum of the signs is all that the backward pass
    needs.

    Args:
        anchor: (N, C, H, W).
        others: any number of tensors of that shape, made as they are needed; they get no gradient.

    Returns:
        (N,).
    """
    return _SummedDistance.apply(anchor, others)  # type: ignore[return-value]


class _SummedDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, others: Iterable[Tensor]) -> Tensor:
        distance = anchor.new_zeros(len(anchor))
        signs = torch.zeros_like(anchor) if ctx.needs_input_grad[0] else None
        for other in others:
            difference = anchor - other
            if signs is not None:
                signs += difference.sign()
            distance += difference.abs_().mean((1, 2, 3))
        if signs is not None:
            ctx.save_for_backward(signs)
            ctx.scale = 1 / anchor[0].numel()
        return distance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (signs,) = ctx.saved_tensors
        return signs * (grad * ctx.scale).view(-1, 1, 1, 1), None
