"""The history model of DCKD: an older student, from whose images the new one is pushed away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from kd_plugins.arguments import AtLeast, Below, MinLen, checked
from kd_plugins.training.ema import ema_update

Every = Annotated[int | Sequence[int], AtLeast(1), MinLen(1)]


@checked
class HistorySchedule:
    """When the history model follows the student: every s iterations, s another one in each block of iterations.

    Args:
        every: s for each block, the first of them for iterations 1 to `block`; the last one holds from there on.
        block: iterations in a block.

    Raises:
        ValueError: no whole numbers from 1 up.
    """

    def __init__(self, every: Every = (1000, 2000, 3000), block: Annotated[int, AtLeast(1)] = 100_000) -> None:
        self.every = (every,) if isinstance(every, int) else tuple(every)
        self.block = block

    def interval(self, iteration: int) -> int:
        """Iterations from one update to the next, at an iteration counted from 1."""
        return self.every[min((iteration - 1) // self.block, len(self.every) - 1)]

    def due(self, iteration: int) -> bool:
        """Whether the history model is updated at the end of an iteration."""
        return iteration % self.interval(iteration) == 0


@checked
class History:
    """H <- decay * H + (1 - decay) * S every s iterations (arXiv 2412.08939, the authors' code), without gradient.

    Args:
        net: a network of the student's layout; it becomes a copy of the student, frozen and in eval mode.
        student: the network to follow.
        decay: what H keeps of itself in an update.
        every: see `HistorySchedule`.
        block: see `HistorySchedule`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        net: nn.Module,
        student: nn.Module,
        /,
        decay: Annotated[float, AtLeast(0), Below(1)] = 0.1,
        every: Every = (1000, 2000, 3000),
        block: Annotated[int, AtLeast(1)] = 100_000,
    ) -> None:
        self.decay = decay
        self.schedule = HistorySchedule(every, block)
        self.net = net.requires_grad_(False).eval()
        self.net.load_state_dict(student.state_dict())

    def follow(self, student: nn.Module, iteration: int) -> bool:
        """Update H at the end of an iteration, if one is due.

        Args:
            student: the network to follow; for its buffers see `ema_update` [ours: the authors' networks have none that learn].
            iteration: counted from 1.

        Returns:
            Whether it was updated.
        """
        if not self.schedule.due(iteration):
            return False
        ema_update(self.net, student, self.decay)
        return True

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Restore a batch: (N, C, h, w) -> (N, C, H, W)."""
        return self.net(images)
