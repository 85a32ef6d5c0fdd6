"""Score what `tools/study.py --stacked` kept at its milestones, into the study's scores.csv.

python tools/score_stack.py options/study.yml --out FOLDER --data DATA [--students ROW ...]

With --students the students of these rows, first seed, at the last milestone, are written as FOLDER/TASK_ROW.pth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import yaml
from runs import Results
from study import COLUMNS, Task, file_name

from basicsr.archs import build_network  # isort: skip (study comes first: it imports kd_plugins)


def main() -> None:
    """Score what is not scored yet, the last milestone first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--students", nargs="*", default=[])
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    vars(args).update(steps=None, pool=1, workers=0, seeds=[0], force_yml=[])  # no crops are needed
    plan, results = yaml.safe_load(args.file.read_text()), Results(args.out / "scores.csv", COLUMNS)
    known: dict[str, Task] = {}
    for file in sorted(args.out.glob("stack_*.pth"), key=lambda path: -int(path.stem.split("_")[1])):
        stack = torch.load(file, weights_only=True)
        for (task, row, seed), weights in zip(stack["runs"], stack["weights"], strict=True):
            found = {"task": task, "row": row, "seed": seed, "steps": stack["steps"], "iteration": stack["iteration"]}
            if task not in known:
                known[task] = Task(task, plan, args)
            net = build_network(known[task].options["network_g"]).to(args.device).eval()
            torch.nn.utils.vector_to_parameters(weights.float().to(args.device), net.parameters())
            if row in args.students and seed == 0 and stack["iteration"] == stack["steps"]:
                torch.save({"params_ema": net.state_dict()}, args.out / f"{task}_{file_name(row)}.pth")
            if not results.has(**found):
                results.add([{**found, "psnr": f"{known[task].scorer(net):.4f}"}])
                print(results.rows[-1], flush=True)


if __name__ == "__main__":
    main()
