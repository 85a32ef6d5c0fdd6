"""A run's course as charts: scores, losses, trust."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markupsafe import Markup

from kd_plugins.report.charts import Series, chart
from kd_plugins.report.logs import Course
from kd_plugins.tables import score_tag


class Chart(NamedTuple):
    """A chart with its heading and its legend.

    Attributes:
        title: the heading.
        tag: that of the same values in TensorBoard, or how it begins.
        names: the legend.
        svg: the drawing.
    """

    title: str
    tag: str
    names: Sequence[str]
    svg: Markup


def curves(course: Course, word: str) -> Iterator[Chart]:
    """The charts of a run.

    Args:
        course: what its log says.
        word: what is trained is called so.
    """
    for dataset, metrics in course.scores.items():
        for metric, roles in list(metrics.items())[:2]:
            series = [Series(word, sorted(roles.get("student", {}).items()), marked=True)]
            flat = [Series(role, sorted(roles[role].items())[-1:], flat=True) for role in ("teacher", "input") if role in roles]
            unit, lines = named(metric), [*series, *flat]
            title, tag = f"{unit} on {dataset}", score_tag(dataset, metric)
            yield Chart(title, tag, [each.name for each in lines], chart(lines, "iteration", unit))
    if course.losses:
        names = sorted(course.losses, key=lambda name: name != "total")
        series = [Series(name, sorted(course.losses[name].items())) for name in names]
        yield Chart("Terms of the loss, weighted", "losses", names, chart(series, "iteration", "loss", log_y=True))
    if course.trust:
        series = [Series(name, sorted(values.items())) for name, values in course.trust.items()]
        share = chart(series, "iteration", "share")
        yield Chart("Share of pixels where the teacher is trusted", "trust", list(course.trust), share)


def named(metric: str) -> str:
    """What a metric is called, with its unit."""
    return {"psnr": "PSNR (dB)"}.get(metric, metric.upper())
