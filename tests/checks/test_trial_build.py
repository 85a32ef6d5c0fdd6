"""Nothing that a constructor refuses passes the check: every numeric argument of what is registered, with numbers out of range."""

import inspect
from pathlib import Path

import pytest

from kd_plugins.arguments import fits
from kd_plugins.checks.block_specs import house_of, schema_of_leaf
from kd_plugins.checks.option_keys import EXTRACTOR, LOSS

ROOT = Path(__file__).parents[2]
GOOD = (ROOT / "options" / "slkd_derain.yml").read_text(encoding="utf-8")
DCKD = (ROOT / "options" / "dckd_derain.yml").read_text(encoding="utf-8")
NUMBERS = (-1, 0, 3, -0.5, 5, 1e308)
LOSSES = {name: cls for name, cls in LOSS.entries.items() if cls.__module__.startswith("kd_plugins.losses")}
FREE = {"type": "PiqeExtractor"}


def refused(cls, arguments, *given):
    """The numbers that a constructor refuses, by the argument: of those that the type of the argument lets pass."""
    for name, parameter in inspect.signature(cls).parameters.items():
        schema = schema_of_leaf(arguments[name]) if name in arguments else {}
        for number in NUMBERS:
            if name == "extractor" or not schema or not fits(number, schema):
                continue
            needed = {"extractor": FREE} if cls.__name__ == "ExtractorLoss" else {}
            try:
                cls(*given, **needed, **{name: number})
            except Exception as error:
                if "extractor:" not in str(error):
                    yield parameter.name, number


def cases():
    """Entries of an option file, each with a number that its constructor refuses."""
    for name, cls in LOSSES.items():
        more = "extractor: {type: PiqeExtractor}, " if name == "ExtractorLoss" else ""
        for key, number in refused(cls, LOSS.block_of(name).keys):
            text = f"train:distill:mine={{type: {name}, between: output, {more}{key}: {number:.17g}}}"
            yield GOOD, text.replace("e+308", ".0e+308"), "train:distill:mine"
    for name, cls in EXTRACTOR.entries.items():
        if house_of(cls) == "kd_plugins" and "weights" not in inspect.signature(cls).parameters:
            for key, number in refused(cls, EXTRACTOR.block_of(name).keys):
                loss = f"{{type: ExtractorLoss, between: encoder, extractor: {{type: {name}, {key}: {number:.17g}}}}}"
                yield GOOD, f"train:distill:mine={loss}".replace("e+308", ".0e+308"), "train:distill:mine"


CASES = list(cases())


def test_there_are_cases_of_each_kind():
    assert len(CASES) > 60 and sum("ExtractorLoss" in entry for _, entry, _ in CASES) > 10


def test_what_a_constructor_refuses_the_check_refuses(check):
    passed = [entry for text, entry, place in CASES if not any(f": {place}" in line for line in check(text, entry))]
    assert not passed


@pytest.mark.parametrize(
    ("text", "entry", "expected"),
    [
        (GOOD, "train:distill:nc={window: 2}", "train:distill:nc: BrisqueFeatureLoss: window=2, expected at least 8"),
        (GOOD, "train:optim_g:lr=-1", "train:optim_g: Invalid learning rate: -1"),
        (GOOD, "train:optim_g={type: SGD, lr: 0.1, nesterov: true}", "train:optim_g: Nesterov momentum requires a momentum"),
        (GOOD, "train:transforms={hflip: 2}", "train:transforms: "),
        (GOOD, "train:pixel_opt={type: L1Loss, reduction: some}", "train:pixel_opt: Unsupported reduction mode: some"),
        (
            GOOD,
            "datasets:val:degradation={type: rain, density: [9, 1]}",
            "datasets:val:degradation: degradation 'rain': density is",
        ),
        (DCKD, "dckd:history={decay: 5}", "dckd:history: history: decay=5, expected a number from 0 to below 1"),
        (DCKD, "dckd:history={every: [0]}", "dckd:history: history: every=[0], block=100000, expected whole numbers from 1 up"),
        (DCKD, "dckd:negatives={count: 0}", "dckd:negatives: negatives: count is 0; expected a whole number from 1 up"),
        (
            DCKD,
            "train:distill:contrast={type: ContrastRatioLoss, eps: -1}",
            "ContrastRatioLoss: eps=-1, expected a positive number",
        ),
    ],
)
def test_it_says_so_in_the_words_of_the_constructor(check, text, entry, expected):
    assert any(expected in line for line in check(text, entry))


def test_a_model_that_nobody_knows_is_said_alone(check):
    (line,) = check(GOOD, "model_type=MyGreatModel", "network_q={a: 1}", "train:whatever=3")
    assert "model_type: 'MyGreatModel', no registered model" in line
