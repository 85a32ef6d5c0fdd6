"""Train the rows of a study side by side on one GPU, and write their scores on the way.

python tools/study.py options/study.yml --out FOLDER --data DATA [--tasks derain ...] [--rows SLKD ...] [--seeds 0 1]
    [--steps 10000] [--beside 16] [--minutes 9]

The file has `tasks` (an option file and `force_yml` entries), `rows` (entries more, by name), `milestones`. FOLDER then holds
scores.csv (a line for each score), shares.csv (each term's course, and how much it was trusted), and the students. Runs that are in
scores.csv are not run again. Without a GPU the same runs take hours, one after the other.
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from graphed import Pool, Run, Scorer
from runs import Results
from stacked import Stack
from torch import Tensor

from kd_plugins.models import building, distillation_model
from kd_plugins.run_options import parse_options

from basicsr.data import build_dataset  # isort: skip (kd_plugins comes first: it repairs what basicsr imports)
from basicsr.models import build_model  # isort: skip

COLUMNS = ("task", "row", "seed", "steps", "iteration", "psnr")
SHARES = ("task", "row", "seed", "iteration", "name", "value")
CHUNK = 50  # steps that are queued at once


class Task:
    """What the runs of a task share: crops, validation images, the start.

    Args:
        name: of the task.
        plan: the study's file.
        args: the command line.
    """

    def __init__(self, name: str, plan: Mapping[str, Any], args: argparse.Namespace, steps: int | None = None) -> None:
        self.name, self.plan, self.args, self.block = name, plan, args, plan["tasks"][name]
        self.free: dict[str, Run] = {}  # done, to be begun anew with another seed
        self.seen = False
        self.steps = self.block.get("steps") or steps or args.steps or plan["steps"]
        self.options = self.read([])
        data, device = self.options["datasets"], torch.device(args.device)
        size = min(self.block.get("pool", plan["pool"]), self.steps * self.batch * len(args.seeds))
        self.pool = Pool(build_dataset(data["train"]), args.pool or size, args.workers, device)
        self.scorer = Scorer(build_dataset(data["val"]), self.options["val"]["metrics"]["psnr"], device)

    @property
    def batch(self) -> int:
        """Crops of a step."""
        return self.options["datasets"]["train"]["batch_size_per_gpu"]

    def read(self, entries: Sequence[str]) -> dict[str, Any]:
        """The options of a row."""
        length = [f"train:total_iter={self.steps}", f"train:scheduler:T_max={self.steps}"]
        given = (*self.plan["force_yml"], *self.block["force_yml"], *length, *entries, *self.args.force_yml)
        places = {"DATA/": f"{self.args.data}/", "OUT/": f"{self.args.out}/"}
        forced = [re.sub("|".join(places), lambda found: places[found[0]], entry) for entry in given]
        argv = ["-opt", self.block["base"], "--force_yml", *forced]
        return parse_options(str(self.args.out), True, argv)[0]

    def entries(self, row: str) -> list[str] | None:
        """What a row adds to the task's options; None where the task does not have it."""
        if (row == "teacher") != self.name.startswith("teacher"):
            return None
        found = self.plan["rows"][row]
        return found.get(self.name, found.get("all")) if isinstance(found, Mapping) else found

    def model(self, row: str) -> Any:
        """Build a row's model."""
        model: Any = build_model(self.read(self.entries(row) or []))
        if model.teachers and not self.seen:
            self.seen = True
            print(f"{self.name} teacher: {self.scorer(model.teachers['degraded'].net):.4f}", flush=True)
        return model

    def run(self, row: str) -> Run:
        """Build a row's model and its step."""
        return Run(self.model(row), self.pool, self.steps, self.batch)


def remember_starts() -> None:
    """Inherit once for each start, which is the same for all rows; no table for each of them."""
    starts: dict[str, tuple[Any, Any]] = {}
    start = distillation_model.start_student

    def remembered(student: Any, teacher: Any, opt: Mapping[str, Any]) -> Any:
        key = f"{opt.get('init')} {opt['network_g']} {opt.get('teacher')}"
        if key not in starts:
            kept = start(student, teacher, opt)
            starts[key] = kept, {name: value.clone() for name, value in student.state_dict().items()}
        elif opt.get("init", "random") != "random":
            student.load_state_dict(starts[key][1])
        return starts[key][0]

    distillation_model.start_student = remembered
    building.compare_networks = lambda *_: None


class Entry(NamedTuple):
    """A run, and what it is called."""

    task: Task
    row: str
    seed: int
    run: Run

    def stops(self, milestones: Sequence[int]) -> list[int]:
        """Where it is scored."""
        first = [] if self.row == "teacher" else [0]
        return sorted({*first, *(stop for stop in milestones if stop < self.task.steps), self.task.steps})


def train_all(todo: Iterator[Entry], milestones: Sequence[int], args: argparse.Namespace) -> None:
    """Advance so many runs at once as asked, and score each at its milestones."""
    scores, shares, until = Results(args.out / "scores.csv", COLUMNS), Results(args.out / "shares.csv", SHARES), args.until
    running: list[Entry] = []
    more = True
    while more or running:
        if more and len(running) < args.beside:
            entry = next(todo, None)
            more = entry is not None
            if entry:
                running.append(entry)
                entry.run.advance(0)
        if time.time() > until:
            left = ", ".join(f"{e.task.name} {e.row} {e.seed} at {e.run.done}" for e in running)
            print(f"out of time, unfinished: {left}", flush=True)
            return
        moved = False
        for entry in list(running):
            task, row, seed, run = entry
            if not run.idle():
                continue
            moved = True
            stops = entry.stops(milestones)
            if run.done in stops:
                psnr = task.scorer(run.model.net_g_ema)
                found = {"task": task.name, "row": row, "seed": seed, "steps": task.steps, "iteration": run.done}
                scores.add([{**found, "psnr": f"{psnr:.4f}"}])
                print(f"{time.strftime('%X')} {task.name} {row} {seed} {run.done}: {psnr:.3f}", flush=True)
            if run.done == task.steps:
                keep(entry, shares)
                running.remove(entry)
                task.free[row] = run
                continue
            run.advance(min(CHUNK, min(stop for stop in stops if stop > run.done) - run.done))
        if not moved:
            time.sleep(0.0005)


