"""The losses against the ground truth, and training data that has none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from torch import Tensor

from kd_plugins.data import is_unlabelled
from kd_plugins.data.realesrgan import SHARPENED
from kd_plugins.mappings import mapping
from kd_plugins.options import OptionError
from kd_plugins.training.fade import Fade, first_without

_IMAGE_LOSSES = ("pixel_opt", "perceptual_opt")
_READERS = (*_IMAGE_LOSSES, "gan_opt")


def truth_readers(train_opt: Mapping[str, Any], terms: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """What compares with the ground truth, by its keys, and what to write where there is none.

    Args:
        train_opt: the `train` block.
        terms: of each term, what to write in place of what makes it read the truth; empty where it does not.
    """
    readers: dict[tuple[str, ...], str] = {("train", key): f"`{key}: ~`" for key in _READERS if train_opt.get(key)}
    readers.update({("train", "distill", name): instead for name, instead in terms.items() if instead})
    return readers


def nothing_to_train_by(train_opt: Mapping[str, Any], fades: Sequence[Fade | None]) -> str:
    """Why a run would reach a step without any loss; an empty string where it would not.

    Args:
        train_opt: the `train` block.
        fades: one for each term that has a weight and counts at every step; None for a constant weight.
    """
    given = (train_opt.get(key) for key in _READERS)
    if None in fades or any(mapping(block).get("loss_weight", 1) for block in given if block):
        return ""
    if not fades:
        return "no pixel_opt and no term in distill, expected one at least to train by at each step, of a loss_weight that is not 0"
    iteration = first_without([fade for fade in fades if fade is not None], train_opt.get("total_iter", math.inf))
    said = f"no pixel_opt, and at iteration {iteration} every term is faded to 0, expected one at least to train by"
    return "" if iteration is None else said


def set_default_pixel_loss(opt: Mapping[str, Any], default: Mapping[str, Any] | None) -> None:
    """Give `train: pixel_opt` a model's default where the option file does not name it, and the training data has clean images.

    Args:
        opt: the options of the run; changed in place.
        default: the model's, if it has one.
    """
    if not default or "pixel_opt" in opt["train"]:
        return
    if is_unlabelled(opt.get("datasets", {}).get("train") or {}):
        get_root_logger().info("No clean images to train on: the model's own pixel loss is left out.")
    else:
        opt["train"]["pixel_opt"] = dict(default)


class SupervisedLosses:
    """The losses between the student's image and the clean one: BasicSR's `pixel_opt` and `perceptual_opt`, either, both or none.

    Args:
        opt: the options of the run: `train`, and the dataset that is trained on.
        terms: see `truth_readers`.
        device: of the losses.

    Raises:
        OptionError: a loss or a term reads the ground truth, which the training data does not have (`is_unlabelled`; for any other
            dataset the first batch tells).
    """

    def __init__(self, opt: Mapping[str, Any], terms: Mapping[str, str], device: torch.device) -> None:
        train_opt, data = opt["train"], (opt.get("datasets") or {}).get("train") or {}
        self.readers = truth_readers(train_opt, terms)
        if is_unlabelled(data):
            self.refuse(f"datasets:train ({data['type']})")
        self.compares = any(train_opt.get(key) for key in _READERS)
        pixel, perceptual = (train_opt.get(key) for key in _IMAGE_LOSSES)
        self.sharpened = {key for key in _IMAGE_LOSSES if opt.get(SHARPENED[key])}
        self.pixel = build_loss(pixel).to(device) if pixel else None
        self.perceptual = build_loss(perceptual).to(device) if perceptual else None
        self.reads_output = bool(pixel or perceptual)

    def refuse(self, source: str) -> None:
        """Say that data has no clean images, if anything reads them.

        Raises:
            OptionError: something does.
        """
        if self.readers:
            texts = [f"{':'.join(path)}: expected {instead}" for path, instead in self.readers.items()]
            raise OptionError(f"{source} has no clean images, which these compare with: {'; '.join(texts)}")

    def __call__(self, output: Tensor, gt: Tensor | None, gt_usm: Tensor | None = None) -> dict[str, Tensor]:
        """The losses by the name they are logged under.

        Args:
            output: the student's image, (N, C, H, W).
            gt: the clean image, of the same shape; None where the batch has none.
            gt_usm: the same, sharpened, for the losses that compare with it (`SHARPENED`).

        Raises:
            OptionError: the shapes differ.
        """
        if gt is None or not self.compares:
            return {}
        if output.shape != gt.shape:  # L1 would stretch one to the other
            raise OptionError(
                f"network_g: its images are {tuple(output.shape)}, the clean images are {tuple(gt.shape)}, expected the same: its "
                "scale, or its output's channels, are not the data's"
            )
        pixel, perceptual = (gt_usm if key in self.sharpened else gt for key in _IMAGE_LOSSES)
        losses = {"l_pix": self.pixel(output, pixel)} if self.pixel else {}
        if self.perceptual:
            perceptual, style = self.perceptual(output, perceptual)
            losses.update({name: value for name, value in (("l_percep", perceptual), ("l_style", style)) if value is not None})
        return losses
