"""Parameters, multiply-adds and latency of a network."""

import math

import pytest
import torch
from torch import nn

from kd_plugins.metrics.complexity import measure_complexity


@pytest.mark.parametrize("batch", [1, 3])
def test_a_convolution_by_hand(batch):
    net = nn.Conv2d(3, 8, 5, stride=2, padding=2)
    cost = measure_complexity(net, torch.rand(batch, 3, 16, 12), runs=1)
    assert cost.params == 3 * 8 * 25 + 8
    assert cost.flops == batch * (8 * 6) * 8 * (3 * 25)
    assert cost.latency > 0


def test_groups_layers_and_matrix_products_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), nn.Conv2d(4, 6, 1, bias=False))

        def forward(self, x):
            maps = self.body(x).flatten(2)
            return maps @ maps.transpose(1, 2)

    cost = measure_complexity(Net(), torch.rand(2, 4, 8, 8), runs=1)
    assert cost.params == 4 * 9 + 4 * 6
    assert cost.flops == 2 * 64 * (4 * 9 + 4 * 6 + 6 * 6)


def test_modes_are_left_as_they_were():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Dropout())
    for root, frozen in ((True, True), (True, False), (False, False)):
        net.train(root)
        net[1].train(frozen)
        modes = [module.training for module in net.modules()]
        measure_complexity(net, torch.rand(2, 3, 8, 8), runs=1)
        assert [module.training for module in net.modules()] == modes


def test_it_runs_in_eval_mode_and_changes_nothing():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    measure_complexity(net, torch.rand(2, 3, 8, 8), runs=2)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_latency_is_the_median_of_the_timed_passes(monkeypatch):
    calls = []
    net = nn.Conv2d(3, 3, 1)
    net.register_forward_hook(lambda module, args, output: calls.append(1))
    clock = iter([0, 100, 200, 201, 300, 303, 400, 402])  # one pass that does not count, then 1, 3 and 2 seconds
    monkeypatch.setattr("kd_plugins.metrics.complexity.time.perf_counter", lambda: next(clock))
    assert measure_complexity(net, torch.rand(1, 3, 4, 4), runs=3).latency == 2
    assert len(calls) >= 4


def test_a_wider_network_costs_more():
    x = torch.rand(1, 3, 8, 8)
    narrow, wide = (measure_complexity(nn.Sequential(nn.Conv2d(3, c, 3), nn.Conv2d(c, 3, 3)), x, runs=1) for c in (2, 4))
    assert wide.flops == 2 * narrow.flops and wide.params > narrow.params


@pytest.mark.filterwarnings("ignore:`torch.jit.*` is deprecated")
def test_flops_of_torchscript_are_not_known_the_rest_is():
    net = nn.Sequential(torch.jit.script(nn.Conv2d(3, 4, 1)))
    cost = measure_complexity(net, torch.rand(1, 3, 8, 8), runs=1)
    assert math.isnan(cost.flops) and cost.params == 16 and cost.latency > 0
