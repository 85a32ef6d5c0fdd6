"""The Scale Conversion Module brings features to the teacher's size and channels."""

import pytest
import torch
import torch.nn.functional as F

from kd_plugins.features import ScaleConversion


def test_channels_and_sizes_become_the_teachers():
    student = {"encoder": [torch.rand(2, 3, 8, 6), torch.rand(2, 4, 4, 3)], "decoder": [torch.rand(2, 5, 7, 7)]}
    teacher = {"encoder": [torch.rand(2, 6, 8, 6), torch.rand(2, 2, 8, 6)], "decoder": [torch.rand(2, 5, 3, 4)]}
    scm = ScaleConversion({"encoder": [3, 4], "decoder": [5]}, {"encoder": [6, 2], "decoder": [5]})
    converted = scm(student, teacher)
    for group in teacher:
        assert [f.shape for f in converted[group]] == [f.shape for f in teacher[group]]


def test_it_is_a_1x1_convolution_then_a_bilinear_resize():
    scm = ScaleConversion({"g": [3]}, {"g": [5]})
    (convolution,) = scm.project["g"]
    assert convolution.kernel_size == (1, 1)
    x = torch.rand(1, 3, 4, 6)
    (same,) = scm({"g": [x]}, {"g": [torch.rand(1, 5, 4, 6)]})["g"]
    expected = torch.einsum("oc,nchw->nohw", convolution.weight[..., 0, 0], x) + convolution.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(same, expected)
    (resized,) = scm({"g": [x]}, {"g": [torch.rand(1, 5, 8, 12)]})["g"]
    torch.testing.assert_close(resized, F.interpolate(expected, size=(8, 12), mode="bilinear", align_corners=False))


def test_only_the_students_groups_are_converted():
    scm = ScaleConversion({"encoder": [2]}, {"encoder": [2], "decoder": [9]})
    teacher = {"encoder": [torch.rand(1, 2, 4, 4)], "decoder": [torch.rand(1, 9, 4, 4)]}
    assert list(scm({"encoder": [torch.rand(1, 2, 4, 4)]}, teacher)) == ["encoder"]


def test_the_convolutions_are_trained_and_pass_the_gradient_on():
    scm = ScaleConversion({"g": [3]}, {"g": [5]})
    x = torch.rand(1, 3, 4, 4, requires_grad=True)
    scm({"g": [x]}, {"g": [torch.rand(1, 5, 8, 8)]})["g"][0].square().sum().backward()
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
    converted = scm({"encoder": [student, student]}, {"encoder": [teacher, teacher]})["encoder"][1]
    assert torch.equal(converted[:, kept], student)
    assert not converted[:, [1, 2, 5]].any()
    assert torch.equal(scm.project["encoder"][0].weight, untouched)
    assert all(p.requires_grad for p in scm.parameters())


def test_stages_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="shorter|longer"):
        ScaleConversion({"g": [3, 4]}, {"g": [5]})
