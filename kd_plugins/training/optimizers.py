"""Optimizers and learning-rate schedules, by the names that BasicSR, its forks and torch use."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Annotated, Any

import torch
from basicsr.models import lr_scheduler as upstream
from torch import nn

from kd_plugins.arguments import AtLeast, Named, build, signature_block

# said where the first step was left out: for a bad image, or to find the scale of an fp16 run
warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)


class MultiStepRestartLR(upstream.MultiStepRestartLR):
    """BasicSR's, as a function of the iteration alone: upstream's starts from the last rate, which a warm-up may have changed."""

    def get_lr(self) -> list[Any]:
        """The rates."""
        start = max((restart for restart in self.restarts if restart <= self.last_epoch), default=None)
        weight = 1 if start is None else self.restart_weights[self.restarts.index(start)]
        past = sum(count for at, count in self.milestones.items() if (-1 if start is None else start) < at <= self.last_epoch)
        return [rate * weight * self.gamma**past for rate in self.base_lrs]


class CosineAnnealingLR(torch.optim.lr_scheduler.CosineAnnealingLR):
    """PyTorch's, as a function of the iteration alone, see `MultiStepRestartLR`."""

    def get_lr(self) -> list[Any]:
        """The rates."""
        turn = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (rate - self.eta_min) * turn for rate in self.base_lrs]


_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # shaped as the parameter
_TAKE_NO_STEP = ("Optimizer", "LBFGS", "SparseAdam")  # the second wants to compute the loss itself, the third sparse gradients
OPTIMIZERS = {name: cls for name, cls in vars(torch.optim).items() if isinstance(cls, type) and name not in _TAKE_NO_STEP}
SCHEDULERS: dict[str, Any] = {
    "MultiStepLR": MultiStepRestartLR,
    "MultiStepRestartLR": MultiStepRestartLR,
    "CosineAnnealingRestartLR": upstream.CosineAnnealingRestartLR,
    "CosineAnnealingLR": CosineAnnealingLR,
    "TrueCosineAnnealingLR": CosineAnnealingLR,  # NAFNet's name for it
}

OPTIMIZER = Named("optimizer", OPTIMIZERS, partial(signature_block, given=("params",)))
_WRITTEN_5E3 = {"T_max": Annotated[float, AtLeast(1)]}
SCHEDULER = Named("scheduler", SCHEDULERS, partial(signature_block, given=("optimizer",), nested=_WRITTEN_5E3))


def build_optimizer(opt: Mapping[str, Any], parameters: Iterable[nn.Parameter], key: str = "optim_g") -> torch.optim.Optimizer:
    """Build `train: optim_g`, or `optim_d`: any optimizer of torch.optim that takes steps from gradients alone, and its arguments.

    Raises:
        ValueError: no such optimizer, or arguments that it does not take.
    """
    return build(OPTIMIZER, opt, ("train", key), list(parameters))


def build_schedulers(opt: Mapping[str, Any], optimizers: Iterable[torch.optim.Optimizer]) -> list[Any]:
    """Build `train: scheduler`, one for each optimizer.

    Raises:
        ValueError: no such scheduler, or arguments that it does not take.
    """
    return [build(SCHEDULER, opt, ("train", "scheduler"), optimizer) for optimizer in optimizers]


def gradient_bound(train_opt: Mapping[str, Any]) -> float:
    """The bound on the gradient's norm, 0 for none. Forks write `use_grad_clip: true` and mean 0.01."""
    return float(train_opt.get("grad_clip") or (0.01 if train_opt.get("use_grad_clip") else 0.0))


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Hold a loaded optimizer to its parameters: PyTorch takes any state for them.

    Raises:
        ValueError: its moments do not fit.
    """
    for group in optimizer.param_groups:
        kept = [optimizer.state[parameter].keys() for parameter in group["params"] if parameter in optimizer.state]
        if any(keys != kept[0] for keys in kept):
            raise ValueError("the optimizer keeps less of some parameters than of others")
    for parameter, moments in optimizer.state.items():
        if wrong := [key for key in moments if key in _MOMENTS and moments[key].shape != parameter.shape]:
            raise ValueError(f"{wrong[0]} of the optimizer is {tuple(moments[wrong[0]].shape)}, not as its parameter")
        if not float(moments.get("step", 0)) >= 0:
            raise ValueError(f"the optimizer has taken {float(moments['step'])} steps")
