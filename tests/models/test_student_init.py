"""Whose channels a student's layers have when it starts from its teacher."""

import pytest
import torch
from torch import nn

from kd_plugins.models.student_init import start_student


class Chain(nn.Module):
    """Convolutions one after the other, each with channels of its own; or residual, with one set of channels for all."""

    def __init__(self, width, count, residual):
        super().__init__()
        self.residual = residual
        self.head, self.tail = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 3, padding=1)
        self.body = nn.ModuleList(Block(width, residual) for _ in range(count))

    def forward(self, x):
        y = self.head(x).relu()
        for block in self.body:
            y = block(y)
        return x + self.tail(y)


class Block(nn.Module):
    def __init__(self, width, residual):
        super().__init__()
        self.conv, self.residual = nn.Conv2d(width, width, 3, padding=1), residual

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x).relu()


@pytest.mark.parametrize("residual", [True, False])
def test_a_residual_stream_has_the_same_channels_after_a_block_that_was_left_out(residual):
    torch.manual_seed(0)
    teacher, student = Chain(8, 6, residual), Chain(4, 2, residual)
    init = {"from": "teacher", "channels": "magnitude", "refit": False}
    copied = start_student(student, teacher, {"init": init, "path": {}, "network_g": {}})
    assert torch.equal(student.body[1].conv.bias, teacher.body[4].conv.bias[copied["body.1", "body.4"]])
    assert (("body.1", "body.5") in copied) == residual
    if residual:
        assert torch.equal(copied["body.1", "body.5"], copied["head", "head"])
