"""The GPUs that an option file asks for, against those of the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from kd_plugins.checks.findings import Findings
from kd_plugins.checks.option_keys import our_model


def check_gpus(findings: Findings, opt: Mapping[str, Any], launcher: str | None, is_train: bool) -> None:
    """Report a `num_gpu` that cannot be had here.

    Args:
        findings: where to.
        opt: the options.
        launcher: of the run that is to start; None where none is, perhaps since this is not the machine for it.
        is_train: training, or test.
    """
    wanted = opt.get("num_gpu", "auto")
    if launcher is None or isinstance(wanted, bool) or not (wanted == "auto" or (isinstance(wanted, int) and wanted >= 0)):
        return
    # Slurm may show each process a GPU of its own
    processes = {"none": 0, "pytorch": int(os.environ.get("LOCAL_WORLD_SIZE", 1))}.get(launcher, 1)
    if wrong := gpu_fault(wanted, torch.cuda.device_count(), processes, only_one=is_train and our_model(opt) is not None):
        findings.error(("num_gpu",), f"{wanted}, {wrong}")


def gpu_fault(wanted: int | str, there: int, processes: int, only_one: bool) -> str:
    """What is wrong with a `num_gpu`.

    Args:
        wanted: its value, 'auto' or a number.
        there: how many GPUs there are.
        processes: those of the run on this machine; 0 where no launcher started it.
        only_one: whether a process uses one GPU whatever `num_gpu` says, as the models here do in training.

    Returns:
        A few words, or nothing.
    """
    number = wanted if isinstance(wanted, int) else 0
    if number and (there == 0 or (number > there and not processes)):
        return f"but there are {there} GPUs here, expected auto, or 0 for the CPU"
    if wanted != 0 and processes > there > 0:
        return f"but {processes} processes have {there} GPUs here, expected one for each, or 0 for the CPU"
    if number > 1 and only_one and not processes:
        return (
            f"but one process trains on one GPU, expected 1 or auto, or `torchrun --nproc_per_node={number} -m kd_plugins.cli "
            "train --launcher pytorch ...`"
        )
    return ""
