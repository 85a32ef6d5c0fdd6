"""PSD's wavelet bands against its formulas, written out block by block in float64."""

import math

import pytest
import torch

from kd_plugins.losses import GatedWaveletLoss
from kd_plugins.losses.wavelet_loss import haar_bands


def images(height=8, width=12, seed=0):
    torch.manual_seed(seed)
    return torch.rand(3, 2, 3, height, width, dtype=torch.float64)


def bands_by_loops(image, levels):
    """{(level, band): (N, C, h, w)}; of each 2 x 2 block a b / c d. Bands are divided by 2 for each level."""
    found, low = {}, image
    for level in range(1, levels + 1):
        height, width = low.shape[-2] // 2, low.shape[-1] // 2
        parts = {band: torch.zeros(*low.shape[:2], height, width, dtype=low.dtype) for band in ("low", "h", "v", "d")}
        for y, x in ((y, x) for y in range(height) for x in range(width)):
            a, b = low[..., 2 * y, 2 * x], low[..., 2 * y, 2 * x + 1]
            c, d = low[..., 2 * y + 1, 2 * x], low[..., 2 * y + 1, 2 * x + 1]
            parts["low"][..., y, x] = (a + b + c + d) / 2
            parts["h"][..., y, x] = (-a - b + c + d) / 2
            parts["v"][..., y, x] = (-a + b - c + d) / 2
            parts["d"][..., y, x] = (a - b - c + d) / 2
        low = parts.pop("low")
        found.update({(level, band): value / 2**level for band, value in parts.items()})
    found[levels, "low"] = low / 2**levels
    return found


def by_formula(student, teacher, gt, levels=2, low=1.0, high=0.1, decay=0.5, power=2, gated=True):
    """The loss, and the share of each band that was compared: details from fine to coarse, then the low band."""
    s, t, j = (bands_by_loops(image, levels) for image in (student, teacher, gt))

    def size(x):
        return x.abs() ** power

    def mask(bands):
        mine = sum(size(s[band] - j[band]) for band in bands) / len(bands)
        theirs = sum(size(t[band] - j[band]) for band in bands) / len(bands)
        return (theirs < mine).double() if gated else torch.ones_like(mine)

    shares, total = [], 0.0
    for level in range(1, levels + 1):
        bands = [(level, band) for band in "hvd"]
        m = mask(bands)
        shares.append(m.mean())
        total = total + decay ** (level - 1) * (0.5 * m * sum(size(s[band] - t[band]) for band in bands)).mean()
    last = (levels, "low")
    m = mask([last])
    shares.append(m.mean())
    total = high * total / sum(decay ** (level - 1) for level in range(1, levels + 1))
    return low * (m * size(s[last] - t[last])).mean() + total, torch.stack(shares)


@pytest.mark.parametrize("size", [(8, 12), (9, 7), (5, 4), (6, 11)])
@pytest.mark.parametrize("levels", [1, 2])
def test_bands_are_those_of_the_blocks(size, levels):
    image = images(*size)[0]
    *details, low = haar_bands(image, levels)
    expected = bands_by_loops(image, levels)
    for level, band in enumerate(details, 1):
        for mine, name in zip(band, "hvd", strict=True):
            torch.testing.assert_close(mine, expected[level, name])
    torch.testing.assert_close(low[0], expected[levels, "low"])


@pytest.mark.parametrize("size", [(8, 12), (9, 7), (13, 18)])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"levels": 1},
        {"levels": 3, "decay": 0.3},
        {"low": 0.0, "high": 2.0},
        {"power": 1},
        {"gated": False},
        {"power": 1, "gated": False, "low": 0.5},
    ],
    ids=str,
)
def test_the_loss_is_the_formula(size, arguments):
    found = images(*size)
    if min(size) < 2 ** arguments.get("levels", 2):
        size = (8, 8)
        found = images(*size)
    names = {"low": "low_weight", "high": "high_weight", "power": "norm"}
    options = {names.get(key, key): {1: "l1"}.get(value, value) if key == "power" else value for key, value in arguments.items()}
    loss = GatedWaveletLoss(loss_weight=3.0, **options)
    value = loss(*found)
    expected, shares = by_formula(*found, **arguments)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value, 3 * expected)
    if arguments.get("gated", True):
        assert shares.min() > 0 and shares.max() < 1
        torch.testing.assert_close(loss.share, shares.mean())
    else:
        assert loss.share is None


