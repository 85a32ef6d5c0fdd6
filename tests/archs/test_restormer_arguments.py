"""The arguments of a Restormer, read off its weights."""

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
