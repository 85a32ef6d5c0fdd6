"""A network comes from any source that a block names, and what is wrong with a block is one sentence."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from basicsr.archs.edsr_arch import EDSR
from safetensors.torch import save_file
from torch import nn

from kd_plugins.archs.spandrel_arch import spandrel_networks
from kd_plugins.teachers import build_source, build_teacher, student_block

DNCNN = {"in_nc": 3, "out_nc": 3, "nc": 4, "nb": 8, "act_mode": "R"}
TWO = """
from torch import nn

class Two(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Conv2d(3, width, 3, padding=1)
        self.tail = nn.Conv2d(width, 3, 1)

    def forward(self, x):
        assert x.shape[-1] % 4 == 0
        image = self.tail(self.body(x))
        return [image, image - x]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "two_arch.py"
    path.write_text(TWO)
    return str(path)


def saved(net, path, **content):
    torch.save({"params": net.state_dict(), **content}, path)
    return str(path)


# ------------------------------------------------------------------------------------------------ sources


def test_one_of_spandrel_by_name_and_an_importable_class_are_the_same(tmp_path):
    torch.manual_seed(0)
    net = spandrel_networks()["DnCNN"](**DNCNN).eval()
    checkpoint = saved(net, tmp_path / "net.pth")
    x = torch.rand(2, 3, 9, 8)
    for name in ("DnCNN", "spandrel.architectures.DnCNN.DnCNN"):
        assert torch.equal(build_teacher({"type": name, **DNCNN, "checkpoint": checkpoint})(x).image, net(x))


def test_a_registered_name_is_basicsrs_own_also_where_it_is_registered_with_a_suffix():
    assert type(build_source({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1}, "teacher")) is EDSR
    assert type(build_source({"type": "SRVGGNetCompact", "num_feat": 4, "num_conv": 1}, "teacher")).__name__ == "SRVGGNetCompact"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_alone_are_recognised(tmp_path, suffix):
    net = spandrel_networks()["DnCNN"](**DNCNN).eval()
    path = tmp_path / f"net.{suffix}"
    saved({"pth": net}.get(suffix, net), path) if suffix == "pth" else save_file(net.state_dict(), path)
    teacher = build_teacher({"checkpoint": str(path)})
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(teacher(x).image, net(x)) and not any(p.requires_grad for p in teacher.parameters())


def held(net, front="model.", **further):
    """A file of a training framework."""
    others = {"loss.vgg.0.weight": torch.zeros(2), "step": torch.zeros(())}
    state = others | {f"{front}{key}": value for key, value in net.state_dict().items()}
    return {"state_dict": {**state, **further}, "hyper_parameters": argparse.Namespace(lr=1e-4), "epoch": 3}


def test_a_network_within_a_file_of_a_training_framework_is_recognised(tmp_path):
    net, x, path = spandrel_networks()["DnCNN"](**DNCNN).eval(), torch.rand(1, 3, 8, 8), tmp_path / "a.ckpt"
    torch.save(held(net), path)
    named = {"type": "spandrel.architectures.DnCNN.DnCNN", **DNCNN}
    for block in ({}, {"prefix": "model"}, named, {**named, "prefix": "model."}):
        assert torch.equal(build_teacher({"checkpoint": str(path), **block})(x).image, net(x))
    other = spandrel_networks()["DnCNN"](**DNCNN).eval()
    torch.save(held(net, **{f"net_g.{key}": value for key, value in other.state_dict().items()}), path)
    with pytest.raises(ValueError, match=r"holds several networks; name one of them: `prefix: model\.` \(model\., net_g\.\)"):
        build_teacher({"checkpoint": str(path)})
    assert torch.equal(build_teacher({"checkpoint": str(path), "prefix": "net_g"})(x).image, other(x))


@pytest.mark.parametrize("name", ["SwinIR", "spandrel.architectures.SwinIR.SwinIR"])
def test_masks_of_another_image_size_are_no_weights(tmp_path, name):
    arguments = {"type": name, "upscale": 1, "window_size": 4, "embed_dim": 4, "depths": [2], "num_heads": [1], "mlp_ratio": 1}
    net = build_source({**arguments, "img_size": 12}, "teacher").eval()
    torch.save({"params": net.state_dict()}, tmp_path / "net.pth")
    for size in (12, 16, 4):  # no mask at all in the last: one window
        again = build_source({**arguments, "img_size": size, "checkpoint": str(tmp_path / "net.pth")}, "teacher").eval()
        for side in (8, 12, 16):
            x = torch.rand(1, 3, side, side)
            torch.testing.assert_close(again(x), net(x)) if size > 4 else again(x)


def test_recognised_weights_bring_the_noise_level_and_the_sizes_that_spandrel_uses(tmp_path):
    net = spandrel_networks()["DRUNet"](in_nc=4, out_nc=3, nc=[4] * 4, nb=2).eval()
    checkpoint = saved(net, tmp_path / "net.pth")
    x = torch.rand(2, 3, 13, 18)
    usual, other = build_teacher({"checkpoint": checkpoint}), build_teacher({"checkpoint": checkpoint, "noise_level": 50})
    assert usual(x).image.shape == x.shape
    assert torch.equal(build_teacher({"checkpoint": checkpoint, "noise_level": 15})(x).image, usual(x).image)
    assert not torch.allclose(other(x).image, usual(x).image)


def test_a_class_out_of_a_file_with_its_output_and_its_sizes(tmp_path, file):
    block = {"file": file, "class": "Two", "width": 6}
    net = build_source(block, "teacher")
    assert isinstance(net(torch.rand(1, 3, 4, 4)), list)
    teacher = build_teacher({**block, "checkpoint": saved(net, tmp_path / "net.pth"), "output": 1, "pad_to": 4})
    teacher.tap(["body"])
    x = torch.rand(2, 3, 5, 6)
    seen = teacher(x)
    assert seen.image.shape == x.shape and seen.features["body"].shape == (2, 6, 8, 8)  # features are of the padded image
    assert torch.allclose(seen.image, net.tail(net.body(nn.functional.pad(x, (0, 2, 0, 3), "reflect")))[..., :5, :6] - x, atol=1e-6)


def test_several_outputs_and_none_chosen_is_one_sentence(tmp_path, file):
    block = {"file": file, "class": "Two"}
    teacher = build_teacher({**block, "checkpoint": saved(build_source(block, "teacher"), tmp_path / "net.pth")})
    with pytest.raises(ValueError, match="teacher: Two returns a list of 2; choose one: `output: 0`"):
        teacher(torch.rand(1, 3, 4, 4))


# ------------------------------------------------------------------------------------------------ students


def test_a_plain_student_is_left_to_basicsr():
    block = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3}
    assert student_block(block) is block


