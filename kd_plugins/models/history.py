"""The history model of DCKD: an older student, from whose images the new one is pushed away."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_plugins.training.ema import ema_update


class HistorySchedule:
    """When the history model follows the student: every s iterations, s another one in each block of iterations.

    Args:
        every: s for each block, the first of them for iterations 1 to `block`; the last one holds from there on.
        block: iterations in a block.

    Raises:
        ValueError: no whole numbers from 1 up.
    """

    def __init__(self, every: int | Sequence[int] = (1000, 2000, 3000), block: int = 100_000) -> None:
        steps = (every,) if isinstance(every, int) else tuple(every) if isinstance(every, Sequence) else ()
        if not steps or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in (*steps, block)):
            raise ValueError(f"history: every={every!r}, block={block!r}, expected whole numbers from 1 up")
        self.every = steps
        self.block = block

    def interval(self, iteration: int) -> int:
        """Iterations from one update to the next, at an iteration counted from 1."""
        return self.every[min((iteration - 1) // self.block, len(self.every) - 1)]

    def due(self, iteration: int) -> bool:
        """Whether the history model is updated at the end of an iteration."""
        return iteration % self.interval(iteration) == 0


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
        decay: float = 0.1,
        every: int | Sequence[int] = (1000, 2000, 3000),
        block: int = 100_000,
    ) -> None:
        if isinstance(decay, bool) or not isinstance(decay, (int, float)) or not 0 <= decay < 1:
            raise ValueError(f"history: decay={decay!r}, expected a number from 0 to below 1")
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
