"""Score a study's students, and their teacher, on other images than the study's own.

python tools/score_students.py options/study.yml --data DATA --task derain --val "{type: PairedImageDataset, ...}" FILE ...
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml
from study import Task

from basicsr.archs import build_network  # isort: skip (study comes first: it imports kd_plugins)


def main() -> None:
    """Print the mean PSNR of each, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--val", required=True, help="a dataset's block")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("students", type=Path, nargs="+")
    args = parser.parse_args()
    given = [f"datasets:val={args.val}", "init=random"]
    vars(args).update(out=Path(), steps=None, pool=1, workers=0, seeds=[0], force_yml=given)  # no crops are needed
    task = Task(args.task, yaml.safe_load(args.file.read_text()), args)
    pairs = [pair for batch in task.scorer.batches for pair in zip(*(part.split(1) for part in batch), strict=True)]
    task.scorer.batches = [[lq, gt] for lq, gt in pairs]  # one at a time: they may be large
    task.seen = True  # its teacher is a line of the table
    print("| | PSNR |\n|---|---:|", flush=True)
    nets = {"teacher": task.model("logits").teachers["degraded"].net}
    for file in args.students:
        nets[file.stem] = build_network(task.options["network_g"]).eval()
        nets[file.stem].load_state_dict(torch.load(file, weights_only=True)["params_ema"])
    for name, net in nets.items():
        print(f"| {name} | {task.scorer(net.to(args.device)):.3f} |", flush=True)


if __name__ == "__main__":
    main()
