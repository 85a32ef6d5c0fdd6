"""Trust: masks against loops in float64, and what a loss sees through one."""

import math
import re

import pytest
import torch

from kd_plugins.losses.trust import Trust, where_trusted


def images(height=9, width=7, seed=0):
    torch.manual_seed(seed)
    return torch.rand(3, 2, 3, height, width, dtype=torch.float64)


def by_loops(student, teacher, gt, window, tau=None):
    """The mask, pixel by pixel: errors averaged over the channels and a window, whose edge pixels are repeated."""
    n, channels, height, width = gt.shape
    mask = torch.zeros(n, 1, height, width, dtype=torch.float64)
    offsets = range(-((window - 1) // 2), window // 2 + 1)
    for i, y, x in ((i, y, x) for i in range(n) for y in range(height) for x in range(width)):
        errors = [0.0, 0.0]
        for row, column, c in ((row, column, c) for row in offsets for column in offsets for c in range(channels)):
            at = (i, c, min(max(y + row, 0), height - 1), min(max(x + column, 0), width - 1))
            for side, image in enumerate((student, teacher)):
                errors[side] += abs(float(image[at]) - float(gt[at])) / channels / window**2
        lead = errors[0] - errors[1]
        mask[i, 0, y, x] = float(lead > 0) if tau is None else 1 / (1 + math.exp(-lead / tau))
    return mask


@pytest.mark.parametrize(("window", "tau"), [(1, None), (2, None), (7, None), (16, None), (1, 0.02), (4, 0.1)])
def test_a_mask_is_what_loops_say(window, tau):
    found = images()
    torch.testing.assert_close(Trust(window, tau).mask(*found), by_loops(*found, window, tau))


def test_a_mask_needs_no_gradient_and_is_the_same_in_any_layout():
    student, teacher, gt = images()
    expected = Trust(3, 0.1).mask(student, teacher, gt)
    last = [x.contiguous(memory_format=torch.channels_last) for x in (student.requires_grad_(), teacher, gt)]
    mask = Trust(3, 0.1).mask(*last)
    assert not mask.requires_grad
    torch.testing.assert_close(mask, expected)


def test_a_mask_of_bf16_images_is_measured_in_float32():
    student, teacher, gt = (x.float() for x in images())
    gt = gt * 0.01 + 0.9  # where bf16 has a step of 1/256
    student, teacher = (gt + 0.2).bfloat16(), (gt + 0.19).bfloat16()
    mask = Trust(1).mask(student, teacher, gt)
    assert mask.dtype == torch.float32 and mask.mean() > 0.9
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Trust(1).mask(student, teacher, gt), mask)


def test_where_both_are_equal_a_hard_mask_does_not_trust_and_a_soft_one_does_by_half():
    student, _, gt = images()
    assert not Trust(7).mask(student, student, gt).any()
    assert (Trust(7, 0.1).mask(student, student, gt) == 0.5).all()


def test_images_of_other_shapes_are_refused():
    student, teacher, gt = images()
    for wrong in ((student[..., 1:], teacher, gt), (student, teacher[:, :1], gt), (student, teacher, gt[:1])):
        shapes = [re.escape(str(tuple(image.shape))) for image in wrong]
        said = "Trust: the student's tensor is {}, the teacher's {}, the clean image {}; expected the same shape"
        with pytest.raises(ValueError, match=said.format(*shapes)):
            Trust().mask(*wrong)


@pytest.mark.parametrize("between", [(9, 7), (4, 3), (3, 7), (18, 21), (1, 1)])
def test_the_gradient_is_that_of_the_student_times_the_mean_of_the_mask_over_each_area(between):
    student, teacher, gt = images()
    mask = Trust(2).mask(student, teacher, gt)
    height, width = between
    feature, instead = torch.rand(2, 2, 5, height, width, dtype=torch.float64)
    feature.requires_grad_()
    seen = where_trusted(mask, feature, instead)
    seen.sum().backward()
    for y, x in ((y, x) for y in range(height) for x in range(width)):
        rows = slice(y * 9 // height, -(-(y + 1) * 9 // height))
        columns = slice(x * 7 // width, -(-(x + 1) * 7 // width))
        share = mask[:, :, rows, columns].mean((-2, -1))
        torch.testing.assert_close(feature.grad[..., y, x], share.expand(-1, 5))
        expected = instead[..., y, x] + share * (feature[..., y, x] - instead[..., y, x])
        torch.testing.assert_close(seen[..., y, x], expected)


def test_a_hard_mask_leaves_the_bits_of_either_side():
    student, teacher, gt = (x.bfloat16() for x in images())
    mask = Trust(1).mask(student, teacher, gt)
    trusted = mask.bool().expand_as(student)
    seen = where_trusted(mask, student, teacher)
    assert 0.2 < mask.mean() < 0.8
    assert torch.equal(seen[trusted], student[trusted]) and torch.equal(seen[~trusted], teacher[~trusted])
    wider = where_trusted(mask, student, teacher.float() + 1e-4)
    assert torch.equal(wider[~trusted], (teacher.float() + 1e-4)[~trusted])  # nothing is rounded that would then differ


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *(({"window": value}, "window: .*, expected a whole number from 1 to 16") for value in (0, 17, 2.0, True, "7", None)),
        *(({"tau": value}, "tau: .*of at least 1e-06") for value in (0, 5e-324, -1, math.nan, math.inf, "a", True)),
    ],
)
def test_values_out_of_range_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Trust(**arguments)
