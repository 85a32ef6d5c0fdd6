"""Fit each layer of a narrower student to the output of the teacher's layer by least squares [ours]."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from kd_plugins.features.layer_outputs import evaluating

LAYERS = (_ConvNd, nn.Linear)
RIDGE = 0.03
"""The ridge, relative to the mean variance of a layer's inputs: an input that hardly varies gets no large weight."""
SAMPLES = 8192
"""How many positions a layer is fitted on, at most."""
PIXELS = 2**17
"""How many pixels are run, at most."""
_SAME = 1e-3  # relative: a layer answers like its teacher's already; it does what its class says


class Source(NamedTuple):
    """Where a layer of the student comes from.

    Attributes:
        layer: the teacher's.
        rows: which of its output channels.
    """

    layer: nn.Module
    rows: Tensor


@torch.no_grad()
def refit(student: nn.Module, teacher: nn.Module, sources: Mapping[str, Source], images: Tensor) -> None:
    """Fit the convolutions and linear layers of a student of inherited weights, in place, in the order in which they run [ours].

    The target of a layer is what the teacher's answers at the same images and positions, of the channels that the student has; its
    input is the student's own, behind the layers that were fitted before, so that what those get wrong is allowed for. Ridge
    regression, group by group. A layer that answers like the teacher's already stays as it is, bit for bit. Those that ran and
    could not be fitted are logged: transposed convolutions, layers that run several times or share their weights, layers that mix
    positions, each channel for itself (a narrower network has fewer answers of them), and layers that do not do what their class
    does.

    Args:
        student: the network to fit, run in eval mode.
        teacher: the whole network.
        sources: by the name of the student's layer.
        images: (N, C, H, W), degraded; of many, the first ones are enough.
    """
    images = images.to(next(student.parameters()))[: max(1, PIXELS // (images.shape[-2] * images.shape[-1]))]
    layers = {name: layer for name, layer in student.named_modules() if isinstance(layer, LAYERS)}
    calls: Counter[str] = Counter()
    with _hooked(layers.items(), lambda name, *_: calls.update([name])), evaluating(student):
        student(images[:1])
    owners = Counter(id(p) for layer in student.modules() for p in layer._parameters.values())
    fits = {
        name: _Fit(layer, sources[name].rows)
        for name, layer in layers.items()
        if name in sources and calls[name] == 1 and _is_plain(layer) and owners[id(layer.weight)] == 1
    }
    generator = torch.Generator().manual_seed(0)
    with evaluating(student), evaluating(teacher):
        with _hooked(((name, sources[name].layer) for name in fits), lambda name, _, answer: fits[name].aim(answer, generator)):
            teacher(images)
        with _hooked(((name, fit.layer) for name, fit in fits.items()), lambda name, args, answer: fits[name].meet(args, answer)):
            student(images)
    if left := [name for name in layers if calls[name] and not (name in fits and fits[name].done)]:
        why = "transposed, run several times, across positions, or of a class of their own"
        get_root_logger().info(f"init:refit: not fitted but as inherited: {', '.join(left)} ({why}).")


class _Fit:
    """One layer and its target."""

    def __init__(self, layer: _ConvNd | nn.Linear, rows: Tensor) -> None:
        self.layer, self.rows, self.done, self.count = layer, rows, False, 0
        self.places = self.target = torch.empty(0)

    def aim(self, answer: Tensor, generator: torch.Generator) -> None:
        """Keep the output of the teacher's layer at some positions, as the target."""
        self.count = self._positions(answer)
        self.places = torch.randperm(self.count, generator=generator)[:SAMPLES].to(answer.device)
        self.target = self._at(answer)[:, self.rows.to(answer.device)]

    def meet(self, args: tuple[Any, ...], answer: Tensor) -> Tensor | None:
        """Fit the layer on its inputs. Returns its new output, or None where it stays as it is."""
        if not len(self.places) or not args or self._positions(answer) != self.count:
            return None
        mine, target = self._at(answer), self.target.to(answer)
        if _near(mine, target):
            self.done = True
            return None
        read = self._read(args[0], answer)
        weight = self.layer.weight.flatten(1).unflatten(0, (read.shape[1], -1))
        says = torch.einsum("ngk,gok->ngo", read, weight).flatten(1)
        if not _near(says if self.layer.bias is None else says + self.layer.bias, mine):
            return None
        weight, bias = _solve(read, target, self.layer.bias is not None)
        if not (weight.isfinite().all() and bias.isfinite().all()):
            return None
        self.layer.weight.copy_(weight.view_as(self.layer.weight))
        if self.layer.bias is not None:
            self.layer.bias.copy_(bias)
        self.done = True
        return self.layer.forward(*args)

    @property
    def _channels(self) -> int:
        return -1 if isinstance(self.layer, nn.Linear) else 1

    def _positions(self, answer: Tensor) -> int:
        return answer.numel() // answer.shape[self._channels]

    def _at(self, answer: Tensor) -> Tensor:
        """(positions, channels)."""
        return answer.movedim(self._channels, -1).flatten(0, -2)[self.places]

    def _read(self, x: Tensor, answer: Tensor) -> Tensor:
        """What the layer reads at each position, (positions, groups, weights of a row)."""
        layer = self.layer
        if not isinstance(layer, nn.Conv2d):
            return x.flatten(0, -2)[self.places][:, None]
        height, width = answer.shape[-2:]
        x = F.pad(x, layer._reversed_padding_repeated_twice, "constant" if layer.padding_mode == "zeros" else layer.padding_mode)
        x = x.movedim(1, -1)
        image, row, column = self.places // (height * width), self.places // width % height, self.places % width
        (down, right), (step_down, step_right) = layer.stride, layer.dilation
        taps = [
            x[image, row * down + i * step_down, column * right + j * step_right]
            for i in range(layer.kernel_size[0])
            for j in range(layer.kernel_size[1])
        ]
        return torch.stack(taps, -1).unflatten(1, (layer.groups, -1)).flatten(2)


def _solve(read: Tensor, target: Tensor, has_bias: bool) -> tuple[Tensor, Tensor]:
    """Ridge regression in each group: the rows of weights, (outputs, weights of a row), and the bias, (outputs,)."""
    x, y = read.double().transpose(0, 1), target.double().unflatten(1, (read.shape[1], -1)).transpose(0, 1)
    middle, wanted = (each.mean(1, keepdim=True) if has_bias else torch.zeros_like(each[:, :1]) for each in (x, y))
    x, y = x - middle, y - wanted
    gram = x.mT @ x
    ridge = (RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(-1)).clamp_min(torch.finfo(torch.float32).tiny)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    weight = torch.linalg.solve(gram + ridge[:, None, None] * eye, x.mT @ y)
    return weight.mT.flatten(0, 1), (wanted - middle @ weight).flatten()


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer is a convolution of images or a linear layer as PyTorch's, with weights of its own."""
    return type(layer).forward in (nn.Conv2d.forward, nn.Linear.forward) and "weight" in layer._parameters


def _near(a: Tensor, b: Tensor) -> bool:
    return bool(torch.linalg.vector_norm(a - b) <= _SAME * torch.linalg.vector_norm(b))


@contextmanager
def _hooked(layers: Iterable[tuple[str, nn.Module]], hook: Callable[[str, tuple[Any, ...], Any], Any]) -> Iterator[None]:
    """Forward hooks on some layers; each is called with the layer's name."""
    handles = [layer.register_forward_hook(lambda _, args, answer, name=name: hook(name, args, answer)) for name, layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
