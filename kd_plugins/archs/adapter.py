"""A network's own way with images, brought to the common one: sizes and values it takes, a noise level it wants, its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_plugins.arguments import Above, Between, Count, Flag, MinLen, checked


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


class AdapterError(ValueError):
    """What an adapter was told does not go with the network, or with the image."""


@checked
class Adapter:
    """Hooks on a network: its layers keep their names, its class and its checkpoint stay what they are.

    Args:
        sizes: images are padded to such a size, and what the network makes of them is cropped back, at its scale.
        output: which of several outputs is the image: a position in a list, or a key.
        noise_level: a further input channel of this value, of 255.
        value_range: what the network's values are of, where it is not 1: 255.
        mean: what is taken from an image in [0, 1] and given back to what the network makes of it: one number, or one a channel.
        pad_to: in place of `sizes`: images are padded to multiples of it.
        pad_square: and to squares.

    Raises:
        ValueError: a value that an option does not take.
    """

    def __init__(
        self,
        sizes: Sizes | None = None,
        output: int | str | None = None,
        noise_level: Annotated[float, Between(0, 255)] | None = None,
        value_range: Annotated[float, Above(0)] | None = None,
        mean: Annotated[float | Sequence[float], Between(-1, 1), MinLen(1)] | None = None,
        pad_to: Count = None,
        pad_square: Flag = None,
    ) -> None:
        if pad_to or pad_square:
            sizes = Sizes(pad_to or 1, square=bool(pad_square))
        means = list(mean) if isinstance(mean, Sequence) else [mean or 0.0]
        self.sizes, self.output, self.noise_level = sizes or Sizes(), output, noise_level
        self.value_range, self.mean = value_range or 1, means if any(means) else []
        self._size = (0, 0)

    @classmethod
    def on(cls, net: nn.Module, attach: bool = True) -> Adapter:
        """The one on a network; where it has none, a new one, which changes nothing, and which it has from now on if `attach`."""
        owners = [getattr(hook, "__self__", None) for hook in net._forward_pre_hooks.values()]
        found = next((owner for owner in owners if isinstance(owner, cls)), None)
        if found is None:
            found = cls()
            if attach:
                found.attach(net)
        return found

    def attach(self, net: nn.Module) -> None:
        """Put the hooks on a network."""
        net.register_forward_pre_hook(self._before)
        net.register_forward_hook(self._after)

    def _before(self, net: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x, *others = args
        self._size = height, width = x.shape[-2:]
        noise = [] if self.noise_level is None else [torch.full_like(x[:, :1], self.noise_level / 255 * self.value_range)]
        x = self._rescaled(x, forth=True)
        return (pad(torch.cat([x, *noise], 1) if noise else x, *self.sizes.padding(height, width)), *others)

    def _after(self, net: nn.Module, args: tuple[Tensor, ...], output: object) -> object:
        if self.output is not None:
            output = self._choose(net, output)
        if not isinstance(output, Tensor):
            return output
        (height, width), padded = self._size, args[0].shape[-2:]
        if padded != (height, width):
            output = output[..., : height * output.shape[-2] // padded[0], : width * output.shape[-1] // padded[1]]
        return self._rescaled(output, forth=False)

    def _rescaled(self, x: Tensor, forth: bool) -> Tensor:
        """Values in [0, 1] as the network has them, and back."""
        mean = None
        if self.mean:
            if len(self.mean) not in (1, x.shape[1]):
                raise AdapterError(f"mean: {self.mean}, expected one number or {x.shape[1]}: the image has so many channels")
            mean = x.new_tensor(self.mean)[:, None, None]
        if forth:
            x = x if mean is None else x - mean
            return x if self.value_range == 1 else x * self.value_range
        x = x if self.value_range == 1 else x / self.value_range
        return x if mean is None else x + mean

    def _choose(self, net: nn.Module, outputs: object) -> object:
        try:
            if not isinstance(outputs, Tensor):  # of which [0] is an image of the batch
                return outputs[self.output]  # type: ignore[index]
        except (IndexError, KeyError, TypeError):
            pass
        raise AdapterError(f"output: {self.output!r}, but {describe_output(net, outputs)}")


def describe_output(net: nn.Module, output: object) -> str:
    """What a network returned, for an error message."""
    name = type(net).__name__
    if isinstance(output, Mapping):
        return f"{name} returns a dict of {', '.join(map(repr, output))}"
    if isinstance(output, Sequence):
        return f"{name} returns a {type(output).__name__} of {len(output)}"
    return f"{name} returns one {type(output).__name__}"


def further_inputs(net: nn.Module) -> list[str]:
    """What a network has to be given beside the image, by name."""
    try:
        parameters = list(inspect.signature(net.forward).parameters.values())[1:]
    except (TypeError, ValueError):  # compiled code may have no signature
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [each.name for each in parameters if each.kind in kinds and each.default is each.empty]


def describe_refusal(net: nn.Module, x: Tensor, error: Exception) -> str:
    """Why a network did not take a batch, for an error message."""
    if more := further_inputs(net):
        return (
            f"{type(net).__name__} takes {', '.join(more)} beside the image, expected a network of one image; write a class around "
            "it, and name it: `file: FILE.py, class: NAME`"
        )
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"{type(net).__name__} does not take an image of shape {tuple(x.shape)} ({reason}); where it is the size, "
        "`pad_to: 8` (or 16, 32, 64) in its block pads it"
    )
