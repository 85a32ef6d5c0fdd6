"""The rain generator: each argument does what it says, and the defaults look like the benchmarks' rain."""

from typing import Any

import cv2
import numpy as np
import pytest

from kd_plugins.data.photos import load_image
from kd_plugins.data.rain import Rain, Streaks, render_streaks

STILL = {"spread": 0, "ripple": 0, "layers": 1, "cross": 0.0, "screen": 0.0}


def layers(count: int = 6, side: int = 192, **arguments) -> list[np.ndarray]:
    rng, rain = np.random.RandomState(0), Rain(**arguments)
    return [rain.layer(side, side, rng) for _ in range(count)]


def direction(layer: np.ndarray) -> float:
    """Direction of the streaks in degrees from the vertical, by the structure tensor."""
    gx, gy = cv2.Scharr(layer, cv2.CV_32F, 1, 0), cv2.Scharr(layer, cv2.CV_32F, 0, 1)
    tensor = np.array([[(gx * gx).mean(), (gx * gy).mean()], [(gx * gy).mean(), (gy * gy).mean()]])
    along = np.linalg.eigh(tensor)[1][:, 0]
    return (np.degrees(np.arctan2(along[0], along[1])) + 90) % 180 - 90


def one_streak(**changes: float) -> np.ndarray:
    values = dict(x=50, y=50, theta=0, length=40, sigma=1.5, peak=0.6, skew=0, taper=8, sharpness=1, ripple=0, phase=0)
    return render_streaks((101, 101), Streaks(*(np.array([float((values | changes)[f])]) for f in Streaks._fields)))


def test_a_streak_has_the_peak_length_and_width_asked_for():
    streak = one_streak()
    assert streak.max() == pytest.approx(0.6, rel=1e-3) and streak[50, 50] == streak.max()
    rows = np.flatnonzero(streak[:, 50] > 0)
    assert (rows[0], rows[-1]) == (31, 69)  # the very ends, at 30 and 70, are dark
    x = np.arange(101) - 50
    np.testing.assert_allclose(streak[50][46:55], 0.6 * np.exp(-0.5 * (x[46:55] / 1.5) ** 2), rtol=1e-4)


def test_a_sharp_streak_is_a_bar_and_its_ends_are_narrower():
    soft, sharp = one_streak(sigma=3), one_streak(sigma=3, sharpness=4)
    assert sharp[50, 53] > 0.93 * 0.6 > soft[50, 53] > sharp[50, 56]
    long = one_streak(sigma=3, taper=2)
    assert long[67, 53] / long[67, 50] < long[50, 53] / long[50, 50]


def test_skew_moves_the_brightest_point_and_ripple_darkens():
    assert np.argmax(one_streak(skew=0.4, taper=2)[:, 50]) == 58
    assert one_streak(ripple=1, phase=0)[50, 50] == pytest.approx(0, abs=1e-6)
    assert one_streak(ripple=1, phase=np.pi)[50, 50] == pytest.approx(0.6, rel=1e-3)


@pytest.mark.parametrize("x, y", [(-30, 50), (130, 50), (50, -25), (50, 125), (0, 0), (100, 100)])
def test_a_streak_over_the_edge_is_the_same_streak_cut_off(x, y):
    values = dict(x=x, y=y, theta=0.9, length=90, sigma=2, peak=0.6, skew=0.2, taper=2, sharpness=1, ripple=0, phase=0)
    small = Streaks(*(np.array([float(values[f])]) for f in Streaks._fields))
    large = small._replace(x=small.x + 100, y=small.y + 100)
    whole = render_streaks((301, 301), large)
    np.testing.assert_allclose(render_streaks((101, 101), small), whole[100:201, 100:201], atol=1e-6)


@pytest.mark.parametrize("angle", [-80, -45, -20, 0, 30, 60, 90])
def test_rain_falls_in_the_direction_asked_for(angle):
    (layer,) = layers(1, angle=angle, length=40, width=1.0, density=4, intensity=0.3, sharpness=1, **STILL)
    difference = (direction(layer) - angle + 90) % 180 - 90
    assert abs(difference) < 2


