"""How far a photo restored in tiles is from the same photo restored as a whole, where a network looks at all of its input at once.

python tools/compare_tiles.py PHOTOS --case restormer_derain '{type: rain}' [--case MODEL DEGRADATION ...] [--tiles 256 512]
    [--overlaps 32 64] [--count 4]

Prints Markdown: for each model the mean over the photos of the PSNR to the clean photo of the whole one; then for each tile and
overlap the mean PSNR between tiled and whole, and by how much the tiled one's PSNR to the clean photo differs.
"""

import argparse
from itertools import product

import numpy as np
import torch
import yaml

import kd_plugins  # noqa: F401 (registers)
from kd_plugins.data.degradations import build_degradation
from kd_plugins.data.photos import find_photos
from kd_plugins.deploy.model import load_model
from kd_plugins.tiles import restore_tiled


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two images in [0, 1]."""
    return float(-10 * torch.log10(torch.mean((a.clamp(0, 1) - b.clamp(0, 1)).double() ** 2)))


def main() -> None:
    """Restore every photo with every model in every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos")
    parser.add_argument("--case", nargs=2, action="append", required=True, metavar=("MODEL", "DEGRADATION"))
    parser.add_argument("--tiles", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--overlaps", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--count", type=int, default=4)
    args = parser.parse_args()
    ways = list(product(args.tiles, args.overlaps))
    print("| model | input | whole |", " | ".join(f"{tile}, {overlap}" for tile, overlap in ways), "|")
    print("|---|" + "---:|" * (len(ways) + 2))
    photos = [photo.load().astype(np.float32) / 255 for photo in find_photos(args.photos)[: args.count]]
    for name, text in args.case:
        model, degrade = load_model(name), build_degradation(yaml.safe_load(text))
        rows = []
        for number, photo in enumerate(photos):
            clean, lq = (
                torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
                for image in (photo, degrade(photo, np.random.RandomState(number)))
            )
            whole = model(lq)
            row = [psnr(lq, clean), psnr(whole, clean)]
            for tile, overlap in ways:
                tiled = restore_tiled(model, lq, tile, overlap)
                row += [psnr(tiled, whole), psnr(tiled, clean) - row[1]]
            rows.append(row)
        given, scored, *others = np.mean(rows, 0)
        cells = [f"{near:.1f} ({change:+.3f})" for near, change in zip(others[::2], others[1::2], strict=True)]
        print(f"| `{name}` | {given:.2f} | {scored:.2f} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
