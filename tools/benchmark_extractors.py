"""Time and accuracy of BRISQUE and PIQE here against OpenCV-contrib, piq and pypiqe, on the same photos.

    python tools/benchmark_extractors.py --model FOLDER_OF_THE_BRISQUE_MODEL [--folder PHOTOS] [--threads 1 2]

The times are wall time for one photo, best of several runs over all photos as one batch (the others take one photo
a call). Missing packages are said and left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch

from kd_plugins.extractors import brisque_features, brisque_score, load_brisque_model, piqe_score


def read_photos(folder: str | None, size: int) -> list[np.ndarray]:
    """BGR photos, cut to one size so that they can be a batch."""
    if folder:
        paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".bmp"})
        photos = [cv2.imread(str(p)) for p in paths]
    else:
        from skimage import data

        photos = [getattr(data, n)()[..., ::-1] for n in ("astronaut", "chelsea", "coffee", "rocket")]
    photos = [np.ascontiguousarray(p[:size, :size]) for p in photos if p is not None]
    if not photos:
        raise SystemExit(f"no photos in {folder}")
    height, width = (min(p.shape[i] for p in photos) for i in (0, 1))
    return [np.ascontiguousarray(p[:height, :width]) for p in photos]


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Best wall time of one call."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def contenders(photos: list[np.ndarray], model: str | None) -> dict[str, dict[str, Callable[[], object]]]:
    """The runs over all photos, by metric and by name; ours is first."""
    batch = torch.from_numpy(np.stack([p[..., ::-1] for p in photos])).permute(0, 3, 1, 2).contiguous().float() / 255
    runs: dict[str, dict[str, Callable[[], object]]] = {
        "BRISQUE features": {"ours": lambda: brisque_features(batch)},
        "BRISQUE score": {},
        "PIQE": {"ours": lambda: piqe_score(batch)},
    }
    quality = getattr(cv2, "quality", None)
    if quality is None:
        print("opencv-contrib-python is not installed: left out.")
    else:
        runs["BRISQUE features"]["OpenCV"] = lambda: [quality.QualityBRISQUE_computeFeatures(p) for p in photos]
    if model is None:
        print("No --model: the BRISQUE score of ours and of OpenCV is left out.")
    else:
        ours = load_brisque_model(model)
        runs["BRISQUE score"]["ours"] = lambda: brisque_score(batch, ours)
        if quality is not None:
            folder = Path(model)
            scorer = quality.QualityBRISQUE_create(str(folder / "brisque_model_live.yml"), str(folder / "brisque_range_live.yml"))
            runs["BRISQUE score"]["OpenCV"] = lambda: [scorer.compute(p) for p in photos]
    try:
        from piq.brisque import _natural_scene_statistics  # pyright: ignore[reportMissingImports]

        # Its score downloads a model; its features need none.
        gray = (batch * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True) * 255

        def piq_features() -> None:
            for scale in (1, 2):
                x = gray if scale == 1 else torch.nn.functional.avg_pool2d(gray, 2)
                _natural_scene_statistics(x, kernel_size=7, sigma=7 / 6)

        runs["BRISQUE features"]["piq"] = piq_features
    except ImportError:
        print("piq is not installed: left out.")
    try:
        from pypiqe import piqe  # pyright: ignore[reportMissingImports]

        runs["PIQE"]["pypiqe"] = lambda: [piqe(p) for p in photos]
    except ImportError:
        print("pypiqe is not installed: left out.")
    return runs


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="photos; default: scikit-image's")
    parser.add_argument("--model", help="folder of brisque_model_live.yml and brisque_range_live.yml")
    parser.add_argument("--size", type=int, default=512, help="photos are cut to at most this (default 512)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    photos = read_photos(args.folder, args.size)
    height, width = photos[0].shape[:2]
    print(f"{len(photos)} photos of {width} x {height}; milliseconds a photo, and ratio to ours\n")
    runs = contenders(photos, args.model)
    print("| metric | threads | who | ms a photo | times ours |\n|---|---|---|---|---|")
    with torch.no_grad():
        for threads in args.threads:
            torch.set_num_threads(threads)
            cv2.setNumThreads(threads)
            for metric, members in runs.items():
                base = None
                for name, run in members.items():
                    ms = seconds(run, args.repeats) / len(photos) * 1e3
                    base = base or ms
                    print(f"| {metric} | {threads} | {name} | {ms:.1f} | {ms / base:.2f} |")


if __name__ == "__main__":
    main()
