"""The images that an int8 export is made with: most show the ranges of values, the others are held out to measure what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_plugins.deploy.files import find_images
from kd_plugins.deploy.image_reading import read_picture
from kd_plugins.deploy.images import KINDS

MOST = 40
"""Images of a folder that are used; of more, these many evenly spread ones."""
SIDE = 256
"""Of the centre crop that is taken of each image, at most."""
_EVERY = 4  # one image of so many is held out


class Sample(NamedTuple):
    """An input of the network, (1, C, H, W) in [0, 1], and the image that it is to make of it, if that is known."""

    x: Tensor
    truth: Tensor | None = None

    def crop(self, side: int) -> Sample:
        """Its centre, of at most this height and width."""
        (height, width), scale = self.x.shape[-2:], self.truth.shape[-1] // self.x.shape[-1] if self.truth is not None else 1
        top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)

        def cut(image: Tensor, scale: int) -> Tensor:
            return image[..., top * scale : (top + side) * scale, left * scale : (left + side) * scale].clone()

        return Sample(cut(self.x, 1), None if self.truth is None else cut(self.truth, scale))


class Samples(NamedTuple):
    """What ranges are taken from and choices are made on, and what the result is measured on."""

    calibration: list[Sample]
    held_out: list[Sample]


def read_samples(folder: Path, truths: Path | None, channels: int, scale: int) -> Samples:
    """Read the images of a folder, and their truths.

    Args:
        folder: inputs of the network, with its sub-folders. At least two: of each four, one is held out.
        truths: a folder of what it is to make of them, under the same names; None where that is not known.
        channels: of the network; images of one become gray ones of three, and the other way round their mean is taken.
        scale: of the network.

    Raises:
        ValueError: no such folder, fewer than two images in it, one that cannot be read; no truth of a name, or one
            of another size.
    """
    flag = f"--calibrate {folder}"
    paths = _images(folder, flag)
    if len(paths) < 2:
        raise ValueError(f"{flag}: one image ({paths[0].name}), expected at least 2: one is held out to measure the loss on")
    if len(paths) > MOST:
        paths = [paths[index * len(paths) // MOST] for index in range(MOST)]
    if truths is not None:
        _images(truths, f"--gt {truths}")
        if missing := [path for path in paths if not (truths / path.relative_to(folder)).is_file()]:
            raise ValueError(
                f"--gt {truths}: no {missing[0].relative_to(folder)} in it, expected a file for each image of {folder}, of its name"
            )
    samples = []
    for path in paths:
        x, truth = _read(path, channels), None
        if truths is not None:
            file = truths / path.relative_to(folder)
            truth = _read(file, channels)
            expected = [scale * side for side in x.shape[-2:]]
            if list(truth.shape[-2:]) != expected:
                raise ValueError(
                    f"--gt: {file} is {truth.shape[-2]}x{truth.shape[-1]}, expected {expected[0]}x{expected[1]} "
                    f"({scale} times {path})"
                )
        samples.append(Sample(x, truth).crop(SIDE))
    held_out = range(1, len(samples), _EVERY)
    return Samples(
        [sample for index, sample in enumerate(samples) if index not in held_out], [samples[index] for index in held_out]
    )


def _images(folder: Path, flag: str) -> Sequence[Path]:
    if not folder.is_dir():
        raise ValueError(f"{flag}: no such folder")
    if not (found := find_images(folder)):
        raise ValueError(f"{flag}: no image in it ({', '.join(ending for endings in KINDS.values() for ending in endings)})")
    return found


def _read(path: Path, channels: int) -> Tensor:
    try:
        pixels = read_picture(path).pixels
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    image = torch.from_numpy(pixels.astype(np.float32) / np.iinfo(pixels.dtype).max).permute(2, 0, 1)[None]
    if image.shape[1] == channels:
        return image.contiguous()
    return image.mean(1, keepdim=True).expand(-1, channels, -1, -1).contiguous()
