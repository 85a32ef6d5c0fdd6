"""Rain: streaks rendered one by one, added to or screened over a photo.

The ranges are ours, chosen so that the layers look and measure like those of the synthetic deraining benchmarks
(Rain100L: Yang et al., "Deep joint rain detection and removal from a single image", CVPR 2017; Rain1400: Fu et al.,
CVPR 2017). No layer of any benchmark is used: every streak is drawn from a formula.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from kd_plugins.data.degradations import Degradation, Range, check_flag, check_range, draw, register, to_8bit


@register("rain")
@dataclasses.dataclass
class Rain(Degradation):
    """Rain streaks over a photo.

    Every image draws one value from each range ("mean" below), and every streak varies about it. A streak is a line
    segment with a (flat-topped) Gaussian profile across and a bump, brightest anywhere in its middle, along.

    Args:
        density: Mean number of streaks that start in 1000 pixels, drawn uniformly in its logarithm.
        angle: Direction the rain falls in, degrees from the vertical.
        spread: Standard deviation of single streaks about that direction, degrees.
        length: Mean length of a streak in pixels, drawn uniformly in its logarithm.
        width: Mean standard deviation of the profile across a streak, in pixels.
        intensity: Mean brightness of a streak, 1 is white, drawn uniformly in its logarithm.
        sharpness: Shape of the profiles: 1 soft (Gaussian), 4 nearly a bar.
        layers: Number of layers, a whole number; all after the first have a direction of their own.
        screen: Probability that the rain is screened over the photo, ``1 - (1 - x)(1 - r)``, instead of added.
        veil: Brightness of an even haze under the streaks, blended by ``x + v (1 - x)``.
        clip: Clip to [0, 1] and round to 8 bits, as a saved image is.
    """

    density: Range = (0.8, 6.0)
    angle: Range = (-35.0, 35.0)
    spread: Range = (0.5, 3.0)
    length: Range = (14.0, 50.0)
    width: Range = (0.6, 1.4)
    intensity: Range = (0.06, 0.45)
    sharpness: Range = (1.0, 3.0)
    layers: Range = (1, 2)
    screen: float = 0.1
    veil: Range = 0.0
    clip: bool = True

    def __post_init__(self) -> None:
        self._density = check_range("rain", "density", self.density, 1e-3, 100.0)
        self._angle = check_range("rain", "angle", self.angle, -90.0, 90.0)
        self._spread = check_range("rain", "spread", self.spread, 0.0, 30.0)
        self._length = check_range("rain", "length", self.length, 1.0, 400.0)
        self._width = check_range("rain", "width", self.width, 0.2, 20.0)
        self._intensity = check_range("rain", "intensity", self.intensity, 1e-3, 2.0)
        self._sharpness = check_range("rain", "sharpness", self.sharpness, 1.0, 8.0)
        self._layers = check_range("rain", "layers", self.layers, 1, 8)
        self._screen = check_range("rain", "screen", self.screen, 0.0, 1.0)[1]
        self._veil = check_range("rain", "veil", self.veil, 0.0, 1.0)
        check_flag("rain", "clip", self.clip)

    def layer(self, height: int, width: int, rng: np.random.RandomState) -> np.ndarray:
        """Draw one rain layer: (height, width) float32 >= 0, what is to be added to a photo in [0, 1]."""
        count = int(rng.randint(round(self._layers[0]), round(self._layers[1]) + 1))
        return sum(
            (self._one_layer(height, width, 1.0 / count, rng) for _ in range(count)),
            start=np.zeros((height, width), np.float32),
        )

    def _one_layer(self, height: int, width: int, share: float, rng: np.random.RandomState) -> np.ndarray:
        angle = draw(rng, self._angle)
        if abs(angle) > 45.0:  # render() walks along rows, so it wants steep streaks
            steep = math.copysign(90.0, angle) - angle
            return np.ascontiguousarray(self._steep_layer(width, height, steep, share, rng).T)
        return self._steep_layer(height, width, angle, share, rng)

    def _steep_layer(
        self, height: int, width: int, angle: float, share: float, rng: np.random.RandomState
    ) -> np.ndarray:
        density = draw(rng, self._density, log=True) * share
        spread = draw(rng, self._spread)
        mean_length = draw(rng, self._length, log=True)
        mean_width = draw(rng, self._width)
        mean_intensity = draw(rng, self._intensity, log=True)
        sharpness = draw(rng, self._sharpness)

        reach = 0.75 * mean_length  # centres lie outside too, so that streaks enter over the edge
        side = reach * math.tan(math.radians(abs(angle))) + 3 * mean_width
        expected = density * (height + 2 * reach) * (width + 2 * side) / 1000.0
        n = int(rng.poisson(expected))
        uniform = rng.random_sample((5, n))
        normal = rng.standard_normal((3, n))
        theta = np.clip(np.radians(angle + spread * normal[0]), -1.3, 1.3)
        lengths = np.maximum(mean_length * np.exp(0.5 * normal[1] - 0.125), 3.0)
        sigma = mean_width * np.exp(0.25 * normal[2])
        # Far drops are many and faint, near ones few and bright: an exponential distribution.
        peak = np.minimum(-mean_intensity * np.log1p(-uniform[2]), 1.0)
        return render_streaks(
            (height, width),
            x=uniform[0] * (width + 2 * side) - side,
            y=uniform[1] * (height + 2 * reach) - reach,
            theta=theta,
            length=lengths,
            sigma=sigma,
            peak=peak,
            skew=uniform[3] - 0.5,
            taper=1.5 + (sharpness - 1.0 + uniform[4]) * 1.5,
            sharpness=sharpness,
        )

    def __call__(self, image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """See :class:`~kd_plugins.data.degradations.Degradation`; the streaks are gray, as in the benchmarks."""
        veil = draw(rng, self._veil)
        screened = rng.random_sample() < self._screen
        rain = self.layer(image.shape[0], image.shape[1], rng)[..., None]
        if veil:
            image = image + np.float32(veil) * (1.0 - image)
        rainy = image + np.minimum(rain, 1.0) * (1.0 - image) if screened else image + rain
        return to_8bit(rainy) if self.clip else rainy.astype(np.float32)


def render_streaks(
    shape: tuple[int, int],
    *,
    x: np.ndarray,
    y: np.ndarray,
    theta: np.ndarray,
    length: np.ndarray,
    sigma: np.ndarray,
    peak: np.ndarray,
    skew: np.ndarray,
    taper: np.ndarray,
    sharpness: float,
) -> np.ndarray:
    """Add up n steep streaks.

    Only the pixels near each streak are evaluated: the rows that it crosses times a window about its centre line.

    Args:
        shape: (height, width) of the layer.
        x: (n,) centre, in pixels.
        y: (n,) centre, in pixels.
        theta: (n,) angle from the vertical, radians, well inside (-pi/2, pi/2).
        length: (n,) length in pixels.
        sigma: (n,) standard deviation of the profile across, in pixels.
        peak: (n,) brightness at the brightest point.
        skew: (n,) where that point lies along the streak, in (-1, 1).
        taper: (n,) exponent of the fall-off along the streak; large means even brightness.
        sharpness: exponent of the profile across, 1 is a Gaussian.

    Returns:
        (height, width) float32.
    """
    height, width = shape
    cos, sin = np.cos(theta), np.sin(theta)
    half_rows = 0.5 * length * cos
    first = np.clip(np.ceil(y - half_rows), 0, height).astype(np.int64)
    last = np.clip(np.floor(y + half_rows), -1, height - 1).astype(np.int64)
    rows = np.maximum(last - first + 1, 0)
    keep = (
        (rows > 0)
        & (x + np.abs(half_rows * sin / cos) > -4 * sigma)
        & (x - np.abs(half_rows * sin / cos) < width + 4 * sigma)
    )
    if not keep.any():
        return np.zeros(shape, np.float32)
    index = np.repeat(np.flatnonzero(keep), rows[keep])  # the streak of each (streak, row) pair
    ends = np.cumsum(rows[keep])
    row = np.arange(ends[-1]) - np.repeat(ends - rows[keep], rows[keep]) + first[index]
    dy = row - y[index]
    slope = sin / cos
    centre = x[index] + dy * slope[index]

    t = (dy / half_rows[index] - skew[index]).astype(np.float32)
    t /= np.where(t > 0, 1.0 - skew[index], 1.0 + skew[index]).astype(np.float32)
    along = peak[index] * (1.0 - np.minimum(np.abs(t), 1.0) ** taper[index])

    half = int(math.ceil(float((2.6 * sigma / cos)[keep].max())))
    left = np.rint(centre).astype(np.int64) - half
    column = left[:, None] + np.arange(2 * half + 1)
    across = ((column - centre[:, None]) * (cos / (math.sqrt(2.0) * sigma))[index, None]).astype(np.float32)
    across *= across
    if sharpness != 1.0:
        across **= np.float32(sharpness)
    value = np.exp(-across) * along[:, None].astype(np.float32)

    # Columns outside fall into a border as wide as the window, which is cut off: cheaper than a mask.
    pad = 2 * half + 1
    stride = width + 2 * pad
    column = np.clip(column + pad, 0, stride - 1)
    flat = np.bincount((row[:, None] * stride + column).ravel(), value.ravel(), minlength=height * stride)
    return flat.reshape(height, stride)[:, pad : pad + width].astype(np.float32)
