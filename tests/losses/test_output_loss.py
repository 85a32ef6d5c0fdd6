"""SpatialKLLoss against its formula."""

import numpy as np
import pytest
import torch
from skimage import data

from kd_plugins.losses import SpatialKLLoss


def reference(student, teacher, tau):
    s, t = (np.exp(x.double().numpy().reshape(*x.shape[:2], -1) / tau) for x in (student, teacher))
    s, t = s / s.sum(-1, keepdims=True), t / t.sum(-1, keepdims=True)
    return (t * np.log(t / s)).sum(-1).mean()


@pytest.fixture(scope="module")
def photos():
    clean = torch.from_numpy(data.astronaut()[:96, :64]).permute(2, 0, 1)[None].float() / 255
    return clean, (clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
def test_it_is_the_kl_divergence_of_softmaxes_over_positions(photos, tau):
    teacher, student = photos
    expected = reference(student, teacher, tau)
    assert SpatialKLLoss(tau=tau)(student.double(), teacher.double()).item() == pytest.approx(expected, rel=1e-9)
    assert SpatialKLLoss(tau=tau)(student, teacher).item() == pytest.approx(expected, rel=1e-3)


def test_two_positions_by_hand():
    # (1/2, 1/2) against (1/4, 3/4): ln(2)/2 + ln(2/3)/2
    student = torch.tensor([0.0, np.log(3)], dtype=torch.float64).view(1, 1, 1, 2)
    loss = SpatialKLLoss(tau=1.0)(student, torch.zeros(1, 1, 1, 2).double())
    assert loss.item() == pytest.approx(0.5 * np.log(4 / 3), rel=1e-12)


def test_it_is_the_divergence_from_the_teacher_not_to_it(photos):
    teacher, student = photos[0] ** 3, photos[1]
    assert SpatialKLLoss()(student, teacher).item() != pytest.approx(reference(teacher, student, 0.2), rel=1e-2)
    assert SpatialKLLoss()(student, teacher).item() == pytest.approx(reference(student, teacher, 0.2), rel=1e-3)


def test_a_small_difference_costs_its_variance(photos):
    flat = torch.full((1, 3, 32, 32), 0.5, dtype=torch.float64)
    noise = 1e-3 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    variance = noise.flatten(2).var(-1, unbiased=False).mean()
    assert SpatialKLLoss(tau=0.2)(flat + noise, flat).item() == pytest.approx(variance.item() / (2 * 0.2**2), rel=1e-2)


def test_it_is_blind_to_a_constant_offset_only(photos):
    clean = photos[0].double()
    assert SpatialKLLoss()(clean + 0.2, clean).item() == pytest.approx(0, abs=1e-12)
    assert SpatialKLLoss()(clean * 0.8, clean).item() > 1e-3


def test_average_over_samples_and_channels(photos):
    teacher, student = photos
    once = SpatialKLLoss()(student, teacher)
    torch.testing.assert_close(SpatialKLLoss()(student.repeat(3, 2, 1, 1), teacher.repeat(3, 2, 1, 1)), once)


def test_gradient_is_right_in_float64():
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.rand(2, 2, 2, 4, 5, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: SpatialKLLoss()(s, teacher), (student.requires_grad_(),))


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_bf16_images_are_compared_in_float32(photos, autocast):
    teacher, student = photos[0].bfloat16(), photos[1].bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = SpatialKLLoss()(student, teacher)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference(student.detach(), teacher, 0.2), rel=1e-3)
    loss.backward()
    assert student.grad.dtype == torch.bfloat16 and torch.isfinite(student.grad).all() and student.grad.any()


@pytest.mark.parametrize("tau", [0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(tau):
    with pytest.raises(ValueError, match=f"tau: {tau}, expected a number above 0"):
        SpatialKLLoss(tau=tau)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (1, 3, 8, 1), (1, 3, 4, 16), (2, 3, 8, 8)], ids=str)
def test_images_of_different_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"SpatialKLLoss: .*\(1, 3, 8, 8\)"):
        SpatialKLLoss()(torch.rand(1, 3, 8, 8), torch.rand(shape))
