"""Settings of the process that a run asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def prepare_process(opt: Mapping[str, Any]) -> None:
    """Apply the settings of a run to the process.

    Args:
        opt: a run's options; `num_threads` sets PyTorch's threads on the CPU.
    """
    if opt.get("num_threads"):
        torch.set_num_threads(int(opt["num_threads"]))
    torch.backends.cudnn.benchmark = True
