"""A step of a student and of the discriminator beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from kd_plugins.arguments import Path
from kd_plugins.data.realesrgan import SHARPENED
from kd_plugins.features.layer_outputs import evaluating
from kd_plugins.mappings import mapping
from kd_plugins.models.building import build_discriminator
from kd_plugins.models.dry_run import example_input
from kd_plugins.training.accumulation import part_size
from kd_plugins.training.adversary import Adversary

if TYPE_CHECKING:
    from kd_plugins.models.distillation_model import DistillationModel


def missing_parts(opt: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What a discriminator that `train: gan_opt` asks for lacks, by keys."""
    train = mapping(opt.get("train"))
    if train.get("gan_opt"):
        parts = {("network_d",): opt.get("network_d"), ("train", "optim_d"): train.get("optim_d")}
        yield from ((path, "missing, train:gan_opt needs it") for path, value in parts.items() if not value)


def build_adversary(model: DistillationModel, student: nn.Module) -> Adversary | None:
    """Build the discriminator of `network_d`, if `train: gan_opt` asks for one.

    Args:
        model: whose options say so.
        student: its network.

    Raises:
        ValueError: `network_d` or `train: optim_d` is missing, or does not fit.
    """
    train = model.opt["train"]
    if not train.get("gan_opt"):
        return None
    for path, text in missing_parts(model.opt):
        raise ValueError(f"{':'.join(path)}: {text}")
    with evaluating(student):
        image = student(example_input(student, model.opt, model.device))
    net = build_discriminator(model.opt["network_d"], image)
    model.load_pretrained(net, model.opt["path"].get("param_key_d", "params"), "d")
    return Adversary(train, net, model.precision, model.device)


def train_both(model: DistillationModel, adversary: Adversary, iteration: int, train_student: Callable[[int], None]) -> None:
    """Train the student, where it is its turn, and then the discriminator on the images of the batch.

    Args:
        model: it has a batch.
        adversary: its own.
        iteration: the step's number, from 1.
        train_student: the student's step, which shows the discriminator its images.
    """
    adversary.begin()
    if adversary.trains_student(iteration):
        train_student(iteration)
    else:
        _show(model, adversary, iteration)
    model.updater.updating = True
    parts = len(model.lq) // part_size(model.opt["train"], len(model.lq))
    adversary.step(iteration, parts, partial(model.name_images, model.lq, model.gt))


def _show(model: DistillationModel, adversary: Adversary, iteration: int) -> None:
    """Show the discriminator what the student makes of the batch, and train nothing."""
    model.iteration, model.updater.losses = iteration, {}
    model.before_step(iteration)
    if model.gt is None:
        model.supervised.refuse("the batch (no `gt`)")
    size = part_size(model.opt["train"], len(model.lq))
    with torch.no_grad(), model.precision.autocast(model.device):
        for lq, real in zip(model.lq.split(size), real_images(model).split(size), strict=True):
            adversary.show(real, model.net_g(lq))
    model.after_step(iteration)


def real_images(model: DistillationModel) -> Tensor:
    """The clean images that the discriminator is shown, (N, C, H, W), sharpened where `gan_gt_usm` asks for it."""
    real = model.gt_usm if model.opt.get(SHARPENED["gan_opt"]) else model.gt
    assert real is not None  # else the batch has been refused
    return real
