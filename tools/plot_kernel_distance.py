"""Plot how far apart the features of a real student and teacher are, and what the Gaussian kernel makes of such distances.

python tools/plot_kernel_distance.py [-opt options/skd_derain.yml] [--steps 60] [--out docs/images/kernel_distance.svg]

Distances of CrossNetAttentionLoss (direct, channel and spatial branch) at every stage, from random and inherited starts, before and
after a few steps of training with the loss; then the kernel and its gradient. Prints the tables of docs/skd.md and the sigma
at which the near and the far end of the distances get the same gradient. Needs matplotlib.
"""

import argparse
import math
import re
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from kd_plugins.data import DegradedPhotoDataset
from kd_plugins.losses.cross_net_attention import channel_attention, silent_square, spatial_attention, unit_positions
from kd_plugins.models import DistillationModel
from kd_plugins.run_options import parse_options
from kd_plugins.train import build_registered_model

BRANCHES = ("direct", "channel", "spatial")
LOSS = "{{type: CrossNetAttentionLoss, between: {group}, loss_weight: 0.1}}"
DISTILL = f"train:distill={{enc: {LOSS.format(group='encoder')}, dec: {LOSS.format(group='decoder')}}}"

Distances = dict[tuple[str, str], Tensor]  # by stage and branch


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", default="options/skd_derain.yml", help="photos, degradation, teacher and student")
    parser.add_argument("--steps", type=int, default=60, help="training steps after which the distances are taken again")
    parser.add_argument("--sigmas", type=float, nargs="+", default=[0.25, 0.5, 0.85, 1.5])
    parser.add_argument("--crops", type=int, default=14, help="training crops that are measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--force_yml", nargs="+", default=[])
    parser.add_argument("--out", type=Path, default=Path("docs/images/kernel_distance.svg"))
    args = parser.parse_args()

    measured: dict[str, Distances] = {}
    for start in ("random", "teacher"):
        forced = ["model_type=DistillationModel", f"init={start}", f"manual_seed={args.seed}", DISTILL, *args.force_yml]
        with tempfile.TemporaryDirectory() as root:
            opt, _ = parse_options(root, is_train=True, argv=["-opt", args.opt, "--force_yml", *forced])
            model = build_registered_model(opt)
        dataset = DegradedPhotoDataset(**opt["datasets"]["train"])
        torch.manual_seed(args.seed)
        crops = batch(dataset, 0, args.crops)
        name = "inherited" if start == "teacher" else "random"
        measured[f"{name} start"] = distances(model, crops)
        size = opt["datasets"]["train"]["batch_size_per_gpu"]
        for step in range(args.steps):
            model.feed_data(batch(dataset, step * size, size))
            model.optimize_parameters(step)
        if args.steps:
            measured[f"{name}, {args.steps} steps"] = distances(model, crops)
    near, far = report(measured)
    plot(measured, args.sigmas, (near, far), args.out)


def batch(dataset: DegradedPhotoDataset, first: int, count: int) -> dict[str, Tensor]:
    """Crops of consecutive photos."""
    items = [dataset[index % len(dataset)] for index in range(first, first + count)]
    return {key: torch.stack([item[key] for item in items]) for key in ("lq", "gt")}


@torch.no_grad()
def distances(model: DistillationModel, crops: dict[str, Tensor]) -> Distances:
    """d of every position, for every stage and branch, with the loss's defaults."""
    model.feed_data(crops)
    with model.taps:
        model.net_g(model.lq)
    mine, theirs = model.taps.collect(), model.teachers["degraded"](model.lq).features
    assert model.scm is not None
    found = {}
    for group, pairs in model.pairs.items():
        for stage, pair in enumerate(pairs):
            s, t = mine[pair.student], theirs[pair.teacher]
            p = model.scm(group, stage, s, t.shape[-2:])
            silent = silent_square(t)
            target, unit_s, unit_p = (unit_positions(x, silent) for x in (t, s, p))
            seen = {
                "direct": p,
                "channel": channel_attention(target, unit_s, s, math.sqrt(t[0, 0].numel()))[0],
                "spatial": spatial_attention(target, unit_p, p, math.sqrt(t.shape[1]), 16),
            }
            for branch, x in seen.items():
                found[pair.teacher, branch] = (unit_positions(x, silent) - target).square().mean(1).sqrt().flatten()
    return found


