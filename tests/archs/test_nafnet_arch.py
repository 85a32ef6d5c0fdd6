"""NAFNet is built by its published name and arguments, out of spandrel, only when asked for."""

import importlib
import subprocess
import sys

import pytest
import torch

from kd_plugins.archs import nafnet_arch
from kd_plugins.archs.nafnet_arch import ARCH_REGISTRY

OPTIONS = {"type": "NAFNet", "width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]}


def build_network(opt):
    from basicsr.archs import build_network as upstream  # after kd_plugins: torchvision may need its repairs

    return upstream(opt)


def test_an_option_file_builds_it_and_it_restores_any_size():
    net = build_network(OPTIONS)
    x = torch.rand(1, 3, 13, 18)
    assert net(x).shape == x.shape
    net(x).mean().backward()
    assert net.intro.weight.grad.abs().sum() > 0


def test_its_tensors_have_the_published_names():
    names = set(build_network(OPTIONS).state_dict())
    block = [f"{layer}.{kind}" for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "sca.1", "norm1", "norm2")
             for kind in ("weight", "bias")] + ["beta", "gamma"]  # fmt: skip
    stages = ["encoders.0.0", "encoders.1.0", "middle_blks.0", "decoders.0.0", "decoders.1.0"]
    ends = [f"{layer}.{kind}" for layer in ("intro", "ending", "downs.0", "downs.1") for kind in ("weight", "bias")]
    assert names == {f"{s}.{b}" for s in stages for b in block} | set(ends) | {"ups.0.0.weight", "ups.1.0.weight"}


def test_the_published_gopro_width_32_has_the_published_size():
    with torch.device("meta"):
        net = build_network(
            {"type": "NAFNet", "width": 32, "enc_blk_nums": [1, 1, 1, 28], "middle_blk_num": 1, "dec_blk_nums": [1] * 4}
        )
    assert sum(p.numel() for p in net.parameters()) == 17_111_907  # "17.11 M" in the paper's repository


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"width": 0}, "width: 0"),
        ({"middle_blk_num": -1}, "middle_blk_num: -1"),
        ({"enc_blk_nums": 3}, "enc_blk_nums: 3"),
        ({"dec_blk_nums": [1]}, "as many levels"),
    ],
)
def test_a_wrong_argument_is_named(change, said):
    with pytest.raises(ValueError, match=said):
        build_network({**OPTIONS, **change})


def test_a_fork_that_registered_the_name_first_keeps_it(monkeypatch):
    theirs = object()
    monkeypatch.setitem(ARCH_REGISTRY._obj_map, "NAFNet", theirs)
    importlib.reload(nafnet_arch)
    assert ARCH_REGISTRY.get("NAFNet") is theirs


def test_importing_the_architecture_does_not_import_spandrel():
    code = "import sys, kd_plugins.archs.nafnet_arch; sys.exit('spandrel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
