"""Find by trial the image sizes that a network accepts, and pad other images to them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from kd_plugins.archs.adapter import Adapter, AdapterError, Sizes
from kd_plugins.features.layer_outputs import evaluating

_HALVINGS = (2, 4, 8, 16, 32, 64, 128)
_OTHERS = (3, 5, 6, 7, 9, 10, 12, 14, 20, 24, 28, 48, 56, 96)  # windows, and windows of what was halved
_SQUARES = (1, 8, 16, 32, 64, 128)
_SMALLEST = 33


def fit_sizes(net: nn.Module, channels: Sequence[int], key: str) -> Sizes | None:
    """Find the sizes that a network accepts, and let it pad images of any other size from now on.

    Args:
        net: unwrapped; taps on it hear nothing, its modes stay as they are.
        channels: of an image, as many as it may take.
        key: its name in the option file, for the log.

    Returns:
        What its images are padded to now and were not before; None where it takes any size, or none that was tried.

    Raises:
        ValueError: `output` or `mean` of its block do not go with what it returns or takes.
    """
    parameter = next((p for p in net.parameters() if p.is_floating_point()), torch.zeros(()))
    for count in channels:
        try:
            found = _find(net, torch.zeros(1, count, 1, 1, device=parameter.device, dtype=parameter.dtype))
        except AdapterError as error:
            raise ValueError(f"{key}: {error}") from None
        if found == Sizes():
            return None
        if found is not None:
            Adapter.on(net).sizes = found
            shape = "squares" if found.square else "images"
            get_root_logger().info(
                f"{key}: {type(net).__name__} takes {shape} of multiples of {found.multiple} alone: others are padded, as by "
                f"`pad_to: {found.multiple}`{' and `pad_square: true`' if found.square else ''}."
            )
            return found
    return None


def _find(net: nn.Module, like: Tensor) -> Sizes | None:
    """The weakest size requirement under which the network accepts images with the channels of `like`; None where there is none."""
    answered = _tried(net, like, *_sides(1))
    if answered:
        return Sizes()
    # an image of another size than was asked for comes of halving and doubling; an error may come of anything
    multiples = _HALVINGS if answered is False else (*_HALVINGS, *_OTHERS)
    wanted = [Sizes(multiple) for multiple in multiples]
    if answered is None:
        wanted += [Sizes(multiple, square=True) for multiple in _SQUARES]
    return next((sizes for sizes in wanted if _holds(net, like, sizes)), None)


def _holds(net: nn.Module, like: Tensor, sizes: Sizes) -> bool:
    """Whether the network accepts two different images of such sizes: a single one may be the only size that it accepts."""
    first, second = _sides(sizes.multiple)
    third = second + sizes.multiple
    pairs = ((first, first), (second, second)) if sizes.square else ((first, second), (second, third))
    return all(_tried(net, like, *pair) for pair in pairs)


def _sides(multiple: int) -> tuple[int, int]:
    """Two neighbouring multiples: what divides both divides `multiple`."""
    times = -(-_SMALLEST // multiple)
    return times * multiple, (times + 1) * multiple


def _tried(net: nn.Module, like: Tensor, height: int, width: int) -> bool | None:
    """Whether the network makes an image of these proportions of one of this size; None where it raises an error."""
    generator = torch.Generator().manual_seed(0)  # its own: the run's random numbers stay as they are
    image = torch.rand(1, like.shape[1], height, width, generator=generator).to(like)
    try:
        with evaluating(net):
            images = net(image)
    except AdapterError:
        raise
    except Exception:  # what a network says of an image that it does not take is its own affair
        return None
    return all(_in_proportion(each.shape[-2:], (height, width)) for each in _maps(images))


def _in_proportion(mine: Sequence[int], given: Sequence[int]) -> bool:
    """Whether one image's size is a whole multiple of the other's."""
    (height, width), (high, wide) = mine, given
    return height * wide == width * high and (height % high == 0 or high % height == 0)


def _maps(output: object) -> Iterable[Tensor]:
    values = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else [output]
    return [value for value in values if isinstance(value, Tensor) and value.dim() == 4]
