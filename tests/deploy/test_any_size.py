"""Networks of any size: padded in the graph as they pad themselves."""

import pytest
import torch
from torch import nn

from kd_plugins.archs.adapter import Sizes
from kd_plugins.deploy.any_size import AnySize, Padding, find_padding, plain_functions
from kd_plugins.deploy.export import make_exportable


@pytest.mark.parametrize(
    ("name", "padding"),
    [
        ("restormer", Padding(Sizes(8), "reflect")),
        ("nafnet", Padding(Sizes(2), "constant")),
        ("swinir", Padding(Sizes(4), "reflect")),
        ("srresnet", Padding()),
    ],
)
def test_a_networks_own_padding_is_seen_and_made_outside_of_it(models, name, padding):
    model = models[name]
    assert find_padding(model.net, 3) == padding
    net = make_exportable(model)
    for size in ((33, 50), (16, 24), (13, 7)):
        x = torch.rand(2, 3, *size)
        assert torch.equal(net(x), model.net(x))


def test_padding_of_layers_is_none_of_the_image():
    assert find_padding(nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 3, 3)), 3) == Padding()


class Square(nn.Module):
    def forward(self, x):
        assert x.shape[-1] == x.shape[-2] >= 16 and x.shape[-1] % 4 == 0
        return x


@pytest.mark.parametrize("mode", ["reflect", "replicate", "constant"])
@pytest.mark.parametrize("size", [(9, 20), (3, 1), (16, 16)])
def test_least_sides_and_squares_in_every_mode(mode, size):
    net, x = AnySize(Square(), Padding(Sizes(4, 13, True), mode), 3, 1), torch.rand(1, 3, *size)
    assert torch.equal(net(x), x)
    with torch.no_grad():
        assert torch.equal(torch.jit.trace(net, (torch.rand(1, 3, 30, 20),), check_trace=False)(x), x)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.factor = 2
        return 2 * x


def test_functions_with_their_own_gradient_are_traced_through():
    x = torch.rand(3)
    with plain_functions():
        traced = torch.jit.trace(lambda x: Doubled.apply(x), (x,), check_trace=False)
    assert torch.equal(traced(x), 2 * x) and "PythonOp" not in str(traced.graph)
    assert torch.equal(Doubled.apply(x), 2 * x) and Doubled.apply(x.requires_grad_()).grad_fn is not None
