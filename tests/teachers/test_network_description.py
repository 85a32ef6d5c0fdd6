"""What a file of weights says of its network is plain, registered, and no larger than its weights; nothing else is built."""

import json
import sys

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from safetensors.torch import save_file
from torch import nn

from kd_plugins.teachers import build_source, build_teacher
from kd_plugins.teachers.network_description import described, plain_network
from kd_plugins.teachers.network_keys import teacher_keys
from kd_plugins.training.checkpoint_files import write

RGB = {"num_in_ch": 3, "num_out_ch": 3}
SMALL = {"type": "EDSR", **RGB, "num_feat": 4, "num_block": 1}


@pytest.fixture(params=["safetensors", "pth"])
def teacher_of(request, tmp_path, monkeypatch):
    """Build a teacher of a file whose description is given; its weights are those of another network."""
    monkeypatch.chdir(tmp_path)

    def build(network, weights=None):
        weights, path = weights or {"w": torch.zeros(3)}, tmp_path / f"net.{request.param}"
        if request.param == "pth":
            write(str(path), {"params": weights}, network)
        else:
            save_file(weights, path, metadata={"network": json.dumps(network)})
        return build_teacher({"checkpoint": str(path)})

    return build


@pytest.fixture
def registered(monkeypatch):
    """Register a class for one test."""

    def register(network):
        monkeypatch.setitem(ARCH_REGISTRY._obj_map, network.__name__, network)

    return register


def test_a_described_network_is_built(teacher_of):
    net = build_source(SMALL, "teacher")
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(teacher_of(SMALL, net.state_dict())(x).image, net(x))


def test_a_described_network_may_be_padded(teacher_of):
    net = build_source({"type": "RRDBNet", **RGB, "scale": 2, "num_feat": 4, "num_block": 1, "num_grow_ch": 2}, "teacher")
    described = {"type": "RRDBNet", **RGB, "scale": 2, "num_feat": 4, "num_block": 1, "num_grow_ch": 2, "pad_to": 2}
    assert teacher_of(described, net.state_dict())(torch.rand(1, 3, 9, 9)).image.shape == (1, 3, 18, 18)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_file_cannot_name_a_file_of_code(teacher_of, tmp_path, wrapped):
    (tmp_path / "evil.py").write_text("open('ran', 'w')\nfrom torch import nn\nclass X(nn.Module): pass\n")
    block = {"file": "evil.py", "class": "X"}
    with pytest.raises(ValueError, match=r"net\.(pth|safetensors): describes its network by"):
        teacher_of({"type": "SourcedNetwork", "network": block} if wrapped else block)
    assert not (tmp_path / "ran").exists()


def test_a_file_cannot_name_a_module_to_import(teacher_of, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("open('ran', 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="by code of its own, which weights may not bring along"):
        teacher_of({"type": "evil_module.X"})
    assert not (tmp_path / "ran").exists() and "evil_module" not in sys.modules


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("EDSR", "describes its network as '?EDSR'?, expected its type and arguments"),
        (1, "describes its network as 1, expected its type and arguments"),
        ({"type": "torch.nn.Identity"}, "by code of its own"),
        ({"type": "SourcedNetwork", "network": "EDSR"}, "type: SourcedNetwork; nearest"),
        *(({**SMALL, key: "x"}, f"by '{key}', expected a registered type") for key in ("checkpoint", "param_key", *teacher_keys())),
        ({"type": "ESDR"}, "no architecture that is registered here: type: ESDR; nearest: "),
        ({**SMALL, "upscale": {"a": 1}}, r"with upscale: \{a: 1\}, expected numbers, words, and lists of them"),
        ({**SMALL, "res_scale": float("nan")}, "with res_scale: .nan, expected numbers of at most"),
        ({**SMALL, "num_feat": 10**9}, "with num_feat: 1000000000, expected numbers of at most 1048576"),
        ({**SMALL, "num_feat": [[[[[1]]]]]}, "nested too deep"),
        ({**SMALL, "num_feat": [1] * 1001}, "by more than 1000 values"),
        ({**SMALL, "pad_to": 2**20}, "pad_to: 1048576, expected a size"),
        ({"type": "SpyNet", "load_path": "../spynet.pth"}, "load_path: ../spynet.pth, expected words, and no names of files"),
        ({"type": "SpyNet", "load_path": "x" * 1000}, "expected words"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_is_not_plain_is_refused(teacher_of, network, said):
    with pytest.raises(ValueError, match=said):
        teacher_of(network)


def test_no_argument_is_the_name_of_a_file(teacher_of, tmp_path):
    (tmp_path / "spynet").touch()
    with pytest.raises(ValueError, match="load_path: spynet, expected words, and no names of files"):
        teacher_of({"type": "SpyNet", "load_path": "spynet"})


def test_whatever_a_constructor_opens_is_refused(teacher_of, tmp_path, registered):
    class Opening(nn.Module):
        def __init__(self, prior):
            super().__init__()
            self.w = nn.Parameter(torch.load(f"{prior}.pth", weights_only=False))

    registered(Opening)
    torch.save(torch.zeros(3), tmp_path / "prior.pth")
    build_source({"type": "Opening", "prior": "prior"}, "teacher")  # where the option file says so
    with pytest.raises(ValueError, match="asks for more than its weights: file 'prior.pth'"):
        teacher_of({"type": "Opening", "prior": "prior"})
    open(tmp_path / "prior.pth", "rb").close()  # that was while it was built


@pytest.mark.parametrize(
    "network",
    [
        {**SMALL, "num_feat": 2**20},
        {**SMALL, "num_feat": 1, "num_block": 2**20},
        {"type": "SwinIR", "img_size": 2**20},
        {"type": "SwinIR", "img_size": 1024, "window_size": 1024, "embed_dim": 6},
        {"type": "SwinIR", "depths": [2**20] * 100},
        {"type": "StyleGAN2Generator", "out_size": 2**20},
    ],
    ids=str,
)
def test_a_network_much_larger_than_its_weights_is_refused_before_it_is_made(teacher_of, network):
    with pytest.raises(ValueError, match="describes a network that cannot be built: it is much larger than its weights"):
        teacher_of(network)


def test_arguments_that_the_class_refuses_are_said_to_be_the_files(teacher_of):
    for network in ({"type": "Restormer", "heads": [1, 1, 0.5, 2]}, {**SMALL, "num_feet": 4}):
        with pytest.raises(ValueError, match=r"net\.\w+: describes a network that cannot be built: .*(heads|num_feet)"):
            teacher_of(network)


def test_a_class_of_spandrel_may_have_the_dotted_name_that_tells_it_from_basicsrs():
    name = "spandrel.architectures.SwinIR.SwinIR"
    assert plain_network({"type": name, "upscale": 2}, "a.pth") == {"type": name, "upscale": 2}
    with pytest.raises(ValueError, match="by code of its own"):
        plain_network({"type": "spandrel.architectures.SwinIR.load"}, "a.pth")


def test_a_description_is_a_block_without_weights_and_as_plain_as_json():
    block = {**SMALL, "checkpoint": "a.pth", "param_key": "params", "pad_to": 8, "shape": (1, 2)}
    assert described(block) == {**SMALL, "pad_to": 8, "shape": [1, 2]}
    assert described({"type": "SourcedNetwork", "network": block}) == described(block)
