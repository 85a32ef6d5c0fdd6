"""The teacher's own encoder as a feature space for images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated

import torch
from torch import Tensor, nn

from kd_plugins.arguments import MinLen, checked
from kd_plugins.compiling import uncompiled
from kd_plugins.extractors import EXTRACTOR_REGISTRY
from kd_plugins.features.stages import find_stages
from kd_plugins.features.taps import EarlyStop, refuse_untappable


@EXTRACTOR_REGISTRY.register()
@checked
class TeacherExtractor(nn.Module):
    """Features of an image in layers of the teacher's network: a feature space of the task's own domain, without a download.

    Each call runs the network as far as the last of the layers, on images padded as the network does it itself. It has no weights
    of its own, and the teacher is no submodule of it: nothing of it is saved, optimized, moved or switched with this extractor.

    Args:
        layers: names of modules as in `net.named_modules()`, shallow to deep, or `auto`: the encoder's stages above the
            bottleneck, which is a few positions wide on a small window; in a flat network all of its stages (see `find_stages`).

    Raises:
        ValueError: no layers.
    """

    compilable = ("_run",)

    def __init__(self, layers: Annotated[str | Sequence[str], MinLen(1)] = "auto") -> None:
        super().__init__()
        self.layers = layers if layers == "auto" else [layers] if isinstance(layers, str) else list(layers)
        self._teacher: tuple[nn.Module, EarlyStop] | None = None  # in a tuple, where nn.Module finds no submodule
        self._overwrites: bool | None = None  # what its backward pass needs; unknown until the first one

    def use_teacher(self, net: nn.Module) -> None:
        """Choose the network; the model calls this once, after the teacher was built.

        Args:
            net: the teacher's network itself, not its wrapper: the gradient must flow through it to the image.

        Raises:
            KeyError: a layer that the network does not have; the nearest ones are named.
            ValueError: `layers: auto` for a network in which no stages are found, one that is not frozen, or one without layers.
        """
        net = getattr(net, "_orig_mod", net)  # one that torch.compile has wrapped has neither hooks nor an early end
        name = type(net).__name__
        if net.training or any(parameter.requires_grad for parameter in net.parameters()):
            raise ValueError(f"TeacherExtractor: {name} is not frozen; expected net.requires_grad_(False).eval()")
        refuse_untappable(net)
        layers = self.layers
        if layers == "auto":
            try:
                layers = [stage.layer for stage in find_stages(net).above_bottleneck]
            except ValueError as error:
                raise ValueError(f"TeacherExtractor: layers='auto': {error}; name the layers: [shallow, ..., deep]") from error
        if self._teacher:
            self._teacher[1].remove()
        self._teacher = net, EarlyStop(net, layers)
        self._overwrites = None

    def train(self, mode: bool = True) -> TeacherExtractor:
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of a batch of images.

        Args:
            image: (N, C, H, W) in [0, 1]. The gradient flows back to it, and none to the network's parameters.

        Returns:
            The output of each layer, in their order.

        Raises:
            RuntimeError: no teacher yet, or one that runs without gradient.
        """
        if self._teacher is None:
            raise RuntimeError("TeacherExtractor: called before use_teacher(net); the option file needs a `teacher` block")
        net = self._teacher[0]
        image = image.to(next(net.parameters(), image).dtype)
        found = self._look(image)
        if torch.is_grad_enabled() and image.requires_grad:
            if not found[-1].requires_grad:
                raise RuntimeError(
                    f"TeacherExtractor: {type(net).__name__} runs without gradient; expected the teacher's network, not its wrapper"
                )
            if self._overwrites is None:
                self._overwrites = _is_overwritten(found, image)
                found = self._look(image) if self._overwrites else found
        return found

    def _look(self, image: Tensor) -> list[Tensor]:
        """Run the network; copy what its backward pass needs, where its eval mode overwrites that (PLKSR's does)."""
        if self._overwrites is False:
            return self._run(image)
        hooks = torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda kept: kept) if self._overwrites else nullcontext()
        with uncompiled(), hooks:
            return self._run(image)

    def _run(self, image: Tensor) -> list[Tensor]:
        assert self._teacher is not None
        net, taps = self._teacher
        features = taps.run(net, image)
        return [features[layer] for layer in taps.layers]


def _is_overwritten(features: Sequence[Tensor], image: Tensor) -> bool:
    try:
        torch.autograd.grad([feature.sum() for feature in features], image, retain_graph=True)
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        return True
    return False
