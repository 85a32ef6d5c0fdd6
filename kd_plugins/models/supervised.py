"""The ground truth: the losses that read it, and training data that has none."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from basicsr.utils import get_root_logger
from torch import Tensor

from kd_plugins.data import is_unlabelled
from kd_plugins.models.terms import Term
from kd_plugins.options import OptionError
from kd_plugins.training.fade import Fade, first_without
from kd_plugins.training.updater import UpdatedModel

_IMAGE_LOSSES = ("pixel_opt", "perceptual_opt")


def truth_readers(train_opt: Mapping[str, Any], terms: Mapping[str, str]) -> dict[tuple[str, ...], str]:
    """What compares with the ground truth, by its keys, and what to write where there is none.

    Args:
        train_opt: the `train` block.
        terms: of each term what to write in place of what makes it read the truth; nothing where it reads none.
    """
    readers = {("train", key): f"`{key}: ~`" for key in _IMAGE_LOSSES if train_opt.get(key)}
    return {**readers, **{("train", "distill", name): instead for name, instead in terms.items() if instead}}


def nothing_to_train_by(train_opt: Mapping[str, Any], fades: Sequence[Fade | None]) -> str:
    """Why a run would come to a step without any loss; nothing where it does not.

    Args:
        train_opt: the `train` block.
        fades: one for each term; None for a constant weight.
    """
    if any(train_opt.get(key) for key in _IMAGE_LOSSES) or None in fades:
        return ""
    if not fades:
        return "no pixel_opt and no term in distill, expected one at least to train by"
    iteration = first_without([fade for fade in fades if fade is not None], train_opt.get("total_iter", math.inf))
    said = f"no pixel_opt, and at iteration {iteration} every term is faded to 0, expected one at least to train by"
    return "" if iteration is None else said


class SupervisedModel(UpdatedModel):
    """The part of a model that reads the ground truth; without one, only what compares with the teacher runs.

    Where the option file's training data has none (`is_unlabelled`), the class's own pixel loss does not run, and a loss or term of
    the file that reads it is refused. For any other dataset the first batch without `gt` tells.

    Attributes:
        default_pixel: the pixel loss of an option file that names none.
    """

    default_pixel: ClassVar[Mapping[str, Any] | None] = None

    def init_training_settings(self) -> None:
        """SRModel's, for any set of losses; upstream insists on a pixel or a perceptual one.

        Raises:
            OptionError: a loss reads the ground truth, which the training data does not have.
            ValueError: there is no loss at all, or none at some iteration.
        """
        train_opt, data = self.opt["train"], (self.opt.get("datasets") or {}).get("train") or {}
        unlabelled = is_unlabelled(data)
        if self.default_pixel and "pixel_opt" not in train_opt:
            if unlabelled:
                get_root_logger().info("No clean images to train on: the model's own pixel loss is left out.")
            else:
                train_opt["pixel_opt"] = dict(self.default_pixel)
        self.truth_readers = truth_readers(train_opt, {term.name: term.truth_instead for term in self.terms.values()})
        if unlabelled:
            self._refuse_without_truth(f"datasets:train ({data['type']})")
        if reason := nothing_to_train_by(train_opt, [term.fade for term in self.terms.values()]):
            raise ValueError(f"train: {reason}")
        try:
            super().init_training_settings()
        except ValueError:
            if not hasattr(self, "cri_perceptual") or self.cri_pix or self.cri_perceptual:
                raise
            self.setup_optimizers()  # upstream ends here where it finds neither of its own losses
            self.setup_schedulers()

    def terms_at(self, iteration: int) -> list[Term]:
        """The terms that have a weight at an iteration."""
        return [term for term in self.terms.values() if term.counts(iteration)]

    def _refuse_without_truth(self, source: str) -> None:
        if self.truth_readers:
            texts = [f"{':'.join(path)}: expected {instead}" for path, instead in self.truth_readers.items()]
            raise OptionError(f"{source} has no clean images, which these compare with: {'; '.join(texts)}")

    def feed_data(self, data: Mapping[str, Any]) -> None:
        """Take a batch {lq, gt}, or {lq} alone, with `lq_path` where there are names, and `task` where there are several tasks."""
        self.__dict__.pop("gt", None)  # of the batch before
        self.paths = list(data.get("lq_path") or [])
        self.tasks = list(data["task"]) if "task" in data else None
        self.lq = self.precision.to_memory_format(data["lq"].to(self.device))
        if "gt" in data:
            self.gt = self.precision.to_memory_format(data["gt"].to(self.device))

    def require_truth(self) -> None:
        """Hold a batch to what is read of it.

        Raises:
            OptionError: it has no clean images, and a loss or a term reads them.
        """
        if not hasattr(self, "gt"):
            self._refuse_without_truth("the batch (no `gt`)")

    def truth_losses(self) -> OrderedDict[str, Tensor]:
        """The losses between the student's image and the clean one, by the name they are logged under."""
        losses = OrderedDict()
        if (self.cri_pix or self.cri_perceptual) and self.output.shape != self.gt.shape:  # L1 would stretch one to the other
            raise OptionError(
                f"network_g: of a batch {tuple(self.lq.shape)} it makes {tuple(self.output.shape)}, the clean images are "
                f"{tuple(self.gt.shape)}, expected the same: its scale, or its output's channels, are not the data's"
            )
        if self.cri_pix:
            losses["l_pix"] = self.cri_pix(self.output, self.gt)
        if self.cri_perceptual:
            perceptual, style = self.cri_perceptual(self.output, self.gt)
            losses.update({name: value for name, value in (("l_percep", perceptual), ("l_style", style)) if value is not None})
        return losses
