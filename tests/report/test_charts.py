import math
import xml.etree.ElementTree as ElementTree

import pytest

from kd_plugins.report.charts import Series, chart


def drawn(*series, **options):
    svg = str(chart(series, "iteration", "dB", **options))
    return ElementTree.fromstring(svg)


def ends(svg):
    return [path.get("d") for path in svg.iter("path")]


def test_a_rising_line_rises_and_runs_to_the_right():
    (path,) = ends(drawn(Series("student", [(0, 20.0), (10, 30.0)])))
    (x0, y0), (x1, y1) = (map(float, place.split()) for place in path[1:].split("L"))
    assert x1 > x0 and y1 < y0


def test_names_are_escaped_and_numbers_that_are_not_finite_left_out():
    svg = drawn(Series("<b>", [(0, 1.0), (1, math.nan), (2, 2.0)], marked=True))
    assert len(list(svg.iter("circle"))) == 2
    assert svg.find("g").get("data-series") == "<b>"


def test_a_flat_series_is_a_level_over_the_whole_width():
    svg = drawn(Series("student", [(0, 20.0), (10, 30.0)]), Series("teacher", [(10, 35.0)], flat=True))
    first, last = ends(svg)[1][1:].split("L")
    assert first.split()[1] == last.split()[1] and float(last.split()[0]) - float(first.split()[0]) > 400


@pytest.mark.parametrize("points", [[], [(0, math.inf)]])
def test_nothing_to_draw_is_no_chart(points):
    assert chart([Series("student", points)], "iteration", "dB") == ""


@pytest.mark.parametrize("values", [(1e-6, 1.0), (0.02, 0.03), (5.0, 5.0)])
def test_a_logarithmic_axis_has_a_few_ticks_and_leaves_out_what_has_no_logarithm(values):
    svg = drawn(Series("loss", [(0, values[0]), (1, values[1]), (2, 0.0)], marked=True), log_y=True)
    assert 1 <= len([line for line in svg.iter("line")]) <= 9
    assert len(list(svg.iter("circle"))) == 2


def test_one_point_is_drawn():
    assert len(list(drawn(Series("student", [(4, 30.0)], marked=True)).iter("circle"))) == 1


def test_a_logarithmic_axis_of_near_values_has_ticks():
    drawn = chart([Series("total", [(1, 0.0997), (2, 0.0979)])], "iteration", "loss", log_y=True)
    assert drawn.count('class="grid"') >= 2 and ">0.098<" in drawn and ">0.099<" in drawn
