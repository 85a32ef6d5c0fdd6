"""Exported files: any size through one file, what they say of themselves, and what is refused."""

import importlib.util
import json
import sys

import pytest
import torch
from torch import nn

from kd_plugins.deploy.export import aside, export_checked
from kd_plugins.deploy.exported import load_exported
from kd_plugins.deploy.model import Model, load_model
from kd_plugins.deploy.parity import SIZES

NEEDS = {".onnx": ["onnx", "onnxruntime", "onnxscript"], ".xml": ["openvino"]}


def need(suffix):
    for name in NEEDS.get(suffix, []):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install kd_plugins[export]")


def export(model, path, **how):
    need(path.suffix)
    found = export_checked(model, path, **how)
    assert [each.size for each in found] == list(SIZES)
    return min(each.psnr for each in found)


# every form once for each family would take minutes; tools/export_families.py does that
@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("restormer", ".onnx"), ("restormer", ".pt"), ("nafnet", ".xml"), ("nafnet", ".pt"),
        ("swinir", ".pt"), ("swinir", ".xml"), ("srresnet", ".onnx"),
    ],
)  # fmt: skip
def test_one_file_takes_images_of_any_size(models, tmp_path, name, suffix):
    model, path = models[name], tmp_path / f"student{suffix}"
    assert export(model, path) > 110
    run = load_exported(path)
    for size in ((33, 50), (57, 38)):
        x = torch.rand(1, 3, *size)
        torch.testing.assert_close(run(x), model.net(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "suffix"), [("nafnet", ".onnx"), ("restormer", ".pt"), ("nafnet", ".pt2")])
def test_half_precision_stays_inside(models, tmp_path, name, suffix):
    path = tmp_path / f"student{suffix}"
    assert 55 < export(models[name], path, half=True) < 130
    if suffix == ".onnx":  # single precision outside
        assert load_exported(path)(torch.rand(1, 3, 20, 20)).dtype is torch.float32
    else:
        assert any(tensor.dtype is torch.float16 for tensor in load_exported(path).state_dict().values())


def test_a_network_that_leaves_the_range_of_half_precision_is_refused(tmp_path):
    class Far(nn.Module):
        def forward(self, x):
            return x * 400 * 400 / 160000

    model = Model(Far(), "far", torch.device("cpu"))
    export(model, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"b\.pt: differs from PyTorch at 481x321: .*nan|inf"):
        export(model, tmp_path / "b.pt", half=True)


def test_a_program_of_any_number_of_images_is_a_teacher(models, tmp_path):
    from kd_plugins.teachers import build_teacher

    path, x = tmp_path / "t.pt2", torch.rand(3, 3, 17, 23)
    export(models["nafnet"], path)
    teacher = build_teacher({"program": str(path), "trust": True})
    torch.testing.assert_close(teacher(x).image, models["nafnet"].net(x))


def test_files_say_what_they_are(models, tmp_path):
    model = models["srresnet"]
    expected = {"name": "srresnet", "scale": "4", "channels": "3", "order": "RGB", "range": "0-1", "precision": "fp32"}
    export(model, tmp_path / "s.pt")
    files = {"kd_plugins.json": ""}
    torch.jit.load(tmp_path / "s.pt", _extra_files=files)
    assert expected.items() <= json.loads(files["kd_plugins.json"]).items()
    if importlib.util.find_spec("openvino"):
        import openvino

        export(model, tmp_path / "s.xml")
        found = openvino.Core().read_model(tmp_path / "s.xml")
        assert all(found.get_rt_info(["kd_plugins", key]).value == value for key, value in expected.items())
        assert found.inputs[0].get_any_name() == "image" and found.outputs[0].get_any_name() == "restored"
    need(".onnx")
    import onnx

    export(model, tmp_path / "s.onnx")
    found = onnx.load(tmp_path / "s.onnx")
    assert expected.items() <= {each.key: each.value for each in found.metadata_props}.items()
    assert [each.dim_param or each.dim_value for each in found.graph.input[0].type.tensor_type.shape.dim] == [
        1,
        3,
        "height",
        "width",
    ]
    assert not any(node.metadata_props for node in found.graph.node)  # PyTorch's hold the names of folders
    restored = load_model(str(tmp_path / "s.onnx"))
    assert (restored.scale, restored.channels, restored.fixed_size) == (4, 3, None)


@pytest.mark.parametrize("name", ["s.safetensors", "s.pth"])
def test_weights_describe_their_network(models, tmp_path, name):
    model, path = models["restormer"], tmp_path / name
    assert export(model, path) == float("inf")
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    x = torch.rand(1, 3, 20, 30)
    assert torch.equal(load_model(str(path)).net(x), model.net(x))
    whole = path.stat().st_size
    assert export(model, path, half=True) > 40 and path.stat().st_size < 0.65 * whole


class Baked(nn.Module):
    """Reckons with the size as a number, which a trace keeps."""

    def forward(self, x):
        return x * (float(x.shape[-1]) / 100)


def test_what_differs_is_refused_and_takes_no_ones_place(tmp_path):
    model, target = Model(Baked(), "baked", torch.device("cpu")), tmp_path / "s.pt"
    target.write_text("before")
    with pytest.raises(ValueError, match=r"s\.pt: differs from PyTorch at 481x321.*expected at least 80 dB"):  # noqa: SIM117
        with aside(target, overwrite=True) as path:
            export(model, path)
    assert target.read_text() == "before" and [file.name for file in tmp_path.iterdir()] == ["s.pt"]


def test_what_a_form_cannot_hold_is_one_sentence(tmp_path):
    class Counting(nn.Module):
        def forward(self, x):
            return x * (1 if x.sum() > 0 else 2)

    with pytest.raises(ValueError, match=r"m: Counting cannot be written as torch\.export: \w+: .+") as found:
        export(Model(Counting(), "m", torch.device("cpu")), tmp_path / "s.pt2")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("s.onxx", r"s\.onxx: expected a name that ends in one of \.onnx, .*nearest: \.onnx"),
        ("there.pt", "is there already; expected another name, or --overwrite"),
        ("there.xml", r"there\.bin: is there already"),
        ("no/s.pt", "no folder"),
        ("folder.pt", "folder.pt: is a folder, expected a file"),
    ],
)
def test_names_that_cannot_be_used_are_refused_before_anything(tmp_path, name, said):
    for there in ("there.pt", "there.bin"):
        (tmp_path / there).touch()
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(ValueError, match=said), aside(tmp_path / name, overwrite=False):
        raise AssertionError("nothing is to be written")


def test_a_missing_library_is_named_with_the_remedy(models, tmp_path, monkeypatch):
    for suffix, library in ((".onnx", "onnx_ir"), (".xml", "openvino")):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ValueError, match=rf"{library}.* is not installed: pip install kd_plugins\[export\]"):
            export_checked(models["srresnet"], tmp_path / f"s{suffix}")
