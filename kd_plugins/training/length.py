"""The length of a training: what follows it where another one is chosen, and how many steps fit into a time."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch

from kd_plugins import distributed
from kd_plugins.data.crop_stages import STAGES
from kd_plugins.data.training_data import TrainingData
from kd_plugins.errors import OutOfMemory, lacks_memory
from kd_plugins.mappings import blocks_in, mapping
from kd_plugins.randomness import kept_randomness
from kd_plugins.training.fade import is_share
from kd_plugins.training.loop import Loop

_POINTS, _LENGTHS = ("T_max", "milestones", "restarts"), ("periods",)  # of schedules: iterations, and how many of them
_TIMED, _ROUND = 3, 10  # steps at each place, the first of which warms up; the most that a round of terms (`every`) is timed for
_LEAST = 10  # fewer steps are no training
_SHARE = 0.9  # of a time: images of the validation differ in size, steps in speed

Build = Callable[[dict[str, Any]], tuple[Any, TrainingData, Sequence[Any], int]]
"""A run's model, training data, validation loaders and last iteration, of its options."""


def at_length(opt: Mapping[str, Any], iterations: int) -> dict[tuple[str, ...], Any]:
    """What other values a run of another length has, so that its course keeps its shape: by their keys.

    Total, warm-up and the discriminator's steps alone, the schedule, fades told in iterations, and the stages of the training data.

    Args:
        opt: the options.
        iterations: the length.
    """
    train, data = opt["train"], mapping(mapping(opt.get("datasets")).get("train"))
    factor = iterations / train["total_iter"]

    def moved(value: Any) -> Any:
        return [moved(each) for each in value] if isinstance(value, list) else value and max(round(value * factor), 1)

    def resized(lengths: Sequence[float]) -> list[int]:
        ends = [0, *(round(end * factor) for end in accumulate(lengths))]
        return [max(end - start, 1) for start, end in pairwise(ends)]

    changed: dict[tuple[str, ...], Any] = {("train", "total_iter"): iterations}
    starts = [key for key in ("warmup_iter", "net_d_init_iters") if (train.get(key) or 0) > 0]
    changed |= {("train", key): moved(train[key]) for key in starts}
    schedule = mapping(train.get("scheduler"))
    changed |= {("train", "scheduler", key): moved(schedule[key]) for key in _POINTS if key in schedule}
    changed |= {("train", "scheduler", key): resized(schedule[key]) for key in _LENGTHS if key in schedule}
    for name, block in blocks_in(train.get("distill")):
        fade = mapping(block.get("fade"))
        for key in ("start", "end"):
            if (value := fade.get(key)) and not is_share(value):  # shares: whole numbers of a short run could meet
                own = value / train["total_iter"]
                changed["train", "distill", name, "fade", key] = own if own <= 1 else moved(value)
    if data.get(STAGES):
        changed["datasets", "train", STAGES] = list(_moved_stages(data[STAGES], factor))
    if data.get("iters"):
        changed["datasets", "train", "iters"] = resized(data["iters"])
    return changed


def _moved_stages(stages: Sequence[Mapping[str, Any]], factor: float) -> Iterator[dict[str, Any]]:
    end = 0
    for stage in stages:
        end = max(round((stage.get("until") or 0) * factor), end + 1)
        yield {**stage, "until": end} if stage.get("until") else dict(stage)


def resize(opt: dict[str, Any], iterations: int) -> None:
    """Give options another length, in place; see `at_length`."""
    for (*above, key), value in at_length(opt, iterations).items():
        block = opt
        for name in above:
            block = block[name]
        block[key] = value


class Pace(NamedTuple):
    """How long a run takes.

    Attributes:
        start: seconds until its first step, and of a first validation.
        step: seconds of a step, the mean over the run, with its share of the validations.
    """

    start: float
    step: float


def steps_within(seconds: float, opt: Mapping[str, Any], build: Build, key: str) -> tuple[int, float]:
    """How many steps of a run take a time, its start, its validations and the measurement included; all processes call this.

    Args:
        seconds: the time.
        opt: the options of the run.
        build: builds it.
        key: what says the time, for messages.

    Returns:
        The number of steps, and the seconds of one.

    Raises:
        ValueError: the time is over before the first ten steps.
        OutOfMemory: there is not enough memory for a step of one of the stages.
    """
    begun = time.perf_counter()
    pace = measure(opt, build)
    spent = _since(begun) + pace.start
    own = int((_SHARE * seconds - spent) / pace.step), pace, spent
    steps, pace, spent = min(distributed.all_gather_objects(own))  # the slowest process
    if steps < _LEAST:
        least = math.ceil((spent + _LEAST * pace.step) / _SHARE)
        raise ValueError(
            f"{key}: {seconds:g} seconds, and the start takes {spent:.0f} seconds, a step {pace.step:.2f}; expected at least "
            f"{least} seconds ({math.ceil(100 * least / 60) / 100:g} minutes)"
        )
    return steps, pace.step


def measure(opt: Mapping[str, Any], build: Build) -> Pace:
    """Take steps at both halves of each stage (terms may fade on the way), and restore an image of each validation set."""
    own: dict[str, Any] = copy.deepcopy(dict(opt))
    own["logger"]["use_tb_logger"] = False
    begun = time.perf_counter()
    with kept_randomness():
        model, data, val_loaders, total = build(own)
        start = _since(begun)
        model.schedulers = []  # more steps than the run has may be timed
        loop = Loop(own, model, data, [])
        try:
            places = list(_places(data, total))
            step = sum((end - first) * _step_seconds(loop, first) for first, end in places) / total
            first, later = _validation_seconds(model, val_loaders) if own.get("val") else (0.0, 0.0)
        except RuntimeError as error:
            if not lacks_memory(error):
                raise
            raise OutOfMemory(f"not enough memory: {' '.join(str(error).split())[:200]}") from error
    return Pace(start + first, step + (later / own["val"]["val_freq"] if later else 0.0))


def _places(data: TrainingData, total: int) -> Iterator[tuple[int, int]]:
    for stage in data.stages:
        first, end = int(stage.first), int(min(stage.until, total))
        middle = (first + end) // 2
        yield from ((a, b) for a, b in ((first, middle), (middle, end)) if a < b)


def _step_seconds(loop: Loop, iteration: int) -> float:
    loop.current_iter, times = iteration, []
    warm_up = min(loop.period, _ROUND)
    with closing(loop.data.batches(iteration, (0, 0))) as batches:
        for _ in range(max(_TIMED, 2 * warm_up)):
            begun = time.perf_counter()
            loop.step(next(batches)[1])
            times.append(_since(begun))
    return statistics.mean(times[warm_up:])


def _validation_seconds(model: Any, loaders: Sequence[Any]) -> tuple[float, float]:
    """Of all images: with the teacher's scores, which are computed once, and without."""
    seconds = [0.0, 0.0]
    for loader in loaders:
        one = _FirstImage(loader)
        images = -(-len(loader.dataset) // distributed.world_size())
        for turn in range(2):
            begun = time.perf_counter()
            model.validator.run(one, 0, None, False)
            seconds[turn] += images * _since(begun)
    return seconds[0], seconds[1]


class _FirstImage:
    def __init__(self, loader: Any) -> None:
        self.dataset, self.batch = loader.dataset, next(iter(loader), None)

    def __iter__(self) -> Iterator[Any]:
        yield dict(self.batch) if self.batch else None


def _since(begun: float) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun
