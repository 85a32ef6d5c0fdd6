"""Training against a discriminator, as BasicSR's SRGANModel does it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from basicsr.losses import build_loss
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.training.precision import Precision
from kd_plugins.training.updater import Losses, Updater


class Adversary:
    """A discriminator, its loss and its optimizer; the student's step gets a term of it, then it takes a step itself.

    Between its own steps it is frozen, so that the student's step trains nothing of it. It stays outside of
    DistributedDataParallel: its gradients are averaged.

    Args:
        train_opt: the `train` block: gan_opt, optim_d, scheduler, max_bad_steps; `net_d_iters`, how many steps it takes for each of
            the student's; `net_d_init_iters`, how many it takes before the student's first.
        net: the discriminator.
        precision: how its passes compute.
        device: where.

    Attributes:
        net: the discriminator.
        updater: takes its steps.
    """

    def __init__(self, train_opt: Mapping[str, Any], net: nn.Module, precision: Precision, device: torch.device) -> None:
        net = precision.to_memory_format(distributed.convert_sync_batchnorm(net, device)).to(device).train()
        distributed.broadcast_parameters(itertools.chain(net.parameters(), net.buffers()))
        self.net, self.loss = net, build_loss(train_opt["gan_opt"]).to(device)
        self.every, self.alone = int(train_opt.get("net_d_iters") or 1), int(train_opt.get("net_d_init_iters") or 0)
        own = {key: train_opt[key] for key in ("optim_d", "scheduler", "max_bad_steps") if key in train_opt}
        self.updater = Updater(own, {"net_d": net}, ema=None, losses=[], precision=precision, device=device, solver="optim_d")
        self.net.requires_grad_(False)
        self._pairs: list[tuple[Tensor, Tensor]] = []  # of each part of the batch: clean images, and the student's
        self._means: list[dict[str, Tensor]] = []

    def join(self, updater: Updater) -> None:
        """Save, resume and schedule its optimizer with the student's, behind it, as BasicSR does."""
        updater.optimizers.extend(self.updater.optimizers)
        updater.schedulers.extend(self.updater.schedulers)

    def trains_student(self, iteration: int) -> bool:
        """Whether the student takes a step in an iteration, counted from 1."""
        return iteration % self.every == 0 and iteration > self.alone

    def begin(self) -> None:
        """Forget the batch before."""
        self._pairs.clear()

    def show(self, real: Tensor, fake: Tensor) -> None:
        """Keep a part of the batch for its own step: clean images and the student's, (N, C, H, W)."""
        self._pairs.append((real, fake.detach()))

    def student_loss(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """The student's term, by the name it is logged under; the images are shown, too (`show`)."""
        self.show(real, fake)
        return {"l_g_gan": self.loss(self.net(fake), True, is_disc=False)}

    def step(self, iteration: int, parts: int, name_images: Callable[[], str]) -> None:
        """Take a step on the images that were shown.

        Args:
            iteration: the step's number, from 1.
            parts: of how many parts the batch is: explaining a bad step of the student's shows some once more.
            name_images: names the images of the batch, to explain a bad step.

        Raises:
            BadSteps: too many steps in a row had numbers that are not finite.
        """
        self._means.clear()
        self.net.requires_grad_(True)
        try:
            self.updater.step(iteration, [partial(self._losses, *pair) for pair in self._pairs[:parts]], name_images)
        finally:
            self.net.requires_grad_(False)
            self._pairs.clear()

    def _losses(self, real: Tensor, fake: Tensor) -> Losses:
        losses, means = {}, {}
        for name, images, is_real in (("real", real, True), ("fake", fake, False)):
            seen = self.net(images)
            losses[f"l_d_{name}"] = self.loss(seen, is_real, is_disc=True)
            means[f"out_d_{name}"] = _mean(seen)
        self._means.append(means)
        return losses

    @property
    def log(self) -> dict[str, Tensor]:
        """The losses of its last step, and the means of what it returned."""
        means = {name: torch.stack([each[name] for each in self._means]).mean() for name in next(iter(self._means), {})}
        return {**self.updater.losses, **means}

    def state_dict(self) -> dict[str, Any]:
        """What is not the optimizer's, which the student's updater saves (`join`)."""
        state = self.updater.state_dict()
        return {"discriminator": {key: state[key] for key in ("bad_steps", "loss_scale")}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; BasicSR's own hold less."""
        own = state.get("discriminator") or {}
        self.updater.bad_steps = int(own.get("bad_steps", 0))
        self.updater.loss_scale.load_state_dict(own.get("loss_scale"))


def _mean(seen: Tensor | Sequence[Any]) -> Tensor:
    """The mean of a prediction; of several scales, of the last one of each."""
    if isinstance(seen, Tensor):
        return seen.detach().float().mean()
    return torch.stack([_mean(each if isinstance(each, Tensor) else each[-1]) for each in seen]).mean()
