"""The window that losses look through."""

import pytest
import torch

from kd_plugins.losses.shapes import same_window


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_a_window_is_a_slice_and_its_gradient_lies_as_the_tensor_does(layout):
    x = torch.rand(2, 3, 9, 12).contiguous(memory_format=layout).requires_grad_()
    places = torch.arange(108.0).view(1, 1, 9, 12)
    window, place = same_window(5, x, places)
    top, left = divmod(int(place[0, 0, 0, 0]), 12)
    expected = x[..., top : top + 5, left : left + 5]
    assert torch.equal(window, expected) and window.is_contiguous()
    weights = torch.rand(2, 3, 5, 5)
    mine, theirs = (torch.autograd.grad((seen * weights).sum(), x)[0] for seen in (window, expected))
    assert torch.equal(mine, theirs) and mine.stride() == x.stride()


def test_a_window_that_hides_nothing_is_the_tensor_itself():
    x = torch.rand(1, 2, 6, 4)
    before = torch.get_rng_state()
    assert same_window(6, x)[0] is x and same_window(None, x)[0] is x
    assert torch.equal(before, torch.get_rng_state())
    assert same_window(5, x)[0].shape == (1, 2, 5, 4)
