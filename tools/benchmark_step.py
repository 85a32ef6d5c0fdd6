"""Time a distillation step over its floor: the teacher's forward on the step's batch, plus the plain student step.

For DCKD the floor also has the history model's forward and the tokenizer's two passes.

    python tools/benchmark_step.py                                # options/slkd_derain.yml, one thread and two
    python tools/benchmark_step.py -opt options/skd_derain.yml --variants "" compile=true "amp=bf16 channels_last=false"
    python tools/benchmark_step.py --against GITREV               # this tree beside an older one
    python tools/benchmark_step.py --published --seconds 300      # Restormer 26.1 M to 3.8 M on a GPU, 128², batch 8, bf16

Each variant (KEY=VALUE entries of the option file) of each tree is a process of its own. They stay, and take rounds in turn: a busy
machine is busy for all of them. Medians over the rounds are printed as Markdown; CPU ms is the processor's time of all threads.
"""

import argparse
import itertools
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FLOOR = ("teacher forward", "student step", "history forward", "encoder passes")
WHOLE = "whole step"
HEAD = "| | part | ms | over the floor | CPU ms | over the floor | images/s | peak MB |\n|---|---|" + "---:|" * 6
PUBLISHED = {
    "network_g": {"dim": 24, "num_blocks": [2, 3, 3, 4], "num_refinement_blocks": 2, "ffn_expansion_factor": 2.66},
    "teacher": {"dim": 48, "num_blocks": [4, 6, 6, 8], "num_refinement_blocks": 4, "ffn_expansion_factor": 2.66},
}


def main() -> None:
    """Read the arguments; measure each option file with each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", nargs="+", default=["options/slkd_derain.yml"])
    parser.add_argument(
        "--variants", nargs="+", default=[""], help="entries of the option file, in quotes; '' is the file as it is"
    )
    parser.add_argument("--against", metavar="GITREV", help="measure this revision too, in the first variant")
    parser.add_argument("--terms", action="store_true", help="also a step without each of the terms")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--published", action="store_true", help="the three methods at the published sizes, eager and compiled")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin nothing after so many seconds")
    parser.add_argument("--force_yml", nargs="+", default=[])
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)  # a process of one variant, with so many threads
    args = parser.parse_args()
    if args.serve:
        serve(args.opt[0], args.force_yml, args.serve, args.terms)
        return
    deadline = time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as folder, trees(args.against) as sides:
        if args.published:
            args.opt = [f"options/{method}_derain.yml" for method in ("slkd", "skd", "dckd")]
            args.variants, args.threads = ["amp=bf16", "amp=bf16 compile=true"], [os.cpu_count() or 1]
            args.force_yml = [*published(Path(folder)), *args.force_yml]
        steps = [row for threads in args.threads for row in measure(args, threads, sides, deadline)]
    print(f"\nWhole steps:\n\n{HEAD.replace('part', 'threads')}\n" + "\n".join(steps), flush=True)


@contextmanager
def trees(revision: str | None) -> Iterator[dict[str, Path]]:
    """The trees to measure, by name: this one, and a revision of it."""
    if not revision:
        yield {"": ROOT}
        return
    with tempfile.TemporaryDirectory() as folder:
        archive, other = Path(folder, "tree.tar"), Path(folder, "tree")
        subprocess.run(["git", "-C", ROOT, "archive", "--output", archive, revision], check=True)
        with tarfile.open(archive) as content:
            content.extractall(other, filter="data")
        yield {revision: other, "now": ROOT}


def published(folder: Path) -> list[str]:
    """Entries of the published sizes; the teacher's weights are random, which costs the same."""
    import torch

    from kd_plugins.archs import Restormer

    file = folder / "teacher.pth"
    torch.save({"params": Restormer(**PUBLISHED["teacher"]).state_dict()}, file)
    teacher = json.dumps({"checkpoint": str(file), "type": "Restormer", **PUBLISHED["teacher"]})
    student = json.dumps({"type": "Restormer", **PUBLISHED["network_g"]})
    sizes = ["datasets:train:gt_size=128", "datasets:train:batch_size_per_gpu=8", "num_gpu=1"]
    return [*sizes, f"teacher={teacher}", f"network_g={student}", "init=random"]


# -------------------------------------------------------------------------------------------------- the parent process


def measure(args: argparse.Namespace, threads: int, sides: dict[str, Path], deadline: float) -> list[str]:
    """Start a process for each file, tree and variant, let them take rounds in turn, print a table, return its whole steps."""
    servers = {}
    for file, (side, tree) in itertools.product(args.opt, sides.items()):
        for variant in args.variants[: 1 if side == args.against else None]:
            name = ": ".join(part for part in (side, variant or "as it is") if part)
            servers[f"{Path(file).stem}, {name}"] = start(file, tree, variant, threads, args)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    with ThreadPoolExecutor(len(servers)) as waiting:
        warming = {waiting.submit(ask, server): name for name, server in servers.items()}  # the first round, of all at once
        try:
            left = deadline - time.monotonic()
            for late in wait(warming, 0.8 * left if left < float("inf") else None).not_done:
                servers[warming[late]].kill()
                print(f"{warming[late]}: not ready in time")
            for _ in range(args.rounds):
                for name, server in servers.items():
                    if time.monotonic() < deadline and server.poll() is None and (answer := ask(server)):
                        rounds[name].append(answer)
        finally:
            for server in servers.values():
                server.kill()
                server.wait()
    return report({name: found for name, found in rounds.items() if found}, threads)


