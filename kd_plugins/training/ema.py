"""Exponential moving averages of a network: of its weights, and of the statistics that belong to them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_STATISTICS = ("running_mean", "running_var")  # of every norm of PyTorch that keeps some


@torch.no_grad()
def ema_update(net: nn.Module, other: nn.Module, decay: float) -> None:
    """net <- decay * net + (1 - decay) * other, in place.

    The running statistics of norms are averaged like the weights: the other network's own do not fit averaged weights that still
    lag behind (PSNR can fall below the input's). Every other buffer is copied: counters, tables, vectors of unit length.

    Args:
        net: the average.
        other: the network that is averaged.
        decay: how much of itself `net` keeps.
    """
    weights = dict(other.named_parameters())
    average: dict[str, tuple[Tensor, Tensor]] = {name: (mine, weights[name]) for name, mine in net.named_parameters()}
    buffers = dict(other.named_buffers())
    for name, mine in net.named_buffers():
        value = buffers.get(name)
        if value is None or value.shape != mine.shape:  # a cache that the network fills as it runs
            continue
        if name.rpartition(".")[2] in _STATISTICS:
            average[name] = (mine, value)
        else:
            mine.copy_(value)
    own, given = (list(column) for column in zip(*average.values(), strict=True)) if average else ([], [])
    if own:
        torch._foreach_mul_(own, decay)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(own, given, alpha=1 - decay)  # pyright: ignore[reportPrivateImportUsage]
