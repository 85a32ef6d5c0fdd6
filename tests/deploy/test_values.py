"""A foreign file with other values than RGB in [0, 1] is told by what it makes of a photo."""

import pytest
import torch
from torch import nn

from kd_plugins.deploy.values import refuse_other_values


class Net(nn.Module):
    """Any function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "channels", "said"),
    [
        (lambda x: x.clamp_min(16), 3, r"takes values from 0 to 255.*expected '\{checkpoint: a/net\.onnx, value_range: 255\}'"),
        (lambda x: x.clamp_min(16), 1, "takes values from 0 to 255"),
        (lambda x: x - x.mean(), 3, r"takes values from -1 to 1.*'\{checkpoint: a/net\.onnx, value_range: 2, mean: 0\.5\}'"),
        (lambda x: x.flip(1), 3, "returns channels in the order BGR.*expected one that returns RGB"),
    ],
)
def test_other_values_are_named_with_what_to_write(function, channels, said):
    with pytest.raises(ValueError, match=f"model: a/net.onnx {said}"):
        refuse_other_values(Net(function), channels, None, "a/net.onnx")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x,
        lambda x: x.repeat_interleave(2, -1).repeat_interleave(2, -2),
        lambda x: x**0.2,  # no image like its input with any values
        lambda x: torch.rand_like(x),
    ],
)
def test_what_restores_as_it_is_or_with_no_values_is_taken(function):
    refuse_other_values(Net(function), 3, (48, 40), "net.onnx")
