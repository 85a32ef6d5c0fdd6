"""VGG19 up to relu5_1 in its own layout, random weights of the scale of trained ones: the real ones are a download."""

import torch

from kd_plugins.extractors.vgg import LAYERS


def save_vgg(file):
    torch.manual_seed(0)
    state, channels = {}, 3
    for name, index in LAYERS.items():
        if name.startswith("conv") and name <= "conv5_1":
            width = min(32 * 2 ** int(name[4]), 512)
            state[f"features.{index}.weight"] = torch.randn(width, channels, 3, 3) * (2 / (9 * channels)) ** 0.5
            state[f"features.{index}.bias"] = torch.zeros(width)
            channels = width
    torch.save(state, file)
    return str(file)
