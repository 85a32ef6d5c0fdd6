"""The two losses of DCKD (arXiv 2412.08939, AAAI 2025): contrast against a history model, and the distribution over a codebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from kd_plugins import distributed
from kd_plugins.arguments import Above, checked
from kd_plugins.extractors import EXTRACTOR
from kd_plugins.extractors.sharing import shared_extractor
from kd_plugins.losses.distances import level_weights, precise, summed_distance
from kd_plugins.losses.encodings import CODES, LEVELS, NEGATIVES, Encodings
from kd_plugins.losses.shapes import require_same_shape

Variant = Literal["paper", "official"]
_RANGES = {"paper": "symmetric", "official": "unit"}  # the range that the tokenizer is fed


Space = Annotated[Mapping[str, Any], replace(EXTRACTOR, default="TokenizerExtractor")]


class _InTokenizerSpace(nn.Module):
    """What the two share: the variant, the extractor it implies, and the encodings of a step."""

    reads: tuple[str, ...]
    default_extractor = "TokenizerExtractor"  # what an `extractor` without `type` is

    def __init__(self, loss_weight: float, variant: Variant, extractor: Mapping[str, Any] | None) -> None:
        super().__init__()
        block = {"type": self.default_extractor, **(extractor or {})}
        if block["type"] == self.default_extractor:
            block = {"range": _RANGES[variant], **block}
        self.loss_weight = loss_weight
        self.variant = variant
        self.extractor = shared_extractor(block)

    def _encoded(self, student: Tensor, teacher: Tensor, negatives: Tensor | None, encodings: Encodings | None) -> Any:
        require_same_shape(self, student, teacher)
        encodings = Encodings(student, teacher, negatives, [self]) if encodings is None else encodings
        return encodings(self.extractor)


@LOSS_REGISTRY.register()
@checked
class ContrastRatioLoss(_InTokenizerSpace):
    """L_dcl of DCKD: closer to the teacher's image than to those of a worse model, in the space of a frozen tokenizer.

        loss_weight * sum_l w_l  mean|f_l(S) - f_l(T)| / (mean(sum_j |f_l(S) - f_l(n_j)|) + eps)

    with f_l the first residual block's output at each level of the encoder. Both means go over everything (samples of all
    processes, channels, positions); the denominator sums over the negatives. As in the authors' code.

    Args:
        loss_weight: weight of the term (0.1 in DCKD).
        variant: `paper` feeds the tokenizer [-1, 1], on which it was trained; `official` feeds [0, 1], as the authors' code does.
        extractor: the feature space, {type: NAME, ...}, a class of EXTRACTOR_REGISTRY; the default and what is left out of it:
            {type: TokenizerExtractor, range: that of the variant}.
        weights: one for each level, shallow to deep; default 1/32, 1/16, 1/8, 1/4, 1, the last of them for fewer levels.
        eps: added to the denominator.

    Raises:
        ValueError: an argument is out of range.
    """

    reads = (LEVELS, NEGATIVES)

    def __init__(
        self,
        loss_weight: float = 1.0,
        variant: Variant = "paper",
        extractor: Space | None = None,
        weights: Sequence[float] | None = None,
        eps: Annotated[float, Above(0)] = 1e-7,
    ) -> None:
        super().__init__(loss_weight, variant, extractor)
        self.weights = None if weights is None else tuple(weights)
        self.eps = eps

    def forward(self, student: Tensor, teacher: Tensor, negatives: Tensor, encodings: Encodings | None = None) -> Tensor:
        """Compare two batches of images.

        Args:
            student: (N, 3, H, W) in [0, 1].
            teacher: (N, 3, H, W).
            negatives: (J, N, 3, H, W).
            encodings: the same images in the losses' spaces, where several losses share them.

        Returns:
            A scalar, in float32 or better.

        Raises:
            ValueError: shapes that do not fit, or not as many weights as levels.
        """
        encoded = self._encoded(student, teacher, negatives, encodings)
        levels = zip(encoded.student.levels, encoded.teacher.levels, encoded.negatives, strict=True)
        weights = level_weights(self, self.weights, len(encoded.student.levels))
        means = []
        for mine, theirs, worse in levels:
            mine = precise(mine)
            near = (mine - precise(theirs)).abs().mean()
            means.append(torch.stack((near, summed_distance(mine, (precise(one) for one in worse)).mean())))
        near, far = distributed.all_reduce_mean(torch.stack(means, 1))  # a ratio of means is no mean of ratios
        values = [weight * a / (b + self.eps) for weight, a, b in zip(weights, near, far, strict=True)]
        return self.loss_weight * torch.stack(values).sum()


@LOSS_REGISTRY.register()
@checked
class CodeDistributionLoss(_InTokenizerSpace):
    """L_ce of DCKD: the student's soft assignment to the codes of a frozen tokenizer follows the teacher's.

    d is the squared distance of each position of z = quant_conv(encoder(image)) to each code, p = softmax(max d - d); the loss is
    the cross entropy of the student's p against the teacher's, mean over samples and positions. It is never zero: where both
    agree it is the entropy of the teacher's p.

    Args:
        loss_weight: weight of the term (0.001 in DCKD).
        variant: `paper`: one log-softmax, the tokenizer is fed [-1, 1]. `official`: as the authors' code computes it, the student's
            p goes through a second softmax, which leaves it almost uniform, and the tokenizer is fed [0, 1].
        extractor: a tokenizer, {type: NAME, ...}; the default and what is left out of it:
            {type: TokenizerExtractor, range: that of the variant}.

    Raises:
        ValueError: an argument is out of range, or an extractor without a codebook.
    """

    reads = (CODES,)

    def __init__(self, loss_weight: float = 1.0, variant: Variant = "paper", extractor: Space | None = None) -> None:
        super().__init__(loss_weight, variant, extractor)
        if not hasattr(self.extractor, "codebook"):
            raise ValueError(
                f"{type(self).__name__}: extractor: {type(self.extractor).__name__} has no codebook, expected TokenizerExtractor"
            )

    def forward(self, student: Tensor, teacher: Tensor, encodings: Encodings | None = None) -> Tensor:
        """Compare two batches of images.

        Args:
            student: (N, 3, H, W) in [0, 1].
            teacher: (N, 3, H, W).
            encodings: the same images in the losses' spaces, where several losses share them.

        Returns:
            A scalar, in float32 or better.

        Raises:
            ValueError: the shapes differ.
        """
        encoded = self._encoded(student, teacher, None, encodings)
        codebook: Any = self.extractor.codebook
        with torch.autocast(student.device.type, enabled=False):  # bf16 cannot tell a thousand distances apart
            mine, theirs = (_closeness(side.z, codebook) for side in (encoded.student, encoded.teacher))
            if self.variant == "official":
                mine = mine.softmax(1)
            return self.loss_weight * F.cross_entropy(mine, theirs.softmax(1))


def _closeness(z: Tensor, codebook: Tensor) -> Tensor:
    """max d - d but for a constant in each row, which no softmax sees: (N * h * w, codes)."""
    z, codebook = precise(z).movedim(1, -1).flatten(0, -2), precise(codebook)
    return 2 * z @ codebook.T - codebook.square().sum(1)
