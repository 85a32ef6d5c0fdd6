"""A model that restores: from any source, images of any size, gray or RGB."""

import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kd_plugins.deploy.model import Model, find_device, load_model

CPU = torch.device("cpu")


class Net(nn.Module):
    """A convolution of so many channels, at a scale, that takes even sizes alone where asked to."""

    def __init__(self, channels=3, scale=1, even=False):
        super().__init__()
        self.body, self.scale, self.even = nn.Conv2d(channels, channels, 3, padding=1), scale, even

    def forward(self, x):
        if self.even and (x.shape[-1] % 2 or x.shape[-2] % 2):
            raise RuntimeError("even sizes only")
        return self.body(x).repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


@pytest.mark.parametrize(("channels", "scale", "even"), [(3, 1, False), (3, 4, True), (1, 1, True), (1, 2, False)])
def test_channels_and_scale_are_seen_and_any_size_is_taken(channels, scale, even):
    model = Model(Net(channels, scale, even), "net", CPU)
    assert (model.channels, model.scale) == (channels, scale)
    for count in (1, 3):
        assert model(torch.rand(2, count, 13, 7)).shape == (2, count, 13 * scale, 7 * scale)


def test_a_gray_network_restores_the_channels_of_a_photo_apart_and_an_rgb_one_shows_gray_as_its_mean():
    x = torch.rand(2, 3, 9, 8)
    gray = Model(Net(1), "net", CPU)
    assert torch.allclose(gray(x), torch.cat([gray(x[:, i : i + 1]) for i in range(3)], 1))
    rgb = Model(Net(3), "net", CPU)
    assert torch.allclose(rgb(x[:, :1]), rgb(x[:, :1].repeat(1, 3, 1, 1)).mean(1, keepdim=True))


def test_half_precision_computes_in_it_and_returns_single():
    model = load_model("srresnet_x4", precision="bf16")
    x = torch.rand(1, 3, 16, 16)
    seen = []
    model.net.conv_first.register_forward_hook(lambda net, args, output: seen.append(output.dtype))
    restored = model(x)
    assert seen == [torch.bfloat16] and restored.dtype == torch.float32
    assert 0 < (restored - load_model("srresnet_x4")(x)).abs().max() < 0.05


def test_a_file_a_bundled_name_and_a_block_are_one_source(tmp_path):
    block = {"type": "SRVGGNetCompact", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_conv": 1, "upscale": 2}
    from kd_plugins.teachers import build_source

    save_file(build_source(block, "x").state_dict(), tmp_path / "net.safetensors")
    text = f"{{type: SRVGGNetCompact, num_feat: 4, num_conv: 1, upscale: 2, checkpoint: {tmp_path}/net.safetensors}}"
    models = [load_model({**block, "checkpoint": str(tmp_path / "net.safetensors")}), load_model(text)]
    x = torch.rand(1, 3, 6, 6)
    assert [(model.name, model.scale) for model in models] == [("net", 2)] * 2
    assert torch.equal(models[0](x), models[1](x))
    assert not models[0](x).requires_grad
    assert load_model("srresnet_x4").name == "srresnet_x4"


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("srresnet_x5", {}, "nearest: srresnet_x4"),
        ("srresnet_x4", {"device": "cuda:99"}, "device: 'cuda:99', expected one of auto, cpu"),
        ("srresnet_x4", {"precision": "fp8"}, "expected one of fp32, bf16, fp16"),
        ("{type: DnCNN", {}, "is no YAML"),
        ("{type: DnCNN}", {}, "expected at least `checkpoint: FILE`"),
        ("missing.onnx", {}, "is no file"),
        ("missing.onnx", {"precision": "bf16"}, "runs in the precision that it was exported in"),
    ],
)
def test_what_cannot_be_loaded_is_said(source, options, said):
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        load_model(source, **options)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.AvgPool2d(3), "makes"),
        (nn.AdaptiveAvgPool2d(1), "makes"),
        (nn.Conv2d(4, 4, 1), "4 channels"),
        (nn.Flatten(), ""),
    ],
)
def test_a_network_that_restores_no_image_is_refused(net, said):
    with pytest.raises(ValueError, match=f"model: .*{said}"):
        Model(net, "net", CPU)


