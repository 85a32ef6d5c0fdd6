"""The check of `trust` and `fade`, and of options that only they bring together."""

import pytest
from option_texts import text_of

from kd_plugins.checks import json_schema
from kd_plugins.training.fade import FADE

GOOD = text_of("psd_derain")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("{img: {trust: true}}", "img:trust: True, expected a mapping"),
        ("{img: {trust: {windw: 7}}}", "img:trust:windw: 7, Trust has no such key; nearest: window"),
        ("{img: {trust: {window: 17}}}", "img:trust:window: 17, expected a whole number from 1 to 16"),
        ("{img: {trust: {tau: .nan}}}", "img:trust:tau: nan, expected a number of at least 1e-06 or nothing"),
        ("{img: {trust: {tau: 0}}}", "img:trust:tau: 0, expected a number of at least 1e-06"),
        ("{img: {view: zoomed, trust: {}}}", "img:trust: view: zoomed has no clean image to measure by, expected another view"),
        ("{spec: {view: zoomed}}", "spec: between: output: the loss needs 'gt'; here it can have lq, encodings"),
        ("{img: {fade: 0.5}}", "img:fade: 0.5, expected a mapping"),
        ("{img: {fade: {until: 0}}}", "img:fade:until: 0, fade has no such key; expected one of from, to, start, end, shape"),
        ("{img: {fade: {from: -1}}}", "img:fade:from: -1, expected a number of at least 0"),
        ("{img: {fade: {end: .inf}}}", "img:fade:end: inf, expected a number of at least 0"),
        ("{img: {fade: {shape: sine}}}", "img:fade:shape: 'sine', expected one of cosine, linear"),
        ("{img: {every: 0}}", "img:every: 0, expected a whole number of at least 1"),
        ("{img: {fade: {end: 1}}}", "img:fade: end: 1 is the first iteration, expected a later one, or 1.0 for the end of the run"),
        ("{img: {fade: {end: 2.5}}}", "img:fade: end: 2.5, expected an iteration"),
        ("{img: {fade: {from: 0}}}", "img:fade: from 0 to 0.0 is no change, expected two different numbers"),
        ("{img: {fade: {start: 300, end: 0.5}}}", "img:fade: from iteration 300 to 200, expected `start` before `end`"),
    ],
)
def test_each_error_is_said_once(check, value, said):
    lines = check(GOOD, f"train:distill={value}")
    assert len(lines) == 1 and f"train:distill:{said}" in lines[0], lines


@pytest.mark.parametrize(
    "value",
    ["{img: {trust: {}}, spec: {trust: {window: 1, tau: 0.02}}}", "{img: {trust: ~, fade: {end: 3e2}}}", "{img: {fade: {}}}"],
)
def test_what_is_fine(check, value):
    check(GOOD, f"train:distill={value}", code=0)


def test_a_fade_is_checked_against_the_length_that_the_command_line_says(check):
    late = "train:distill={img: {fade: {start: 300, end: 0.5}}}"
    check(GOOD, late, "train:total_iter=1000", code=0)
    assert "from iteration 300 to 200" in check(GOOD, late, "train:total_iter=400")[0]


def test_a_term_of_fewer_steps_than_the_run_has_gets_a_warning(check):
    (line, _) = check(GOOD, "train:distill={img: {every: 401}}", code=0)[::-1]
    assert "train:distill:img:every: 401, and the run ends at 400: the term never counts (a warning)" in line


def test_a_fade_that_begins_after_the_run_gets_a_warning(check):
    (line, _) = check(GOOD, "train:distill={img: {fade: {start: 400, end: 500}}}", code=0)[::-1]
    assert "img:fade: it begins at iteration 400, and the run ends at 400: the weight stays 1 times its own (a warning)" in line
    assert len(check(GOOD, "train:distill={img: {fade: {start: 399, end: 500}}}", code=0)) == 1


@pytest.mark.parametrize(
    ("terms", "bad", "good", "said"),
    [
        (
            "{spec: {fade: {end: 100}}, img: {fade: {from: 0, to: 1, start: N}}}",
            "100",
            "99",
            ", and at iteration 100 every term is faded to 0,",
        ),
        ("{spec: {every: 2}, img: {every: N}}", "3", "1", " and no term in distill,"),
        ("{spec: ~, img: {loss_weight: N}}", "0", "0.1", " and no term in distill,"),
    ],
)
def test_a_run_that_would_come_to_a_step_without_any_loss(check, terms, bad, good, said):
    block = f"train:distill={terms}"
    (line,) = check(GOOD, "train:pixel_opt=~", block.replace("N", bad))
    assert f"train: no pixel_opt{said} expected one at least to train by" in line
    assert len(check(GOOD, "train:pixel_opt:loss_weight=0", block.replace("N", bad))) == 1
    check(GOOD, "train:pixel_opt=~", block.replace("N", good), code=0)
    check(GOOD, block.replace("N", bad), code=0)


def test_of_a_wrong_fade_that_alone_is_said(check):
    wrong = "train:distill={spec: {fade: {end: 0.2, start: 0.3}}, img: {fade: {end: 100}}}"
    assert len(check(GOOD, "train:pixel_opt=~", wrong)) == 1


def test_what_reads_clean_images_where_there_are_none(check):
    data = ("datasets:train:unlabelled=true", "train:pixel_opt=~")
    lines = check(GOOD, *data, "train:distill={img: {trust: {}}}")
    assert [line.partition("does not have, ")[2] for line in lines] == [
        "expected `spec: ~`",
        "expected no `trust`: where a teacher is right is measured by the clean image",
    ]
    check(GOOD, *data, "train:distill={spec: ~}", code=0)


def test_trust_in_the_clean_view_gets_a_warning(check):
    (line, _) = check(GOOD, "train:distill={img: {view: clean, trust: {}}}", code=0)[::-1]
    assert "train:distill:img:trust: the teacher sees the clean image in this view, and is trusted almost everywhere" in line


def test_editors_are_told_both_blocks():
    term = next(
        value for name, value in json_schema()["$defs"].items() if name.startswith("loss GatedWaveletLoss") and "fade" in name
    )
    trust, fade = (term["properties"][key]["anyOf"][0] for key in ("trust", "fade"))
    assert set(trust["properties"]) == {"window", "tau"} and set(fade["properties"]) == set(FADE.keys)
    assert trust["additionalProperties"] is fade["additionalProperties"] is False
