"""VGG19 as a feature space (Simonyan and Zisserman, arXiv 1409.1556), in torchvision's layout of weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from os import path as osp
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from kd_plugins.extractors.registry import EXTRACTOR_REGISTRY
from kd_plugins.extractors.safe_load import load_plain

_CONVOLUTIONS = (2, 2, 4, 4, 4)  # of each block; a pooling ends each


def _published_layers() -> dict[str, int]:
    layers = [
        name
        for block, count in enumerate(_CONVOLUTIONS, 1)
        for name in (*(f"{kind}{block}_{i}" for i in range(1, count + 1) for kind in ("conv", "relu")), f"pool{block}")
    ]
    return {name: index for index, name in enumerate(layers)}


LAYERS = _published_layers()  # published name -> index in torchvision's `features`, shallow to deep
_NORMALISATIONS = ("imagenet", "caffe")


@EXTRACTOR_REGISTRY.register()
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
        weights: str = "torchvision",
        levels: Sequence[str] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        normalise: str = "imagenet",
    ) -> None:
        super().__init__()
        self.levels = _check_levels(levels)
        if normalise not in _NORMALISATIONS:
            raise ValueError(f"VGGExtractor: normalise={normalise!r}, expected one of {', '.join(_NORMALISATIONS)}")
        self.caffe = normalise == "caffe"
        mean, std = ((103.939, 116.779, 123.68), (1.0,) * 3) if self.caffe else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

        self._plan = [name for name in LAYERS if LAYERS[name] <= LAYERS[self.levels[-1]]]
        self._smallest = 2 ** sum(name.startswith("pool") for name in self._plan)
        state = _download() if weights == "torchvision" else _read(weights)
        channels = 3
        for name in self._plan:
            if name.startswith("conv"):
                width = min(32 * 2 ** int(name[4]), 512)
                weight, bias = (_take(state, name, part, weights) for part in ("weight", "bias"))
                if weight.shape != (width, channels, 3, 3) or bias.shape != (width,):
                    raise ValueError(
                        f"VGGExtractor: weights={str(weights)!r}: {name} is {tuple(weight.shape)}, "
                        f"expected {(width, channels, 3, 3)}"
                    )
                self.register_buffer(f"{name}_weight", weight.float(), persistent=False)
                self.register_buffer(f"{name}_bias", bias.float(), persistent=False)
                channels = width
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
        for name in self._plan:
            if name.startswith("conv"):
                x = F.conv2d(x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), padding=1)
            else:
                x = F.relu(x) if name.startswith("relu") else F.max_pool2d(x, 2)
            if name in self.levels:
                features.append(x)
        return features


def _check_levels(levels: Sequence[str]) -> list[str]:
    levels = [levels] if isinstance(levels, str) else list(levels)
    for level in levels:
        if level not in LAYERS:
            near = ", ".join(difflib.get_close_matches(str(level), LAYERS, n=3, cutoff=0.3)) or "relu1_1"
            raise ValueError(f"VGGExtractor: levels: VGG19 has no layer {level!r}; nearest: {near}")
    if not levels or levels != sorted(set(levels), key=LAYERS.__getitem__):
        raise ValueError(f"VGGExtractor: levels={levels}, expected one or more, each once, shallow to deep")
    return levels


def _take(state: Mapping[str, Any], layer: str, part: str, source: str) -> Tensor:
    key = f"features.{LAYERS[layer]}.{part}"
    if not isinstance(state.get(key), Tensor):
        found = ", ".join(map(str, list(state)[:3])) or "nothing"
        raise ValueError(
            f"VGGExtractor: weights={str(source)!r} has no tensor {key!r} ({layer}); it holds {len(state)} entries: {found}, ...; "
            "expected torchvision's VGG19 as deep as the levels asked for"
        )
    return state[key]


def _read(path: str) -> Mapping[str, Any]:
    file = Path(path).expanduser()
    if not osp.isfile(file):
        raise FileNotFoundError(f"VGGExtractor: weights={str(path)!r} is no file; {_where()}")
    try:
        state = load_file(file) if file.suffix == ".safetensors" else load_plain(file, inert=True)
    except Exception as error:  # each reader has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"VGGExtractor: weights={str(path)!r} cannot be read as plain weights: {reason}") from None
    if not isinstance(state, Mapping):
        raise ValueError(f"VGGExtractor: weights={str(path)!r} holds a {type(state).__name__}, expected a state dict")
    return state


def _download() -> Mapping[str, Any]:
    from torchvision.models import VGG19_Weights

    try:
        return VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, or not the file that was expected
        raise FileNotFoundError(f"VGGExtractor: weights='torchvision' could not be downloaded ({error}); {_where()}") from None


def _where() -> str:
    from torchvision.models import VGG19_Weights

    url = VGG19_Weights.IMAGENET1K_V1.url
    return (
        f"expected the path of a file with torchvision's VGG19 weights (`weights: PATH`), or `weights: torchvision` to fetch {url} "
        f"into {Path(torch.hub.get_dir()) / 'checkpoints'}, where it may also be put by hand"
    )
