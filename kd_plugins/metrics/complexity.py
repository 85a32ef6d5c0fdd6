"""What a network costs: parameters, FLOPs, latency."""

from __future__ import annotations

import math
import statistics
import time
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kd_plugins.features.measure import evaluating


class Complexity(NamedTuple):
    """Cost of one network at one input size.

    Attributes:
        params: number of parameters.
        flops: multiply-adds of one forward pass, counted by mmengine (one multiply-add is one FLOP there); nan for TorchScript,
            which it cannot look into.
        latency: median seconds of one forward pass on the input's device.
    """

    params: int
    flops: float
    latency: float


def measure_complexity(net: nn.Module, x: Tensor, runs: int = 5) -> Complexity:
    """Measure a network.

    Args:
        net: the network, on the device of x; its mode is left as it was.
        x: an input batch (N, C, H, W); FLOPs and latency are those of the whole batch.
        runs: timed passes, after one that is not.

    Returns:
        Its cost.
    """
    flops, times = count_flops(net, x), []
    with evaluating(net):
        for _ in range(runs + 1):
            _wait(x)
            start = time.perf_counter()
            net(x)
            _wait(x)
            times.append(time.perf_counter() - start)
    return Complexity(sum(p.numel() for p in net.parameters()), flops, statistics.median(times[1:]))


def count_flops(net: nn.Module, x: Tensor) -> float:
    """The `flops` of `Complexity` alone."""
    from mmengine.analysis import FlopAnalyzer
    from mmengine.logging import MMLogger

    if any(isinstance(module, torch.jit.ScriptModule) for module in net.modules()):
        return math.nan
    MMLogger.get_current_instance().setLevel("ERROR")  # one warning for each operator without multiply-adds
    with evaluating(net):
        return int(FlopAnalyzer(net, (x,)).total())


def _wait(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
