"""The factor on the loss of a step in half precision, without which small gradients would round to zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

FLOOR = 1.0


class LossScale:
    """PyTorch's GradScaler with a floor of 1, where a gradient that is not finite is no matter of the scale any more.

    Args:
        enabled: false multiplies by nothing.
        device: where the loss is.
    """

    def __init__(self, enabled: bool, device: torch.device) -> None:
        self._scaler = torch.amp.GradScaler(device.type, enabled=enabled)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss that the backward pass starts from."""
        return self._scaler.scale(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, once in a step."""
        self._scaler.unscale_(optimizer)

    def keep_or_grow(self) -> None:
        """After a step that was taken; nothing is read from the device."""
        self._scaler.update()

    def after_skip(self, overflow: bool) -> float:
        """After a step that was left out; the device is read.

        Args:
            overflow: whether it was for a gradient that is not finite, of losses that are.

        Returns:
            The scale to try next; 0 where another one would not help: no overflow, or the scale is at its floor.
        """
        if not self._scaler.is_enabled():
            return 0.0
        before = self._scaler.get_scale()
        scale = max(before * self._scaler.get_backoff_factor(), FLOOR) if overflow else before
        self._scaler.update(scale)
        return scale if scale < before else 0.0

    def state_dict(self) -> dict[str, Any]:
        """GradScaler's; empty where it is not enabled."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state; one of a run in another precision has none, and the scale starts anew."""
        if state and self._scaler.is_enabled():
            self._scaler.load_state_dict(dict(state))
