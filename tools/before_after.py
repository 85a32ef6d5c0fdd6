"""Draw a photo as it comes in, as student and teacher restore it, and as it was; with dB and milliseconds of each.

python tools/before_after.py options/distill_derain.yml restormer_derain_student docs/images/derain.png
    [--photo 0] [--crop TOP LEFT SIDE] [--repeats 5]

The photo is one of the option file's validation set; its teacher is the teacher. Needs matplotlib.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

import kd_plugins  # noqa: F401 - it registers datasets
from kd_plugins.options import read_options
from kd_plugins.teachers import build_teacher

from basicsr.data import build_dataset  # isort: skip (kd_plugins comes first: it repairs what basicsr imports)


def main() -> None:
    """Restore, crop, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("option_file")
    parser.add_argument("student", help="a checkpoint that describes its network")
    parser.add_argument("out")
    parser.add_argument("--photo", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5, help="of the timing, whose median is drawn; 0 for none")
    parser.add_argument("--crop", type=int, nargs=3, default=(20, 90, 180), metavar=("TOP", "LEFT", "SIDE"))
    args = parser.parse_args()

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    opt = read_options(args.option_file)
    item = build_dataset({**opt["datasets"]["val"], "phase": "val", "scale": opt["scale"]})[args.photo]
    lq, gt = item["lq"].unsqueeze(0), item["gt"].unsqueeze(0)
    networks = {"student": build_teacher({"checkpoint": args.student}), "teacher": build_teacher(opt["teacher"])}
    size = gt.shape[-2:]
    enlarged = lq if lq.shape[-2:] == size else F.interpolate(lq, size=size, mode="bicubic", antialias=True)
    images, times = {"input": enlarged}, {name: [] for name in networks}
    for _ in range(max(args.repeats, 1)):  # in turns, so that other work on the machine slows both
        for name, network in networks.items():
            start = time.perf_counter()
            images[name] = network(lq).image
            times[name].append(1000 * (time.perf_counter() - start))
    images["clean"] = gt
    timed = times.items() if args.repeats else ()
    milliseconds = {name: f", {statistics.median(each):.0f} ms" for name, each in timed}
    top, left, side = args.crop
    figure, axes = plt.subplots(1, len(images), figsize=(2.6 * len(images), 2.9), layout="constrained")
    for axis, (name, image) in zip(axes, images.items(), strict=True):
        psnr = -10 * torch.log10((image.clamp(0, 1) - gt).square().mean())
        axis.imshow(image[0, :, top : top + side, left : left + side].clamp(0, 1).permute(1, 2, 0))
        axis.set_title(name if name == "clean" else f"{name}, {psnr:.1f} dB{milliseconds.get(name, '')}", fontsize=10)
        axis.set_axis_off()
    png = args.out.endswith(".png")
    figure.savefig(args.out, dpi=110, metadata={"Software": None} if png else None, pil_kwargs=None if png else {"quality": 88})


if __name__ == "__main__":
    main()
