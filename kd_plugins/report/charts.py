"""Charts as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 480, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 40


class Series(NamedTuple):
    """One line of a chart.

    Attributes:
        name: in the legend, and what the style sheet colours it by.
        points: (x, y), x rising; values that are not finite are left out.
        label: of each point, shown where there is room: in a scatter.
        marked: whether each point has a dot.
        flat: a level that one point tells: drawn across, dashed.
    """

    name: str
    points: Sequence[tuple[float, float]]
    label: Sequence[str] = ()
    marked: bool = False
    flat: bool = False


def chart(series: Sequence[Series], x_name: str, y_name: str, log_y: bool = False, log_x: bool = False) -> Markup:
    """Draw lines over common axes.

    Args:
        series: the lines; those without a point that can be drawn are left out.
        x_name: of the x axis.
        y_name: of the y axis.
        log_y: whether the y axis is logarithmic; then values of 0 and less are left out.
        log_x: the same for x.

    Returns:
        An `<svg>` element that scales with the page; empty where there is nothing to draw.
    """
    shown = [each._replace(points=[p for p in each.points if _drawable(p, log_x, log_y)]) for each in series]
    shown = [each for each in shown if each.points]
    if not shown:
        return Markup("")
    x_axis = _Axis([x for each in shown if not each.flat for x, _ in each.points] or [0.0], log_x, _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis([y for each in shown for _, y in each.points], log_y, _HEIGHT - _BOTTOM, _TOP)
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(y_name)} over {escape(x_name)}">']
    for value in y_axis.ticks(6):
        y = y_axis(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{y_axis.text(value)}</text>')
    for value in x_axis.ticks(6):
        parts.append(f'<text x="{x_axis(value):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{x_axis.text(value)}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x_name)}</text>')
    parts += [_line(each, x_axis, y_axis) for each in shown]
    return Markup("".join([*parts, "</svg>"]))


def _line(series: Series, x_axis: _Axis, y_axis: _Axis) -> str:
    places = [(x_axis(x), y_axis(y)) for x, y in series.points]
    if series.flat:
        places = [(_LEFT, places[-1][1]), (_WIDTH - _RIGHT, places[-1][1])]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dashes = ' stroke-dasharray="5 4"' if series.flat else ""
    parts = [f'<g data-series="{escape(series.name)}"><path d="{path}"{dashes}/>']
    for index, ((x, y), (left, value)) in enumerate(zip(places, series.points, strict=False)):
        if series.marked:
            title = f"{series.name}: {y_axis.exact(value)} at {x_axis.exact(left)}"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(title)}</title></circle>')
        if index < len(series.label):
            anchor, shift = ("end", -8) if x > 0.75 * _WIDTH else ("start", 8)
            parts.append(f'<text x="{x + shift:.1f}" y="{y + 16:.1f}" text-anchor="{anchor}">{escape(series.label[index])}</text>')
    return "".join([*parts, "</g>"])


def _drawable(point: tuple[float, float], log_x: bool, log_y: bool) -> bool:
    x, y = point
    return math.isfinite(x) and math.isfinite(y) and (x > 0 or not log_x) and (y > 0 or not log_y)


class _Axis:
    """From values to a coordinate, with round ticks."""

    def __init__(self, values: Sequence[float], log: bool, start: float, end: float) -> None:
        self.log = log
        low, high = (math.log10(value) if log else value for value in (min(values), max(values)))
        margin = 0.06 * (high - low) or (0.3 if log else abs(high) * 0.05 or 1.0)
        self.low, self.high, self.start, self.end = low - margin, high + margin, start, end

    def __call__(self, value: float) -> float:
        place = ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)
        return self.start + place * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        if self.log and len(found := self._log_ticks(most)) > 1:
            return found
        low, high = (10**self.low, 10**self.high) if self.log else (self.low, self.high)
        step = _round_step((high - low) / most)
        return [number * step for number in range(math.ceil(low / step), math.floor(high / step) + 1)]

    def _log_ticks(self, most: int) -> list[float]:
        for digits in ((1, 2, 5), (1, 3), (1,)):
            exponents = range(math.floor(self.low), math.ceil(self.high) + 1)
            found = [digit * 10.0**exponent for exponent in exponents for digit in digits]
            found = [value for value in found if self.low <= math.log10(value) <= self.high]
            if len(found) <= most:
                return found
        return found[:: math.ceil(len(found) / most)]

    def text(self, value: float) -> str:
        if self.log:
            return f"{value:g}"
        digits = max(0, -math.floor(math.log10(_round_step((self.high - self.low) / 6))))
        return f"{value:,.{digits}f}".replace(",", " ")

    @staticmethod
    def exact(value: float) -> str:
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= step * 0.999)
