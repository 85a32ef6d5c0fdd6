"""How many steps of a distillation's training fit into a time."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kd_plugins.process import prepare_process
from kd_plugins.run_options import parse_options
from kd_plugins.train import build_run
from kd_plugins.training import length
from kd_plugins.training.run_log import held_log

STEPS = 6  # of a training that is timed


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
        opt["val"] = None  # how often is not known before the length is
        return length.steps_within(seconds, opt, build_run, "--budget")
