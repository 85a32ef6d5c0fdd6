"""Views of a batch: transformed, with the inverse transform (label consistency), and zoomed in and out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kd_plugins.arguments import Share, checked

_NAMES = ("invert", "hflip", "vflip", "transpose")


@checked
class ViewTransform:
    """Inverts, flips and transposes each sample at random for the teacher, and undoes it on the teacher's output.

    The label consistency of DUKD, as the released option files of DCKD (arXiv 2412.08939) switch it on: the student's output on
    x is compared with the teacher's opinion of the same content in another guise.

    Args:
        invert: probability of 1 - x, for each sample.
        hflip: of the mirror image.
        vflip: of the image upside down.
        transpose: of rows and columns exchanged; square images only.

    Raises:
        ValueError: no probability.
    """

    def __init__(self, invert: Share = 0.5, hflip: Share = 0.5, vflip: Share = 0.5, transpose: Share = 0.5) -> None:
        self.probabilities = dict(zip(_NAMES, (invert, hflip, vflip, transpose), strict=True))
        self._drawn: dict[str, Tensor] = {}

    def apply(self, x: Tensor) -> Tensor:
        """Draw a transform for each sample, and apply it.

        Args:
            x: (N, C, H, W) in [0, 1]; not modified.

        Returns:
            The same shape.

        Raises:
            ValueError: images that are not square, with a probability of `transpose`.
        """
        if self.probabilities["transpose"] and x.shape[-2] != x.shape[-1]:
            raise ValueError(
                f"view: transformed: the images are {x.shape[-2]} x {x.shape[-1]}, and of one size only if square when some are "
                "transposed; use square crops, or train: transforms: {transpose: 0}"
            )
        each = (len(x), 1, 1, 1)
        self._drawn = {name: torch.rand(each, device=x.device) < p for name, p in self.probabilities.items() if p}
        return self._transform(x, _NAMES)

    def undo(self, x: Tensor) -> Tensor:
        """Undo the last `apply` on images of the same samples, which may be larger."""
        return self._transform(x, _NAMES[::-1])

    def _transform(self, x: Tensor, order: tuple[str, ...]) -> Tensor:
        how = {
            "invert": lambda x: 1 - x,
            "hflip": lambda x: x.flip(-1),
            "vflip": lambda x: x.flip(-2),
            "transpose": lambda x: x.transpose(-1, -2),
        }
        for name in order:
            if name in self._drawn:
                x = torch.where(self._drawn[name], how[name](x), x)
        return x


def zoom_in(gt: Tensor, lq: Tensor) -> Tensor:
    """Crops of the clean images as further inputs: the zoomed-in view of DUKD (Zhang et al., arXiv 2309.14162).

    A clean image is cut into tiles of the input's size, scale x scale of them, and one is drawn, its place the same for the whole
    batch, as in the authors' code. At scale 1 it is the clean image itself.

    Args:
        gt: (N, C, scale * H, scale * W) in [0, 1].
        lq: the inputs, (N, C, H, W).

    Returns:
        (N, C, H, W), a view of `gt`.

    Raises:
        ValueError: they differ in channels.
    """
    if gt.shape[1] != lq.shape[1]:
        raise ValueError(
            f"view: zoomed: the clean images have {gt.shape[1]} channels, the inputs {lq.shape[1]}: a crop is no input"
        )
    height, width = lq.shape[-2:]
    places = gt.shape[-2] // height, gt.shape[-1] // width
    row, column = (int(torch.randint(count, (1,))) for count in places)
    return gt[..., row * height : (row + 1) * height, column * width : (column + 1) * width]


def zoom_out(lq: Tensor, restored: Tensor) -> Tensor:
    """The inputs made as much smaller as a network enlarges them: the zoomed-out view of DUKD (Zhang et al., arXiv 2309.14162).

    What a network should make of them is the inputs themselves. Bicubic and antialiased, as the authors' MATLAB-like resize, but
    for the borders.

    Args:
        lq: the inputs, (N, C, H, W).
        restored: images of them, (N, C, scale * H, scale * W).

    Returns:
        (N, C, H / scale, W / scale).

    Raises:
        ValueError: the network enlarges nothing, or by what does not divide the inputs.
    """
    (height, width), scale = lq.shape[-2:], restored.shape[-1] // lq.shape[-1]
    if scale == 1:
        raise ValueError("view: zoomed_out: the network's scale is 1, expected one that enlarges, or view: zoomed")
    if height % scale or width % scale:
        raise ValueError(f"view: zoomed_out: inputs of {height}x{width}, expected sides that {scale}, the scale, divides")
    return F.interpolate(lq, size=(height // scale, width // scale), mode="bicubic", antialias=True)
