"""CrossNetAttentionLoss at its default: the form by hand equals the one of autograd, which is held to the formula elsewhere."""

import pytest
import torch
from cross_net import exact, features

from kd_plugins.losses import CrossNetAttentionLoss


@pytest.mark.parametrize("shape", [{}, {"c_s": 9, "height": 4}, {"c_s": 6, "height": 16, "width": 16}], ids=str)
def test_value_gradients_and_picture_are_those_of_autograd_and_the_graph_may_be_used_twice(shape, monkeypatch):
    student, teacher, raw = (x.requires_grad_(i != 1) for i, x in enumerate(features(**shape)))
    loss = CrossNetAttentionLoss(3.0, 0.5, 0.7, crop=None, channel_lambda=0.5, direct_weight=2.0, spatial_weight=4.0)
    value, picture = loss(student, teacher, raw), loss.pictures()
    assert "ByHand" in value.grad_fn.next_functions[0][0].name()
    mine, again = (torch.autograd.grad(value, (student, raw), torch.tensor(f).double(), retain_graph=True) for f in (1.0, -2.0))
    monkeypatch.setattr("kd_plugins.losses.cross_net_loss.is_small", lambda *_: False)
    expected = loss(student, teacher, raw)
    exact((value, picture), (expected, loss.pictures()))
    theirs = torch.autograd.grad(expected, (student, raw))
    exact(mine, theirs)
    exact(again, tuple(-2 * x for x in theirs))


@pytest.mark.parametrize("trained", [(0, 2), (0,), (2,), (0, 1)], ids=["both", "student", "raw", "teacher, too"])
def test_gradients_are_right_in_float64(trained):
    inputs = [x.requires_grad_(i in trained) for i, x in enumerate(features(c_t=3, c_s=2, height=3, width=4))]
    assert torch.autograd.gradcheck(CrossNetAttentionLoss(), inputs)


def test_its_backward_pass_stays_in_float32_under_autocast():
    student, teacher, raw = (x.requires_grad_(i != 1) for i, x in enumerate(features(dtype=torch.float32)))
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            gradients.append(torch.autograd.grad(CrossNetAttentionLoss()(student, teacher, raw), (student, raw)))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
