"""The memory layout of a run, measured on the student's training step: `channels_last: auto`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.models.dry_run import example_input
from kd_plugins.randomness import kept_randomness
from kd_plugins.training.accumulation import part_size
from kd_plugins.training.bad_steps import keep_buffers
from kd_plugins.training.precision import Precision

_ROUNDS = 3
_LAYOUTS = {False: torch.contiguous_format, True: torch.channels_last}


def choose_layout(student: nn.Module, opt: Mapping[str, Any]) -> bool:
    """Time forward and backward passes of a student, uncompiled, at the run's batch and crop, and take the faster layout.

    Args:
        student: unwrapped; it comes out as it went in, on the run's device.
        opt: the options; `channels_last: auto`.

    Returns:
        Whether channels come last; the same in all processes.
    """
    device = torch.device("cuda" if opt["num_gpu"] else "cpu")
    student.to(device)
    batch = int(opt["datasets"]["train"].get("batch_size_per_gpu") or 1)
    x = example_input(student, opt, device).repeat(part_size(opt["train"], batch), 1, 1, 1)
    precision, restore, was_training = Precision({**opt, "channels_last": False}), keep_buffers([student]), student.training
    times: dict[bool, list[float]] = {last: [] for last in _LAYOUTS}
    try:
        with kept_randomness():
            for turn in range(_ROUNDS + 1):
                for last, layout in _LAYOUTS.items():
                    precision.dilate_pointwise(student, last)  # as the run will
                    seconds = _time_step(student.train().to(memory_format=layout), x.to(memory_format=layout), precision)  # type: ignore[call-overload]
                    times[last] += [seconds] if turn else []  # the first round warms up
    except (RuntimeError, ValueError, TypeError, AssertionError):  # what it says of such an image is said further on
        return False
    finally:
        precision.dilate_pointwise(student, False)
        student.train(was_training).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        student.zero_grad(set_to_none=True)
        restore()
    plain, last = (min(times[key]) * 1e3 for key in _LAYOUTS)
    choice = distributed.broadcast_object(last < plain)
    get_root_logger().info(
        f"channels_last: auto: {str(choice).lower()}; a step of the student takes {last:.0f} ms with channels last, {plain:.0f} ms "
        "without."
    )
    return choice


def _time_step(net: nn.Module, x: Tensor, precision: Precision) -> float:
    net.zero_grad(set_to_none=True)
    _wait(x.device)
    start = time.perf_counter()
    with precision.autocast(x.device):
        loss = net(x).abs().mean()
    loss.backward()
    _wait(x.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
