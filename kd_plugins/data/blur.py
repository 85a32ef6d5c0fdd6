"""Blur: of a moving camera, and of a lens out of focus."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import cv2
import numpy as np

from kd_plugins.arguments import Between, Range, checked
from kd_plugins.data.degradations import Degradation, bounds, draw, register, to_8bit


def _normalised(kernel: np.ndarray) -> np.ndarray:
    return (kernel / kernel.sum(dtype=np.float64)).astype(np.float32)


def _filter(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    out = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    return to_8bit(out.reshape(image.shape))


@register("blur")
@checked
@dataclasses.dataclass
class MotionBlur(Degradation):
    """Motion blur: the image is averaged along a straight or gently curved path of the camera.

    Args:
        length: Length of the path in pixels.
        angle: Direction in degrees, 0 horizontal, counted counter-clockwise.
        curve: Degrees by which the direction turns from the path's start to its end; either way round, at random.
    """

    length: Annotated[Range, Between(1, 201)] = (5.0, 25.0)
    angle: Annotated[Range, Between(-360, 360)] = (0.0, 180.0)
    curve: Annotated[Range, Between(0, 360)] = (0.0, 60.0)

    @property
    def margin(self) -> int:
        """Half the longest path, and a pixel for the interpolation."""
        return math.ceil(bounds(self.length)[1] / 2) + 1

    def kernel(self, rng: np.random.RandomState) -> np.ndarray:
        """Draw a kernel: (k, k) float32, k odd, sum 1, centre of mass at the centre."""
        length, angle = draw(rng, bounds(self.length)), math.radians(draw(rng, bounds(self.angle)))
        turn = math.radians(draw(rng, bounds(self.curve))) * (1.0 if rng.random_sample() < 0.5 else -1.0)
        count = max(2, math.ceil(4 * length))
        heading = angle + turn * (np.linspace(0.0, 1.0, count) - 0.5)
        # A path of length L covers L pixels when its two end points are L - 1 apart.
        step = (length - 1.0) / (count - 1)
        x, y = np.cumsum(np.cos(heading)) * step, np.cumsum(-np.sin(heading)) * step
        x, y = x - x.mean(), y - y.mean()
        half = max(1, math.ceil(max(np.abs(x).max(), np.abs(y).max())))
        size = 2 * half + 1
        column, row = np.floor(x).astype(int), np.floor(y).astype(int)
        fx, fy = x - column, y - row
        kernel = np.zeros((size + 1, size + 1))
        for dy, dx, weight in (
            (0, 0, (1 - fy) * (1 - fx)),
            (0, 1, (1 - fy) * fx),
            (1, 0, fy * (1 - fx)),
            (1, 1, fy * fx),
        ):
            np.add.at(kernel, (row + half + dy, column + half + dx), weight)
        return _normalised(kernel[:size, :size])

    def __call__(self, image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """See :class:`Degradation`; the result is rounded to 8 bits."""
        # filter2D correlates; a flipped kernel makes it a convolution.
        return _filter(image, self.kernel(rng)[::-1, ::-1].copy())


@register("defocus")
@checked
@dataclasses.dataclass
class DefocusBlur(Degradation):
    """Defocus blur: the average over a disc.

    Args:
        radius: Radius of the disc in pixels.
    """

    radius: Annotated[Range, Between(0, 100)] = (1.0, 5.0)

    @property
    def margin(self) -> int:
        """The largest radius, and a pixel for its smooth edge."""
        return math.ceil(bounds(self.radius)[1]) + 1

    def __call__(self, image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """See :class:`Degradation`; the result is rounded to 8 bits."""
        radius = draw(rng, bounds(self.radius))
        half = math.ceil(radius) + 1
        y, x = np.mgrid[-half : half + 1, -half : half + 1]
        # The edge falls off over one pixel, so that the blur grows steadily with the radius.
        return _filter(image, _normalised(np.clip(radius + 0.5 - np.hypot(y, x), 0.0, 1.0)))
