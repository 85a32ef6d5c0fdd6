"""Sizes, noise levels and outputs are brought to the common way, and the network stays what it is."""

import copy
import re

import pytest
import torch
from torch import nn

from kd_plugins.archs.adapter import Adapter, Sizes, pad


class Net(nn.Module):
    """Takes multiples of 8 only; `returns` says in what its images come."""

    def __init__(self, scale=1, channels=3, returns=lambda x: x):
        super().__init__()
        self.body = nn.Conv2d(channels, 3, 1)
        self.scale, self.returns = scale, returns

    def forward(self, x):
        assert x.shape[-2] % 8 == 0 and x.shape[-1] % 8 == 0
        return self.returns(nn.functional.interpolate(self.body(x), scale_factor=self.scale))


def adapted(net, **options):
    Adapter(**options).attach(net)
    return net


@pytest.mark.parametrize(
    ("sizes", "size", "padding"),
    [
        (Sizes(), (13, 18), (0, 0)),
        (Sizes(8), (13, 18), (3, 6)),
        (Sizes(8), (16, 24), (0, 0)),
        (Sizes(8, minimum=40), (13, 48), (27, 0)),
        (Sizes(1, minimum=16), (13, 18), (3, 0)),
        (Sizes(16, square=True), (13, 18), (19, 14)),
    ],
)
def test_what_an_image_lacks(sizes, size, padding):
    assert sizes.padding(*size) == padding


def test_padding_mirrors_and_repeats_where_it_cannot():
    x = torch.arange(4.0).reshape(1, 1, 2, 2)
    assert pad(x, 0, 0) is x
    assert pad(x, 1, 1)[0, 0].tolist() == [[0, 1, 0], [2, 3, 2], [0, 1, 0]]
    assert pad(x, 0, 2)[0, 0].tolist() == [[0, 1, 1, 1], [2, 3, 3, 3]]


@pytest.mark.parametrize("scale", [1, 3])
def test_any_size_goes_in_and_comes_out_at_the_networks_scale(scale):
    net = adapted(Net(scale), sizes=Sizes(8))
    x = torch.rand(2, 3, 13, 18)
    expected = nn.functional.interpolate(net.body(x), scale_factor=scale)
    assert torch.equal(net(x), expected)
    assert net(x).shape == (2, 3, 13 * scale, 18 * scale)


def test_a_fitting_image_is_not_copied():
    seen = []
    net = adapted(Net(), sizes=Sizes(8))
    net.body.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.rand(1, 3, 8, 16)
    net(x)
    assert seen[0] is x


@pytest.mark.parametrize(
    ("output", "returns"), [(1, lambda x: [None, x]), (-1, lambda x: (0, x)), ("b", lambda x: {"a": 0, "b": x})]
)
def test_one_of_several_outputs_is_the_image(output, returns):
    net = adapted(Net(2, returns=returns), output=output, sizes=Sizes(8))
    assert net(torch.rand(1, 3, 9, 8)).shape == (1, 3, 18, 16)


@pytest.mark.parametrize(
    ("output", "returns", "said"),
    [
        (2, lambda x: [x, x], "output: 2, but Net returns a list of 2"),
        ("c", lambda x: {"a": x, "b": x}, "output: 'c', but Net returns a dict of 'a', 'b'"),
        (0, lambda x: {"a": x}, "output: 0, but Net returns a dict of 'a'"),
        ("a", lambda x: (x,), "output: 'a', but Net returns a tuple of 1"),
        (0, lambda x: x, "output: 0, but Net returns one Tensor"),
    ],
)
def test_an_output_that_is_not_there_says_what_is(output, returns, said):
    with pytest.raises(ValueError, match=said):
        adapted(Net(returns=returns), output=output)(torch.rand(1, 3, 8, 8))


def test_a_noise_level_is_one_more_channel():
    net = adapted(Net(channels=4), noise_level=51, sizes=Sizes(8))
    seen = []
    net.body.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.rand(2, 3, 8, 10)
    assert net(x).shape == x.shape
    assert torch.equal(seen[0][..., :10][:, :3], x) and torch.allclose(seen[0][:, 3], torch.tensor(0.2))


@pytest.mark.parametrize("mean", [0.25, [0.1, 0.2, 0.3]])
def test_values_of_another_range_and_around_a_mean(mean):
    net = adapted(Net(2), value_range=255, mean=mean, sizes=Sizes(8))
    seen = []
    net.body.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    nn.init.dirac_(net.body.weight)
    nn.init.zeros_(net.body.bias)
    x = torch.rand(2, 3, 9, 10)
    assert torch.allclose(net(x), nn.functional.interpolate(x, scale_factor=2), atol=1e-6)
    expected = (x - torch.tensor(mean).reshape(-1, 1, 1)) * 255
    assert torch.allclose(seen[0][..., :9, :10], expected, atol=1e-4)


def test_the_noise_level_is_of_the_networks_range():
    net = adapted(Net(channels=4), noise_level=51, value_range=255, mean=0.5)
    seen = []
    net.body.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    net(torch.rand(1, 3, 8, 8))
    assert torch.allclose(seen[0][:, 3], torch.tensor(51.0))


def test_a_mean_for_each_of_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"mean: \[0.1, 0.2\], expected one number or 3: the image has so many channels"):
        adapted(Net(), mean=[0.1, 0.2])(torch.rand(1, 3, 8, 8))


def test_the_network_keeps_its_class_its_names_and_its_weights_and_can_be_copied():
    net = Net()
    names, state = [name for name, _ in net.named_modules()], list(net.state_dict())
    net = copy.deepcopy(adapted(net, sizes=Sizes(8)))
    assert type(net) is Net and [name for name, _ in net.named_modules()] == names and list(net.state_dict()) == state
    assert net(torch.rand(1, 3, 5, 5)).shape == (1, 3, 5, 5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("output", 1.5), ("output", True), ("noise_level", "15"), ("noise_level", True), ("value_range", 0), ("value_range", "255"),
        ("mean", 128), ("mean", []), ("mean", "x"), ("mean", [0.5, None]), ("mean", float("nan")),
    ],
)  # fmt: skip
def test_what_is_no_option_is_refused(option, value):
    with pytest.raises(ValueError, match=re.escape(f"{option}: {value!r}, expected")):
        Adapter(**{option: value})
