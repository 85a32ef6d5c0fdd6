"""VGG19 as a feature space (Simonyan and Zisserman, arXiv 1409.1556), in torchvision's layout of weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models import VGG19_Weights, vgg19

from kd_plugins.arguments import MinLen, checked
from kd_plugins.extractors.registry import EXTRACTOR_REGISTRY
from kd_plugins.extractors.safe_load import load_weights
from kd_plugins.home import expand
from kd_plugins.messages import nearest

_CONVOLUTIONS = (2, 2, 4, 4, 4)  # of each block; a pooling ends each


def _published_layers() -> dict[str, int]:
    names: list[str] = []
    for block, count in enumerate(_CONVOLUTIONS, 1):
        for number in range(1, count + 1):
            names += [f"conv{block}_{number}", f"relu{block}_{number}"]
        names.append(f"pool{block}")
    return {name: index for index, name in enumerate(names)}


LAYERS = _published_layers()  # published name -> index in torchvision's `features`, shallow to deep


@EXTRACTOR_REGISTRY.register()
@checked
class VGGExtractor(nn.Module):
    """Feature maps of a frozen VGG19.

    The weights are constants, not parameters: no optimizer and no checkpoint sees them. Only the layers up to the deepest one asked
    for are built.

    Args:
        weights: a file with torchvision's VGG19 (names like `features.0.weight`), .safetensors or .pth; one that holds only the
            first layers will do where those asked for are among them. Or `torchvision`: torchvision's ImageNet weights, from its
            cache or its own download (548 MB).
        levels: published layer names, shallow to deep: conv1_1, relu1_1, ..., relu5_4, pool5. Default relu1_1 to relu5_1.
        normalise: what the weights were trained on. `imagenet`: torchvision's, (x - mean) / std of RGB in [0, 1] with mean
            (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225). `caffe`: the original release's, 255 * x in the order B, G, R
            minus (103.939, 116.779, 123.68).

    Raises:
        ValueError: an unknown level or normalisation, levels out of order, or a file that is no such VGG19.
        FileNotFoundError: there are no weights to be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        weights: Literal["torchvision"] | str | os.PathLike[str] = "torchvision",
        levels: Annotated[Sequence[str], MinLen(1)] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        normalise: Literal["imagenet", "caffe"] = "imagenet",
    ) -> None:
        super().__init__()
        self.levels = _check_levels(levels)
        self.caffe = normalise == "caffe"
        mean, std = ((103.939, 116.779, 123.68), (1.0,) * 3) if self.caffe else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

        self._names = list(LAYERS)[: LAYERS[self.levels[-1]] + 1]
        self._smallest = 2 ** sum(name.startswith("pool") for name in self._names)
        self.features = _load(len(self._names), weights)
        self.eval()

    def train(self, mode: bool = True) -> VGGExtractor:
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps of a batch of images.

        Args:
            image: (N, 3, H, W) or (N, 1, H, W) (gray), RGB in [0, 1]. The gradient flows back to it.

        Returns:
            A map (N, C, H', W') for each level, shallow to deep.

        Raises:
            ValueError: another number of channels, or an image too small for the poolings.
        """
        if image.dim() != 4 or image.shape[1] not in (1, 3) or min(image.shape[-2:]) < self._smallest:
            raise ValueError(
                f"VGGExtractor: the image is {tuple(image.shape)}; {self.levels[-1]} takes (N, 3, H, W) or (N, 1, H, W) of "
                f"at least {self._smallest} x {self._smallest} pixels"
            )
        image = image.to(self.mean.dtype).expand(-1, 3, -1, -1)
        if self.caffe:
            image = 255 * image.flip(1)
        x = (image - self.mean) / self.std
        features = []
        for name, layer in zip(self._names, self.features, strict=True):
            x = layer(x)
            if name in self.levels:
                features.append(x)
        return features


def _check_levels(levels: Sequence[str]) -> list[str]:
    levels = [levels] if isinstance(levels, str) else list(levels)
    for level in levels:
        if level not in LAYERS:
            raise ValueError(f"VGGExtractor: levels: VGG19 has no layer {level!r}; nearest: {nearest(level, LAYERS)}")
    if levels != sorted(set(levels), key=LAYERS.__getitem__):
        raise ValueError(f"VGGExtractor: levels={levels}, expected one or more, each once, shallow to deep")
    return levels


def _load(depth: int, weights: str | os.PathLike[str]) -> nn.Sequential:
    """The first layers of torchvision's VGG19, their weights as constants."""
    with torch.device("meta"):  # its classifier would take half a gigabyte
        features: nn.Sequential = vgg19(init_weights=False).features[:depth].to_empty(device="cpu")  # type: ignore[index]
    net = nn.ModuleDict({"features": features})
    state = _read(weights)
    try:
        net.load_state_dict({key: value for key, value in state.items() if key in net.state_dict()})
    except RuntimeError as error:
        problem = str(error).splitlines()[1].strip()[:200]
        raise ValueError(
            f"VGGExtractor: weights={str(weights)!r}: {problem}; expected torchvision's VGG19 as deep as the levels asked for"
        ) from None
    for layer in features:
        for name, value in list(layer.named_parameters()):
            delattr(layer, name)
            layer.register_buffer(name, value.detach(), persistent=False)
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # what a level returned stays as it was
    return features


def _read(weights: str | os.PathLike[str]) -> Mapping[str, Any]:
    try:
        if weights == "torchvision":
            return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        return load_weights(expand(weights))
    except (OSError, RuntimeError) as error:  # no file, no network, or not the file that was expected
        what = "could not be downloaded" if weights == "torchvision" else "cannot be read"
        raise FileNotFoundError(
            f"VGGExtractor: weights={str(weights)!r} {what} ({error}); expected the path of a file with torchvision's VGG19 "
            f"weights (`weights: PATH`), or `weights: torchvision` to fetch {VGG19_Weights.IMAGENET1K_V1.url} into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}, where it may also be put by hand"
        ) from None
    except ValueError as error:
        raise ValueError(f"VGGExtractor: weights={str(weights)!r} {error}") from None
