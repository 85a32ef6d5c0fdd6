"""What the degradations do to an image, against values worked out by hand."""

import math

import numpy as np
import pytest

from kd_plugins.data import Degradation, build_degradation
from kd_plugins.data.degradations import register, standard_normal, to_8bit


def rng(seed: int = 0) -> np.random.RandomState:
    return np.random.RandomState(seed)


def impulse(side: int = 41) -> np.ndarray:
    image = np.zeros((side, side, 3), np.float32)
    image[side // 2, side // 2] = 1.0
    return image


def test_noise_has_the_sigma_asked_for_and_leaves_the_range():
    noisy = build_degradation({"type": "noise", "sigma": 50})(np.full((200, 200, 3), 0.5, np.float32), rng())
    residual = noisy - 0.5
    assert residual.std() * 255 == pytest.approx(50, rel=0.01)
    assert abs(residual.mean()) * 255 < 0.5
    assert noisy.min() < 0 and noisy.max() > 1
    assert np.corrcoef(residual[..., 0].ravel(), residual[..., 1].ravel())[0, 1] == pytest.approx(0, abs=0.02)


def test_noise_sigma_range_is_drawn_per_image():
    degrade, image, source = build_degradation({"type": "noise", "sigma": [5, 50]}), np.zeros((64, 64, 3)), rng()
    sigmas = [degrade(image.astype(np.float32), source).std() * 255 for _ in range(60)]
    assert 4.5 < min(sigmas) < 12 and 43 < max(sigmas) < 51


def test_clipped_noise_is_what_an_8_bit_file_holds():
    noisy = build_degradation({"type": "noise", "sigma": 50, "clip": True})(np.full((64, 64, 3), 0.9, np.float32), rng())
    assert noisy.min() >= 0 and noisy.max() == 1
    np.testing.assert_allclose(noisy * 255, np.rint(noisy * 255), atol=1e-4)


def test_gray_noise_is_equal_in_all_channels():
    noisy = build_degradation({"type": "noise", "gray": True})(np.zeros((16, 16, 3), np.float32), rng())
    assert noisy.std() > 0 and np.array_equal(noisy[..., 0], noisy[..., 2])


def test_normal_numbers_have_the_moments_of_a_normal_distribution():
    x = standard_normal(rng(), (200_001,)).astype(np.float64)
    assert x.shape == (200_001,)
    moments = [x.mean(), x.var(), (x**3).mean(), (x**4).mean()]
    np.testing.assert_allclose(moments, [0, 1, 0, 3], atol=0.05)
    assert np.corrcoef(x[:100_000], x[100_001:])[0, 1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("angle, shape", [(0, (1, 9)), (90, (9, 1)), (180, (1, 9))])
def test_straight_motion_blur_is_a_line_of_the_length_asked_for(angle, shape):
    out = build_degradation({"type": "blur", "length": 9, "angle": angle, "curve": 0})(impulse(), rng())[..., 0]
    weights = out.sum(axis=0) if shape[0] == 1 else out.sum(axis=1)
    rows, columns = np.nonzero(out > 0.02)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == shape
    assert out.sum() == pytest.approx(1, abs=0.03)
    assert (weights[20 - 3 : 20 + 4] > 0.09).all()


def test_motion_blur_angle_counts_counter_clockwise():
    out = build_degradation({"type": "blur", "length": 15, "angle": 45, "curve": 0})(impulse(), rng())[..., 0]
    assert out[16, 24] > 0.02 and out[24, 16] > 0.02  # up right, down left
    assert out[24, 24] == 0 and out[16, 16] == 0


def test_curved_motion_blur_leaves_the_straight_line():
    def height(curve: float) -> int:
        degrade = build_degradation({"type": "blur", "length": 25, "angle": 0, "curve": curve})
        return int((degrade(impulse(), rng())[..., 0].sum(axis=1) > 0).sum())

    assert height(0) == 1 < 4 <= height(120)


@pytest.mark.parametrize("radius", [2, 5])
def test_defocus_is_an_even_disc_of_the_radius_asked_for(radius):
    out = build_degradation({"type": "defocus", "radius": radius})(impulse(), rng())[..., 0]
    assert out[20, 20] == pytest.approx(1 / (math.pi * radius**2), rel=0.1)
    assert out[20, 20 + radius - 1] == out[20, 20]
    assert out[20, 20 + radius + 1] == 0 and out[20 - radius - 1, 20] == 0


@pytest.mark.parametrize("name", ["blur", "defocus"])
def test_blur_keeps_a_constant_image_to_the_edge(name):
    image = to_8bit(np.full((30, 37, 3), 0.4, np.float32))
    np.testing.assert_allclose(build_degradation({"type": name})(image, rng()), image, atol=1e-6)


@pytest.mark.parametrize("name", ["rain", "noise", "blur", "defocus"])
def test_input_is_left_alone_and_randomness_comes_from_the_generator_given(name):
    image = rng(5).random_sample((40, 50, 3)).astype(np.float32)
    before, degrade = image.copy(), build_degradation({"type": name})
    one, same, other = degrade(image, rng(1)), degrade(image, rng(1)), degrade(image, rng(2))
    assert np.array_equal(image, before)
    assert one.shape == image.shape and one.dtype == np.float32
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def test_a_list_is_applied_in_order():
    image = rng(5).random_sample((40, 50, 3)).astype(np.float32)
    blur, noise = {"type": "defocus", "radius": 3}, {"type": "noise", "sigma": 30}
    blurred_first = build_degradation([blur, noise])(image, rng(1))
    noisy_first = build_degradation([noise, blur])(image, rng(1))
    np.testing.assert_array_equal(blurred_first, build_degradation(noise)(build_degradation(blur)(image, rng(0)), rng(1)))
    assert blurred_first.std() > noisy_first.std() + 0.02  # the second blur takes the noise away again
    assert build_degradation([blur, {"type": "blur", "length": 9}]).margin == 4 + 6


def test_a_users_own_degradation_is_found_by_name():
    @register("invert_in_this_test")
    class Invert(Degradation):
        def __call__(self, image, rng):
            return 1.0 - image

    # dataclass fields are what an option block may set; this one has none
    assert build_degradation({"type": "invert_in_this_test"})(np.zeros((2, 2, 3), np.float32), rng()).min() == 1


@pytest.mark.parametrize(
    "block, words",
    [
        ({"type": "rian"}, ["'rian'", "nearest: rain"]),
        ({"type": "rain", "denssity": 3}, ["degradation:denssity", "Rain", "nearest: density"]),
        ({"type": "rain", "density": [5, 1]}, ["density", "[5, 1]", "lo <= hi"]),
        ({"type": "rain", "layers": 1.5}, ["layers", "1.5", "whole"]),
        ({"type": "rain", "clip": "no"}, ["clip", "'no'", "true or false"]),
        ({"type": "noise", "sigma": -1}, ["sigma", "-1", "at least 0"]),
        ({"type": "noise", "sigma": "25"}, ["sigma", "'25'", "number"]),
        ({"type": "blur", "length": [1, 2, 3]}, ["length", "[1, 2, 3]", "[lo, hi]"]),
        ({"type": "defocus", "radius": float("nan")}, ["radius", "nan"]),
        ({"sigma": 3}, ["type: missing", "noise"]),
        ("rain", ["'rain'", "type"]),
        ([], ["[]", "type"]),
    ],
)
def test_a_wrong_option_block_is_refused_by_name(block, words):
    with pytest.raises(ValueError) as caught:
        build_degradation(block)
    for word in words:
        assert word in str(caught.value)
