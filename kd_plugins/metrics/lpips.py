"""LPIPS as a metric of BasicSR's validation."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY
from torch import nn

from kd_plugins.arguments import AtLeast, checked
from kd_plugins.extractors.safe_load import load_weights
from kd_plugins.home import expand
from kd_plugins.metrics.image_input import to_tensor


@lru_cache(maxsize=4)
def _network(net: str, backbone: str | None) -> nn.Module:
    """The metric's network, built once for each choice and kept."""
    try:
        import lpips
    except ImportError as error:
        raise ImportError("calculate_lpips needs the package lpips: pip install 'lpips'.") from error
    try:
        # pnet_rand: build the backbone empty, since its weights come from the file.
        network = lpips.LPIPS(net=net, verbose=False, pnet_rand=backbone is not None)
    except (OSError, RuntimeError) as error:  # urllib's URLError is an OSError; a broken download a RuntimeError
        raise RuntimeError(
            f"calculate_lpips: the {net} backbone could not be downloaded from torchvision ({error}). Either let this "
            "machine reach the network once, or give a file of torchvision's ImageNet weights as 'backbone'."
        ) from error
    if backbone is not None:
        _load_backbone(network, net, backbone)
    return network.eval().requires_grad_(False)


def _load_backbone(network: nn.Module, net: str, path: str) -> None:
    """Fill lpips' slices of a torchvision backbone from that network's own checkpoint."""
    try:
        state = load_weights(expand(path))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"calculate_lpips: 'backbone' names {path!r}, which is no file; give a file of torchvision's ImageNet "
            f"weights for {net}, or leave it out to let torchvision download them."
        ) from error
    except ValueError as error:
        raise ValueError(f"calculate_lpips: 'backbone' {path!r} {error}") from None
    # lpips keeps the numbers of torchvision's `features` as the names inside its slices.
    slices = network.get_submodule("net")
    ours = slices.state_dict()
    wanted = {key: "features." + key.split(".", 1)[1] for key in ours}
    bad = [name for key, name in wanted.items() if name not in state or state[name].shape != ours[key].shape]
    if bad:
        raise ValueError(
            f"calculate_lpips: 'backbone' {path!r} is no torchvision checkpoint of {net}: {bad[0]!r} is missing or of "
            "another shape."
        )
    slices.load_state_dict({key: state[name] for key, name in wanted.items()})


@METRIC_REGISTRY.register()  # pyright: ignore[reportOptionalCall]
@checked
def calculate_lpips(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: Annotated[int, AtLeast(0)] = 0,
    input_order: Literal["HWC", "CHW"] = "HWC",
    test_y_channel: bool = False,
    net: Literal["alex", "vgg", "squeeze"] = "alex",
    backbone: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> float:
    """LPIPS (Zhang et al., CVPR 2018) version 0.1: 0 for equal images.

    Args:
        img: The image, BGR, in [0, 255].
        img2: The clean one, same shape.
        crop_border: Pixels cut off at each side.
        input_order: 'HWC' or 'CHW'.
        test_y_channel: Compare the Y channels of YCbCr, each repeated three times.
        net: 'alex', 'vgg' or 'squeeze'.
        backbone: File of torchvision's ImageNet weights of that network; None: torchvision downloads them.
        **kwargs: Not used.

    Returns:
        The distance.

    Raises:
        ImportError: The package lpips is not installed.
        RuntimeError: The backbone cannot be downloaded; the message names the other way.
        FileNotFoundError: ``backbone`` is no file.
        ValueError: The shapes differ, or an argument is not known.
    """
    if img.shape != img2.shape:
        raise ValueError(f"calculate_lpips: the images have different shapes, {img.shape} and {img2.shape}.")
    network = _network(net, None if backbone is None else os.fspath(backbone))
    pair = [to_tensor("calculate_lpips", i, crop_border, input_order, test_y_channel) for i in (img, img2)]
    with torch.no_grad():
        first, second = (x.expand(-1, 3, -1, -1) * 2 - 1 for x in pair)
        return network(first, second).item()
