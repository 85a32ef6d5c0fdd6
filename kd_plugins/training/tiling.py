"""Validation and test in tiles, as an option file asks for them: in the words of this project, of NAFNet or of HAT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from kd_plugins.arguments import Above, AtLeast, AtMost, Block, Count, Flag, Path
from kd_plugins.mappings import mapping
from kd_plugins.memory import SMALL, fitting_tile
from kd_plugins.tiles import Tile, restore_tiled

AUTO = "auto"
_OVERLAP = 32
_Pixels = Annotated[int | None, AtLeast(0)]
_Ratio = Annotated[float | None, Above(0), AtMost(1)]
GRIDS = {f"crop_size_{side}{kind}": hint for side in "hw" for kind, hint in (("", Count), ("_ratio", _Ratio))}
VAL = {
    **{"tile": Annotated[int, AtLeast(0)] | Literal["auto", None], "tile_overlap": _Pixels, "tile_pad": _Pixels},
    **{"grids": Flag, **GRIDS},
}
"""The keys under `val`; the last of them are NAFNet's, `grids` and what goes with it."""
HAT = Block("tile", {"tile_size": Count, "tile_pad": _Pixels}, ("tile_size",))
"""HAT's block at the top, `tile`."""


class Tiling:
    """Restores an image as a whole, or in tiles where the option file says so; the same way as `basicsr restore`.

    Args:
        opt: the options. `val: tile`: the side of a tile at the scale of the input, or `auto`: as large as the memory has room for;
            `tile_overlap`: pixels that neighbours share at least (default 32), or `tile_pad`: pixels around each tile, which is
            larger by them. HAT's `tile: {tile_size, tile_pad}` means the last. NAFNet's `val: grids` cuts parts of `crop_size_h`
            and `crop_size_w`, pixels of the clean image or shares of it (`..._ratio`), which overlap no more than they must.

    Raises:
        ValueError: values that do not go together.
    """

    def __init__(self, opt: Mapping[str, Any]) -> None:
        for path, text in faults(opt):
            raise ValueError(f"{':'.join(path)}: {text}")
        self.opt, self.scale = mapping(opt.get("val")), int(opt.get("scale") or 1)
        self.tile, self.overlap = _tile_of(opt)
        self._found: dict[str, int] = {}  # by role: the side of a tile that the memory has room for

    def __call__(self, role: str, run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Restore an image, or a batch.

        Args:
            role: whose memory is meant by `auto`.
            run: maps (N, C, H, W) to (N, C', scale * H, scale * W).
            x: (N, C, H, W).
        """
        tile = self._tile_for(role, run, x)
        return run(x) if tile is None else restore_tiled(run, x, tile, self.overlap)

    def _tile_for(self, role: str, run: Callable[[Tensor], Tensor], x: Tensor) -> Tile:
        height, width = x.shape[-2:]
        if self.opt.get("grids"):
            return self._part("h", height), self._part("w", width)
        if self.tile != AUTO:
            return self.tile or None  # type: ignore[return-value]
        if max(height, width) <= SMALL:
            return None
        if role not in self._found:
            with torch.no_grad():
                self._found[role] = fitting_tile(run, x.shape[1], x.device, self.overlap)
        return self._found[role]

    def _part(self, side: str, length: int) -> int:
        """How long a part of NAFNet's grid is, at the scale of the input."""
        size = self.opt.get(f"crop_size_{side}")
        return max(size // self.scale if size else int(self.opt[f"crop_size_{side}_ratio"] * length), 1)


def _tile_of(opt: Mapping[str, Any]) -> tuple[int | str | None, int]:
    """The side of a tile, or what stands in its place, and the overlap."""
    val, hat = mapping(opt.get("val")), mapping(opt.get("tile"))
    if val.get("grids"):
        return None, 0
    tile, pad = (hat.get("tile_size"), hat.get("tile_pad", _OVERLAP)) if hat else (val.get("tile"), val.get("tile_pad"))
    if pad is None:
        overlap = val.get("tile_overlap")
        return tile, _OVERLAP if overlap is None else int(overlap)
    return tile + 2 * pad if isinstance(tile, int) and tile else tile, 2 * pad


def faults(opt: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What is wrong with the tiles of an option file, by keys; their types are checked elsewhere."""
    val = mapping(opt.get("val"))
    said = [path for path in (("tile",), ("val", "tile"), ("val", "grids")) if (val if len(path) == 2 else opt).get(path[-1])]
    if len(said) > 1:
        yield said[1], f"stands beside {':'.join(said[0])}, expected one of them"
    elif val.get("grids"):
        for side in "hw":
            if not val.get(f"crop_size_{side}") and not val.get(f"crop_size_{side}_ratio"):
                yield ("val", f"crop_size_{side}"), "missing, `grids` needs it, or crop_size_..._ratio"
    elif val.get("tile_pad") is not None and val.get("tile_overlap") is not None:
        yield ("val", "tile_pad"), "stands beside tile_overlap, expected one of them: an overlap is twice a pad"
    else:
        tile, overlap = _tile_of(opt)
        if isinstance(tile, int) and 0 < tile <= overlap:
            yield said[0], f"{tile}, expected more than the overlap, {overlap}"