def report(measured: dict[str, Distances]) -> tuple[float, float]:
    """Print the table and the sigma that follows; return the ends of the distances."""
    quantiles = torch.tensor([0.05, 0.5, 0.95])
    print("| student | stage | direct | channel | spatial |\n|---|---|---|---|---|")
    rows: list[list[float]] = []
    for name, found in measured.items():
        for stage in dict.fromkeys(stage for stage, _ in found):
            values = [found[stage, branch].quantile(quantiles).tolist() for branch in BRANCHES]
            rows += values
            print(f"| {name} | {stage} | " + " | ".join("{:.2f} {:.2f} {:.2f}".format(*v) for v in values) + " |")
    near, far = min(row[0] for row in rows), max(row[2] for row in rows)
    sigma = math.sqrt((far**2 - near**2) / (2 * math.log(far / near)))
    print(
        f"\nfrom {near:.2f} (lowest 5 % quantile) to {far:.2f} (highest 95 % quantile); both ends get the same gradient at sigma ",
        end="",
    )
    print(f"{sigma:.3f}\n\n| sigma | gradient at {near:.2f} | at {far:.2f} | smallest over largest between |\n|---|---|---|---|")
    d = torch.linspace(near, far, 500)
    for s in (0.1, 0.25, 0.5, sigma, 1.0, 1.5, 2.0, 100.0):
        g = slope(d, s)
        print(f"| {s:.3g} | {g[0] / g.max():.2g} | {g[-1] / g.max():.2g} | {g.min() / g.max():.2g} |")
    return near, far


def slope(d: Tensor, sigma: float) -> Tensor:
    """The kernel distance's derivative by d."""
    return d / sigma**2 * torch.exp(-d.square() / (2 * sigma**2))


def plot(measured: dict[str, Distances], sigmas: list[float], ends: tuple[float, float], out: Path) -> None:
    """Histograms on the left, one row a student; the kernel and its gradient on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "kernel_distance", "svg.fonttype": "none", "font.size": 8})
    figure = plt.figure(figsize=(10, 1.6 * len(measured)), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(3, 2))[0]
    axes = left.subplots(len(measured), len(BRANCHES), sharex=True, squeeze=False)
    for row, (name, found) in zip(axes, measured.items(), strict=True):
        for axis, branch in zip(row, BRANCHES, strict=True):
            for (stage, which), d in found.items():
                if which == branch:
                    share = torch.histc(d, bins=50, min=0, max=2) / len(d)
                    axis.plot(torch.linspace(0.02, 1.98, 50).tolist(), share.tolist(), lw=1, label=stage)
            axis.set_yticks([])
        row[0].set_ylabel(name)
    for axis, branch in zip(axes[0], BRANCHES, strict=True):
        axis.set_title(f"{branch}: distances d")
    axes[0][-1].legend(fontsize=6, frameon=False)
    value, gradient = right.subplots(2, 1, sharex=True)
    d = torch.linspace(0, 2, 200)
    for sigma in sigmas:
        value.plot(d.tolist(), (1 - torch.exp(-d.square() / (2 * sigma**2))).tolist(), label=f"sigma {sigma:g}")
        relative = slope(d, sigma) / slope(d[(d >= ends[0]) & (d <= ends[1])], sigma).max()
        gradient.plot(d.tolist(), relative.clamp(max=1.5).tolist(), label=f"sigma {sigma:g}")
    for axis, title in ((value, "kernel distance"), (gradient, "gradient by d, over its largest in the gray range")):
        axis.axvspan(*ends, color="0.9")
        axis.set_title(title)
    value.legend(frameon=False)
    gradient.set_xlabel("d")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)
    if out.suffix == ".svg":  # a hundredth of a point is enough
        out.write_text(re.sub(r"(\d\.\d\d)\d+", r"\1", out.read_text()))
    print(f"\n{out}: {out.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main()
