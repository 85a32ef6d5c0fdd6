"""Kill runs at random moments, let them go on, and compare their weights with those of a run that was not killed.

    python tools/kill_runs.py --seed 0                  # each method, 60 steps, two SIGKILLs, in one process
    python tools/kill_runs.py --seed 0 --processes 2    # the same under torchrun
    python tools/kill_runs.py --steps 8 --kills 1 --methods options/slkd_derain.yml --force_yml compile=true

Exit code 0 says that every bit of every network agrees: student, its average, history model, conversion, terms that learn.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import torch
import yaml
from small_runs import small_runs

from kd_plugins.options import read_option_file

ROOT = Path(__file__).resolve().parents[1]


def start(file: Path, args: argparse.Namespace, *arguments: str) -> subprocess.Popen[bytes]:
    """Begin a run in the folder of its option file; what it says goes to log.txt there."""
    run = ["-m", "kd_plugins.cli", "train", "-opt", file.name, *arguments]
    if args.processes > 1:
        launcher = ("-m", "torch.distributed.run", f"--nproc_per_node={args.processes}")
        meeting = ("--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0")
        run = [*launcher, *meeting, *run, "--launcher", "pytorch"]
    command = [sys.executable, *run, *(["--force_yml", *args.force_yml] if args.force_yml else [])]
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with (file.parent / "log.txt").open("a") as log:
        return subprocess.Popen(command, cwd=file.parent, env=environment, stdout=log, stderr=log)


def kill(process: subprocess.Popen[bytes], processes: int) -> None:
    """SIGKILL to every process of a run: the end of torchrun would not be that of its workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split() if processes > 1 else []
    for pid in [*map(int, children), process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.wait()


def newest(states: Path) -> int:
    """The newest state's iteration, 0 where there is none."""
    return max((int(state.stem) for state in states.glob("*.state")), default=0)


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a good end."""
    if process.wait():
        raise SystemExit((folder / "log.txt").read_text()[-5000:])


def differing(mine: Path, theirs: Path) -> list[str]:
    """What differs between two folders of networks, of those in the second; or that there are none."""
    wrong = [] if list(theirs.glob("*_latest.pth")) else ["no networks"]
    for file in sorted(theirs.glob("*_latest.pth")):
        a, b = (torch.load(folder / file.name, weights_only=True) for folder in (mine, theirs))
        wrong += [f"{file.stem}: {key}" for part in b for key in b[part] if not torch.equal(a[part][key], b[part][key])]
    return wrong


def try_method(name: str, options: dict[str, Any], folder: Path, args: argparse.Namespace, random: Random) -> bool:
    """One run straight, one killed: whether they agree."""
    options["train"]["total_iter"] = args.steps
    options["logger"]["save_checkpoint_freq"] = 4
    options["datasets"].pop("val", None)
    options.pop("val", None)
    for run in ("straight", "killed"):
        (folder / f"{run}.yml").write_text(yaml.safe_dump({**options, "name": run}, sort_keys=False))
    finish(start(folder / "straight.yml", args), folder)
    states, killed_at = folder / "experiments" / "killed" / "training_states", []
    for part in range(args.kills):
        first = part * args.steps // (args.kills + 1)
        wanted = random.randint(max(first, 4), (part + 1) * args.steps // (args.kills + 1))
        process = start(folder / "killed.yml", args, "--auto_resume")
        while newest(states) < wanted // 4 * 4:
            if process.poll() is not None:
                raise SystemExit((folder / "log.txt").read_text()[-5000:])
            time.sleep(0.005)
        time.sleep(random.uniform(0, args.delay))
        kill(process, args.processes)
        killed_at.append(newest(states))
    finish(start(folder / "killed.yml", args, "--auto_resume"), folder)
    wrong = differing(*(folder / "experiments" / run / "models" for run in ("killed", "straight")))
    print(f"{name}: killed after the states of {killed_at}, {len(wrong)} tensors differ {wrong[:3] or ''}", flush=True)
    return not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0.5, help="seconds after a state, at most, until the kill")
    parser.add_argument(
        "--methods", nargs="+", default=["SLKD", "SKD", "DCKD", "baseline"], help="of small_runs.py, or option files"
    )
    parser.add_argument("--force_yml", nargs="+", default=[], help="of all runs: compile=true, amp=fp16, ...")
    args = parser.parse_args()
    good = True
    for method in args.methods:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            random = Random(f"{args.seed}/{method}/{args.processes}")
            options = small_runs(folder).get(method) or read_option_file(method, []).opt
            good &= try_method(method, options, folder, args, random)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
