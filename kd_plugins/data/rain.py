"""Rain: streaks rendered one by one, added to or screened over a photo.

The ranges are ours, chosen so that the layers look and measure like those of the synthetic deraining benchmarks
(Rain100L: Yang et al., "Deep joint rain detection and removal from a single image", CVPR 2017; Rain1400: Fu et al.,
CVPR 2017). No layer of any benchmark is used: every streak is drawn from a formula.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, NamedTuple

import numpy as np

from kd_plugins.arguments import Between, Range, Share, WholeRange, checked
from kd_plugins.data.degradations import Degradation, bounds, draw, register, standard_normal, to_8bit

_THINNEST = 0.45  # standard deviation, in pixels, below which a streak falls between the pixels


@register("rain")
@checked
@dataclasses.dataclass
class Rain(Degradation):
    """Rain streaks over a photo.

    Every image draws one value from each range, and every streak varies about it. A streak is a slender spindle: a
    (flat-topped) Gaussian across; along, brightest anywhere in its middle, narrower at its ends, and rippled, since a
    falling drop oscillates (Garg and Nayar, "Photorealistic rendering of rain streaks", SIGGRAPH 2006).

    Args:
        density: Number of streaks whose centre lies in 1000 pixels, all layers together, uniform in its logarithm.
        angle: Direction the rain falls in, degrees from the vertical.
        spread: Standard deviation of single streaks about that direction, degrees.
        length: Mean length of a streak in pixels, drawn for each layer, uniform in its logarithm.
        width: Mean standard deviation of the profile across a streak in pixels, drawn for each layer.
        intensity: Mean brightness of a streak, 1 is white, uniform in its logarithm.
        sharpness: Exponent of the profiles: 1 soft (Gaussian), 4 nearly a bar.
        ripple: Relative depth of the ripples along a streak.
        layers: Number of layers, a whole number.
        cross: Probability that the layers after the first fall in a direction of their own.
        screen: Probability that the rain is screened over the photo, ``1 - (1 - x)(1 - r)``, instead of added.
        veil: Brightness of an even haze under the streaks, blended by ``x + v (1 - x)``.
        clip: Clip to [0, 1] and round to 8 bits, as a saved image is.
    """

    density: Annotated[Range, Between(1e-3, 100)] = (1.6, 9.0)
    angle: Annotated[Range, Between(-90, 90)] = (-35.0, 35.0)
    spread: Annotated[Range, Between(0, 30)] = (0.5, 3.0)
    length: Annotated[Range, Between(3, 400)] = (16.0, 70.0)
    width: Annotated[Range, Between(0.2, 20)] = (0.5, 1.1)
    intensity: Annotated[Range, Between(1e-3, 2)] = (0.05, 0.3)
    sharpness: Annotated[Range, Between(1, 8)] = (1.0, 2.5)
    ripple: Annotated[Range, Between(0, 1)] = (0.0, 0.5)
    layers: Annotated[WholeRange, Between(1, 8)] = (1, 3)
    cross: Share = 0.1
    screen: Share = 0.1
    veil: Annotated[Range, Between(0, 1)] = 0.0
    clip: bool = True

    def layer(self, height: int, width: int, rng: np.random.RandomState) -> np.ndarray:
        """Draw the rain alone: (height, width) float32 >= 0, what is to be added to a photo in [0, 1]."""
        fewest, most = map(int, bounds(self.layers))
        count = int(rng.randint(fewest, most + 1))
        density = draw(rng, bounds(self.density), log=True) / count
        angle = draw(rng, bounds(self.angle))
        intensity = draw(rng, bounds(self.intensity), log=True)
        crossing = rng.random_sample() < self.cross
        # render_streaks() walks along rows, so it wants steep streaks: the flat ones are drawn in the transposed image.
        steep: list[np.ndarray] = []
        flat: list[np.ndarray] = []
        for number in range(count):
            if number and crossing:
                angle = draw(rng, bounds(self.angle))
            if abs(angle) <= 45.0:
                steep.append(self._streaks(height, width, angle, density, intensity, rng))
            else:
                turned = math.copysign(90.0, angle) - angle
                flat.append(self._streaks(width, height, turned, density, intensity, rng))
        rain = np.zeros((height, width), np.float32)
        if steep:
            rain += render_streaks((height, width), Streaks(*np.concatenate(steep, axis=1)))
        if flat:
            rain += render_streaks((width, height), Streaks(*np.concatenate(flat, axis=1))).T
        return rain

    def _streaks(
        self, height: int, width: int, angle: float, density: float, intensity: float, rng: np.random.RandomState
    ) -> np.ndarray:
        """Draw the streaks of one layer: the rows are the fields of Streaks."""
        spread = draw(rng, bounds(self.spread))
        mean_length = draw(rng, bounds(self.length), log=True)
        mean_width = draw(rng, bounds(self.width))
        sharpness = draw(rng, bounds(self.sharpness))
        ripple = draw(rng, bounds(self.ripple))

        reach = 0.75 * mean_length  # centres lie outside too, so that streaks enter over the edge
        side = reach * math.tan(math.radians(abs(angle))) + 3 * mean_width
        n = int(rng.poisson(density * (height + 2 * reach) * (width + 2 * side) / 1000.0))
        uniform = rng.random_sample((6, n))
        normal = standard_normal(rng, (3, n))
        out = np.empty((len(Streaks._fields), n))
        field = Streaks(*out)  # views into out
        field.x[:] = uniform[0] * (width + 2 * side) - side
        field.y[:] = uniform[1] * (height + 2 * reach) - reach
        field.theta[:] = (math.pi / 180.0) * np.clip(angle + spread * normal[0], -75.0, 75.0)
        field.length[:] = np.maximum(mean_length * np.exp(0.5 * normal[1] - 0.125), 3.0)
        field.sigma[:] = mean_width * np.exp(0.3 * normal[2])
        # Far drops are many and faint, near ones few and bright: an exponential distribution.
        field.peak[:] = np.minimum(-intensity * np.log1p(-uniform[2]), 0.8)
        field.skew[:] = uniform[3] - 0.5
        field.taper[:] = 1.5 * (sharpness + uniform[4])
        field.sharpness[:] = sharpness
        field.ripple[:] = ripple
        field.phase[:] = 2.0 * math.pi * uniform[5]
        return out

    def __call__(self, image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """See :class:`~kd_plugins.data.degradations.Degradation`; the streaks are gray, as in the benchmarks."""
        veil = draw(rng, bounds(self.veil))
        screened = rng.random_sample() < self.screen
        rain = self.layer(image.shape[0], image.shape[1], rng)[..., None]
        if veil:
            image = image + np.float32(veil) * (1.0 - image)
        rainy = image + np.minimum(rain, 1.0) * (1.0 - image) if screened else image + rain
        return to_8bit(rainy) if self.clip else rainy.astype(np.float32)


class Streaks(NamedTuple):
    """The parameters of n streaks, each (n,) float64.

    Attributes:
        x: Centre, in pixels from the left edge.
        y: Centre, in pixels from the top.
        theta: Angle from the vertical in radians, well inside (-pi/2, pi/2).
        length: In pixels.
        sigma: Standard deviation of the profile across, in pixels.
        peak: Brightness at the brightest point.
        skew: Where that point lies along the streak, in (-1, 1).
        taper: Exponent of the fall-off along; large means even brightness.
        sharpness: Exponent of the profile across; 1 is a Gaussian.
        ripple: Relative depth of the ripples along, in [0, 1].
        phase: Phase of the ripples, in radians.
    """

    x: np.ndarray
    y: np.ndarray
    theta: np.ndarray
    length: np.ndarray
    sigma: np.ndarray
    peak: np.ndarray
    skew: np.ndarray
    taper: np.ndarray
    sharpness: np.ndarray
    ripple: np.ndarray
    phase: np.ndarray


def render_streaks(shape: tuple[int, int], streaks: Streaks) -> np.ndarray:
    """Add up steep streaks.

    Only the pixels near each streak are evaluated: the rows that it crosses, times a window about its centre line.

    Args:
        shape: (height, width) of the layer.
        streaks: What to draw.

    Returns:
        (height, width) float32.
    """
    height, width = shape
    cos, slope = np.cos(streaks.theta), np.tan(streaks.theta)
    half_rows = 0.5 * streaks.length * cos
    first = np.clip(np.ceil(streaks.y - half_rows), 0, height).astype(np.int64)
    last = np.clip(np.floor(streaks.y + half_rows), -1, height - 1).astype(np.int64)
    rows = np.maximum(last - first + 1, 0)
    lean = np.abs(half_rows * slope) + 4 * streaks.sigma
    # A streak fainter than half an 8-bit level is not worth drawing.
    rows[(streaks.x + lean < 0) | (streaks.x - lean > width) | (streaks.peak < 0.5 / 255)] = 0
    total = int(rows.sum())
    if total == 0:
        return np.zeros(shape, np.float32)
    half = math.ceil(2.4 * max(streaks.sigma[rows > 0].max(), _THINNEST) / cos[rows > 0].min())

    # One entry for each pair of a streak and a row that it crosses.
    row = np.arange(total) - np.repeat(np.cumsum(rows) - rows - first, rows)
    s = Streaks(*np.repeat(np.stack(streaks), rows, axis=1))
    cos, slope, half_rows = np.repeat(np.stack([cos, slope, half_rows]), rows, axis=1)
    dy = row - s.y
    centre = s.x + dy * slope
    t = dy / half_rows  # -1 and 1 at the ends
    bump = np.where(t > s.skew, (t - s.skew) / (1.0 - s.skew), (s.skew - t) / (1.0 + s.skew))
    bump = 1.0 - np.minimum(bump, 1.0) ** s.taper
    along = s.peak * bump * (1.0 - 0.5 * s.ripple * (1.0 + np.cos((3.0 * math.pi) * t + s.phase)))
    # Narrower towards the ends, but never so thin that the pixels miss it.
    sigma = np.maximum(s.sigma * (0.4 + 0.6 * np.sqrt(bump)), _THINNEST)

    left = np.rint(centre).astype(np.int64) - half
    # Everything from here has a value per pixel: float32, and as few passes as possible.
    across = np.arange(2 * half + 1, dtype=np.float32) + (left - centre).astype(np.float32)[:, None]
    across *= (cos / (math.sqrt(2.0) * sigma)).astype(np.float32)[:, None]
    np.abs(across, out=across)
    np.power(across, (2.0 * s.sharpness).astype(np.float32)[:, None], out=across)
    np.negative(across, out=across)
    np.exp(across, out=across)
    across *= along.astype(np.float32)[:, None]

    # Columns outside fall into a border as wide as the window, which is cut off: cheaper than a mask.
    pad = 2 * half + 1
    stride = width + 2 * pad
    start = row * stride + np.clip(left + pad, 0, stride - pad)
    place = start[:, None] + np.arange(pad)
    layer = np.bincount(place.ravel(), across.ravel(), minlength=height * stride)
    return layer.reshape(height, stride)[:, pad : pad + width].astype(np.float32)
