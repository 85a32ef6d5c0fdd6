"""What the tools that train many runs share: one run, what is finished, and tables of mean and spread."""

from __future__ import annotations

import csv
import io
import logging
import os
import shutil
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")
Row = Mapping[str, Any]
Scores = Mapping[str, Mapping[str, Mapping[str, float]]]  # dataset, role, metric


def my_share(items: Sequence[Item], share: str) -> list[Item]:
    """Of 'k/n': every n-th, from the k-th on."""
    number, count = map(int, share.split("/"))
    return list(items[number - 1 :: count])


def train(file: str, entries: Sequence[str], out: Path, name: str, resume: bool = False) -> tuple[Scores, float]:
    """One training, in OUT/experiments/NAME; returns its last scores and the seconds it took.

    Args:
        file: the option file.
        entries: `--force_yml` entries.
        out: the folder of all runs.
        name: of this one.
        resume: go on where it was stopped; otherwise what is there is removed.
    """
    from kd_plugins.train import train_pipeline

    if not resume:
        shutil.rmtree(out / "experiments" / name, ignore_errors=True)
    started = time.time()
    arguments = ["-opt", file, *(["--auto_resume"] if resume else []), "--force_yml", *entries, f"name={name}"]
    try:
        model = train_pipeline(str(out), arguments)
    finally:
        close_log()
    return model.validator.scores, time.time() - started


def close_log() -> None:
    """BasicSR opens its log once for a process; the next run gets its own."""
    from basicsr.utils.logger import initialized_logger

    logger = logging.getLogger("basicsr")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    initialized_logger.clear()


def scored(scores: Scores, role: str = "student") -> dict[str, float]:
    """Values by 'dataset/metric'."""
    return {f"{dataset}/{metric}": value for dataset, roles in scores.items() for metric, value in roles.get(role, {}).items()}


class Results:
    """The finished runs, a line for each score.

    Args:
        file: a CSV file; made with the first run.
        columns: its header.
    """

    def __init__(self, file: Path, columns: Sequence[str]) -> None:
        self.file, self.columns = file, list(columns)

    @property
    def rows(self) -> list[dict[str, str]]:
        """All lines so far."""
        if not self.file.exists():
            return []
        with self.file.open(newline="") as stream:
            return list(csv.DictReader(stream))

    def has(self, **run: object) -> bool:
        """Whether a run is there, told by some of the columns."""
        return any(all(row[key] == str(value) for key, value in run.items()) for row in self.rows)

    def add(self, rows: Iterable[Row]) -> None:
        """All lines of a run in one piece: shares may write side by side, and half a run would count as one."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        if not self.file.exists():
            writer.writeheader()
        writer.writerows(rows)
        with self.file.open("a", newline="") as stream:
            stream.write(text.getvalue())
            stream.flush()
            os.fsync(stream.fileno())


def spread(values: Sequence[float]) -> str:
    """'mean ± standard deviation (count)'; nothing for no value."""
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{deviation} ({len(values)})" if values else ""


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, *rows]
    return "\n".join([f"| {' | '.join(lines[0])} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in lines[1:])])
