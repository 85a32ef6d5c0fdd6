"""int8: what it loses is measured, and what loses most stays in float."""

import importlib.util
import re

import cv2
import numpy as np
import pytest
import torch

from kd_plugins.cli import main
from kd_plugins.deploy.calibration import MOST, SIDE, Sample, Samples, read_samples
from kd_plugins.deploy.export import export_model
from kd_plugins.deploy.model import load_model
from kd_plugins.deploy.parity import psnr
from kd_plugins.deploy.quantize import least_psnr, quantize

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime", "onnxscript")),
    reason="onnx, onnxruntime and onnxscript are not installed: pip install kd_plugins[export]",
)


def write_image(path, height=24, width=32, seed=0, channels=3):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (height // 8, width // 8, channels), np.uint8)
    cv2.imwrite(str(path), cv2.resize(pixels, (width, height)))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Inputs and their enlarged images."""
    folder = tmp_path_factory.mktemp("images")
    for index in range(5):
        write_image(folder / "lq" / f"{index}.png", seed=index)
        write_image(folder / "gt" / f"{index}.png", 96, 128, seed=index)
    return folder / "lq", folder / "gt"


@pytest.fixture(scope="module")
def plain(models, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "float.onnx"
    export_model(models["srresnet"], path)
    return path


def layers(path):
    """Convolutions in int8 (of dequantised weights), and all."""
    import onnx

    graph = onnx.load(path).graph
    dequantised = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    return sum(node.input[1] in dequantised for node in convolutions), len(convolutions)


def test_all_layers_in_int8_and_the_loss_as_measured(plain, folders, tmp_path):
    samples, path = read_samples(*folders, 3, 4), tmp_path / "s.onnx"
    found = quantize(plain, path, samples, float("inf"))
    assert layers(path) == (found.nodes, found.nodes) and not found.in_float
    float_model, model = load_model(str(plain)), load_model(str(path))
    assert (model.scale, model.channels, model.fixed_size) == (4, 3, None)
    (held_out,) = samples.held_out
    expected, seen = (each(held_out.x).clamp(0, 1) for each in (float_model, model))
    assert found.loss.psnr == pytest.approx(psnr((expected - seen).square().mean().item()), abs=0.01)
    lost = psnr((expected - held_out.truth).square().mean().item()) - psnr((seen - held_out.truth).square().mean().item())
    assert found.loss.lost == pytest.approx(lost, abs=1e-3) and 20 < found.loss.psnr < 100
    import onnx

    facts = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert facts["name"] == "srresnet" and facts["precision"] == "int8"


def test_the_layers_that_lose_most_stay_in_float(plain, folders, tmp_path):
    samples = read_samples(folders[0], None, 3, 4)
    whole = quantize(plain, tmp_path / "all.onnx", samples, float("inf"))
    bound = whole.loss.lost / 2
    said = []
    found = quantize(plain, tmp_path / "part.onnx", samples, bound, said.append)
    assert found.loss.lost <= bound and found.loss.psnr >= least_psnr(bound) - 1e-6
    assert 0 < found.nodes < whole.nodes and len(found.in_float) == whole.nodes - found.nodes
    assert layers(tmp_path / "part.onnx") == (found.nodes, whole.nodes)
    assert len(said) == 1 and said[0].startswith(f"All {whole.nodes} layers in int8 lose")
    with pytest.raises(ValueError, match=r"--max-loss 1e-09: \d of \d layers in int8 lose 0\.\d+ dB, .* expected --max-loss 0\."):
        quantize(plain, tmp_path / "none.onnx", samples, 1e-9, said.append)
    assert not (tmp_path / "none.onnx").exists()


def test_an_image_without_any_error_in_float_has_a_loss_that_is_a_number(plain, folders, tmp_path):
    (held_out,) = read_samples(folders[0], None, 3, 4).held_out
    perfect = Sample(held_out.x, load_model(str(plain))(held_out.x).clamp(0, 1))
    found = quantize(plain, tmp_path / "s.onnx", Samples([held_out], [perfect]), float("inf"))
    assert found.loss.lost == pytest.approx(100 - found.loss.psnr)


def test_the_psnr_that_stands_for_a_loss():
    assert least_psnr(0.1) == pytest.approx(51.3, abs=0.05)


def test_images_are_split_cropped_and_brought_to_the_networks_channels(tmp_path):
    for index in range(MOST + 6):
        write_image(tmp_path / "lq" / f"{index:02}.png", 16, 16, index)
    write_image(tmp_path / "lq" / "00.png", SIDE + 40, 48)
    write_image(tmp_path / "lq" / "01.png", channels=1)
    found = read_samples(tmp_path / "lq", None, 3, 1)
    assert (len(found.calibration), len(found.held_out)) == (MOST * 3 // 4, MOST // 4)
    assert found.calibration[0].x.shape == (1, 3, SIDE, 48) and found.held_out[0].x.shape == (1, 3, 24, 32)
    whole = torch.from_numpy(cv2.imread(str(tmp_path / "lq" / "00.png"))[20:-20, :, ::-1].copy()).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(found.calibration[0].x, whole)
    assert read_samples(tmp_path / "lq", None, 1, 1).calibration[0].x.shape == (1, 1, SIDE, 48)


def test_truths_are_cropped_at_the_scale(tmp_path):
    for index in range(2):
        write_image(tmp_path / "lq" / f"{index}.png", SIDE + 16, 48, index)
        image = cv2.imread(str(tmp_path / "lq" / f"{index}.png"))
        (tmp_path / "gt").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "gt" / f"{index}.png"), image.repeat(2, 0).repeat(2, 1))
    (sample,) = read_samples(tmp_path / "lq", tmp_path / "gt", 3, 2).held_out
    torch.testing.assert_close(sample.truth, sample.x.repeat_interleave(2, -1).repeat_interleave(2, -2))


@pytest.mark.parametrize(
    ("lq", "gt", "said"),
    [
        ("no", None, "--calibrate .*no: no such folder"),
        ("empty", None, r"--calibrate .*empty: no image in it \(\.png"),
        ("one", None, r"--calibrate .*one: one image \(0\.png\), expected at least 2"),
        ("bad", None, r"bad.1\.png: it is no image"),
        ("two", "no", "--gt .*no: no such folder"),
        ("two", "one", r"--gt .*one: no 1\.png in it, expected a file for each image"),
        ("two", "large", r"--gt: .*large.0\.png is 96x128, expected 48x64 \(2 times .*two.0\.png\)"),
    ],
)
def test_images_that_cannot_be_used(tmp_path, lq, gt, said):
    (tmp_path / "empty").mkdir()
    for name in ("one/0", "bad/0", "two/0", "two/1"):
        write_image(tmp_path / f"{name}.png")
    (tmp_path / "bad" / "1.png").write_text("none")
    for name in ("0", "1"):
        write_image(tmp_path / "large" / f"{name}.png", 96, 128)
    with pytest.raises(ValueError, match=said):
        read_samples(tmp_path / lq, tmp_path / gt if gt else None, 3, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--int8"], "--int8: expected --calibrate FOLDER"),
        (["--int8", "--fp16", "--calibrate", "lq"], "--int8 --fp16: two precisions, expected one"),
        (["--calibrate", "lq"], "--calibrate lq: is for --int8, which is not given"),
        (["--max-loss", "0.2"], "--max-loss 0.2: is for --int8"),
        (["--int8", "--calibrate", "lq", "--max-loss", "0"], "--max-loss 0: expected a number of dB above 0"),
        (["--int8", "--calibrate", "lq", "-o", "s.xml"], "--int8 -o s.xml: expected a name that ends in .onnx"),
    ],
)
def test_words_that_do_not_fit_are_refused_at_once(words, said, capsys):
    assert main(["export", "-m", "restormer_derain_student", "-o", "s.onnx", *words]) == 2
    assert said in capsys.readouterr().err


def test_the_command_says_what_int8_loses_and_gains(folders, tmp_path, capsys):
    from kd_plugins.archs.nafnet_arch import NAFNet

    torch.save(NAFNet(width=4).state_dict(), tmp_path / "net.pth")
    source = "{type: NAFNet, width: 4, middle_blk_num: 1, checkpoint: %s}" % (tmp_path / "net.pth")
    words = ["export", "-m", source, "-o", str(tmp_path / "s.onnx"), "--int8", "--calibrate", str(folders[0])]
    assert main([*words, "--max-loss", "inf"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"On 1 held-out image \(4 for calibration\): a network of 35 dB would lose \d+\.\d{3} dB", said)
    assert "(0.1 dB would be 51.3 dB)" in said and "481x321: largest difference" in said
    assert re.search(r"(\d+) of \1 layers \(Conv, ConvTranspose, Gemm, MatMul\) in int8, 0 in float", said)
    assert re.search(r"At 24x32, in turns: .* ms .*, in float .* ms .*: \d+\.\d\d of its time", said)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.pth", "s.onnx"]
    images = ["-i", str(folders[0]), "-o", str(tmp_path / "restored")]
    assert main(["restore", "-m", str(tmp_path / "s.onnx"), *images]) == 0 and len(list((tmp_path / "restored").iterdir())) == 5