@pytest.mark.parametrize("source", ["spandrel", "file", "checkpoint", "pad_to"])
def test_a_student_from_any_source_is_built_by_basicsr_each_time_anew(tmp_path, file, source):
    checkpoint = saved(spandrel_networks()["DnCNN"](**DNCNN), tmp_path / "net.pth")
    block = {
        "spandrel": {"type": "DnCNN", **DNCNN},
        "file": {"file": file, "class": "Two", "output": 0, "pad_to": 4},
        "checkpoint": {"checkpoint": checkpoint},
        "pad_to": {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2, "pad_to": 8},
    }[source]
    before = dict(block)
    nets = [build_network(student_block(block)) for _ in range(2)]
    assert block == before and nets[0] is not nets[1]
    for net in nets:
        image = net(torch.rand(1, 3, 5, 6))
        assert image.shape == ((1, 3, 10, 12) if source == "pad_to" else (1, 3, 5, 6))
        image.mean().backward()
        assert all(p.requires_grad for p in net.parameters()) and any(p.grad.any() for p in net.parameters())


@pytest.mark.parametrize("block", [{"program": "net.pt"}, {"ensemble": [{"checkpoint": "a"}]}], ids=str)
def test_what_can_only_teach_is_refused_as_a_student(block):
    with pytest.raises(ValueError, match="can be a teacher only, expected a class"):
        build_network(student_block(block))


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("block", "error", "said"),
    [
        ({"type": "SCUNte"}, KeyError, "teacher: type: no architecture 'SCUNte'; nearest: SCUNet"),
        ({"type": "DnCNN", "depth": 3}, ValueError, "teacher: DnCNN: .*'depth'"),
        ({"type": "SwinIR", "img_size": 64, "window_size": 7}, ValueError, "teacher: SwinIR: shape .*is invalid"),
        ({"type": "MixDehazeNet", "depths": [1]}, ValueError, "teacher: MixDehazeNet: "),
        ({"type": "torch.nn.Conv2D"}, KeyError, "teacher: type: no network 'Conv2D' in torch.nn; nearest: Conv2d"),
        ({"type": "no.such.Net"}, ValueError, "teacher: type: module 'no.such' cannot be imported: .*`file: FILE.py"),
        ({"type": "os.system", "command": "exit"}, KeyError, "teacher: type: no network 'system' in os"),
        ({"class": "Two"}, ValueError, "teacher: .*no `type`"),
        ({"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "pad_to": 0}, ValueError, "teacher:pad_to: 0, expected a whole number"),
        (
            {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "output": 0.5},
            ValueError,
            "teacher:output: 0.5, expected a whole number",
        ),
    ],
    ids=str,
)
def test_a_wrong_block_names_the_key_and_what_was_expected(block, error, said):
    with pytest.raises(error, match=said):
        build_source(block, "teacher")


@pytest.mark.parametrize(
    ("block", "error", "said"),
    [
        ({"class": "Tow"}, KeyError, "teacher: class: no network 'Tow' in .*two_arch.py; nearest: Two"),
        ({}, ValueError, "teacher: file: .*expected `class: NAME` beside it"),
        ({"class": "Two", "type": "EDSR"}, ValueError, "and no `type`"),
        ({"class": "Two", "depth": 3}, ValueError, "teacher: Two: .*'depth'"),
    ],
    ids=str,
)
def test_a_wrong_class_of_a_file_is_one_sentence(file, block, error, said):
    with pytest.raises(error, match=said):
        build_source({"file": file, **block}, "teacher")


def test_a_file_of_weights_cannot_name_code_to_run(tmp_path, file):
    path = tmp_path / "net.safetensors"
    for network in ({"file": file, "class": "Two"}, {"type": "torch.nn.Identity"}):
        save_file({"weight": torch.zeros(1)}, path, metadata={"network": json.dumps(network)})
        with pytest.raises(ValueError, match="describes its network by code of its own, .* if you trust it, name it beside"):
            build_teacher({"checkpoint": str(path)})


def test_the_class_file_of_a_fork_is_registered_beside_what_has_its_name():
    """The file says @ARCH_REGISTRY.register(), and is used twice."""
    file = Path(__file__).parent / "classes" / "bsrn_arch.py"
    block = {"file": str(file), "class": "BSRN", "num_feat": 8, "num_block": 1, "upscale": 2}
    first, second = (build_source(block, "teacher") for _ in range(2))
    assert type(first) is type(second) and first(torch.rand(1, 3, 16, 17)).shape == (1, 3, 32, 34)
