"""PIQE of features, for distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from torch import Tensor, nn

from kd_plugins.arguments import Above, AtLeast, checked
from kd_plugins.extractors.brisque_extractor import check_reference
from kd_plugins.extractors.nss import as_float, block_mean, full_precision, gradient_magnitude, mscn
from kd_plugins.extractors.registry import EXTRACTOR_REGISTRY

ACTIVITY = 0.1  # [paper] PIQE: a block is active where the variance of its MSCN is above this


@EXTRACTOR_REGISTRY.register()  # pyright: ignore[reportOptionalCall]
@checked
class PiqeExtractor(nn.Module):
    """Edges and texture of a feature, in PIQE's terms, with a gradient.

    SLKD (arXiv 2501.09268) lets the student's decoder follow the teacher's through a "PIQE extractor" (edges and
    texture); how, its text does not let us know, so all of this is ours:

    - edge: the Scharr gradient magnitude of each channel, over the layer's scale (one number, from the teacher);
    - texture: the variance of MSCN in blocks, over the blocks that are active in the teacher (variance above 0.1, as in
      PIQE). A block is 16 pixels of the image: 16 / stride in the feature, at least 2, at most the map.

    Args:
        block: Side of a block, in pixels of the full-size image.
        c: The constant of MSCN's denominator, in units of the layer's scale.
        edge_weight: Weight of the edges; 0 leaves them out.
        texture_weight: Weight of the texture; 0 leaves it out.

    Raises:
        ValueError: An argument out of range.
    """

    def __init__(
        self,
        block: Annotated[int, AtLeast(2)] = 16,
        c: Annotated[float, Above(0)] = 0.2,
        edge_weight: Annotated[float, AtLeast(0)] = 1.0,
        texture_weight: Annotated[float, AtLeast(0)] = 1.0,
    ) -> None:
        """See the class."""
        super().__init__()
        if edge_weight == texture_weight == 0:
            raise ValueError("PiqeExtractor: every weight is 0, so nothing would be compared.")
        self.block = block
        self.c = float(c)
        self.edge_weight = float(edge_weight)
        self.texture_weight = float(texture_weight)

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return f"block={self.block}, c={self.c}, edge_weight={self.edge_weight}, texture_weight={self.texture_weight}"

    def forward(self, x: Tensor, reference: Mapping[str, Tensor] | None = None, stride: int = 1) -> dict[str, Tensor]:
        """Describe a feature.

        Args:
            x: Feature (N, C, H, W), any floating dtype, also under autocast; computed in float32 (float64 stays).
            reference: None for the teacher's feature; for the student's, what this returned for the teacher's.
            stride: Image height over feature height: it sets the block.

        Returns:
            ``edge`` (N, C, H, W) and ``texture`` (N, C, rows, columns), to be compared by mean absolute difference; for
            a teacher also ``scale`` and ``active``, its active blocks as 0 and 1.

        Raises:
            ValueError: x is not (N, C, H, W), the stride is below 1, or the reference was not made by this extractor.
        """
        check_reference("PiqeExtractor", x, reference, ("scale", "active"))
        if stride < 1:
            raise ValueError(f"PiqeExtractor: 'stride' (image over feature height) is 1 or more, got {stride!r}.")
        with full_precision(x):
            return self._describe(as_float(x), reference, max(self.block // int(stride), 2))

    def _describe(self, x: Tensor, reference: Mapping[str, Tensor] | None, block: int) -> dict[str, Tensor]:
        scale = None if reference is None else reference["scale"].to(dtype=x.dtype, device=x.device)
        normalised, _, _, scale = mscn(x, scale, self.c)
        out: dict[str, Tensor] = {}
        if self.edge_weight:
            out["edge"] = gradient_magnitude(x, scale) * (self.edge_weight / scale)
        variance = block_variance(normalised, block)
        active = (variance > ACTIVITY).to(x.dtype) if reference is None else reference["active"]
        if self.texture_weight:
            if active.shape != variance.shape:
                raise ValueError(
                    f"PiqeExtractor: the feature has blocks {tuple(variance.shape)}, the reference "
                    f"{tuple(active.shape)}; bring both to one size and channel count, and give both the same stride."
                )
            out["texture"] = variance * (active * self.texture_weight)
        if reference is None:
            out.update(scale=scale, active=active)
        return out


def block_variance(maps: Tensor, block: int) -> Tensor:
    """Variance inside blocks that do not overlap; what is cut off at the right and bottom is a smaller block.

    Args:
        maps: (N, C, H, W).
        block: Side of a block; at most the map is used.

    Returns:
        (N, C, ceil(H / block), ceil(W / block)).
    """
    mean, square = block_mean(maps, block, block), block_mean(maps * maps, block, block)
    return torch.clamp_min(square - mean * mean, 0)
