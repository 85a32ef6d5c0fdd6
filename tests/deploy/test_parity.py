"""How far an export is from its model."""

import math

import pytest
import torch
from torch import nn

from kd_plugins.deploy.parity import Difference, HalfAsOnGpu, compare, refuse_below


def test_differences_are_in_units_of_the_image():
    (near,) = compare(lambda x: x + 0.01, lambda x: x, 3, [(8, 8)])
    assert near.size == (8, 8) and near.largest == pytest.approx(0.01, rel=1e-4) and near.psnr == pytest.approx(40, abs=1e-3)
    (same,) = compare(lambda x: x, lambda x: x, 1, [(8, 8)])
    assert (same.largest, same.psnr) == (0, math.inf)
    (larger,) = compare(lambda x: 101 + 0 * x, lambda x: 100 + 0 * x, 1, [(8, 8)])
    assert larger.psnr == pytest.approx(40)


@pytest.mark.parametrize("psnr", [49.9, math.nan])
def test_what_is_too_far_or_no_number_is_refused(psnr):
    refuse_below([Difference((8, 8), 0.0, 50.0)], 50)
    with pytest.raises(ValueError, match="64x48.*expected at least 50 dB"):
        refuse_below([Difference((8, 8), 0.0, 60.0), Difference((64, 48), 0.1, psnr)], 50)


def test_other_sizes_and_refusals_are_errors():
    with pytest.raises(ValueError, match="makes"):
        compare(lambda x: x[..., 1:], lambda x: x, 3, [(8, 8)])

    def fail(x):
        raise RuntimeError("no such kernel\nand more")

    with pytest.raises(ValueError, match="8x9: no such kernel$"):
        compare(fail, lambda x: x, 3, [(8, 9)])


def test_half_precision_is_that_of_a_graphics_card():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 3)).half().requires_grad_(False)
    x = torch.rand(1, 3, 16, 16).half()
    with HalfAsOnGpu():
        seen, norm = net(x), torch.linalg.vector_norm(x, dtype=torch.float32)
        beyond = x.new_full((4, 4), 300) @ x.new_full((4, 4), 300)
    assert seen.dtype is torch.float16 and norm.dtype is torch.float32
    torch.testing.assert_close(seen, net(x), atol=2e-3, rtol=0)
    assert beyond.isinf().all()
