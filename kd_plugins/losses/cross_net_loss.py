"""SKD's feature loss: cross-net attention under a Gaussian kernel distance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins.arguments import Above, AtLeast, checked
from kd_plugins.extractors.nss import as_float, full_precision
from kd_plugins.losses.cross_net_attention import (
    channel_attention,
    is_small,
    silent_square,
    spatial_attention,
    unit_kernel_distance,
    unit_positions,
)
from kd_plugins.losses.cross_net_by_hand import StageByHand
from kd_plugins.losses.shapes import require_same_shape, same_window


@LOSS_REGISTRY.register()
@checked
class CrossNetAttentionLoss(nn.Module):
    """L_GK of SKD (arXiv 2501.09321): GK(S', T) + alpha1 (GK(S_c, T) + GK(S_s, T)), for one stage.

    S is the student's feature, S' the same brought to the teacher's channels and size (the first argument of a call), T the
    teacher's. With N positions, features flattened to (C, N):

    - channel attention: S_c = softmax(T Sᵀ / lambda, over C_S) S, at any C_S;
    - spatial attention: S_s = S' softmax(Tᵀ S' / lambda, over positions)ᵀ, in windows on large maps [windows and S': ours];
    - GK: the Gaussian kernel distance, both sides normalised per position [ours] (`gaussian_kernel_distance`);
    - in the softmax, too, both sides are normalised per position [ours]: the features of a Restormer are small (root mean square
      0.1), and as they are they leave every attention uniform. The values are not normalised.

    The form is known from a summary of the paper only; lambda, sigma and the weights are ours, docs/skd.md says where they
    come from.

    Where S = S' = T the direct distance is 0, its minimum. The attention branches are not: a row of the attention is a mixture,
    so S_c and S_s are T smoothed over channels that resemble each other, and over positions that do. They are 0 only where each
    channel (position) answers itself and no other, which a small lambda brings near. So they do not ask the student to be the
    teacher, but to have, somewhere among its channels and positions, what the teacher's feature can be put together from.

    Computed in float32 whatever the inputs and autocast say; float64 stays. Memory grows linearly with the number of positions.

    Args:
        loss_weight: Weight of the term.
        alpha1: Weight of both attention branches.
        sigma: Width of the kernel; distances are in [0, 2], sqrt(2) for features that have nothing in common. The gradient is
            largest at a distance of sigma.
        window: Largest side of a window of the spatial branch, in feature pixels; None for whole maps.
        crop: A larger feature is compared in one random square of this side, the same for all and a new one at each call [ours]:
            the full-size stages cost most and say much the same everywhere. None for whole features.
        channel_lambda: lambda of the channel branch, in units of sqrt(N).
        spatial_lambda: lambda of the spatial branch, in units of sqrt(C_T).
        learnable: Train a factor on each lambda, one for all stages, kept positive as exp of a parameter that starts at 0.
        normalise: Normalise both sides in the softmax; False takes them as they are, and lambda has the features' units.
        direct_weight: Weight of GK(S', T); 0 leaves it out.
        channel_weight: Weight of GK(S_c, T) beside alpha1; 0 leaves it out.
        spatial_weight: Weight of GK(S_s, T) beside alpha1; 0 leaves it out.

    Raises:
        ValueError: An argument out of range.
    """

    compilable = ("_total",)

    def __init__(
        self,
        loss_weight: float = 1.0,
        alpha1: Annotated[float, AtLeast(0)] = 1.0,
        sigma: Annotated[float, Above(0)] = 0.85,
        window: Annotated[int, AtLeast(1)] | None = 16,
        crop: Annotated[int, AtLeast(1)] | None = 12,
        channel_lambda: Annotated[float, Above(0)] = 1.0,
        spatial_lambda: Annotated[float, Above(0)] = 1.0,
        learnable: bool = False,
        normalise: bool = True,
        direct_weight: Annotated[float, AtLeast(0)] = 1.0,
        channel_weight: Annotated[float, AtLeast(0)] = 1.0,
        spatial_weight: Annotated[float, AtLeast(0)] = 1.0,
    ) -> None:
        super().__init__()
        self.weights = {"direct": direct_weight, "channel": alpha1 * channel_weight, "spatial": alpha1 * spatial_weight}
        if not any(self.weights.values()):
            raise ValueError("CrossNetAttentionLoss: every weight is 0, so nothing would be compared")
        self.loss_weight = loss_weight
        self.sigma = sigma
        self.window = window
        self.looks_through = crop
        self.normalise = normalise
        self.lambdas = {"channel": channel_lambda, "spatial": spatial_lambda}
        branches = [branch for branch in self.lambdas if self.weights[branch]]
        self.log_factors = nn.ParameterDict({branch: nn.Parameter(torch.zeros(())) for branch in branches} if learnable else {})
        self._by_hand = all(self.weights.values()) and normalise and not learnable
        self.register_buffer("branch_weights", torch.tensor(list(self.weights.values())).view(3, 1, 1, 1), persistent=False)
        self._attention: dict[tuple[int, ...], Tensor] = {}

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"weights={self.weights}, sigma={self.sigma}, window={self.window}, lambdas={self.lambdas}"

    def forward(self, student: Tensor, teacher: Tensor, raw: Tensor | None = None) -> Tensor:
        """Compare the features of one stage.

        Args:
            student: S' (N, C_T, H, W), at the teacher's scale.
            teacher: T (N, C_T, H, W).
            raw: S (N, C_S, h, w), resized bilinearly to (H, W) where it differs; None where there was nothing to convert, and
                S is S' (images).

        Returns:
            A scalar, float32 or float64.

        Raises:
            ValueError: The shapes do not fit.
        """
        require_same_shape(self, student, teacher)
        raw = student if raw is None else raw
        if raw.dim() != 4 or raw.shape[0] != teacher.shape[0]:
            raise ValueError(
                f"CrossNetAttentionLoss: raw is {tuple(raw.shape)}, expected (N, C_S, h, w) with the N of the teacher's "
                f"{tuple(teacher.shape)}"
            )
        with full_precision(student):
            student = as_float(student)
            teacher, raw = (x.to(student.dtype) for x in (teacher, raw))
            if raw.shape[-2:] != teacher.shape[-2:]:
                raw = F.interpolate(raw, size=teacher.shape[-2:], mode="bilinear", align_corners=False)
            student, teacher, raw = same_window(self.looks_through, student, teacher, raw)
            return self.loss_weight * self._total(student, teacher, raw)

    def _total(self, student: Tensor, teacher: Tensor, raw: Tensor) -> Tensor:
        silent = silent_square(teacher)
        # a teacher that learns has no gradient by hand, and the compiler fuses by itself
        by_hand = self._by_hand and not teacher.requires_grad and not torch.compiler.is_compiling()
        if by_hand and is_small(student, self.window):
            divisors = self._lambda("channel", teacher.shape[-2:].numel()), self._lambda("spatial", teacher.shape[1])
            total, attention = StageByHand.apply(student, teacher, raw, silent, self.branch_weights, divisors, self.sigma)  # type: ignore[misc]
            self._show(attention)
            return total
        target = unit_positions(teacher, silent)
        answers = dict(self._answers(student, teacher, raw, target, silent))
        distances = unit_kernel_distance(unit_positions(torch.stack(list(answers.values())), silent), target, self.sigma)
        weighted = [self.weights[branch] * distance for branch, distance in zip(answers, distances.unbind(), strict=True)]
        return torch.stack(weighted).sum()

    def _answers(
        self, student: Tensor, teacher: Tensor, raw: Tensor, target: Tensor, silent: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """What each branch that is in use compares with the teacher's feature."""
        if self.weights["direct"]:
            yield "direct", student
        if self.weights["channel"]:
            query, key = (target, unit_positions(raw, silent)) if self.normalise else (teacher, raw)
            answer, attention = channel_attention(query, key, raw, self._lambda("channel", teacher.shape[-2:].numel()))
            self._show(attention)
            yield "channel", answer
        if self.weights["spatial"]:
            query, key = (target, unit_positions(student, silent)) if self.normalise else (teacher, student)
            divisor = self._lambda("spatial", teacher.shape[1])
            yield "spatial", spatial_attention(query, key, student, divisor, self.window)

    def _show(self, attention: Tensor) -> None:
        self._attention[attention.shape[1:]] = attention[0].detach().clone()

    def _lambda(self, branch: str, length: int) -> Tensor | float:
        fixed = self.lambdas[branch] * math.sqrt(length)
        return fixed * self.log_factors[branch].exp() if branch in self.log_factors else fixed

    def pictures(self) -> dict[str, Tensor]:
        """The channel attention of the last call, first sample: which student channels answer which teacher channels.

        One picture for each pair of channel numbers, so in a network that widens with depth one for each stage; of stages of
        equal width the last. A row is a teacher channel, a column a student channel, white the largest weight of the map; a row
        of one brightness is a teacher channel that no student channel answers more than another.

        Returns:
            By name, (1, C_T * cell, C_S * cell) in [0, 1], cells of at least 4 x 4 pixels; empty without the channel branch.
        """
        pictures = {}
        for (c_t, c_s), attention in self._attention.items():
            cell = max(256 // max(c_t, c_s), 4)
            picture = (attention / attention.max()).repeat_interleave(cell, 0).repeat_interleave(cell, 1)
            pictures[f"channel_attention_{c_t}x{c_s}"] = picture.unsqueeze(0)
        return pictures
