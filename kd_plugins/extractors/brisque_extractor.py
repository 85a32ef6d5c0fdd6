"""BRISQUE of features, for distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from kd_plugins.arguments import Above, AtLeast, checked
from kd_plugins.extractors.nss import as_float, block_mean, full_precision, mscn, product_statistics
from kd_plugins.extractors.registry import EXTRACTOR_REGISTRY

# Smallest map that is halved for the second scale: below, its window would see nothing but borders.
_MIN_SECOND = 4


def check_reference(name: str, x: Tensor, reference: Mapping[str, Tensor] | None, keys: tuple[str, ...]) -> None:
    """Fail with one sentence where x is no feature, or the reference is not what this extractor returned.

    Args:
        name: The extractor's name, for the message.
        x: Should be (N, C, H, W), floating point.
        reference: Should hold `keys`, when not None.
        keys: The names that a teacher's description has beside those of a student's.

    Raises:
        ValueError: it is not so.
    """
    if x.dim() != 4 or not x.is_floating_point() or x.numel() == 0:
        raise ValueError(f"{name}: expected a floating-point feature (N, C, H, W), got {x.dtype} {tuple(x.shape)}.")
    missing = [] if reference is None else [key for key in keys if key not in reference]
    if missing:
        raise ValueError(
            f"{name}: 'reference' lacks {missing[0]!r}; give it what this extractor returned for the teacher's feature."
        )


@EXTRACTOR_REGISTRY.register()  # pyright: ignore[reportOptionalCall]
@checked
class BrisqueExtractor(nn.Module):
    """Structure and colour of a feature, in BRISQUE's terms, with a gradient.

    SLKD (arXiv 2501.09268) lets the student's encoder follow the teacher's through a "BRISQUE extractor"; how, its text
    does not let us know, so all of this is ours: BRISQUE's operators per channel, at one scale or two, as

    - structure: the MSCN maps and their four pairwise products, dense;
    - statistics: per channel, 18 numbers as in BRISQUE, but closed forms (moment ratio, mean and one-sided variances)
      where the published fit searches a table, which has no gradient;
    - colour: local mean and deviation of each channel, over the layer's scale, at the coarser scale.

    With equal weights the three parts are within a few times of each other on a feature scaled by 1.1 with a little
    noise; no ablation stands behind the weights.

    Args:
        scales: 1 or 2; the second, at half size, is left out where a map is smaller than 4. One by default: an encoder's next
            stage has the half size as its own, and the second scale costs as much again in a training step.
        c: The constant of MSCN's denominator, in units of the layer's scale, which is one number for all channels,
            taken from the teacher. Small values amplify the noise of silent channels.
        structure_weight: Weight of the dense maps; 0 leaves them out.
        statistics_weight: Weight of the 18 numbers; 0 leaves them out.
        colour_weight: Weight of local mean and deviation; 0 leaves them out.

    Raises:
        ValueError: An argument out of range.
    """

    def __init__(
        self,
        scales: Literal[1, 2] = 1,
        c: Annotated[float, Above(0)] = 0.2,
        structure_weight: Annotated[float, AtLeast(0)] = 1.0,
        statistics_weight: Annotated[float, AtLeast(0)] = 1.0,
        colour_weight: Annotated[float, AtLeast(0)] = 1.0,
    ) -> None:
        """See the class."""
        super().__init__()
        weights = {"structure": structure_weight, "statistics": statistics_weight, "colour": colour_weight}
        if not any(weights.values()):
            raise ValueError("BrisqueExtractor: every weight is 0, so nothing would be compared.")
        self.scales = scales
        self.c = float(c)
        self.weights = {key: float(weight) for key, weight in weights.items()}

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"scales={self.scales}, c={self.c}, weights={self.weights}"

    def forward(self, x: Tensor, reference: Mapping[str, Tensor] | None = None, stride: int = 1) -> dict[str, Tensor]:
        """Describe a feature.

        Args:
            x: Feature (N, C, H, W), any floating dtype, also under autocast; computed in float32 (float64 stays).
            reference: None for the teacher's feature; for the student's, what this returned for the teacher's.
            stride: Image height over feature height; not used here.

        Returns:
            To be compared by mean absolute difference: ``structure1``, ``structure2`` (N, C), ``statistics1``,
            ``statistics2`` (18, N, C) and ``colour`` (2, N, C, H, W). Structure is a student's mean absolute difference
            to the teacher's dense maps, so a teacher's is zero. For a teacher also what its students are described
            against: ``products1``, ``products2`` and ``scale``.

        Raises:
            ValueError: x is not (N, C, H, W), or the reference was not made by this extractor.
        """
        check_reference("BrisqueExtractor", x, reference, ("scale",))
        with full_precision(x):
            return self._describe(as_float(x), reference)

    def _describe(self, x: Tensor, reference: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        weights = self.weights
        scale = None if reference is None else reference["scale"].to(dtype=x.dtype, device=x.device)
        scales = self.scales if min(x.shape[-2:]) >= _MIN_SECOND else 1
        out: dict[str, Tensor] = {}
        for number in range(1, scales + 1):
            if number == 2:
                x = block_mean(x, 2, 2)
            normalised, mean, deviation, scale = mscn(x, scale, self.c)
            if weights["structure"] or weights["statistics"]:
                theirs = None if reference is None else reference[f"products{number}"].to(x.dtype)
                moments, distance, products = product_statistics(normalised, theirs)
                if reference is None:
                    out[f"products{number}"] = products
                if weights["structure"]:
                    out[f"structure{number}"] = distance * weights["structure"]
                if weights["statistics"]:
                    out[f"statistics{number}"] = closed_form_statistics(moments) * weights["statistics"]
            if weights["colour"] and number == scales:
                out["colour"] = torch.stack((mean, deviation)) * (weights["colour"] / scale)
        if reference is None and scale is not None:
            out["scale"] = scale
        return out


def closed_form_statistics(moments: Tensor) -> Tensor:
    """The 18 numbers of BRISQUE for each channel, from moments instead of fits [ours].

    Args:
        moments: Of MSCN and its products, (4, 5, N, C): see `product_statistics`.

    Returns:
        (18, N, C): five moment ratios E|p|² / (E p² + 0.01); the variance of MSCN; for the four products the mean,
        then the left and then the right one-sided second moment.
    """
    mean, size, square, right = moments
    # 0.01 against a variance of about 0.5: without it the ratio of a silent channel is noise over noise.
    ratio = size.square() / (square + 1e-2)
    return torch.cat((ratio, square[:1], mean[1:], (square - right)[1:], right[1:]))
