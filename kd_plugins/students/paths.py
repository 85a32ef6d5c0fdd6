"""Channel paths: which dimension of which tensor runs on which set of channels.

A path is a set of channels that several layers share: whoever writes it and whoever reads it must keep the same ones. A family
of networks is stated once, as a `Layout`; choosing, slicing and scaling (`inherit.py`) know no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Path:
    """A run of channels along one dimension of a tensor.

    Args:
        name: runs of one name keep the same channels, wherever they stand.
        size: channels of the path.
        heads: equal parts of the path that keep equally many channels each.
        times: rows of the tensor for each channel: 4 beside a pixel (un)shuffle, rows 4j .. 4j + 3 being channel j's subpixels.
    """

    name: str
    size: int
    heads: int = 1
    times: int = 1

    def subpixels(self) -> Path:
        """The same channels, each as the four rows that a pixel (un)shuffle by 2 makes of it or it of them."""
        return replace(self, times=4 * self.times)


Axis = tuple[Path, ...]  # concatenated: `up + level1` is torch.cat([up, level1], 1)


def indices(axis: Axis, kept: Mapping[str, Tensor]) -> Tensor:
    """The rows of a tensor that belong to the kept channels of the paths along one of its dimensions.

    Args:
        axis: the paths.
        kept: for each path's name, its kept channels, (k,) LongTensor.

    Returns:
        (rows,) LongTensor.
    """
    rows, start = [], 0
    for path in axis:
        subpixels = torch.arange(path.times)
        rows.append(start + (kept[path.name][:, None] * path.times + subpixels).flatten())
        start += path.size * path.times
    return torch.cat(rows)


def take(tensor: Tensor, axes: Mapping[int, Axis], kept: Mapping[str, Tensor]) -> Tensor:
    """The part of a tensor that belongs to the kept channels along each of its dimensions.

    Args:
        tensor: a weight.
        axes: the paths along its dimensions; the other dimensions stay whole.
        kept: for each path's name, its kept channels.

    Returns:
        A new tensor.
    """
    for dim, axis in axes.items():
        tensor = tensor.index_select(dim, indices(axis, kept).to(tensor.device))
    return tensor


@dataclass
class Layout:
    """What a family states about one network.

    Args:
        tensors: the network's state dict.

    Attributes:
        axes: for each tensor, the paths along its dimensions; the other dimensions are copied whole.
        sums: for each tensor to scale when it sums over fewer channels, the dimension it sums over.
        stages: blocks of each stage; block i of stage s is the module `s.i`, and its own paths are named with that prefix.
        outputs: for each named layer, the paths of its output's channels.
    """

    tensors: Mapping[str, Tensor]
    axes: dict[str, dict[int, Axis]] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, Axis] = field(default_factory=dict)

    def rows(self, layer: str) -> int:
        """Rows of a layer's weight: the channels it puts out."""
        return self.tensors[f"{layer}.weight"].shape[0]

    def tensor(self, name: str, axes: dict[int, Axis]) -> None:
        """State one tensor; silent where the network has none of that name (an optional bias)."""
        if name in self.tensors:
            self.axes[name] = axes

    def mix(self, layer: str, reads: Axis | None, writes: Axis | None, scaled: bool = True) -> None:
        """A convolution or linear layer that sums over `reads` to make `writes` (None: the image's channels).

        Args:
            layer: its name.
            reads: the paths of its input.
            writes: the paths of its output.
            scaled: False where its input grows by itself when channels are left out.
        """
        axes = {dim: axis for dim, axis in enumerate((writes, reads)) if axis}
        self.tensor(f"{layer}.weight", axes)
        self.tensor(f"{layer}.bias", {dim: axis for dim, axis in axes.items() if dim == 0})
        if reads and scaled:
            self.sums[f"{layer}.weight"] = 1

    def each(self, layer: str, axis: Axis) -> None:
        """A layer with one row for each channel: a norm, a depthwise convolution."""
        for name in ("weight", "bias"):
            self.tensor(f"{layer}.{name}", {0: axis})

    def stage(self, name: str, axis: Axis) -> list[str]:
        """A residual stage on `axis`; returns the names of its blocks."""
        start = f"{name}."
        numbers = {key[len(start) :].split(".")[0] for key in self.tensors if key.startswith(start)}
        blocks = [f"{start}{number}" for number in range(len(numbers))]
        self.stages[name] = len(blocks)
        self.outputs.update(dict.fromkeys([name, *blocks], axis))
        return blocks
