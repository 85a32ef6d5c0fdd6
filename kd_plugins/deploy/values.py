"""Which values a foreign exported file has: a network that restores leaves a photo about as it is, in its own values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_plugins.archs.adapter import Adapter
from kd_plugins.data.photos import find_photos
from kd_plugins.deploy.parity import psnr

_SIDES = (128, 128)
_LIKE, _BETTER = 20.0, 6.0  # dB: images that are like the photo, and much more so than others
_OTHER: tuple[tuple[dict[str, Any], str], ...] = (
    ({"value_range": 255}, "from 0 to 255"),
    ({"value_range": 2, "mean": 0.5}, "from -1 to 1"),
)


def refuse_other_values(net: nn.Module, channels: int, size: tuple[int, int] | None, name: str) -> None:
    """Refuse a file that makes of a photo in [0, 1] no image like it, and does so with other values or another order of channels.

    Args:
        net: the network.
        channels: of its images, 1 or 3.
        size: height and width of the only image that it takes; None for any.
        name: of the file.

    Raises:
        ValueError: it is such a file; the message says what to write.
    """
    photo = _photo(channels, size or _SIDES)
    own = _likeness(net, photo)
    if own >= _LIKE:
        return
    found = {}
    for options, words in _OTHER:
        adapted = _Adapted(net, Adapter(**options))
        found[f"takes values {words}", _block(name, options)] = _likeness(adapted, photo)
    if channels == 3:
        found["returns channels in the order BGR", "one that returns RGB"] = _likeness(lambda x: net(x).flip(1), photo)
    (fault, remedy), best = max(found.items(), key=lambda each: each[1])
    if best >= max(_LIKE, own + _BETTER):
        raise ValueError(
            f"model: {name} {fault}: a photo comes back at {best:.1f} dB so, at {own:.1f} dB as RGB in [0, 1]; expected {remedy}"
        )


class _Adapted(nn.Module):
    """A network behind an adapter of its own."""

    def __init__(self, net: nn.Module, adapter: Adapter) -> None:
        super().__init__()
        self.net = net
        adapter.attach(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def _photo(channels: int, size: tuple[int, int]) -> Tensor:
    pixels = next(photo for photo in find_photos("builtin", "train") if photo.name == "astronaut").load()
    image = F.interpolate(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255, size, mode="area")
    return image if channels == 3 else image.mean(1, keepdim=True)


@torch.no_grad()
def _likeness(run: Callable[[Tensor], Tensor], photo: Tensor) -> float:
    """How near what is made of a photo is to it, at its own size, in dB."""
    image = F.interpolate(run(photo).float(), photo.shape[-2:], mode="area").clamp(0, 1)
    return psnr((image - photo).square().mean().item())


def _block(name: str, options: dict[str, Any]) -> str:
    return f"'{{checkpoint: {name}, {', '.join(f'{key}: {value}' for key, value in options.items())}}}'"
