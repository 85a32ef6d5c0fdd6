"""`basicsr restore`: images through a model, each into a file of its own kind."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

    from kd_plugins.deploy.files import Job
    from kd_plugins.deploy.restorer import Restorer

HELP = "restore images with a student, a teacher or an exported file"
EXAMPLE = "basicsr restore -m restormer_derain_student -i photos -o restored"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-m", "--model", required=True, help="a checkpoint, the name of a bundled one, an .onnx file, a {YAML block}"
    )
    parser.add_argument("-i", "--input", required=True, type=Path, help="an image, a folder (with its sub-folders), or a video")
    parser.add_argument("-o", "--output", required=True, type=Path, help="a folder; for one image also a file")
    parser.add_argument("--suffix", default="", help="added to the names of restored images (default: nothing)")
    parser.add_argument("--ext", default="auto", help="kind of the restored images: png, jpg, webp, tif; auto: as the input's")
    parser.add_argument("--quality", type=int, default=95, metavar="Q", help="of JPEG and lossy WebP, 1 to 100 (default: 95)")
    parser.add_argument("--overwrite", action="store_true", help="restore again what is there; without, it is left as it is")
    parser.add_argument("--tile", default="auto", help="side of the tiles; 0: whole images; auto: what the memory has room for")
    parser.add_argument("--overlap", type=int, default=32, metavar="N", help="pixels that tiles share (default: 32)")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps; auto: a GPU where there is one")
    parser.set_defaults(precision="fp32")
    half = parser.add_mutually_exclusive_group()
    for name in ("bf16", "fp16"):
        half.add_argument(
            f"--{name}", dest="precision", action="store_const", const=name, default="fp32", help=f"compute in {name}"
        )


def run(args: argparse.Namespace) -> int:
    """Restore what is not there yet.

    Returns:
        0; 1 where a file could not be restored.

    Raises:
        OptionError: nothing can be restored with these arguments.
        Interrupted: by a signal; the same command goes on.
    """
    from kd_plugins.deploy.files import find_jobs
    from kd_plugins.deploy.model import load_model
    from kd_plugins.deploy.restorer import Restorer
    from kd_plugins.errors import Interrupted
    from kd_plugins.options import OptionError

    if not 1 <= args.quality <= 100:
        raise OptionError(f"--quality: {args.quality}, expected 1 to 100")
    if args.tile != "auto" and not args.tile.isdecimal():
        raise OptionError(f"--tile: {args.tile!r}, expected a number of pixels, 0 or auto")
    jobs = find_jobs(args.input, args.output, args.suffix, None if args.ext == "auto" else args.ext.removeprefix("."))
    left = jobs if args.overwrite else [job for job in jobs if not job.target.exists()]
    there = f"{len(jobs) - len(left)} of {len(jobs)} are there already (--overwrite restores them again)"
    if not left:
        print(f"Nothing to restore: {there}.")
        return 0
    model = load_model(args.model, args.device, args.precision)
    restorer = Restorer(model, args.tile if args.tile == "auto" else int(args.tile), args.overlap)
    print(f"{model.name} on {model.device} in {model.precision}" + (f"; {there}" if len(left) < len(jobs) else ""))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl+C: what is half written is taken away
    done: list[Job] = []
    failed: list[Job] = []
    start = time.monotonic()
    try:
        _restore_all(restorer, left, args.quality, done, failed)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped with {len(done)} of {len(left)} restored; the same command goes on with the others") from None
    seconds = time.monotonic() - start
    rate = f" in {seconds:.1f} s ({len(done) / seconds:.3g}/s)" if done else ""
    print(f"{len(done)} restored{rate}" + (f"; {len(failed)} could not be, see above" if failed else ""))
    return 1 if failed else 0


def _restore_all(restorer: Restorer, jobs: Sequence[Job], quality: int, done: list[Job], failed: list[Job]) -> None:
    """Restore one after another, and note each in one of the two lists."""
    from tqdm import tqdm

    from kd_plugins.errors import describe

    bar_format = "{percentage:3.0f}%|{bar}| {n:.1f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
    with tqdm(total=len(jobs), unit="image", bar_format=bar_format, disable=None) as bar:
        for job in jobs:
            try:
                _restore_one(restorer, job, quality, bar)
            except (ValueError, OSError) as error:
                bar.write(f"{job.source}: {describe(error)}; passed over", file=sys.stderr)
                failed.append(job)
            else:
                done.append(job)
            bar.update(len(done) + len(failed) - bar.n)


def _restore_one(restorer: Restorer, job: Job, quality: int, bar: tqdm) -> None:
    from kd_plugins.deploy.image_reading import read_picture
    from kd_plugins.deploy.images import converted, kind_of, write_picture
    from kd_plugins.deploy.video import restore_video

    job.target.parent.mkdir(parents=True, exist_ok=True)
    kind = kind_of(job.target)
    if kind is None:
        restore_video(job.source, job.target, restorer.restore, lambda number, count: bar.update(1 / count))
        return
    picture = read_picture(job.source)
    if kind != kind_of(job.source):
        picture = converted(picture, kind)
    write_picture(job.target, restorer.restore(picture, bar.update), quality)
