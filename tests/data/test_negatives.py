"""The inputs of DCKD's negatives: statistics over a large sample, and what the options change."""

import pytest
import torch
import torch.nn.functional as F

from kd_plugins.data.negatives import NegativeInputs


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def copies(lq, **options):
    return NegativeInputs(**options)(lq).unflatten(0, (-1, len(lq)))


def test_x_itself_and_four_noisy_copies_by_default():
    lq = torch.rand(3, 3, 16, 12)
    before = lq.clone()
    negatives = copies(lq)
    assert NegativeInputs().total == 5 and negatives.shape == (5, 3, 3, 16, 12)
    assert torch.equal(negatives[0], lq) and torch.equal(lq, before)
    differences = (negatives[1:] - lq).flatten(2)
    assert (differences.abs().amax(-1) > 0).all()  # each copy of each sample is noisy
    assert len({tuple(d[:5].tolist()) for d in differences.flatten(0, 1)}) == 12  # and each in its own way
    assert negatives.min() >= 0 and negatives.max() <= 1


def test_the_noise_has_the_published_sigma_and_share_of_gray():
    samples = 4000
    noise = copies(torch.full((samples, 3, 16, 16), 0.5), count=1, own=False)[0] - 0.5  # 30 of 255 is 4 sigma from clipping
    gray = (noise[:, 0] == noise[:, 1]).flatten(1).all(1)
    assert 0.5 - 4 * 0.5 / samples**0.5 < gray.float().mean() < 0.5 + 4 * 0.5 / samples**0.5
    sigma = 255 * noise[:, 0].flatten(1).std(1)
    # uniform in 1..30: mean 15.5, standard deviation 29 / sqrt(12); the estimate of a sigma from 256 pixels is 4 % off
    assert sigma.mean().item() == pytest.approx(15.5, abs=4 * 8.4 / samples**0.5)
    assert sigma.std().item() == pytest.approx(29 / 12**0.5, abs=0.3)
    assert 0.8 < sigma.min() < 1.3 and 28 < sigma.max() < 36
    quarters = torch.histc(sigma.clamp(1, 30), 4, 1, 30) / samples
    assert (quarters - 0.25).abs().max() < 0.03
    assert noise[~gray].mean(dim=(0, 2, 3)).abs().max() < 1e-3
    colour = noise[~gray]  # independent channels
    correlation = torch.corrcoef((colour / colour.std(dim=(1, 2, 3), keepdim=True)).movedim(1, 0).flatten(1))
    assert (correlation - torch.eye(3)).abs().max() < 0.01


def test_gray_noise_is_each_samples_own():
    noise = copies(torch.full((2, 3, 32, 32), 0.5), count=1, own=False, gray=1.0)[0] - 0.5
    assert torch.equal(noise[:, 0], noise[:, 2])
    assert torch.corrcoef(noise[:, 0].flatten(1))[0, 1].abs() < 0.15


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_noise_comes_with_its_probability_in_each_copy(probability):
    lq = torch.full((1, 1, 4, 4), 0.5)
    share = (copies(lq, count=1000, own=False, noise=probability) != lq).flatten(1).any(1).float().mean()
    assert share.item() == pytest.approx(probability, abs=4 * (probability * (1 - probability) / 1000) ** 0.5)


def test_sigma_is_an_option():
    noise = copies(torch.full((1, 3, 64, 64), 0.5), count=1, own=False, sigma=10)[0] - 0.5
    assert 255 * noise.std().item() == pytest.approx(10, rel=0.05)


def test_blur_and_resize_happen_only_when_asked_and_keep_the_size():
    lq = torch.rand(2, 3, 24, 32)
    assert torch.equal(copies(lq, noise=0.0)[1], lq)
    for option in ("blur", "resize"):
        changed = copies(lq, count=20, own=False, noise=0.0, **{option: 1.0})
        assert changed.shape == (20, 2, 3, 24, 32)
        assert ((changed - lq).abs().flatten(1).amax(1) > 1e-4).float().mean() > 0.7  # a sigma of 0.1 changes nothing
        flat = copies(torch.full((1, 3, 24, 24), 0.3), count=20, own=False, noise=0.0, **{option: 1.0})
        torch.testing.assert_close(flat, torch.full_like(flat, 0.3))


def test_a_blur_only_averages():
    lq = torch.rand(1, 1, 32, 32)
    blurred = copies(lq, count=20, own=False, noise=0.0, blur=1.0)
    assert blurred.min() >= lq.min() and blurred.max() <= lq.max()
    assert (blurred.flatten(1).std(1) < lq.std() + 1e-6).all() and blurred.flatten(1).std(1).min() < 0.4 * lq.std()
    point = F.pad(torch.ones(1, 1, 1, 1), (15, 15, 15, 15))
    spread = copies(point, count=200, own=False, noise=0.0, blur=1.0).flatten(0, 2)
    rows, columns = ((spread > 0).any(dim).sum(-1) for dim in (2, 1))
    assert rows.max() == columns.max() == 11 and (rows != columns).any()  # odd kernels up to 11, drawn apart


def test_a_seed_repeats_them():
    lq = torch.rand(2, 3, 16, 16)
    torch.manual_seed(3)
    first = copies(lq, blur=0.5, resize=0.5)
    torch.manual_seed(3)
    assert torch.equal(copies(lq, blur=0.5, resize=0.5), first)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"count": -1}, "count: -1"),
        ({"count": 0}, "of at least 1"),
        ({"count": 2.5}, "count: 2.5"),
        ({"noise": 1.5}, "noise: 1.5, expected a number from 0 to 1"),
        ({"gray": True}, "gray: True"),
        ({"blur": "often"}, "blur: 'often'"),
        ({"sigma": [30, 1]}, "sigma: "),
        ({"own": 1}, "own: 1"),
    ],
)
def test_wrong_options_are_named(options, said):
    with pytest.raises(ValueError, match=said):
        NegativeInputs(**options)