def file_name(row: str) -> str:
    """A row's name as a part of a file's."""
    return row.replace(",", "").replace(" ", "_")


def keep(entry: Entry, shares: Results) -> None:
    """Write the student, and the course of what it was trained by."""
    task, row, seed, run = entry
    weights = {name: value.detach().cpu().clone() for name, value in run.model.net_g_ema.state_dict().items()}
    name = task.name if row == "teacher" else f"{task.name}_{file_name(row)}_{task.steps}_{seed}"
    torch.save({"params_ema": weights}, task.args.out / f"{name}.pth")
    add_course(shares, {"task": task.name, "row": row, "seed": seed}, run.names, run.log.cpu())


def add_course(shares: Results, run: Mapping[str, Any], names: Sequence[str], log: Tensor) -> None:
    """Write what a run logged, a column of (steps, columns) for each name, as fifty means."""
    every = max(len(log) // 50, 1)
    for name, column in zip(names, log.unbind(1), strict=True):
        means = column[: len(log) // every * every].view(-1, every).mean(1).tolist()
        shares.add([{**run, "name": name, "iteration": (k + 1) * every, "value": f"{value:.5g}"} for k, value in enumerate(means)])


def train_stacked(plan: Mapping[str, Any], args: argparse.Namespace) -> None:
    """Train the runs of `long` as one stack, in the time there is; the averaged weights are kept at each milestone.

    A stack that the time is too short for gets fewer steps, a schedule of the same shape.
    """
    tasks = {name: Task(name, plan, args, plan["steps"]) for name in plan["long"]}
    names = [(task, row, seed) for task, rows in plan["long"].items() for row, seeds in rows.items() for seed in seeds]
    runs = [(tasks[task].model(row), tasks[task].pool, seed) for task, row, seed in names]
    stack = Stack(runs, plan["steps"], tasks[names[0][0]].batch)
    probe = min(plan["steps"], 40)
    stack.advance(probe)
    began = time.time()
    stack.advance(probe)
    each, left = (time.time() - began) / probe, args.stacked * 60
    steps = next((n for n in (plan["steps"], 8000, 6000, 5000, 4000) if n * each < left), 3000)
    print(f"{len(runs)} runs: {1000 * each:.1f} ms a step, {steps} steps", flush=True)
    stack.set_length(steps)
    stack.reset()
    stops = [*(stop for stop in plan["milestones"] if stop < steps), steps]
    for stop in stops:
        stack.advance(stop - stack.done)
        weights = stack.mean.detach().to("cpu", torch.float32 if stop == steps else torch.float16)
        torch.save({"runs": names, "steps": steps, "iteration": stop, "weights": weights}, args.out / f"stack_{stop}.pth")
        print(f"{time.strftime('%X')} {stop}", flush=True)
    shares, log = Results(args.out / "shares.csv", SHARES), stack.log[:steps].cpu()
    for (task, row, seed), logged in zip(names, stack.logs, strict=True):
        own, log = log[:, : len(logged)], log[:, len(logged) :]
        add_course(shares, {"task": task, "row": row, "seed": seed}, logged, own)


def missing(tasks: Sequence[Task], rows: Sequence[str], seeds: Sequence[int], done: Results) -> Iterator[Entry]:
    """The runs that are missing, built when they are asked for; a row's second seed takes the place of its first."""
    for task, seed, row in itertools.product(tasks, seeds, rows):
        if task.entries(row) is None or done.has(task=task.name, row=row, seed=seed, steps=task.steps, iteration=task.steps):
            continue
        try:
            run = task.free.pop(row) if row in task.free else task.run(row)
        except Exception as error:  # one row that cannot be captured is no reason to lose the others
            print(f"{task.name} {row}: {type(error).__name__}: {error}", flush=True)
            continue
        run.reset(seed)
        yield Entry(task, row, seed, run)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="what DATA stands for in the file")
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--rows", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--force_yml", nargs="+", default=[], help="for every run, after the file's own")
    parser.add_argument("--pool", type=int, help="how many crops are drawn")
    parser.add_argument("--beside", type=int, default=16, help="runs at once")
    parser.add_argument("--workers", type=int, default=14, help="processes that draw crops")
    parser.add_argument("--stacked", type=float, default=0, metavar="MINUTES", help="first the runs of `long` as one stack")
    parser.add_argument("--minutes", type=float, default=1e6)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args(argv)
    plan = yaml.safe_load(args.file.read_text())
    args.until = time.time() + 60 * args.minutes
    args.out.mkdir(parents=True, exist_ok=True)
    remember_starts()
    if args.stacked:
        train_stacked(plan, args)
    tasks = []
    for name in plan["tasks"] if args.tasks is None else args.tasks:
        began = time.time()
        tasks.append(Task(name, plan, args))
        print(f"{name}: {len(tasks[-1].pool.lq)} crops in {time.time() - began:.0f} s", flush=True)
    todo = missing(tasks, args.rows or list(plan["rows"]), args.seeds, Results(args.out / "scores.csv", COLUMNS))
    train_all(todo, plan["milestones"], args)


if __name__ == "__main__":
    main()
