"""The sizes that a network takes are found by trying it, and images of other sizes are padded."""

import pytest
import torch
from torch import nn

from kd_plugins.archs.adapter import Adapter, Sizes
from kd_plugins.features import fit_sizes


class Windows(nn.Module):
    """Attention in windows: takes multiples of them, and enlarges."""

    def __init__(self, window, scale=1, channels=3, square=False):
        super().__init__()
        self.window, self.scale, self.square, self.seen = window, scale, square, []
        self.body = nn.Conv2d(channels, 3, 1)

    def forward(self, x):
        self.seen.append(tuple(x.shape[-2:]))
        n, c, h, w = x.shape
        x = x.view(n, c, h // self.window, self.window, w // self.window, self.window).flatten(2).view(n, c, h, w)
        assert h == w or not self.square
        return nn.functional.interpolate(self.body(x), scale_factor=self.scale)


class Halving(nn.Module):
    """A U without padding: an image of another size comes back smaller, without an error."""

    def __init__(self, times):
        super().__init__()
        self.body = nn.ModuleList(nn.Conv2d(3, 3, 2, stride=2) for _ in range(times))

    def forward(self, x):
        for conv in self.body:
            x = conv(x)
        return nn.functional.interpolate(x, scale_factor=2 ** len(self.body))


@pytest.mark.parametrize("window", [2, 6, 7, 8, 12, 16, 64])
@pytest.mark.parametrize("scale", [1, 3])
def test_windows_are_found(window, scale):
    net = Windows(window, scale)
    assert fit_sizes(net, [3], "teacher") == Sizes(window)
    assert net(torch.rand(1, 3, 13, 27)).shape == (1, 3, 13 * scale, 27 * scale)
    assert fit_sizes(net, [3], "teacher") is None  # of nothing left to be padded


@pytest.mark.parametrize("times", [1, 3, 5])
def test_an_image_that_comes_back_smaller_is_no_answer(times):
    net = Halving(times)
    assert fit_sizes(net, [3], "teacher") == Sizes(2**times)
    assert net(torch.rand(1, 3, 45, 33)).shape == (1, 3, 45, 33)


def test_squares_are_found():
    net = Windows(16, square=True)
    assert fit_sizes(net, [3], "teacher") == Sizes(16, square=True)
    assert net(torch.rand(1, 3, 20, 40)).shape == (1, 3, 20, 40) and net.seen[-1] == (48, 48)


@pytest.mark.parametrize("net", [nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3), nn.Conv2d(5, 3, 3), nn.Linear(50, 50)])
def test_what_takes_any_size_or_none_is_left_as_it_is(net):
    assert fit_sizes(net, [3], "teacher") is None
    assert not net._forward_pre_hooks


def test_channels_are_tried_one_after_the_other():
    net = Windows(8, channels=6)
    assert fit_sizes(net, [3, 1, 6], "network_g") == Sizes(8)


def test_a_wrong_padding_is_replaced_and_the_rest_of_the_adapter_stays(log):
    net = Windows(8, channels=4)
    Adapter(sizes=Sizes(4), noise_level=51).attach(net)
    fit_sizes(net, [3], "teacher")
    assert net(torch.rand(1, 3, 12, 12)).shape == (1, 3, 12, 12) and net.seen[-1] == (16, 16)
    assert len(net._forward_pre_hooks) == 1
    assert "teacher: Windows takes images of multiples of 8 alone: others are padded, as by `pad_to: 8`." in log()


def test_trying_leaves_modes_and_random_numbers_as_they_were():
    net = Halving(2).train()
    state = torch.get_rng_state()
    fit_sizes(net, [3], "teacher")
    assert net.training and torch.equal(state, torch.get_rng_state())
