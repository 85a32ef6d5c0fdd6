"""What a network costs: parameters, FLOPs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kd_plugins.features.layer_outputs import evaluating

_PRODUCTS = ("addmm", "bmm", "conv", "einsum", "linear", "matmul", "mm")  # as mmengine calls them


class Complexity(NamedTuple):
    """Cost of one network at one input size.

    Attributes:
        params: number of parameters.
        flops: multiply-adds of one forward pass, and what mmengine counts for norms, interpolation and pooling (not in
            TorchScript, which it cannot look into).
    """

    params: int
    flops: int


def measure_complexity(net: nn.Module, x: Tensor) -> Complexity:
    """Measure a network.

    Args:
        net: the network, on the device of x; its mode is left as it was.
        x: an input batch (N, C, H, W); FLOPs are those of the whole batch.

    Returns:
        Its cost; how long it takes is said by `time_networks`.
    """
    return Complexity(sum(p.numel() for p in net.parameters()), count_flops(net, x))


def count_flops(net: nn.Module, x: Tensor) -> int:
    """The `flops` of `Complexity` alone."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # of nn.MultiheadAttention: one operator that no counter knows
    try:
        with evaluating(net):
            return _count_products(net, x) + _count_others(net, x)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _count_products(net: nn.Module, x: Tensor) -> int:
    """Convolutions, matrix products, attention and recurrent layers, seen as they run: fused ones and TorchScript's, too."""
    aten: Any = torch.ops.aten
    unknown_to_it = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten.mkldnn_rnn_layer: _recurrent,
        aten._cudnn_rnn: _recurrent,
        aten.mv: _matrix_by_vector,
    }
    with FlopCounterMode(display=False, custom_mapping=unknown_to_it) as counter:
        net(x)
    return counter.get_total_flops() // 2  # it counts multiplications and additions


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: Any, **__: Any) -> int:
    *batch, length, width = query
    return 2 * math.prod(batch) * length * key[-2] * (width + value[-1])


def _recurrent(x: torch.Size, first: Any, second: Any, *_: Any, **__: Any) -> int:
    weights = first if isinstance(first, list) else [first, second]
    return 2 * math.prod(x[:-1]) * sum(math.prod(weight) for weight in weights if len(weight) == 2)


def _matrix_by_vector(matrix: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * math.prod(matrix)


def _count_others(net: nn.Module, x: Tensor) -> int:
    """What mmengine counts beside products: norms, interpolation, pooling. It looks at a trace, which TorchScript has none of."""
    from mmengine.analysis import FlopAnalyzer
    from mmengine.logging import MMLogger

    if any(isinstance(module, torch.jit.ScriptModule) for module in net.modules()):
        return 0
    MMLogger.get_current_instance().setLevel("ERROR")  # one warning for each operator without multiply-adds
    return int(sum(flops for name, flops in FlopAnalyzer(net, (x,)).by_operator().items() if name not in _PRODUCTS))
