"""Parameters, multiply-adds and latency of a network."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from kd_plugins.metrics.complexity import count_flops, measure_complexity


@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution_by_hand(batch):
    net = nn.Conv2d(3, 8, 5, stride=2, padding=2)
    cost = measure_complexity(net, torch.rand(batch, 3, 16, 12))
    assert cost.params == 3 * 8 * 25 + 8
    assert cost.flops == batch * (8 * 6) * 8 * (3 * 25)


def test_groups_layers_and_matrix_products_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.Conv2d(4, 6, 1, bias=False))

        def forward(self, x):
            maps = self.body(x).flatten(2)
            return maps @ maps.transpose(1, 2)

    cost = measure_complexity(Net(), torch.rand(2, 4, 8, 8))
    assert cost.params == 4 * 9 + 4 * 6
    assert cost.flops == 2 * 64 * (4 * 9 + 4 * 6 + 6 * 6)


def test_modes_are_left_as_they_were():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout())
    for root, frozen in ((True, True), (True, False), (False, False)):
        net.train(root)
        net[1].train(frozen)
        modes = [module.training for module in net.modules()]
        measure_complexity(net, torch.rand(2, 3, 8, 8))
        assert [module.training for module in net.modules()] == modes


def test_it_runs_in_eval_mode_and_changes_nothing():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    measure_complexity(net, torch.rand(2, 3, 8, 8))
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_wider_network_costs_more():
    x = torch.rand(1, 3, 8, 8)
    narrow, wide = (measure_complexity(nn.Sequential(nn.Conv2d(3, c, 3), nn.Conv2d(c, 3, 3)), x) for c in (2, 4))
    assert wide.flops == 2 * narrow.flops and wide.params > narrow.params


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
def test_torchscript_by_hand():
    net = nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 1)))
    cost = measure_complexity(net, torch.rand(1, 3, 8, 8))
    assert cost.flops == 64 * 3 * 4 and cost.params == 16


class Attention(nn.Module):
    def __init__(self, heads=1, contiguous=False):
        super().__init__()
        self.heads, self.contiguous = heads, contiguous

    def forward(self, x):
        tokens = x.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3)  # (N, heads, H * W, C / heads)
        tokens = tokens.contiguous() if self.contiguous else tokens
        return F.scaled_dot_product_attention(tokens, tokens, tokens)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("contiguous", [True, False])
def test_fused_attention_by_hand(heads, contiguous):
    assert count_flops(Attention(heads, contiguous), torch.rand(2, 8, 6, 4)) == 2 * 2 * 24 * 24 * 8


class OfTokens(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        return self.layer(tokens, tokens, tokens) if isinstance(self.layer, nn.MultiheadAttention) else self.layer(tokens)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.MultiheadAttention(8, 2, batch_first=True), 4 * 24 * 8 * 8 + 2 * 24 * 24 * 8),
        (nn.LSTM(8, 5, batch_first=True, bias=False), 4 * 24 * 5 * (8 + 5)),
        (nn.GRU(8, 5, batch_first=True, bias=False), 3 * 24 * 5 * (8 + 5)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attention_with_a_fast_path_and_recurrent_layers_by_hand(layer, expected):
    fast = torch.backends.mha.get_fastpath_enabled()
    assert count_flops(OfTokens(layer), torch.rand(1, 8, 6, 4)) == expected
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_norms_and_interpolation_count_as_mmengine_counts_them():
    from mmengine.analysis import FlopAnalyzer

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Upsample(scale_factor=2), nn.Conv2d(4, 3, 1))
    net.append(nn.AdaptiveAvgPool2d(2)).eval()
    x = torch.rand(1, 3, 8, 8)
    assert count_flops(net, x) == FlopAnalyzer(net, (x,)).total() > count_flops(nn.Sequential(net[0], net[3], net[4]), x)


def test_a_matrix_by_a_vector():
    class Net(nn.Module):
        def forward(self, x):
            return x[0, 0] @ x[0, 0, 0]

    assert count_flops(Net(), torch.rand(1, 1, 5, 5)) == 25
