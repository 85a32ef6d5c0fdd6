"""The `features` block of an option file."""

import pytest
from torch import nn

from kd_plugins.archs import Restormer
from kd_plugins.features import FeatureTaps, Pair, find_pairs

ENCODER = ["encoder_level1", "encoder_level2", "encoder_level3", "latent"]
DECODER = ["decoder_level3", "decoder_level2", "decoder_level1"]


@pytest.fixture(scope="module")
def restormer():
    return Restormer(dim=2, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, heads=[1, 1, 1, 1])


@pytest.mark.parametrize("opt", [None, {"encoder": "auto", "decoder": "auto"}], ids=["default", "auto"])
def test_auto_knows_restormer(restormer, opt):
    pairs = find_pairs(opt, restormer, restormer)
    assert pairs == {"encoder": [(name, name) for name in ENCODER], "decoder": [(name, name) for name in DECODER]}
    FeatureTaps(restormer, ENCODER + DECODER).remove()  # they exist


def test_only_the_groups_named(restormer):
    assert list(find_pairs({"decoder": "auto"}, restormer, restormer)) == ["decoder"]
    assert find_pairs({}, restormer, restormer) == {}


def test_explicit_lists_and_own_groups():
    pairs = find_pairs({"middle": [["a.0", "b.1"], ["a.1", 3]]}, nn.Identity(), nn.Identity())
    assert pairs == {"middle": [Pair("a.0", "b.1"), Pair("a.1", "3")]}
    assert pairs["middle"][0].student == "a.0" and pairs["middle"][0].teacher == "b.1"


@pytest.mark.parametrize(
    "value", ["automatic", [], [["a"]], [["a", "b", "c"]], [["a", "b"], "c"], "encoder_level1", None, {"a": "b"}], ids=repr
)
def test_anything_else_is_refused(restormer, value):
    with pytest.raises(ValueError, match=r"features:encoder: .*expected 'auto' or a list of \[student layer, teacher layer\]"):
        find_pairs({"encoder": value}, restormer, restormer)


def test_auto_on_unknown_layouts_says_what_it_knows(restormer):
    for student, teacher, names in (
        (nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), "Conv2d answers Conv2d"),
        (nn.Conv2d(3, 3, 1), restormer, "Conv2d answers Restormer"),
    ):
        with pytest.raises(ValueError, match=rf"{names} \(known: .*Restormer \(encoder/decoder\).*write the pairs"):
            find_pairs({"encoder": "auto"}, student, teacher)


def test_auto_for_a_group_that_is_not_known(restormer):
    with pytest.raises(ValueError, match=r"features:middle: 'auto' does not know"):
        find_pairs({"middle": "auto"}, restormer, restormer)
