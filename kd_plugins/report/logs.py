"""What a run's log says of its course: losses at each logged iteration, scores of each validation."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kd_plugins.tables import ROLES, UNTAUGHT

Points = dict[int, float]
"""Values by iteration; where a run went on from an earlier iteration, the later value counts."""

_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+: ")
_STEP = re.compile(r"\[epoch:\s*[\d,]+, iter:\s*([\d,]+), lr:\([^)]*\)\](?: \[[^\]]*\])?(.*)")
_VALUE = re.compile(r"(\S+): (\S+)")
_VALIDATION = re.compile(r"Validation (.+) at (\d+)$")
_GAP = re.compile(r"\s{2,}")


@dataclass
class Course:
    """The course of a training.

    Attributes:
        losses: each term of the sum by iteration, weighted, by the name it is logged under, and the sum itself as `total`.
        trust: the share of pixels at which a term with `trust` was trusted.
        scores: by dataset, metric and role (input, student, teacher).
    """

    losses: dict[str, Points] = field(default_factory=dict)
    trust: dict[str, Points] = field(default_factory=dict)
    scores: dict[str, dict[str, dict[str, Points]]] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """The last iteration that is logged, with its losses or its scores."""
        scores = [points for metrics in self.scores.values() for roles in metrics.values() for points in roles.values()]
        return max((max(points) for points in [*self.losses.values(), *scores] if points), default=0)

    @property
    def broken(self) -> str:
        """Where the loss stopped being finite and stayed so, in a sentence; empty where it did not."""
        total = self.losses.get("total", {})
        good = max((iteration for iteration, value in total.items() if math.isfinite(value)), default=-1)
        bad = min((iteration for iteration in total if iteration > good), default=None)
        if bad is None:
            return ""
        values = {name: points[bad] for name, points in self.losses.items() if name != "total" and bad in points}
        terms = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)) or "their sum is not"
        return f"The loss is not finite from iteration {bad} on, as far as it is logged: {terms}."


def read_course(folder: Path) -> Course:
    """Read the logs of a run's folder, those of a run that was stopped and went on in their order.

    Args:
        folder: the run's folder, with `train_*.log`.

    Returns:
        Its course; empty where there is no log.
    """
    course = Course()
    for file in sorted(folder.glob("train_*.log"), key=lambda file: (file.stat().st_mtime, file.name)):
        for record in _records(file.read_text(encoding="utf-8", errors="replace").splitlines()):
            if step := _STEP.search(record[0]):
                _note_step(course, int(step[1].replace(",", "")), step[2])
            elif len(record) > 2 and (validation := _VALIDATION.match(record[1])):
                _note_scores(course, validation[1], int(validation[2]), record[2:])
    return course


def _records(lines: list[str]) -> Iterator[list[str]]:
    """The records of a log: the line with the time, without it, and the lines that follow."""
    record: list[str] = []
    for line in lines:
        if time := _TIME.match(line):
            if record:
                yield record
            record = [line[time.end() :]]
        else:
            record.append(line)
    if record:
        yield record


def _note_step(course: Course, iteration: int, text: str) -> None:
    values = {name: number for name, value in _VALUE.findall(text) if (number := _number(value)) is not None}
    terms = {name: value for name, value in values.items() if name.startswith("l_") and name != "l_total"}
    if terms:
        terms["total"] = sum(terms.values())
    for name, value in terms.items():
        course.losses.setdefault(name, {})[iteration] = value
    for name, value in values.items():
        if name.startswith("trust/"):
            course.trust.setdefault(name.removeprefix("trust/"), {})[iteration] = value


def _note_scores(course: Course, dataset: str, iteration: int, table: list[str]) -> None:
    header, *rows = (_GAP.split(line.strip()) for line in table if line.strip() and not set(line.strip()) <= {"─", "-"})
    for metric, *cells in rows:
        for word, cell in zip(header[1:], cells, strict=False):
            role, value = "student" if word == UNTAUGHT else word, _number(cell)
            if role in ROLES and value is not None:
                course.scores.setdefault(dataset, {}).setdefault(metric, {}).setdefault(role, {})[iteration] = value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
