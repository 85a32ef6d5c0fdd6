"""The update: from the losses of a step to the next weights, or to a step that is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.compiling import uncompiled
from kd_plugins.options import OptionError
from kd_plugins.randomness import random_state
from kd_plugins.training.bad_steps import BadSteps, are_finite, bad_step_bound, keep_buffers, wrong_gradients, wrong_values
from kd_plugins.training.ema import ema_update
from kd_plugins.training.loss_scale import LossScale
from kd_plugins.training.optimizers import build_optimizer, build_schedulers, check_moments, gradient_bound
from kd_plugins.training.option_changes import kinds
from kd_plugins.training.precision import Precision

Losses = Mapping[str, Tensor]
"""The terms of a sum that is minimised, each a scalar, by the name it is logged under."""
Part = Callable[[], Losses]
"""The forward pass of a part of the batch."""

_PLACE = ("base_lrs", "last_epoch", "_step_count", "_last_lr")  # of a state's schedule; its course is the option file's


class Updater:
    """Takes the steps of a training: one optimizer over all that asks for a gradient, schedules, clipping, averaged weights.

    Args:
        train_opt: the `train` block: optim_g, scheduler, ema_decay, `grad_clip` (bound on the norm of the student's gradient;
            `use_grad_clip: true`, as forks write it, means 0.01) and max_bad_steps (see `bad_step_bound`).
        networks: by label; the first, the student, is the one whose gradient is bounded and whose weights are averaged.
        ema: the network that keeps the student's averaged weights, if any.
        losses: modules that take part in the forward pass; what of them is trained belongs to `networks`.
        precision: how the forward pass computes.
        device: where.
        solver: the key of the optimizer in `train_opt`.

    Attributes:
        losses: of the last step, without graph; the mean over the parts of the batch.
        bad_steps: how many steps in a row were skipped.
        updating: whether the current step has begun to change weights; the caller resets it before each step.
        trained: the parameters that are trained, by the label of their network.
    """

    def __init__(
        self,
        train_opt: Mapping[str, Any],
        networks: Mapping[str, nn.Module],
        *,
        ema: nn.Module | None,
        losses: Iterable[nn.Module],
        precision: Precision,
        device: torch.device,
        solver: str = "optim_g",
    ) -> None:
        self.networks, self.ema, self.precision, self.device = networks, ema, precision, device
        self.first = next(iter(networks))
        self.ema_decay, self.grad_bound = train_opt.get("ema_decay", 0), gradient_bound(train_opt)
        self.max_bad_steps, self.bad_steps, self.updating = bad_step_bound(train_opt), 0, False
        self.trained = {label: [p for p in net.parameters() if p.requires_grad] for label, net in networks.items()}
        self.optimizer = build_optimizer(train_opt[solver], self._parameters(), solver)
        self.optimizers = [self.optimizer]
        self.schedulers = build_schedulers(train_opt["scheduler"], self.optimizers)
        self.loss_scale = LossScale(precision.amp == "fp16", device)
        self.losses: Losses = {}
        self._modules = [*networks.values(), *losses]

    def _parameters(self) -> list[nn.Parameter]:
        return [p for own in self.trained.values() for p in own]

    def step(
        self,
        iteration: int,
        parts: Sequence[Part],
        name_images: Callable[[], str] = str,
        after: Callable[[int], None] = lambda iteration: None,
    ) -> None:
        """Forward pass, backward pass, update. The update is left out where a number is not finite; the device is read once.

        Args:
            iteration: the step's number, from 1.
            parts: the forward passes of the batch's parts, equal in size; one of the whole batch.
            name_images: names the images of the batch, to explain a bad step.
            after: called with the iteration once the update is made, or left out.

        Raises:
            BadSteps: too many such steps in a row.
            OptionError: a parameter has no gradient, which several processes cannot average.
        """
        self.optimizer.zero_grad(set_to_none=True)
        before, restore_buffers = random_state(), keep_buffers(self._modules)
        try:
            total = self._backward(parts)
        except Exception:  # out of memory, say: the run ends with the state before this step
            restore_buffers()
            raise
        norms = {label: self._gradient_norm(own) for label, own in self.trained.items()}
        good, *gradients = are_finite(total, *norms.values())
        if good and all(gradients):
            self._update(norms[self.first])
        else:
            try:
                self._skip(iteration, good, parts, name_images, before)
            finally:
                restore_buffers()  # last: explaining a bad step takes its forward pass again
        self.updating = True
        after(iteration)

    def _backward(self, parts: Sequence[Part]) -> Tensor:
        """Forward and backward pass, gradients summed up over the parts; returns the sum of the losses."""
        found: list[Losses] = []
        totals = []
        for number, part in enumerate(parts, start=1):
            with self._unsynchronised() if number < len(parts) else nullcontext():
                losses = self._forward(part)
                total = torch.stack([value.float() for value in losses.values()]).sum()
                self.loss_scale.scale(total / len(parts)).backward()
            found.append({name: value.detach() for name, value in losses.items()})
            totals.append(total.detach())
        self.losses = found[0] if len(found) == 1 else {name: _mean([each[name] for each in found]) for name in found[0]}
        for label, net in self.networks.items():
            if isinstance(net, nn.parallel.DistributedDataParallel):
                _refuse_idle_parameters(label, net)
            else:
                distributed.average_gradients(self.trained[label])
        self.loss_scale.unscale(self.optimizer)
        return _mean(totals)

    def _forward(self, part: Part) -> Losses:
        with self.precision.autocast(self.device):
            return part()

    @contextmanager
    def _unsynchronised(self) -> Iterator[None]:
        """DistributedDataParallel does not wait for the other processes in a backward pass."""
        with ExitStack() as stack:
            for net in self.networks.values():
                if isinstance(net, nn.parallel.DistributedDataParallel):
                    stack.enter_context(net.no_sync())
            yield

    def _gradient_norm(self, parameters: Iterable[nn.Parameter]) -> Tensor:
        gradients = [p.grad for p in parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients) if gradients else torch.zeros((), device=self.device)

    def _update(self, norm: Tensor) -> None:
        """Take the step.

        Args:
            norm: of the student's gradient.
        """
        self.bad_steps = 0
        if self.grad_bound:
            torch.nn.utils.clip_grads_with_norm_(self.trained[self.first], self.grad_bound, norm)
        self.updating = True
        self.optimizer.step()
        self.loss_scale.keep_or_grow()
        if self.ema is not None:
            ema_update(self.ema, distributed.unwrap_model(self.networks[self.first]), self.ema_decay)

    def _skip(
        self, iteration: int, good_losses: bool, parts: Sequence[Part], name_images: Callable[[], str], before: Mapping[str, Any]
    ) -> None:
        if scale := self.loss_scale.after_skip(overflow=good_losses):
            get_root_logger().info(f"Step left out, iteration {iteration}: too large for fp16; the loss scale falls to {scale:g}.")
            return
        self.bad_steps += 1
        text = f"iteration {iteration}: {self._explain(parts, name_images, before)}"
        get_root_logger().warning(f"Step skipped ({self.bad_steps} in a row), {text}.")
        if 0 < self.max_bad_steps <= self.bad_steps:
            raise BadSteps(f"{self.bad_steps} steps in a row had numbers that are not finite; the last, {text}")

    def _explain(self, parts: Sequence[Part], name_images: Callable[[], str], before: Mapping[str, Any]) -> str:
        """What was not finite, and with which images, in each process that found something."""
        wrong = wrong_values(self.losses)
        if not distributed.all_reduce_max(bool(wrong)):  # in all processes or in none: terms may communicate
            with self._unsynchronised(), uncompiled():
                wrong = wrong_gradients([partial(self._forward, part) for part in parts], before, self._parameters())
        said = distributed.all_gather_objects((wrong, name_images()))
        sources = {rank: found for rank, found in enumerate(said) if found[0]} or dict(enumerate(said))
        texts = {rank: f"{wrong or 'the gradient is not finite'}; images: {images}" for rank, (wrong, images) in sources.items()}
        return " | ".join(text if len(said) == 1 else f"process {rank}: {text}" for rank, text in texts.items())

    def state_dict(self) -> dict[str, Any]:
        """BasicSR's `optimizers` and `schedulers`, the `kinds` (classes) of both, `bad_steps` and `loss_scale`."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "kinds": kinds(self),
            "bad_steps": self.bad_steps,
            "loss_scale": self.loss_scale.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from a state; BasicSR's own hold less.

        Raises:
            ValueError: it is that of another network.
        """
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
            check_moments(optimizer)
        for schedule, saved in zip(self.schedulers, state["schedulers"], strict=True):
            schedule.load_state_dict({**schedule.state_dict(), **{key: saved[key] for key in _PLACE if key in saved}})
        self.bad_steps = int(state.get("bad_steps", 0))
        self.loss_scale.load_state_dict(state.get("loss_scale"))


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()


def _refuse_idle_parameters(label: str, net: nn.parallel.DistributedDataParallel) -> None:
    """DistributedDataParallel would stop in the next step, without a name.

    Raises:
        OptionError: a parameter has no gradient.
    """
    idle = [name for name, p in net.module.named_parameters() if p.requires_grad and p.grad is None]
    ran = any(p.grad is not None for p in net.module.parameters())  # else its terms have faded
    if idle and ran and not net.find_unused_parameters:
        raise OptionError(
            f"{label}: {len(idle)} of its parameters have no gradient ({', '.join(idle[:3])}, ...): several processes need one for "
            "each, or `find_unused_parameters: true` in the option file"
        )
