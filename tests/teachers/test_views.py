"""The transformed view: what it shows, and that it is undone."""

import itertools

import pytest
import torch

from kd_plugins.teachers import ViewTransform


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_undo_takes_it_back():
    transform, x = ViewTransform(), torch.rand(64, 3, 8, 8)
    before = x.clone()
    shown = transform.apply(x)
    assert torch.equal(x, before) and not torch.equal(shown, x)
    torch.testing.assert_close(transform.undo(shown), x)


def test_undo_works_on_the_larger_image_of_super_resolution():
    transform, x = ViewTransform(), torch.rand(64, 3, 8, 8)
    larger = transform.apply(x).repeat_interleave(2, -1).repeat_interleave(2, -2)
    torch.testing.assert_close(transform.undo(larger), x.repeat_interleave(2, -1).repeat_interleave(2, -2))


def test_each_sample_draws_each_of_four_with_a_half():
    x = torch.rand(1, 1, 4, 4)
    guises = []
    for invert, hflip, vflip, transpose in itertools.product((False, True), repeat=4):
        one = 1 - x if invert else x
        one = one.flip(-1) if hflip else one
        one = one.flip(-2) if vflip else one
        guises.append(one.transpose(-1, -2) if transpose else one)
    shown = ViewTransform().apply(x.expand(4000, -1, -1, -1))
    counts = [(shown == guise).flatten(1).all(1).sum().item() for guise in guises]
    assert sum(counts) == 4000
    assert all(abs(count - 250) < 4 * 250**0.5 for count in counts)


@pytest.mark.parametrize("name", ["invert", "hflip", "vflip", "transpose"])
def test_one_alone(name):
    off = dict.fromkeys(("invert", "hflip", "vflip", "transpose"), 0.0)
    x = torch.rand(2, 3, 5, 5)
    expected = {"invert": 1 - x, "hflip": x.flip(-1), "vflip": x.flip(-2), "transpose": x.transpose(-1, -2)}[name]
    assert torch.equal(ViewTransform(**{**off, name: 1.0}).apply(x), expected)
    assert torch.equal(ViewTransform(**off).apply(x), x)


def test_images_that_are_not_square_need_transposition_off():
    x = torch.rand(8, 3, 4, 6)
    with pytest.raises(ValueError, match=r"the images are 4 x 6.*transpose: 0"):
        ViewTransform().apply(x)
    transform = ViewTransform(transpose=0)
    torch.testing.assert_close(transform.undo(transform.apply(x)), x)


@pytest.mark.parametrize("value", [-0.1, 1.1, "half", True, None])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(ValueError, match="ViewTransform: hflip: .*from 0 to 1"):
        ViewTransform(hflip=value)