def test_auto_is_a_device_that_is_here():
    assert find_device("auto").type in ("cpu", "cuda", "mps")


def test_an_onnx_file_without_onnxruntime_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (tmp_path / "net.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"pip install kd_plugins\[export\]"):
        load_model(str(tmp_path / "net.onnx"))


@pytest.fixture
def onnx_file(tmp_path):
    """A function: the file of a network that enlarges an image and halves its values (or else), for images of one size or any."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")

    def write(shape, scale=2.0, operation="Mul", value=0.5):
        scales, number = torch.tensor([1.0, 1, scale, scale]).numpy(), torch.tensor([value]).numpy()
        constants = [onnx.numpy_helper.from_array(scales, "scales"), onnx.numpy_helper.from_array(number, "number")]
        nodes = [
            onnx.helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest"),
            onnx.helper.make_node(operation, ["y", "number"], ["z"]),
        ]
        image = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)
        result = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [None] * 4)
        graph = onnx.helper.make_graph(nodes, "net", [image], [result], constants)
        opset = onnx.helper.make_opsetid("", 17)
        onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), tmp_path / "net.onnx")
        return str(tmp_path / "net.onnx")

    return write


@pytest.mark.parametrize("shape", [["n", 3, "h", "w"], [1, 3, 24, 16], [1, 1, 24, 16]])
def test_an_onnx_file_restores_as_a_network_does(onnx_file, shape):
    model = load_model(onnx_file(shape))
    x = torch.rand(2, 3, 11, 16)
    assert model.net is None and (model.channels, model.scale) == (shape[1], 2)
    assert model.fixed_size == (None if "h" in shape else (24, 16))
    assert torch.allclose(model(x), x.repeat_interleave(2, -1).repeat_interleave(2, -2) / 2)


def test_an_onnx_file_of_one_size_refuses_larger_images(onnx_file):
    model = load_model(onnx_file([1, 3, 24, 16]))
    with pytest.raises(ValueError, match="takes images of 24x16 only, not 24x17"):
        model(torch.rand(1, 3, 24, 17))


@pytest.mark.parametrize("shape", [["n", 3, "h", "w"], [1, 3, 24, 16]])
@pytest.mark.parametrize("scale", [1.5, 0.25])
def test_an_onnx_file_that_enlarges_by_no_whole_number_is_refused(onnx_file, shape, scale):
    with pytest.raises(ValueError, match="a whole number of times its height and width"):
        load_model(onnx_file(shape, scale))


def test_a_foreign_file_of_other_values_is_refused_and_runs_as_its_block_says(onnx_file):
    path = onnx_file(["n", 3, "h", "w"], 1.0, "Max", 16.0)  # changes little from 0 to 255, all from 0 to 1
    with pytest.raises(ValueError, match=r"takes values from 0 to 255.*value_range: 255"):
        load_model(path)
    model, x = load_model(f"{{checkpoint: {path}, value_range: 255}}"), torch.rand(1, 3, 8, 8)
    assert model.name == "net" and torch.allclose(model(x), x.clamp_min(16 / 255))
    with pytest.raises(ValueError, match=r"width: 3, expected beside an \.onnx file one of pad_to"):
        load_model({"checkpoint": path, "width": 3})


def test_memory_that_onnxruntime_keeps_is_given_back(onnx_file):
    from kd_plugins.memory import growth

    model, x = load_model(onnx_file(["n", 3, "h", "w"])), torch.rand(1, 3, 1024, 1024)
    needs = []
    for _ in range(2):
        needs.append(growth(lambda: model(x), torch.device("cpu")))
        model.release_memory()
    if None in needs:
        pytest.skip("this system does not say how much memory a process needs")
    assert needs[1] == pytest.approx(needs[0], rel=0.25)
