"""The update: from the losses of a step to the next weights, or to a step that is skipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.models.terms import Term
from kd_plugins.options import OptionError
from kd_plugins.randomness import random_state
from kd_plugins.training.bad_steps import (
    BadSteps,
    all_finite,
    bad_step_bound,
    keep_buffers,
    name_images,
    wrong_gradients,
    wrong_values,
)
from kd_plugins.training.ema import ema_update
from kd_plugins.training.optimizers import build_optimizer, build_schedulers, gradient_bound
from kd_plugins.training.precision import Precision
from kd_plugins.training.validator import ValidatedModel


class UpdatedModel(ValidatedModel):
    """A model whose `compute_losses` gives the terms of a sum that is minimised.

    Option keys under `train`, beside SRModel's:
        grad_clip: bound on the norm of the student's gradient (`use_grad_clip: true`, as forks write it, means 0.01); what is
            trained beside the student has none.
        max_bad_steps: how many skipped steps in a row end the run (see `bad_step_bound`).
    """

    updating = False  # whether the step under way has begun to change weights
    precision: Precision
    paths: list[str]  # of the batch's images, as far as there are some
    iteration = 0  # of the step, from 1
    terms: dict[str, Term]  # of `train: distill`

    def compute_losses(self) -> Mapping[str, Tensor]:
        """Every term of the sum, by the name it is logged under."""
        raise NotImplementedError

    def setup_optimizers(self) -> None:
        """One optimizer over the student and what is trained beside it."""
        self.grad_bound = gradient_bound(self.opt["train"])
        self.bad_bound = bad_step_bound(self.opt["train"])
        self.trained = {label: [p for p in net.parameters() if p.requires_grad] for label, net in self._nets().items()}
        parameters = [p for own in self.trained.values() for p in own]
        self.optimizer_g = build_optimizer(self.opt["train"]["optim_g"], parameters)
        self.optimizers.append(self.optimizer_g)

    def setup_schedulers(self) -> None:
        """BasicSR's schedulers, and the names that forks and torch use."""
        self.schedulers.extend(build_schedulers(self.opt["train"]["scheduler"], self.optimizers))

    def _nets(self) -> dict[str, nn.Module]:
        return {"net_g": self.net_g, **self.kept_beside()}

    def optimize_parameters(self, current_iter: int) -> None:
        """One step: student, teacher, terms, sum, backward, update. Without the update where a number is not finite.

        Raises:
            BadSteps: too many such steps in a row.
            OptionError: a parameter has no gradient, which several processes cannot average.
        """
        self.iteration = current_iter
        self.optimizer_g.zero_grad(set_to_none=True)
        before = random_state()
        give_back = keep_buffers([*self._nets().values(), *(term.loss for term in self.terms.values())])
        try:
            total = self._gradients()
        except Exception:  # memory, say: the run ends with the state before this step
            give_back()
            raise
        trained = [p for own in self.trained.values() for p in own]
        if distributed.all_reduce_max(not all_finite(total, trained)):
            try:
                self._skip(current_iter, before, trained)
            finally:
                give_back()  # last: what explains a bad step takes its forward pass once more
            return
        self.bad_steps = 0
        if self.grad_bound:
            torch.nn.utils.clip_grad_norm_(self.net_g.parameters(), self.grad_bound)
        self.updating = True
        self.optimizer_g.step()
        if self.ema_decay > 0:
            self.model_ema(decay=self.ema_decay)

    def _gradients(self) -> Tensor:
        """Forward and backward pass; returns the sum of the losses."""
        with self.precision.autocast(self.device):
            self.losses = self.compute_losses()
        total = torch.stack([value.float() for value in self.losses.values()]).sum()
        total.backward()
        if self.opt["dist"]:
            self._average()
        return total

    def model_ema(self, decay: float = 0.999) -> None:
        """As BaseModel's, which leaves out the buffers: a batch norm's statistics follow too (see `ema_update`)."""
        ema_update(self.net_g_ema, self.get_bare_model(self.net_g), decay)

    def _average(self) -> None:
        """What DistributedDataParallel leaves to do: parameters of terms, and a word where it would stop in the next step."""
        for label, net in self._nets().items():
            if not isinstance(net, nn.parallel.DistributedDataParallel):
                distributed.average_gradients(self.trained.get(label, ()))
            elif not net.find_unused_parameters:
                idle = [name for name, p in net.module.named_parameters() if p.requires_grad and p.grad is None]
                if idle and any(p.grad is not None for p in net.module.parameters()):  # else it did not run: its terms have faded
                    raise OptionError(
                        f"{label}: {len(idle)} of its parameters have no gradient ({', '.join(idle[:3])}, ...): several processes "
                        "need one for each, or `find_unused_parameters: true` in the option file"
                    )

    def _skip(self, current_iter: int, before: Mapping[str, Any], trained: Sequence[Tensor]) -> None:
        self.bad_steps += 1
        text = f"iteration {current_iter}: {self._what_is_wrong(before, trained)}"
        get_root_logger().warning(f"Step skipped ({self.bad_steps} in a row), {text}.")
        if 0 < self.bad_bound <= self.bad_steps:
            raise BadSteps(f"{self.bad_steps} steps in a row had numbers that are not finite; the last, {text}")

    def _what_is_wrong(self, before: Mapping[str, Any], trained: Sequence[Tensor]) -> str:
        wrong = wrong_values(self.losses)
        if not distributed.all_reduce_max(bool(wrong)):  # in all processes or in none: terms may ask the others for something
            wrong = wrong_gradients(self._losses_anew, before, trained)
        images = name_images(self.paths, [self.lq, *([self.gt] if hasattr(self, "gt") else [])])
        said = distributed.all_gather_objects((wrong, images))
        sources = {rank: found for rank, found in enumerate(said) if found[0]} or dict(enumerate(said))
        texts = {rank: f"{wrong or 'the gradient is not finite'}; images: {images}" for rank, (wrong, images) in sources.items()}
        return " | ".join(text if len(said) == 1 else f"process {rank}: {text}" for rank, text in texts.items())

    def _losses_anew(self) -> Mapping[str, Tensor]:
        """The terms of the step, with this process's own gradients: DistributedDataParallel is not to expect a backward pass."""
        with ExitStack() as stack:
            for net in self._nets().values():
                if isinstance(net, nn.parallel.DistributedDataParallel):
                    stack.enter_context(net.no_sync())
            stack.enter_context(self.precision.autocast(self.device))
            return self.compute_losses()

    def get_current_log(self) -> Mapping[str, float]:
        """The terms of the last step; read from the device only when they are logged."""
        return self.reduce_loss_dict(self.losses)
