"""How long networks take, one beside the other, at a size that a user restores."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_plugins.features.layer_outputs import evaluating

RESTORED = 256
"""The side of the restored image that networks are timed at: at a training crop's, calls cost more than what they compute."""
_ROUNDS, _FEWEST = 7, 3
_SECONDS = 1.5  # what one pass of all networks may take; a start-up is not to wait longer than a few of them


class Latency(NamedTuple):
    """Seconds of one forward pass: the median of some, the fastest and the slowest."""

    median: float
    fastest: float
    slowest: float

    def __str__(self) -> str:
        return f"{self.median * 1e3:.1f} ms ({self.fastest * 1e3:.1f} - {self.slowest * 1e3:.1f})"


def time_networks(nets: Sequence[nn.Module], x: Tensor, side: int) -> tuple[list[Latency], str]:
    """Time networks in turns, so that whatever else the machine does meets all of them; each is warm.

    Args:
        nets: networks on one device; their modes are left as they were.
        x: an image (1, C, H, W) that they take; more than one sample is timed as one pass.
        side: of the square image that they are timed at, if they take it and it does not take long; else half of it, a quarter,
            and so on down to x itself.

    Returns:
        A latency for each network, and the size.
    """
    for net in nets:
        _seconds(net, x)
    expected = sum(_seconds(net, x) for net in nets) / (x.shape[-2] * x.shape[-1])
    while side > max(x.shape[-2:]):
        if expected * side**2 <= _SECONDS:
            try:
                return _in_turns(nets, F.interpolate(x, (side, side))), f"{side}x{side}"
            except (RuntimeError, AssertionError, ValueError):  # too large for the memory, or no size of theirs
                pass
        side //= 2
    return _in_turns(nets, x), "x".join(map(str, x.shape[-2:]))


def _in_turns(nets: Sequence[nn.Module], x: Tensor) -> list[Latency]:
    for net in nets:
        _seconds(net, x)
    rounds, end = [], time.perf_counter() + 2 * _SECONDS
    while len(rounds) < _FEWEST or (len(rounds) < _ROUNDS and time.perf_counter() < end):
        rounds.append([_seconds(net, x) for net in nets])
    return [Latency(statistics.median(times), min(times), max(times)) for times in zip(*rounds, strict=True)]


def _seconds(net: nn.Module, x: Tensor) -> float:
    with evaluating(net):
        _wait(x)
        start = time.perf_counter()
        net(x)
        _wait(x)
        return time.perf_counter() - start


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
