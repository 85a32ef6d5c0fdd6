"""CrossNetAttentionLoss at its default, its gradient by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kd_plugins.losses.cross_net_attention import unit_scale


class StageByHand(torch.autograd.Function):
    """What the autograd form of the loss returns for a stage that is one window, with a third of its operations.

    The loss is a scalar, so its gradient is known, but for a factor, as soon as it is, and is all that is kept for it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        raw: Tensor,
        silent: Tensor,
        weights: Tensor,
        divisors: Sequence[float],
        sigma: float,
    ) -> tuple[Tensor, Tensor]:
        """See `CrossNetAttentionLoss`.

        Args:
            ctx: autograd's.
            student: S' (N, C_T, H, W).
            teacher: T (N, C_T, H, W).
            raw: S (N, C_S, H, W).
            silent: see `silent_square`.
            weights: (3, 1, 1, 1), of the direct distance, of the channel branch and of the spatial one.
            divisors: lambda of the channel branch and of the spatial one.
            sigma: width of the kernel.

        Returns:
            The sum of the three distances, and the channel attention (N, C_T, C_S).
        """
        s, t, r = (x.flatten(2) for x in (student, teacher, raw))
        t_scale, s_scale, r_scale = (unit_scale(x, silent, -2) for x in (t, s, r))
        target, s_unit, r_unit = t * t_scale, s * s_scale, r * r_scale
        by_channel, by_position = (target / divisor for divisor in divisors)
        channels = torch.softmax(torch.bmm(by_channel, r_unit.mT), dim=-1)
        positions = torch.softmax(torch.bmm(by_position.mT, s_unit), dim=-1)
        answers = s.new_empty(3, *s.shape)
        answers[0] = s
        torch.bmm(channels, r, out=answers[1])
        torch.bmm(s, positions.mT, out=answers[2])
        scale = unit_scale(answers, silent, -2)
        unit = answers * scale
        away = unit - target
        reach = torch.expm1(away.square().mean(-2, keepdim=True) / (-2 * sigma**2))  # minus the distance
        ctx.mark_non_differentiable(channels)
        if any(ctx.needs_input_grad):
            kernel = (reach + 1) * weights / (sigma**2 * target.numel())
            direct, channel, spatial = grads = _through_unit(away, unit, scale.mul_(kernel))
            # a softmax with weights a passes (g - sum of a g) a; the sum, along a row of a, is answer times gradient
            by_row, by_column = (grads[1:] * answers[1:]).neg_()
            logits = torch.baddbmm(by_row.sum(-1, keepdim=True), channel, r.mT).mul_(channels)
            grad_raw = _through_unit(torch.bmm(logits.mT, by_channel), r_unit, r_scale).baddbmm_(channels.mT, channel)
            logits = torch.baddbmm(by_column.sum(-2).unsqueeze(-1), spatial.mT, s).mul_(positions)
            grad_student = direct.add_(_through_unit(torch.bmm(by_position, logits), s_unit, s_scale)).baddbmm_(spatial, positions)
            ctx.save_for_backward(grad_student.view_as(student), grad_raw.view_as(raw))
        return -(reach * weights).sum() / (target.numel() // target.shape[-2]), channels

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradients at S' and S."""
        grad_student, grad_raw = ctx.saved_tensors
        return grad_student * grad, None, grad_raw * grad, None, None, None, None


def _through_unit(grad: Tensor, unit: Tensor, scale: Tensor) -> Tensor:
    """The gradient at x of unit = x * scale, in place of the one at unit."""
    return grad.addcmul_(unit, (grad * unit).mean(-2, keepdim=True), value=-1).mul_(scale)
