"""How the weight of a term goes through a run."""

import math

import pytest

from kd_plugins.training.fade import Fade, first_without, read_fade


def test_values_before_between_and_after():
    fade = Fade(2.0, 0.5, 10, 30, "linear")
    assert [fade(iteration) for iteration in (0, 10, 15, 20, 30, 31, 1000)] == [2.0, 2.0, 1.625, 1.25, 0.5, 0.5, 0.5]
    fade = Fade(2.0, 0.5, 10, 30)
    expected = [0.5 + 1.5 * (1 + math.cos(math.pi * done)) / 2 for done in (0, 0.25, 0.5, 1)]
    assert [fade(iteration) for iteration in (10, 15, 20, 30)] == pytest.approx(expected)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_the_last_value_is_met_exactly_and_zero_is_zero(shape):
    for first, last in ((0.3, 0.0), (0.0, 0.7), (1e-3, 0.0)):
        fade = Fade(first, last, 3, 1000.7, shape)
        assert fade(3) == first and fade(1001) == pytest.approx(last, abs=1e-15) and (last or fade(1001) == 0)
        assert all(fade(iteration) > 0 for iteration in (4, 500, 1000))


def test_defaults_fade_out_over_the_whole_run():
    assert read_fade({}, 400) == Fade(1.0, 0.0, 0, 400.0, "cosine")


@pytest.mark.parametrize(
    ("block", "start", "end"),
    [
        ({"start": 0.25, "end": 0.75}, 100, 300),
        ({"start": 100, "end": 300}, 100, 300),
        ({"start": 0.5, "end": 350}, 200, 350),
        ({"start": 5e1, "end": 1e3}, 50, 1000),  # what ends later than the run does not end in it
        ({"start": 1, "end": 2}, 1, 2),
    ],
)
def test_a_number_with_a_point_is_a_share_of_the_run_and_a_whole_one_an_iteration(block, start, end):
    fade = read_fade(block, 400)
    assert (fade.start, fade.end) == (start, end)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (0.5, "0.5, expected a mapping"),
        ([], r"\[\], expected a mapping"),
        ({"form": 1}, "form: 1, fade has no such key; nearest: from"),
        ({1: 2}, "1: 2, fade has no such key"),
        *(({key: value}, f"{key}: .*, expected a number of") for key in ("from", "end") for value in (-1, "a", True, None)),
        *(({key: value}, f"{key}: .*, expected a number of") for key in ("to", "start") for value in (math.nan, math.inf)),
        ({"end": 1}, "end: 1 is the first iteration, expected a later one, or 1.0 for the end of the run"),
        ({"end": 2.5}, "end: 2.5, expected an iteration .*, or a share of the run up to 1.0"),
        ({"start": 0.5, "end": 0.5}, "from iteration 200 to 200, expected `start` before `end`"),
        ({"start": 300, "end": 0.5}, "from iteration 300 to 200, expected `start` before `end`"),
        ({"shape": "sine"}, "shape: 'sine', expected one of cosine, linear"),
        ({"shape": []}, "shape: "),
        ({"from": 0}, "from 0 to 0.0 is no change, expected two different numbers"),
        ({"to": 1}, "from 1.0 to 1 is no change"),
    ],
)
def test_what_makes_no_sense_is_refused(block, said):
    with pytest.raises(ValueError, match=f"fade: ?{said}"):
        read_fade(block, 400)


def test_a_share_of_a_run_of_unknown_length_is_refused():
    assert read_fade({"end": 9}, None).end == 9
    with pytest.raises(ValueError, match="fade: end: 1.0 is a share of `train: total_iter`, which is missing"):
        read_fade({}, None)


OUT, IN = Fade(1, 0, 0, 50.5), Fade(0, 1, 60, 80)


@pytest.mark.parametrize(
    ("fades", "iteration"),
    [
        ([OUT], 51),
        ([IN], 1),
        ([OUT, IN], 51),
        ([OUT, Fade(0, 1, 50, 80)], None),
        ([OUT, Fade(0, 1, 51, 80)], 51),
        ([Fade(1, 0, 0, 100)], 100),
        ([Fade(1, 0, 0, 101)], None),
        ([Fade(1, 0.1, 0, 50)], None),
        ([OUT, Fade(1, 0, 0, 40)], 51),
    ],
)
def test_the_first_iteration_without_any_term_is_found(fades, iteration):
    assert first_without(fades, 100) == iteration
    idle = [step for step in range(1, 101) if not any(fade(step) for fade in fades)]
    assert (idle[0] if idle else None) == iteration
