"""Time one distillation step over its floor: the teacher's forward on the step's batch, plus the plain student step.

For DCKD the floor also has the history model's forward and the tokenizer's two passes; beside them stands what a pass for each
image and each loss would cost.

python tools/benchmark_step.py [-opt options/slkd_derain.yml] [--rounds 10] [--threads 1 2] [--force_yml KEY=VALUE ...]

All parts are timed in turn in one run, round after round; the medians and their ratios are printed as Markdown.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch

from kd_plugins.data import DegradedPhotoDataset
from kd_plugins.losses.encodings import CODES, NEGATIVES, Encodings
from kd_plugins.models import DistillationModel
from kd_plugins.process import prepare_process
from kd_plugins.run_options import parse_options
from kd_plugins.train import build_registered_model

APART = "encoder, a pass for each image and loss (not in the floor)"
FLOOR = ("teacher forward", "student step", "history forward", "encoder passes")


def main() -> None:
    """Build the model once, time its parts for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-opt", default="options/slkd_derain.yml")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--force_yml", nargs="+", default=[])
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as root:
        forced = ["--force_yml", "manual_seed=0", *args.force_yml]
        opt, _ = parse_options(root, is_train=True, argv=["-opt", args.opt, *forced])
        prepare_process(opt)
        model = build_registered_model(opt)
    dataset = DegradedPhotoDataset(**opt["datasets"]["train"])
    items = [dataset[index % len(dataset)] for index in range(opt["datasets"]["train"]["batch_size_per_gpu"])]
    model.feed_data({key: torch.stack([item[key] for item in items]) for key in ("lq", "gt")})
    for threads in args.threads:
        torch.set_num_threads(threads)
        report(measure(model, args.rounds), threads, tuple(model.lq.shape))


def measure(model: DistillationModel, rounds: int) -> dict[str, float]:
    """Median seconds of each part."""
    terms = dict(model.terms)
    parts: dict[str, Callable[[], None]] = {
        "teacher forward": lambda: teacher(model, terms),
        "student step": lambda: step(model, {}),
        **dckd_parts(model),
        "whole step": lambda: step(model, terms),
        **{f"without {name}": lambda name=name: step(model, {k: v for k, v in terms.items() if k != name}) for name in terms},
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + 1):
        for name, part in parts.items():
            wait(model)
            start = time.perf_counter()
            part()
            wait(model)
            if turn:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    model.terms = terms
    return {name: statistics.median(values) for name, values in times.items()}


def dckd_parts(model: DistillationModel) -> dict[str, Callable[[], None]]:
    """The history model's forward, and the tokenizer's passes, forward and back to the student's image, as they are and apart."""
    if not model.wants_negatives:
        return {}
    losses: list[Any] = [term.loss for term in model.terms.values() if "encodings" in term.asks]
    with torch.no_grad(), model.precision.autocast(model.device):
        mine, theirs, negatives = model.net_g(model.lq), model.show()["degraded"].image, model.make_negatives()
    mine.requires_grad_()

    def history() -> None:
        with model.precision.autocast(model.device):
            model.make_negatives()

    def together() -> None:
        with model.precision.autocast(model.device):
            encodings = Encodings(mine, theirs, negatives, losses)
            seen = [encodings(extractor).student for extractor in {loss.extractor: None for loss in losses}]
        back(seen)

    def apart() -> None:
        seen = []
        with model.precision.autocast(model.device):
            for loss in losses:
                for image in (mine, theirs, *(negatives if NEGATIVES in loss.reads else ())):
                    space = loss.extractor
                    seen.append(space.encode(image) if CODES in loss.reads else (space(image), None))
        back([encoded for encoded in seen if encoded[0][0].requires_grad])

    def back(seen: list) -> None:
        sum(x.float().mean() for levels, z in seen for x in (*levels, *(() if z is None else (z,)))).backward()  # type: ignore[union-attr]

    return {"history forward": history, "encoder passes": together, APART: apart}


def teacher(model: DistillationModel, terms: dict) -> None:
    """The teacher on the views that the terms ask for."""
    model.active = list(terms.values())
    with model.precision.autocast(model.device):
        model.show()


def step(model: DistillationModel, terms: dict) -> None:
    """A whole step with these terms."""
    model.terms = terms
    model.optimize_parameters(1)


def wait(model: DistillationModel) -> None:
    """Let a GPU finish."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def report(times: dict[str, float], threads: int, shape: tuple[int, ...]) -> None:
    """The table."""
    parts = [name for name in FLOOR if name in times]
    floor = sum(times[name] for name in parts)
    print(f"\nbatch {shape}, {threads} thread(s)\n\n| part | ms | over the floor |\n|---|---:|---:|")
    print(f"| floor: {' + '.join(parts)} | {floor * 1e3:.0f} | 1.00 |")
    for name, seconds in times.items():
        print(f"| {name} | {seconds * 1e3:.0f} | {seconds / floor:.2f} |")


if __name__ == "__main__":
    main()
