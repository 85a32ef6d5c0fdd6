"""A picture through a model: in tiles, in bounded memory, of its own depth again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kd_plugins.deploy.images import Picture, restored
from kd_plugins.deploy.model import Model
from kd_plugins.errors import lacks_memory
from kd_plugins.memory import SMALL, fitting_tile
from kd_plugins.tiles import count_tiles, restore_rows

AUTO = "auto"
OVERLAP = 32


class Restorer:
    """Restores pictures with a model.

    Args:
        model: the model.
        tile: height and width of a tile; 0 for whole images; `auto`: as large as the memory has room for.
        overlap: pixels that neighbouring tiles share at least.

    Raises:
        ValueError: an overlap below 0; a tile that is no larger than it, or larger than the only size that the model takes.
    """

    def __init__(self, model: Model, tile: int | str = AUTO, overlap: int = OVERLAP) -> None:
        if overlap < 0:
            raise ValueError(f"overlap: {overlap}, expected 0 or more")
        self.model, self.overlap = model, overlap
        largest = min(model.fixed_size) if model.fixed_size else None
        if largest and tile in (AUTO, 0):
            tile, self.overlap = largest, min(overlap, largest // 2)
        if isinstance(tile, int) and largest and tile > largest:
            raise ValueError(f"tile: {tile}, expected at most {largest}: {model.name} takes images of one size")
        if isinstance(tile, int) and tile and self.overlap >= tile:
            raise ValueError(f"tile: {tile}, expected more than the overlap, {self.overlap}")
        self._tile = tile

    def tile(self, height: int, width: int) -> int | None:
        """The side of the tiles of an image of this size; None where it is restored as a whole."""
        if self._tile == AUTO:
            if max(height, width) <= SMALL:
                return None
            self.model.release_memory()  # of images before: it would look as if these tiles needed none
            self._tile = fitting_tile(self._try, self.model.channels, self.model.device, self.overlap)
        return int(self._tile) or None

    def _try(self, x: Tensor) -> None:
        self.model(x)
        self.model.release_memory()

    def restore(self, picture: Picture, progress: Callable[[float], object] = lambda share: None) -> Picture:
        """Restore a picture.

        Args:
            picture: of any size.
            progress: called after each tile with its share of the work.

        Returns:
            The picture at the model's scale, of the same depth; alpha is carried over, resized where the scale is not 1.

        Raises:
            ValueError: the model makes numbers that are not finite, or needs more memory than there is.
        """
        (height, width, channels), dtype = picture.pixels.shape, picture.pixels.dtype
        white, scale, device = np.iinfo(dtype).max, self.model.scale, self.model.device
        tile = self.tile(height, width)
        share = 1 / count_tiles((height, width), tile, self.overlap)

        def crop(top: int, left: int, bottom: int, right: int) -> Tensor:
            part = picture.pixels[top:bottom, left:right].astype(np.float32, order="C")
            return torch.from_numpy(part).to(device).permute(2, 0, 1)[None] / white

        def run(x: Tensor) -> Tensor:
            image = self.model(x)
            progress(share)
            return image

        pixels, done = np.empty((scale * height, scale * width, channels), dtype), 0
        try:
            for rows in restore_rows(run, crop, (height, width), tile, self.overlap):
                if not torch.isfinite(rows).all():
                    half = "" if self.model.precision == "fp32" else f"; expected none in fp32, this is {self.model.precision}"
                    raise ValueError(f"{self.model.name} makes numbers of it that are not finite{half}")
                values = rows[0].clamp(0, 1).mul(white).round_().permute(1, 2, 0).cpu().numpy()
                pixels[done : done + len(values)] = values
                done += len(values)
        except (MemoryError, RuntimeError) as error:
            if lacks_memory(error):
                side = tile or max(height, width)
                raise ValueError(f"{device} has not enough memory for tiles of {side}, expected smaller ones") from error
            raise ValueError(f"{self.model.name} cannot restore it: {(str(error).splitlines() or [''])[0]}") from error
        return restored(picture, pixels)