def start(file: str, tree: Path, variant: str, threads: int, args: argparse.Namespace) -> "subprocess.Popen[str]":
    """Start the process of a variant."""
    entries = [*args.force_yml, *shlex.split(variant)]
    extra = [*(["--terms"] if args.terms else []), *(["--force_yml", *entries] if entries else [])]
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", str(threads), "-opt", str(Path(file).resolve()), *extra]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, cwd=tree, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def ask(server: "subprocess.Popen[str]") -> dict[str, Any] | None:
    """One round of a process; None where it has died."""
    assert server.stdin and server.stdout
    try:
        server.stdin.write("\n")
        server.stdin.flush()
    except BrokenPipeError:
        return None
    line = server.stdout.readline()
    return json.loads(line) if line else None


def report(rounds: dict[str, list[dict[str, Any]]], threads: int) -> list[str]:
    """Print the table, wall and CPU time of each part over the floor of its own variant; returns the rows of whole steps."""
    print(f"\n{HEAD}")
    steps = []
    for name, found in rounds.items():
        wall, cpu = (_medians([each[clock] for each in found]) for clock in ("wall", "cpu"))
        for part in wall:
            cells = [f"{seconds[part] * 1e3:.1f} | {seconds[part] / seconds['floor']:.2f}" for seconds in (wall, cpu)]
            images, memory = found[0]["shape"][0] / wall[part], max(each["memory"] for each in found)
            cells.append(f"{images:.1f} | {memory:.0f}" if part == WHOLE else " | ")
            print(f"| {name} | {part} | {' | '.join(cells)} |", flush=True)
            steps += [f"| {name} | {threads} | {' | '.join(cells)} |"] if part == WHOLE else []
    return steps


def _medians(times: list[dict[str, float]]) -> dict[str, float]:
    middle = {part: statistics.median(each[part] for each in times) for part in times[0]}
    return {"floor": sum(middle[part] for part in FLOOR if part in middle), **middle}


# -------------------------------------------------------------------------------------------------- the process of a variant


def serve(file: str, entries: list[str], threads: int, each_term: bool) -> None:
    """Build a model, then time its parts once for each line that comes in."""
    import torch

    from kd_plugins.data import DegradedPhotoDataset
    from kd_plugins.process import prepare_process
    from kd_plugins.run_options import parse_options
    from kd_plugins.train import build_registered_model

    answers, sys.stdout = sys.stdout, sys.stderr
    with tempfile.TemporaryDirectory() as root:
        forced = ["--force_yml", "manual_seed=0", f"num_threads={threads}", *entries]
        opt, _ = parse_options(root, is_train=True, argv=["-opt", file, *forced])
        prepare_process(opt)
        model = build_registered_model(opt)
    torch.set_num_threads(threads)
    dataset = DegradedPhotoDataset(**opt["datasets"]["train"])
    items = [dataset[index % len(dataset)] for index in range(opt["datasets"]["train"]["batch_size_per_gpu"])]
    model.feed_data({key: torch.stack([item[key] for item in items]) for key in ("lq", "gt")})
    parts, on_gpu = parts_of(model, each_term), model.device.type == "cuda"
    period = getattr(model, "period", 1)  # steps after which terms with `every` come round: their mean is told

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    for _ in sys.stdin:
        times: dict[str, dict[str, float]] = {"wall": {}, "cpu": {}}
        for name, part in parts.items():
            wait()
            start = time.perf_counter(), time.process_time()
            for iteration in range(1, period + 1):
                part(iteration)
            wait()
            for clock, now, then in zip(times, (time.perf_counter(), time.process_time()), start, strict=True):
                times[clock][name] = (now - then) / period
        memory = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(json.dumps({**times, "memory": memory, "shape": list(model.lq.shape)}), file=answers, flush=True)


def parts_of(model: Any, each_term: bool) -> dict[str, Callable[[int], Any]]:
    """What is timed, by name, each called with an iteration."""
    terms = dict(model.terms)

    def teacher(_: int) -> None:
        model.active = list(terms.values())
        with model.precision.autocast(model.device):
            model.show()

    def step(iteration: int, chosen: dict[str, Any]) -> None:
        model.terms = chosen
        model.optimize_parameters(iteration)

    without = {f"without {name}": {key: term for key, term in terms.items() if key != name} for name in terms if each_term}
    return {
        "teacher forward": teacher,
        "student step": partial(step, chosen={}),
        **dckd_parts(model),
        WHOLE: partial(step, chosen=terms),
        **{name: partial(step, chosen=chosen) for name, chosen in without.items()},
    }


def dckd_parts(model: Any) -> dict[str, Callable[[int], Any]]:
    """The history model's forward, and the tokenizer's passes, forward and back to the student's image."""
    if not model.wants_negatives:
        return {}
    import torch

    from kd_plugins.losses.encodings import Encodings

    losses: list[Any] = [term.loss for term in model.terms.values() if "encodings" in term.asks]
    model.active = list(model.terms.values())
    with torch.no_grad(), model.precision.autocast(model.device):
        mine, theirs, negatives = model.net_g(model.lq), model.show()["degraded"].image, model.make_negatives()
    mine = mine.requires_grad_()

    def history(_: int) -> None:
        with model.precision.autocast(model.device):
            model.make_negatives()

    def encode(_: int) -> None:
        with model.precision.autocast(model.device):
            encodings = Encodings(mine, theirs, negatives, losses)
            seen = [encodings(extractor).student for extractor in {loss.extractor: None for loss in losses}]
        found = [x.float().mean() for levels, z in seen for x in (*levels, *(() if z is None else (z,)))]
        torch.stack(found).sum().backward()

    return {"history forward": history, "encoder passes": encode}


if __name__ == "__main__":
    main()
