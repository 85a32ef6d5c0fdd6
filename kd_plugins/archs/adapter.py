"""A network's own way with images, brought to the common one: sizes it takes, a noise level it wants, outputs to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Sizes(NamedTuple):
    """The image sizes that a network takes: multiples of a number, a smallest one, squares only."""

    multiple: int = 1
    minimum: int = 0
    square: bool = False

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns an image of this size lacks."""
        sides = [max(side, self.minimum) for side in (height, width)]
        sides = [side + -side % self.multiple for side in sides]
        if self.square:
            sides = [max(sides)] * 2
        return sides[0] - height, sides[1] - width


def pad(x: Tensor, bottom: int, right: int) -> Tensor:
    """Add rows and columns to (N, C, H, W): mirrored, or the last one repeated where the image is too small for that."""
    if not (bottom or right):
        return x
    mode = "reflect" if bottom < x.shape[-2] and right < x.shape[-1] else "replicate"
    return F.pad(x, (0, right, 0, bottom), mode=mode)


class Adapter:
    """Hooks on a network: its layers keep their names, its class and its checkpoint stay what they are.

    Args:
        sizes: images are padded to such a size, and what the network makes of them is cropped back, at its scale.
        output: which of several outputs is the image: a position in a list, or a key.
        noise_level: a further input channel of this value, of 255.

    Raises:
        ValueError: an output or a noise level that is none.
    """

    def __init__(self, sizes: Sizes | None = None, output: int | str | None = None, noise_level: float | None = None) -> None:
        if output is not None and (isinstance(output, bool) or not isinstance(output, (int, str))):
            raise ValueError(f"output: {output!r}, expected a position (0 is the first) or a key")
        if noise_level is not None and (isinstance(noise_level, bool) or not isinstance(noise_level, (int, float))):
            raise ValueError(f"noise_level: {noise_level!r}, expected a number from 0 to 255")
        self.sizes, self.output, self.noise_level = sizes or Sizes(), output, noise_level
        self._size = (0, 0)

    def attach(self, net: nn.Module) -> None:
        """Put the hooks on a network."""
        net.register_forward_pre_hook(self._before)
        net.register_forward_hook(self._after)

    def _before(self, net: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *others = args
        self._size = height, width = x.shape[-2:]
        if self.noise_level is not None:
            x = torch.cat([x, torch.full_like(x[:, :1], self.noise_level / 255)], 1)
        return (pad(x, *self.sizes.padding(height, width)), *others)

    def _after(self, net: nn.Module, args: tuple[Tensor, ...], output: object) -> object:
        if self.output is not None:
            output = self._choose(net, output)
        if not isinstance(output, Tensor):
            return output
        (height, width), padded = self._size, args[0].shape[-2:]
        if padded == (height, width):
            return output
        return output[..., : height * output.shape[-2] // padded[0], : width * output.shape[-1] // padded[1]]

    def _choose(self, net: nn.Module, outputs: object) -> object:
        try:
            if not isinstance(outputs, Tensor):  # of which [0] is an image of the batch
                return outputs[self.output]  # type: ignore[index]
        except (IndexError, KeyError, TypeError):
            pass
        raise ValueError(f"output: {self.output!r}, but {describe_output(net, outputs)}")


def describe_output(net: nn.Module, output: object) -> str:
    """What a network returned, for an error message."""
    name = type(net).__name__
    if isinstance(output, Mapping):
        return f"{name} returns a dict of {', '.join(map(repr, output))}"
    if isinstance(output, Sequence):
        return f"{name} returns a {type(output).__name__} of {len(output)}"
    return f"{name} returns one {type(output).__name__}"


def describe_refusal(net: nn.Module, x: Tensor, error: Exception) -> str:
    """Why a network did not take a batch, for an error message."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"{type(net).__name__} does not take an image of shape {tuple(x.shape)} ({reason}); where it is the size, "
        "`pad_to: 8` (or 16, 32, 64) in its block pads it"
    )
