"""Steps with a loss or a gradient that is not finite: found with one read of the device, explained only when there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.errors import RunStopped
from kd_plugins.randomness import kept_randomness, set_random_state


class BadSteps(RunStopped):
    """Too many steps in a row had a loss or a gradient that is not finite."""


def bad_step_bound(train_opt: Mapping[str, Any]) -> int:
    """`train: max_bad_steps`, how many skipped steps in a row end a run; 0 for never, 10 by default.

    Raises:
        ValueError: no whole number from 0 up.
    """
    value = train_opt.get("max_bad_steps", 10)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"train:max_bad_steps: {value!r}, expected a whole number from 0 up; 0 never stops")
    return value


def are_finite(*values: Tensor) -> list[bool]:
    """Whether scalars are finite in all processes; the device is read once."""
    return distributed.all_hold(torch.stack([value.detach().float() for value in values]).isfinite())


def keep_buffers(nets: Iterable[nn.Module]) -> Callable[[], None]:
    """Copy what a forward pass may change in networks: the buffers that are saved with them, such as a batch norm's statistics.

    Returns:
        A function that restores them.
    """
    kept = [
        (module, name, value, value.clone())
        for module in dict.fromkeys(module for net in nets for module in net.modules())
        for name, value in module._buffers.items()
        if value is not None and name not in module._non_persistent_buffers_set
    ]

    @torch.no_grad()
    def restore() -> None:
        for module, name, value, before in kept:
            value.copy_(before)
            module._buffers[name] = value  # some assign a new one

    return restore


def wrong_values(losses: Mapping[str, Tensor]) -> str:
    """Say which terms of a step are not finite, or that their sum is not; an empty string where all are.

    Args:
        losses: the terms by name.
    """
    values = {name: value.item() for name, value in losses.items()}
    wrong = [f"{name} is {value}" for name, value in values.items() if value - value != 0]
    if not wrong and not torch.isfinite(torch.stack([value.detach().float() for value in losses.values()]).sum()):
        return f"the sum of {', '.join(losses)} is not finite"
    return ", ".join(wrong)


def wrong_gradients(
    parts: Iterable[Callable[[], Mapping[str, Tensor]]], random: Mapping[str, Any], parameters: Sequence[Tensor]
) -> str:
    """Say which terms of a step have a gradient that is not finite; an empty string where none has.

    Args:
        parts: each computes the terms of a part of the batch again, with a graph.
        random: the generators' state as it was before the step.
        parameters: what is trained.
    """
    wrong: dict[str, None] = {}
    with kept_randomness():
        set_random_state(random)
        for compute in parts:
            for name, value in compute().items():
                if value.requires_grad and not _has_finite_gradient(value, parameters):
                    wrong[f"the gradient of {name} is not finite"] = None
    return ", ".join(wrong)


def _has_finite_gradient(value: Tensor, parameters: Sequence[Tensor]) -> bool:
    gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return all(bool(torch.isfinite(gradient).all()) for gradient in gradients if gradient is not None)


def name_images(paths: Sequence[str], images: Sequence[Tensor]) -> str:
    """Name a step's images, and those among them that are not finite.

    Args:
        paths: of the samples, where the batch has them.
        images: batches, (N, C, H, W).
    """
    broken: set[int] = set()
    for batch in images:
        good = torch.isfinite(batch).flatten(1).all(dim=1).tolist()
        broken |= {index for index, is_good in enumerate(good) if not is_good}
    count = next((len(batch) for batch in images), 0)
    names = [paths[index] if index < len(paths) else f"number {index} of the batch" for index in range(max(count, len(paths)))]
    return ", ".join(f"{name} (not finite itself)" if index in broken else name for index, name in enumerate(names))
