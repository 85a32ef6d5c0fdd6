"""The GPUs that an option file asks for, against those of the machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from kd_plugins.checks.known import MODELS
from kd_plugins.checks.report import Report
from kd_plugins.models import DistillationModel


def check_gpus(report: Report, opt: Mapping[str, Any], launcher: str | None, is_train: bool) -> None:
    """Report a `num_gpu` that cannot be had here.

    Args:
        report: where to.
        opt: the options.
        launcher: of the run that is to start; None where none is, perhaps since this is not the machine for it.
        is_train: training, or test.
    """
    wanted = opt.get("num_gpu", "auto")
    if launcher is None or isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1:
        return
    there = torch.cuda.device_count()
    model = MODELS.entries.get(str(opt.get("model_type")))
    if there == 0 or (there < wanted and launcher == "none"):
        report.error(("num_gpu",), f"{wanted}, but there are {there} GPUs here, expected auto, or 0 for the CPU")
    elif wanted > 1 and launcher == "none" and is_train and model is not None and issubclass(model, DistillationModel):
        report.error(
            ("num_gpu",),
            f"{wanted}, but one process trains on one GPU, expected 1 or auto, or `torchrun --nproc_per_node={wanted} "
            "-m kd_plugins.train ... --launcher pytorch`",
        )
