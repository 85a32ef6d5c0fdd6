"""The `features` block of an option file."""

import pytest
from basicsr.archs.edsr_arch import EDSR
from basicsr.utils import get_root_logger
from torch import nn

from kd_plugins.archs import Restormer
from kd_plugins.features import FeatureTaps, Pair, find_pairs

ENCODER = ["encoder_level1", "encoder_level2", "encoder_level3", "latent"]
DECODER = ["decoder_level3", "decoder_level2", "decoder_level1"]


@pytest.fixture(scope="module")
def restormer():
    return Restormer(dim=2, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1, heads=[1, 1, 1, 1])


@pytest.mark.parametrize("opt", [None, "auto", {"encoder": "auto", "decoder": "auto"}], ids=["default", "auto", "groups"])
def test_auto_finds_the_stages_of_restormer(restormer, opt, caplog, monkeypatch):
    monkeypatch.setattr(get_root_logger(), "propagate", True)
    caplog.set_level("INFO", "basicsr")
    pairs = find_pairs(opt, restormer, restormer)
    assert pairs == {"encoder": [(name, name) for name in ENCODER], "decoder": [(name, name) for name in DECODER]}
    FeatureTaps(restormer, ENCODER + DECODER).remove()  # they exist
    assert "features:encoder: auto (student - teacher): encoder_level1 - encoder_level1, encoder_level2 - " in caplog.text


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


def test_auto_where_nothing_is_found_says_what_to_write(restormer):
    convolution = nn.Conv2d(3, 3, 1)
    for student, teacher in ((convolution, restormer), (restormer, convolution)):
        with pytest.raises(ValueError, match=r"no stages were found in Conv2d; write the pairs: .*`basicsr layers -opt FILE`"):
            find_pairs({"encoder": "auto"}, student, teacher)


def test_auto_where_nothing_answers(restormer):
    one_block = EDSR(3, 3, num_feat=4, num_block=1, upscale=1)
    assert find_pairs({"encoder": "auto"}, one_block, restormer) == {"encoder": [("body.0", "latent")]}
    with pytest.raises(ValueError, match="features:decoder: 'auto' found no stages of EDSR and Restormer that answer each other"):
        find_pairs(None, one_block, restormer)


def test_auto_is_for_encoder_and_decoder(restormer):
    with pytest.raises(ValueError, match="features:middle: 'auto' is known for encoder and decoder; write the pairs"):
        find_pairs({"middle": "auto"}, restormer, restormer)
    with pytest.raises(ValueError, match="features: 'decoder', expected 'auto' or groups"):
        find_pairs("decoder", restormer, restormer)
