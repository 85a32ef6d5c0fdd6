"""Time what a core of the loader makes: crops a second of each degradation, and of PairedImageDataset from PNG, JPEG and lmdb.

python tools/benchmark_data.py [--size 128] [--seconds 2] [--folder PHOTOS]

One process, one thread: divide what a step needs by it for `num_worker_per_gpu`. Everything is timed in turn, in one run.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch

from kd_plugins.data import find_photos
from kd_plugins.randomness import seed_generators

from basicsr.data import build_dataset  # isort: skip (the plugin repairs what it imports)
from basicsr.utils.lmdb_util import make_lmdb_from_imgs  # isort: skip

DEGRADATIONS: dict[str, dict[str, Any]] = {
    "rain": {"type": "rain"},
    "noise": {"type": "noise", "sigma": 25},
    "blur": {"type": "blur"},
    "defocus": {"type": "defocus"},
    "downsample x4": {"type": "downsample", "scale": 4},
}


def main() -> None:
    """Time each dataset for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--folder", default="builtin", help="photos; by default the bundled ones")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print("| data | crops a second and core | ms a crop |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        for name, block in [*degraded(args.folder, args.size), *paired(args.folder, args.size, Path(root))]:
            dataset = build_dataset({"name": name, "phase": "train", "scale": 1, "use_hflip": True, "use_rot": True, **block})
            milliseconds = time_items(dataset, args.seconds)
            print(f"| {name} | {1000 / milliseconds:.0f} | {milliseconds:.1f} |", flush=True)


def degraded(folder: str, size: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """DegradedPhotoDataset with each degradation, photos decoded once and each time."""
    for name, degradation in DEGRADATIONS.items():
        block = {"type": "DegradedPhotoDataset", "photos": folder, "degradation": degradation, "gt_size": size}
        yield name, {**block, "scale": degradation.get("scale", 1)}
    yield "noise, `cache: false`", {**block, "degradation": DEGRADATIONS["noise"], "cache": False}


def paired(folder: str, size: int, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """PairedImageDataset of the same photos, on both sides the same."""
    photos = find_photos(folder, "train")
    for kind in ("png", "jpg"):
        (root / kind).mkdir()
        for number, photo in enumerate(photos):
            cv2.imwrite(str(root / kind / f"{number}.{kind}"), photo.load()[..., ::-1])
    keys = [str(number) for number in range(len(photos))]
    make_lmdb_from_imgs(str(root / "png"), str(root / "gt.lmdb"), [f"{key}.png" for key in keys], keys)
    shutil.copytree(root / "gt.lmdb", root / "lq.lmdb")  # one cannot be opened twice
    places = {"PNG": ("png", "png", "disk"), "JPEG": ("jpg", "jpg", "disk"), "lmdb of PNG": ("gt.lmdb", "lq.lmdb", "lmdb")}
    for name, (clean, degraded_too, backend) in places.items():
        roots = {"dataroot_gt": str(root / clean), "dataroot_lq": str(root / degraded_too)}
        yield f"pairs, {name}", {"type": "PairedImageDataset", **roots, "io_backend": {"type": backend}, "gt_size": size}


def time_items(dataset: Any, seconds: float) -> float:
    """Milliseconds for an item, after a round over all."""
    for index in range(len(dataset)):
        dataset[index]
    seed_generators(0)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        dataset[count % len(dataset)]
        count += 1
    return 1000 * (time.perf_counter() - start) / count


if __name__ == "__main__":
    main()