def test_density_length_width_and_intensity_add_light_in_proportion():
    common: dict[str, Any] = dict(angle=10, length=30, width=1.0, density=3, intensity=0.1, sharpness=1) | STILL

    def light(**changes) -> float:
        return float(np.mean(layers(12, **(common | changes))))

    base = light()
    assert light(density=6) / base == pytest.approx(2, rel=0.15)
    assert light(length=60) / base == pytest.approx(2, rel=0.2)
    assert light(width=2) / base == pytest.approx(2, rel=0.2)
    assert light(intensity=0.2) / base == pytest.approx(2, rel=0.2)


def test_rain_is_even_up_to_the_edges():
    mean = np.mean(layers(60, side=96, density=6, length=40, intensity=0.2), axis=0)
    edges = [mean[:12].mean(), mean[-12:].mean(), mean[:, :12].mean(), mean[:, -12:].mean()]
    np.testing.assert_allclose(edges, mean.mean(), rtol=0.2)


def test_rain_is_gray_added_clipped_and_8_bit():
    photo = np.random.RandomState(3).randint(0, 256, (96, 96, 3)).astype(np.float32) / 255
    rain = Rain(screen=0.0, density=9, intensity=0.5)
    rainy = rain(photo, np.random.RandomState(1))
    assert (rainy >= photo - 1e-6).all() and rainy.max() == 1 and (rainy > photo).mean() > 0.1
    np.testing.assert_allclose(rainy * 255, np.rint(rainy * 255), atol=1e-4)
    black = rain(np.zeros_like(photo), np.random.RandomState(1))  # the layer itself
    np.testing.assert_allclose(rainy, np.minimum(photo + black, 1), atol=1 / 254)
    assert np.array_equal(black[..., 0], black[..., 2])


def test_screened_rain_is_weaker_on_bright_ground():
    arguments: dict[str, Any] = dict(density=5, intensity=0.3, clip=False)
    half = np.full((96, 96, 3), 0.5, np.float32)
    added = Rain(screen=0.0, **arguments)(half, np.random.RandomState(1)) - half
    screened = Rain(screen=1.0, **arguments)(half, np.random.RandomState(1)) - half
    np.testing.assert_allclose(screened, 0.5 * np.minimum(added, 1.0), atol=1e-5)


def test_veil_lifts_the_dark():
    out = Rain(veil=0.2, density=1e-3)(np.zeros((32, 32, 3), np.float32), np.random.RandomState(0))
    assert np.median(out) == pytest.approx(0.2, abs=1 / 255)


def test_layers_cross_only_when_asked():
    def spread(cross: float) -> float:
        pairs = layers(10, layers=2, cross=cross, angle=[-60, 60], spread=0, density=6, length=50, ripple=0)
        ratios = []
        for layer in pairs:
            gx, gy = cv2.Scharr(layer, cv2.CV_32F, 1, 0), cv2.Scharr(layer, cv2.CV_32F, 0, 1)
            tensor = np.array([[(gx * gx).mean(), (gx * gy).mean()], [(gx * gy).mean(), (gy * gy).mean()]])
            low, high = np.linalg.eigvalsh(tensor)
            ratios.append(low / high)
        return float(np.mean(ratios))

    assert spread(0.0) < 0.5 * spread(1.0)


def test_no_streak_is_no_rain():
    photo = np.random.RandomState(3).randint(0, 256, (32, 32, 3)).astype(np.float32) / 255
    np.testing.assert_allclose(Rain(density=1e-3)(photo, np.random.RandomState(0)), photo, atol=1e-6)


def test_default_rain_measures_like_rain100l(shared):
    folder = shared("rain100l")

    def measures(found: list[np.ndarray]) -> np.ndarray:
        rows = [[m.mean(), m.std(), (m > 3).mean(), (m > 20).mean(), np.percentile(m, 99)] for m in found]
        return np.median(rows, axis=0)

    real = []
    for path in sorted((folder / "input").iterdir()):
        rainy, clean = (load_image(p).astype(int) for p in (path, folder / "target" / path.name))
        real.append((rainy - clean).max(axis=2))
    made = [255 * layer for layer in layers(60, side=320)]
    np.testing.assert_allclose(measures(made), measures(real), rtol=0.35)
