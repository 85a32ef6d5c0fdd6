"""The arguments of a Restormer: refused where they are out of range, and read off its weights."""

import pytest
import torch
from torch import nn

from kd_plugins.archs import Restormer
from kd_plugins.archs.restormer_arch import restormer_arguments
from kd_plugins.teachers import build_teacher

SMALL = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 2, 2, 4]}


@pytest.mark.parametrize(
    "arguments",
    [
        SMALL,
        {**SMALL, "dim": 8, "heads": [1, 1, 2, 8], "ffn_expansion_factor": 1.25, "LayerNorm_type": "BiasFree", "bias": True},
        {**SMALL, "num_blocks": [1, 2, 1, 3], "num_refinement_blocks": 0, "inp_channels": 1, "out_channels": 1},
        {**SMALL, "inp_channels": 6, "dual_pixel_task": True},
    ],
    ids=str,
)
def test_a_checkpoint_alone_says_what_it_is(arguments):
    net = Restormer(**arguments).eval()
    found = restormer_arguments(net.state_dict())
    assert all(found[name] == value for name, value in arguments.items() if name != "ffn_expansion_factor")
    Restormer(**found).load_state_dict(net.state_dict())
    assert restormer_arguments(nn.Conv2d(3, 3, 3).state_dict()) is None


def test_the_published_factor_is_read_back():
    with torch.device("meta"):
        assert restormer_arguments(Restormer().state_dict())["ffn_expansion_factor"] == 2.66


def test_weights_alone_are_a_teacher(tmp_path):
    net = Restormer(**SMALL).eval()
    torch.save({"params": net.state_dict()}, tmp_path / "net_g.pth")
    x = torch.rand(1, 3, 16, 24)
    assert torch.equal(build_teacher({"checkpoint": str(tmp_path / "net_g.pth")})(x).image, net(x))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"LayerNorm_type": "withbias"}, "LayerNorm_type: 'withbias', expected one of WithBias, BiasFree"),
        ({"num_blocks": [1, 1, 1]}, r"num_blocks: \[1, 1, 1\], expected a list of 4 values"),
        ({"heads": [1, 2, 4, 8, 8]}, r"heads: \[1, 2, 4, 8, 8\], expected a list of 4 values"),
        ({"dim": 0}, "dim: 0, expected a whole number of at least 2 and divisible by 2"),
        ({"dim": 7, "heads": [1, 1, 1, 1]}, "dim: 7, expected a whole number"),
        ({"heads": [3, 1, 1, 1]}, "level 1 has 4 channels, not divisible by 3"),
        ({"heads": [1, 1, 0, 1]}, r"heads: \[1, 1, 0, 1\], expected"),
        ({"inp_channels": 6}, "inp_channels: 6, out_channels: 3: the output is added to the input"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_arguments_out_of_range_are_one_clear_error(wrong, message):
    with pytest.raises(ValueError, match=f"Restormer: .*{message}"):
        Restormer(**{**SMALL, **wrong})
