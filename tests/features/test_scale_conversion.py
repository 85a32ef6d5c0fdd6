"""The Scale Conversion Module brings features to the teacher's size and channels."""

import pytest
import torch
import torch.nn.functional as F

from kd_plugins.features import ScaleConversion


def test_it_is_a_1x1_convolution_then_a_bilinear_resize():
    scm = ScaleConversion({"g": [2, 3]}, {"g": [2, 5]})
    convolution = scm.project["g"][1]
    assert convolution.kernel_size == (1, 1)
    x = torch.rand(1, 3, 4, 6)
    expected = torch.einsum("oc,nchw->nohw", convolution.weight[..., 0, 0], x) + convolution.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(scm("g", 1, x, (4, 6)), expected)
    resized = F.interpolate(expected, size=(8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(scm("g", 1, x, (8, 12)), resized)


def test_the_convolutions_are_trained_and_pass_the_gradient_on():
    scm = ScaleConversion({"g": [3]}, {"g": [5]})
    x = torch.rand(1, 3, 4, 4, requires_grad=True)
    scm("g", 0, x, (8, 8)).square().sum().backward()
    assert x.grad.abs().min() > 0
    assert all(p.grad.abs().sum() > 0 for p in scm.parameters()) and len(list(scm.parameters())) == 2


def test_a_start_as_the_selection_reproduces_it_exactly():
    torch.manual_seed(0)
    scm = ScaleConversion({"encoder": [3, 3]}, {"encoder": [6, 6]})
    untouched = scm.project["encoder"][0].weight.clone()
    kept = torch.tensor([4, 0, 3])
    scm.start_as_selection("encoder", 1, kept)
    teacher = torch.randn(2, 6, 5, 4)
    student = teacher[:, kept]
    converted = scm("encoder", 1, student, (5, 4))
    assert torch.equal(converted[:, kept], student)
    assert not converted[:, [1, 2, 5]].any()
    assert torch.equal(scm.project["encoder"][0].weight, untouched)
    assert all(p.requires_grad for p in scm.parameters())


def test_stages_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="shorter|longer"):
        ScaleConversion({"g": [3, 4]}, {"g": [5]})
