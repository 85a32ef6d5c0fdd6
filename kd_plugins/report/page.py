"""The page: what was found of a run, in words, tables and charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from kd_plugins import __version__
from kd_plugins.report.charts import Series, chart
from kd_plugins.report.curves import curves, named
from kd_plugins.report.logs import Course
from kd_plugins.report.measure import Comparison
from kd_plugins.report.pictures import Figure, figure
from kd_plugins.report.runs import Cost
from kd_plugins.tables import GAP, ROLES, role_word

_SINGLE = "fp32"


@dataclass
class Findings:
    """All that a page says of a run.

    Attributes:
        name: of the run.
        folder: relative to the page, for links of a page of several runs.
        course: what its log says.
        comparisons: its validation sets.
        costs: of `student`, `teacher`, and of exported files by their name.
        measured_at: size of the image that FLOPs, time and memory are those of.
        device: where they were timed.
        options: the text of the option file.
        has_teacher: whether what was trained is a student.
        notes: what could not be measured, and why.
        precisions: of exported files, by their name.
    """

    name: str
    folder: str
    course: Course
    comparisons: list[Comparison]
    costs: dict[str, Cost]
    measured_at: str = ""
    device: str = ""
    options: str = ""
    has_teacher: bool = True
    notes: list[str] = field(default_factory=list)
    precisions: dict[str, str] = field(default_factory=dict)

    def score(self, role: str) -> float | None:
        """The first metric of the first validation set."""
        if not self.comparisons:
            return None
        first = self.comparisons[0]
        return first.means.get(role, {}).get(next(iter(first.metrics), ""))


class Row(NamedTuple):
    """A row of the table of teacher and student; a heading where it has no cells."""

    name: str
    cells: Sequence[str] = ()
    good: bool | None = None


class Stage(NamedTuple):
    """A stage of the student's life, as a bar.

    Attributes:
        name: of the stage.
        role: what the bar is coloured by.
        value: its score.
        change: from the stage that it follows, nothing for the first.
        share: length of the bar in percent.
    """

    name: str
    role: str
    value: str
    change: str
    share: float


def render_run(found: Findings) -> str:
    """The page of one run."""
    figures = [each for comparison in found.comparisons for each in _figures(comparison)]
    word = role_word("student", found.has_teacher)
    return _render(
        "run.html",
        title=found.name,
        steps=found.course.steps,
        found=found,
        columns=(*(role_word(role, found.has_teacher) for role in ROLES), GAP) if found.has_teacher else ("input", word),
        tiles=list(tiles(found)),
        rows=list(_rows(found)),
        stages=_stages(found.comparisons[0], found.precisions) if found.comparisons else [],
        charts=list(curves(found.course, word)),
        figures=figures,
        footnotes=list(_footnotes(found)),
    )


def render_family(title: str, family: Sequence[Findings]) -> str:
    """The page of several students of a teacher: their front of score over time."""
    return _render("family.html", title=title, family=family, front=_front(family), rows=_family_rows(family))


def _render(template: str, **context: Any) -> str:
    files = resources.files("kd_plugins.report") / "templates"
    loader = FunctionLoader(lambda name: (files / name).read_text(encoding="utf-8"))
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["word"] = role_word
    style, script = (Markup((files / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    return environment.get_template(template).render(version=__version__, style=style, script=script, **context)


# ------------------------------------------------------------------------------------------------ numbers


def tiles(found: Findings) -> Iterator[tuple[str, str]]:
    """The answer at a glance: a number, and what it is of."""
    student, teacher = found.score("student"), found.score("teacher")
    if student is not None and teacher is not None:
        yield f"{_signed('psnr', student - teacher)} dB", "against its teacher"
    elif student is not None:
        yield f"{student:.2f} dB", "PSNR to the teacher" if found.comparisons[0].reference == "teacher" else "PSNR"
        before = found.score("input")
        if before is not None and not found.has_teacher:
            yield f"{_signed('psnr', student - before)} dB", "against its input"
    mine, theirs = found.costs.get("student"), found.costs.get("teacher")
    if mine is None or theirs is None:
        return
    if mine.milliseconds and theirs.milliseconds:
        yield f"{theirs.milliseconds / mine.milliseconds:.1f}×", f"as fast, on {found.device}"
    if mine.params and theirs.params:
        yield _saved(mine.params, theirs.params), "parameters"
    if mine.flops and theirs.flops:
        yield _saved(mine.flops, theirs.flops), "FLOPs"


def _saved(mine: float, theirs: float) -> str:
    return f"{100 * (mine / theirs - 1):+.0f} %".replace("-", "−")


def _rows(found: Findings) -> Iterator[Row]:
    for comparison in found.comparisons:
        yield Row(comparison.dataset)
        for metric, higher in comparison.metrics.items():
            values = [comparison.means.get(role, {}).get(metric) for role in ROLES]
            cells = ["" if value is None else _score(metric, value) for value in values]
            difference = None if None in values[1:] else values[1] - values[2]  # type: ignore[operator]
            good = None if difference is None else (difference >= 0) == higher
            yield Row(named(metric), [*cells, "" if difference is None else _signed(metric, difference)], good)
    if found.costs:
        yield Row("Cost")
        yield from _cost_rows(found)


def _cost_rows(found: Findings) -> Iterator[Row]:
    lines = (
        ("Parameters", "params", 1e6, "{:.3f} M"),
        (f"FLOPs at {found.measured_at}", "flops", 1e9, "{:.3f} G"),
        (f"Time at {found.measured_at}", "milliseconds", 1, "{:.1f} ms"),
        (f"Memory at {found.measured_at}", "memory", 2**20, "{:.0f} MiB"),
    )
    for name, attribute, unit, text in lines:
        values = [getattr(found.costs.get(role), attribute, None) for role in ("student", "teacher")]
        if values[0] is not None:
            cells = ["" if value is None else text.format(value / unit) for value in values]
            yield Row(name, ["", *cells, "" if values[1] is None else _saved(values[0], values[1])])
    teacher = found.costs.get("teacher")
    for role, cost in found.costs.items():
        if role not in ("student", "teacher") and cost.milliseconds:
            saved = _saved(cost.milliseconds, teacher.milliseconds) if teacher and teacher.milliseconds else ""
            yield Row(f"Time of {role}", ["", f"{cost.milliseconds:.1f} ms", "", saved])


def _score(metric: str, value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 or metric == "psnr" else f"{value:.4f}"


def _signed(metric: str, value: float) -> str:
    digits = 2 if metric == "psnr" else 4
    return f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")  # no -0.00


def _stages(comparison: Comparison, precisions: Mapping[str, str]) -> list[Stage]:
    """The score of each stage that exists, and what it changed: a file in half precision or int8, from that in single precision."""
    metric = next(iter(comparison.metrics), "")
    scores = {role: own[metric] for role, own in comparison.means.items() if metric in own}
    exported = [role for role in scores if role not in ("input", "start", "student", "teacher")]
    single = [role for role in exported if precisions.get(role, _SINGLE) == _SINGLE]
    reduced = [role for role in exported if role not in single]
    follows = {"start": "input", "student": "start" if "start" in scores else "input"}
    follows |= dict.fromkeys(single, "student") | dict.fromkeys(reduced, single[-1] if single else "student")
    names = {"input": "Input", "start": "Start, before training", "student": "Trained", "teacher": "Teacher"}
    names |= {role: f"Exported: {role}" for role in single} | {role: f"In {precisions[role]}: {role}" for role in reduced}
    order = [role for role in ("input", "start", "student", *single, *reduced, "teacher") if role in scores]
    if len(order) < 2 or "student" not in scores:
        return []
    low, high = min(scores.values()), max(scores.values())
    low -= 0.08 * (high - low) or 1.0
    stages = []
    for role in order:
        change = _signed(metric, scores[role] - scores[follows[role]]) if follows.get(role) in scores else ""
        colour = role if role in ("input", "teacher", "start") else "student"
        stages.append(Stage(names[role], colour, _score(metric, scores[role]), change, 100 * (scores[role] - low) / (high - low)))
    return stages


# ------------------------------------------------------------------------------------------------ family


def _front(family: Sequence[Findings]) -> Markup:
    def place(found: Findings, role: str) -> tuple[float, float] | None:
        cost, score = found.costs.get(role), found.score(role)
        return None if cost is None or cost.milliseconds is None or score is None else (cost.milliseconds, score)

    students = sorted((at, found.name) for found in family if (at := place(found, "student")))
    teacher = next((at for found in family if (at := place(found, "teacher"))), None)
    best = float("-inf")
    front = []
    for (time, score), _ in students:
        if score > best:
            front.append((time, score))
            best = score
    series = [
        Series("front", front),
        Series("student", [at for at, _ in students], [name for _, name in students], marked=True),
        *([Series("teacher", [teacher], ["teacher"], marked=True)] if teacher else []),
    ]
    return chart(series, "milliseconds", "PSNR (dB)", log_x=True)


def _family_rows(family: Sequence[Findings]) -> list[dict[str, str]]:
    rows = []
    for found in family:
        for role in ("student", "teacher") if found is family[-1] else ("student",):
            cost, score = found.costs.get(role), found.score(role)
            if cost is None:
                continue
            rows.append(
                {
                    "name": found.name if role == "student" else "teacher",
                    "link": f"{found.folder}/report.html" if role == "student" else "",
                    "score": "" if score is None else f"{score:.2f}",
                    "time": f"{cost.milliseconds:.1f} ms" if cost.milliseconds else "",
                    "params": f"{cost.params / 1e6:.3f} M" if cost.params else "",
                    "flops": f"{cost.flops / 1e9:.3f} G" if cost.flops else "",
                }
            )
    return rows


# ------------------------------------------------------------------------------------------------ words


def _figures(comparison: Comparison) -> Iterator[Figure]:
    metric = next(iter(comparison.metrics), "")
    for example in comparison.examples:
        student, teacher = (example.scores.get(role, {}).get(metric) for role in ("student", "teacher"))
        note = comparison.dataset
        if student is not None and teacher is not None:
            gap = student - teacher
            note += f": {abs(gap):.2f} dB {'below' if gap < 0 else 'above'} the teacher"
        yield figure(example, metric, comparison.reference, note)


def _footnotes(found: Findings) -> Iterator[str]:
    for comparison in found.comparisons:
        used, count = comparison.used
        every = "the one image" if count == 1 else f"all {count} images"
        which = every if used == count else f"{used} of {count} images, evenly spread"
        middle = ", of large ones the middle" if comparison.cropped else ""
        yield f"{comparison.dataset}: {which}{middle}."
        if comparison.reference == "teacher":
            yield "There are no clean images: scores tell how near to the teacher's an image is."
    if found.costs:
        yield f"Times are medians on {found.device}, networks taking turns. FLOPs are multiply-adds."
        yield "Memory is what a process takes at its peak beside Python and PyTorch."
    yield from found.notes
