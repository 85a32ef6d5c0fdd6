"""Degradations of clean photos: their base class, noise, and how an option block is built. The others have files of their own."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from basicsr.utils.registry import Registry

from kd_plugins.arguments import AtLeast, Named, Range, build, checked

DEGRADATION_REGISTRY = Registry("degradation")
DEGRADATION = Named("degradation", DEGRADATION_REGISTRY, many=True)
"""Degradation classes by the name an option file calls them. Register a class of your own to use it by name."""

_T = TypeVar("_T", bound=type)


def register(name: str):
    """Return a class decorator that puts a degradation into ``DEGRADATION_REGISTRY`` under an option-file name."""

    def add(cls: _T) -> _T:
        DEGRADATION_REGISTRY._do_register(name, cls)
        return cls

    return add


def bounds(value: float | Sequence[float]) -> tuple[float, float]:
    """The two ends of a `Range`: a number is both."""
    low, high = value if isinstance(value, Sequence) else (value, value)
    return low, high


def draw(rng: np.random.RandomState, bounds: tuple[float, float], log: bool = False) -> float:
    """Draw a number uniformly from ``bounds``, or uniformly in its logarithm (``bounds[0] > 0``)."""
    if bounds[0] == bounds[1]:
        return bounds[0]
    if log:
        return math.exp(rng.uniform(math.log(bounds[0]), math.log(bounds[1])))
    return rng.uniform(*bounds)


def standard_normal(rng: np.random.RandomState, shape: tuple[int, ...]) -> np.ndarray:
    """Draw float32 standard normal numbers by Box and Muller's transform, several times faster than ``rng.normal``."""
    count = math.prod(shape)
    half = (count + 1) // 2
    uniform = 1.0 - rng.random_sample(2 * half)  # in (0, 1], so that the logarithm is finite
    radius = np.sqrt(np.float32(-2.0) * np.log(uniform[:half].astype(np.float32)))
    angle = uniform[half:].astype(np.float32) * np.float32(2.0 * math.pi)
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].reshape(shape)


def to_8bit(image: np.ndarray) -> np.ndarray:
    """Clip to [0, 1] and round to the 256 levels that an image file holds; float32 in, float32 out."""
    scaled = image * np.float32(255.0)
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0.0, 255.0, out=scaled)
    scaled *= np.float32(1.0 / 255.0)
    return scaled


@dataclasses.dataclass
class Degradation:
    """Base of all degradations: a callable whose fields are its option-file arguments.

    A subclass says on its fields what they may be (`kd_plugins.arguments`), and implements ``__call__``.
    """

    @property
    def margin(self) -> int:
        """Pixels beyond a crop's edge that its result depends on."""
        return 0

    @property
    def factor(self) -> int:
        """How many times smaller each side gets."""
        return 1

    def __call__(self, image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """Degrade one image.

        Args:
            image: (H, W, C) float32 in [0, 1], H and W multiples of the factor; not modified.
            rng: The only source of randomness. ``RandomState``, since numpy freezes its streams over versions.

        Returns:
            (H / factor, W / factor, C) float32.
        """
        raise NotImplementedError


@register("noise")
@checked
@dataclasses.dataclass
class GaussianNoise(Degradation):
    """White Gaussian noise, independent in every channel.

    Args:
        sigma: Standard deviation on the 0..255 scale, a number or a range drawn uniformly per image.
        clip: Clip to [0, 1] and round to 8 bits. Off by default: the denoising literature feeds the sum as it is.
        gray: The same noise in all channels.
    """

    sigma: Annotated[Range, AtLeast(0)] = 25.0
    clip: bool = False
    gray: bool = False

    def __call__(self, image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """See :class:`Degradation`; the result may leave [0, 1] unless ``clip`` is set."""
        sigma = draw(rng, bounds(self.sigma)) / 255.0
        shape = (*image.shape[:2], 1 if self.gray else image.shape[2])
        noisy = image + np.float32(sigma) * standard_normal(rng, shape)
        return to_8bit(noisy) if self.clip else noisy


class Sequential(Degradation):
    """Several degradations, applied in the order given."""

    def __init__(self, steps: Iterable[Degradation]) -> None:
        """Take the steps, the first to apply first."""
        self.steps = list(steps)

    @property
    def margin(self) -> int:
        """Sum over the steps, each in pixels of the first one's input."""
        return functools.reduce(lambda margin, step: margin * step.factor + step.margin, reversed(self.steps), 0)

    @property
    def factor(self) -> int:
        """Product over the steps."""
        return math.prod(step.factor for step in self.steps)

    def __call__(self, image: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
        """See :class:`Degradation`."""
        for step in self.steps:
            image = step(image, rng)
        return image


def build_degradation(opt: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Degradation:
    """Build a degradation from its option block.

    Args:
        opt: ``{type: rain, density: [0.5, 4], ...}``, or a list of such blocks, applied in order.

    Raises:
        ValueError: See :func:`kd_plugins.arguments.build`.
    """
    if isinstance(opt, Sequence) and not isinstance(opt, str) and opt:
        return Sequential(build(DEGRADATION, block, ("degradation", str(index))) for index, block in enumerate(opt))
    return build(DEGRADATION, opt, ("degradation",))
