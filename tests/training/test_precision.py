"""Precision: what a network is made of that goes to the memory layout of a run."""

import platform

import pytest
import torch
from torch import nn
from torch.profiler import profile

from kd_plugins.training.precision import Precision

SLOW = "aten::_slow_conv2d_forward"


def used(net, x):
    with profile() as found:
        y = net(x)
    return y, {event.key for event in found.key_averages()}


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or platform.machine() not in ("x86_64", "AMD64"), reason="no oneDNN for x86 here"
)
def test_pointwise_convolutions_on_one_thread_go_to_onednn(monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    net, x = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1, stride=2, padding=1)), torch.rand(4, 8, 64, 64)
    expected = net(x)
    precision = Precision({"channels_last": True})
    y, kernels = used(precision.to_memory_format(net), precision.to_memory_format(x))
    torch.testing.assert_close(y, expected)
    assert "aten::mkldnn_convolution" in kernels and SLOW not in kernels


@pytest.mark.parametrize(
    ("options", "threads"),
    [({"num_gpu": 1}, 1), ({"amp": "bf16"}, 1), ({"channels_last": False}, 1), ({}, 2)],
    ids=["GPU", "bf16", "channels first", "threads"],
)
def test_elsewhere_they_are_left_alone(monkeypatch, options, threads):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    net = Precision({"channels_last": True, **options}).to_memory_format(nn.Conv2d(8, 8, 1))
    assert net.dilation == (1, 1)
