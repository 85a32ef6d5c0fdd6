"""What a constructor refuses, the check refuses: rules that hold between arguments, and those of upstream's classes."""

import pytest
from option_texts import GOOD, text_of

DCKD = text_of("dckd_derain")


@pytest.mark.parametrize(
    ("text", "entry", "expected"),
    [
        (GOOD, "train:distill:nc={window: 2}", "train:distill:nc:window: 2, expected a whole number of at least 8 or nothing"),
        (
            GOOD,
            "train:distill:x={type: PiqeFeatureLoss, extractor: {type: PiqeExtractor, edge_weight: 0, texture_weight: 0}}",
            "train:distill:x: extractor: PiqeExtractor: every weight is 0",
        ),
        (GOOD, "train:optim_g:lr=-1", "train:optim_g: Invalid learning rate: -1"),
        (GOOD, "train:optim_g={type: SGD, lr: 0.1, nesterov: true}", "train:optim_g: Nesterov momentum requires a momentum"),
        (GOOD, "train:transforms={hflip: 2}", "train:transforms:hflip: 2, expected a number from 0 to 1"),
        (
            GOOD,
            "datasets:val:degradation={type: rain, density: [9, 1]}",
            "datasets:val:degradation:density: [9, 1], expected a number from 0.001 to 100 or [lo, hi]",
        ),
        (DCKD, "dckd:history={decay: 5}", "dckd:history:decay: 5, expected a number of at least 0 and below 1"),
        (DCKD, "dckd:history={every: [0]}", "dckd:history:every: [0], expected a whole number of at least 1"),
        (DCKD, "dckd:negatives={count: 0}", "dckd:negatives:count: 0, expected a whole number of at least 1"),
        (
            DCKD,
            "train:distill:contrast={type: ContrastRatioLoss, eps: -1}",
            "contrast:eps: -1, expected a number above 0",
        ),
    ],
)
def test_it_says_so_before_anything_is_built(check, text, entry, expected):
    assert any(expected in line for line in check(text, entry))


def test_a_model_that_nobody_knows_is_said_alone(check):
    (line,) = check(GOOD, "model_type=MyGreatModel", "network_q={a: 1}", "train:whatever=3")
    assert "model_type: 'MyGreatModel', no registered model" in line
