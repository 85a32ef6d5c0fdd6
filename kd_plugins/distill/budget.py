"""How many steps fit into a time: a few are taken, and timed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from kd_plugins.process import prepare_process
from kd_plugins.run_options import parse_options
from kd_plugins.train import build_run, held_log
from kd_plugins.training.loop import Loop

_STEPS = 6  # terms may fade out by half of a training: steps of both halves count
_LEAST = 10  # fewer steps are no training
_SHARE = 0.9  # of the time; the rest is for validation


def steps_within(seconds: float, text: str) -> tuple[int, float]:
    """How many steps of a training take a time, its start included.

    Args:
        seconds: the time.
        text: the option file, of a training of 6 steps.

    Returns:
        The number of steps, and the seconds that each takes.

    Raises:
        ValueError: the time is over before the first ten steps.
    """
    with tempfile.TemporaryDirectory() as folder, held_log():
        file = Path(folder) / "options.yml"
        file.write_text(text, encoding="utf-8")
        opt, _ = parse_options(folder, True, ["-opt", str(file)])
        prepare_process(opt)
        begun = time.perf_counter()
        model, data, *_ = build_run(opt)
        started = time.perf_counter() - begun
        opt["logger"]["use_tb_logger"] = False
        loop = Loop(opt, model, data, [])
        times = [_timed(loop, batch) for _, (_, batch) in zip(range(_STEPS), data.batches(0, (0, 0)), strict=False)]
    half = _STEPS // 2
    step = (sum(times[1:half]) + sum(times[half + 1 :])) / (_STEPS - 2)  # the first of each half warms up
    steps = int((_SHARE * seconds - started) / step)
    if steps < _LEAST:
        least = (started + _LEAST * step) / _SHARE
        raise ValueError(
            f"--budget {seconds:g}s: the start takes {started:.0f} s, a step {step:.2f} s, expected {least:.0f}s or more"
        )
    return steps, step


def training_steps() -> int:
    """The steps of a training that is timed."""
    return _STEPS


def _timed(loop: Loop, data: Any) -> float:
    begun = time.perf_counter()
    loop.step(data)
    return time.perf_counter() - begun