def test_a_constant_image_has_one_value_in_the_low_band_and_no_details():
    *details, low = haar_bands(torch.full((1, 3, 8, 8), 0.7), 2)
    torch.testing.assert_close(low, torch.full_like(low, 0.7))  # bands have the image's range
    assert all(band.abs().max() < 1e-6 for band in details)


def test_gates_are_not_differentiated():
    student, teacher, gt = images()
    student.requires_grad_()
    GatedWaveletLoss()(student, teacher, gt).backward()
    gradient = student.grad.clone()
    eps, moved = 1e-6, student.detach().clone()
    for place in ((0, 0, 0, 0), (1, 2, 5, 7), (0, 1, 3, 11)):  # by differences, with the gates where they are
        values = []
        for sign in (1, -1):
            moved[place] += sign * eps
            values.append(by_formula(moved, teacher, gt)[0])
            moved[place] -= sign * eps
        assert float(gradient[place]) == pytest.approx(float(values[0] - values[1]) / (2 * eps), abs=1e-8)


def test_where_the_teacher_is_worse_there_is_no_gradient_and_where_it_is_better_there_is():
    student, _, gt = images(8, 8)
    worse, better = gt + 2 * (student - gt), gt + 0.5 * (student - gt)
    mixed = torch.where(torch.arange(8) < 4, worse, better)  # left and right of an edge of blocks of all levels
    student.requires_grad_()
    loss = GatedWaveletLoss()
    loss(student, mixed, gt).backward()
    assert not student.grad[..., :4].any() and student.grad[..., 4:].all()
    assert loss.share == 0.5


def test_the_low_band_follows_the_teacher_where_the_details_do_not():
    gt = (images(8, 8)[2] * 64).round() / 64  # of few bits, as all below: nothing is rounded
    pattern = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64).tile(4, 4)
    student, teacher = (gt + 0.125).requires_grad_(), gt + 0.25 * pattern  # the teacher's tone is right, its detail is not
    loss = GatedWaveletLoss()
    loss(student, teacher, gt).backward()
    torch.testing.assert_close(student.grad, torch.full_like(gt, 2 * 0.125 / gt.numel()))
    torch.testing.assert_close(loss.share, torch.tensor(1 / 3, dtype=torch.float64))  # one band of three, everywhere


def test_under_bf16_autocast_bands_are_compared_in_float32():
    student, teacher, gt = (x.float() for x in images())
    with torch.autocast("cpu", torch.bfloat16):
        value = GatedWaveletLoss()(student.bfloat16(), teacher.bfloat16(), gt)
    assert value.dtype == torch.float32
    expected, _ = by_formula(student.bfloat16().double(), teacher.bfloat16().double(), gt.double())
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-8)


def test_images_too_small_or_of_other_shapes_are_refused():
    student, teacher, gt = images(7, 12)
    with pytest.raises(ValueError, match="GatedWaveletLoss: images of 12x7, expected 8 pixels at least for levels=3"):
        GatedWaveletLoss(levels=3)(student, teacher, gt)
    for wrong in ((student, teacher[..., 1:], gt), (student, teacher, gt[:1])):
        with pytest.raises(ValueError, match="GatedWaveletLoss: .* expected the same shape"):
            GatedWaveletLoss()(*wrong)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        *(({"levels": value}, "levels: .*, expected a whole number from 1 to 16") for value in (0, 17, 1.0, True, "2", 2**62)),
        *(({key: -0.1}, f"{key}: -0.1, expected a number of at least 0") for key in ("low_weight", "high_weight", "decay")),
        *(({key: value}, f"{key}: ") for key in ("low_weight", "decay") for value in (math.nan, math.inf)),
        ({"norm": "l3"}, "norm: 'l3', expected one of l1, l2"),
    ],
)
def test_values_out_of_range_are_refused(arguments, said):
    with pytest.raises(ValueError, match=f"GatedWaveletLoss: {said}"):
        GatedWaveletLoss(**arguments)
