"""Models side by side: in turns, in each form, with what they take; what does not run is one sentence."""

import json

import pytest
import torch
import torch._inductor.config as inductor_config
from torch import nn

from kd_plugins.cli import main
from kd_plugins.deploy import benchmark as module
from kd_plugins.deploy.benchmark import as_markdown, benchmark
from kd_plugins.deploy.peak_memory import peak_memory
from kd_plugins.deploy.variants import Loaded, Variant, told_apart, variants

CPU = torch.device("cpu")
STUDENT = "restormer_derain_student"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A TorchScript file of one convolution."""
    file = tmp_path_factory.mktemp("exported") / "net.pt"
    torch.jit.trace(nn.Conv2d(3, 3, 3, padding=1).eval(), torch.rand(1, 3, 8, 8)).save(str(file))
    return str(file)


@pytest.fixture
def calls(monkeypatch):
    """Who ran at which size: models of these names that are none."""
    calls = []

    def load(variant):
        def run(x):
            assert torch.is_inference_mode_enabled() and not x.requires_grad
            if variant.source == "small" and x.shape[-1] > 8:
                raise RuntimeError("\n  no such size\nelsewhere")
            calls.append((variant.source, *x.shape[-2:]))

        return Loaded(variant.source, run, CPU)

    monkeypatch.setattr(Variant, "load", load)
    monkeypatch.setattr(module, "peak_memory", lambda *_: 3 * 2**20)
    return calls


def test_models_take_turns_at_each_size_and_what_does_not_run_is_left_out(calls):
    said = []
    measured = list(benchmark(variants(["a", "small", "b"], "cpu"), [(8, 8), (8, 16)], 1, 3, said.append))
    turns = [name for name, *size in calls if size == [8, 8]]
    assert turns == ["a", "small", "b"] * (1 + 1 + 3)  # tried, warm, timed
    assert [name for name, *size in calls if size == [8, 16]] == ["a", "b", *["a", "b"] * 4]
    assert said == ["small, eager, at 8x16 is left out: no such size"]
    assert [(each.model, each.size) for each in measured] == [
        *((name, (8, 8)) for name in ("a", "small", "b")), ("a", (8, 16)), ("b", (8, 16)),
    ]  # fmt: skip
    assert measured[0].of_the_first == measured[3].of_the_first == 1
    for each, first in ((measured[2], measured[0]), (measured[4], measured[3])):
        assert each.of_the_first == each.latency.median / first.latency.median
    table = as_markdown(measured, "a desk").splitlines()
    assert table[1:3] == ["8x8 on a desk", ""] and table[4].startswith("|---") and "3 MiB" in table[5]


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"x/models/latest.pth": "latest", "y/models/latest.pth": "latest"}, ["x/models/latest.pth", "y/models/latest.pth"]),
        ({"a/b.pth": "b", "a/b.safetensors": "b", "a/c.onnx": "c.onnx"}, ["b.pth", "b.safetensors", "c.onnx"]),
        ({"a/b.onnx": "b.onnx", "/x/a/b.onnx": "b.onnx"}, ["a/b.onnx", "x/a/b.onnx"]),
        ({"{checkpoint: a/b.pth, noise_level: 15}": "b", "{checkpoint: a/b.pth, noise_level: 25}": "b"}, None),
    ],
)
def test_models_of_one_name_are_told_apart_by_the_ends_of_their_paths(names, found):
    assert list(told_apart(names).values()) == (found or list(names))


def test_each_form_that_is_asked_for(exported):
    found = [(each.source, each.form) for each in variants(["net", exported], "cpu", ["bf16"], True, True)]
    forms = ["eager", "eager, bf16", "eager, channels_last", "eager, channels_last, bf16"]
    compiled = [form.replace("eager", "compiled") for form in forms]
    assert found == [*(("net", form) for form in (*forms, *compiled)), (exported, "torchscript")]


def test_the_network_is_run_as_the_form_says():
    loaded = Variant(STUDENT, channels_last=True, precision="bf16").load()
    x = loaded.example(16, 24)
    weight = next(p for p in loaded.net.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[-1] > 1)
    assert x.shape == (1, 3, 16, 24)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in (x, weight))
    seen = []
    handle = next(m for m in loaded.net.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(
        lambda *args: seen.append(args[2].dtype)
    )
    with torch.inference_mode():
        loaded.run(x)
    handle.remove()
    assert seen == [torch.bfloat16]


def test_memory_is_that_of_a_process_of_its_own(exported):
    small, large = (peak_memory(Variant(exported), (side, side), 1) for side in (64, 1024))
    if small is None:
        pytest.skip("the system does not say what a process needs")
    image = 1024 * 1024 * 3 * 4
    assert image < large - small < 10 * image
    assert peak_memory(Variant(exported, compiled=True), (64, 64), 1) is None


def test_a_missing_compiler_is_one_sentence_and_the_rest_is_measured(monkeypatch):
    monkeypatch.setattr(module, "peak_memory", lambda *_: None)
    said = []
    with inductor_config.patch({"cpp.cxx": ("no-such-compiler",)}):
        measured = list(benchmark(variants([STUDENT], "cpu", compiled=True), [(16, 16)], 1, 1, said.append))
    assert [each.form for each in measured] == ["eager"] and measured[0].params > 2e5 and measured[0].flops > 0
    assert len(said) == 1 and said[0].startswith(f"{STUDENT}, compiled, at 16x16 is left out: ") and "\n" not in said[0]


def test_the_command_prints_markdown_and_writes_json(exported, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "peak_memory", lambda *_: 2**20)
    file = tmp_path / "numbers.json"
    arguments = ["-m", STUDENT, "-m", exported, "--size", "16", "16x24", "--threads", "1", "--repeats", "3", "--json", str(file)]
    before = torch.get_num_threads()
    assert main(["benchmark", *arguments]) == 0 and torch.get_num_threads() == before
    out = capsys.readouterr().out
    assert "16x24 on the CPU (1 thread)" in out and out.count(f"| {STUDENT}") == 2 and "| net.pt" in out
    found = json.loads(file.read_text())
    assert found["threads"] == 1 and found["repeats"] == 3 and len(found["results"]) == 4
    first = found["results"][0]
    assert first["size"] == [16, 16] and first["fastest_ms"] <= first["median_ms"] <= first["slowest_ms"]
    assert f"{first['median_ms']:.1f} ms" in out and first["memory"] == 2**20


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "no_such_model"], "no_such_model"),
        (["-m", "gone.onnx"], "model: 'gone.onnx' is no file"),
        (["-m", STUDENT, "--size", "8x"], "--size: '8x', expected pixels: 256, or 512x768"),
        (["-m", STUDENT, "--threads", "0"], "--threads: 0, expected a whole number of at least 1"),
        (["-m", STUDENT, "--device", "cuda:9"], "device: 'cuda:9', expected one of auto, cpu"),
        (["-m", STUDENT, "--threads", "1000000"], "threads: 1000000, expected at most"),
        (["-m", STUDENT, "--json", "."], "--json .: is a folder, expected a file"),
        (["-m", STUDENT, "--json", "gone/x.json"], "--json: gone/x.json, but there is no folder gone"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(arguments, said, capsys):
    assert main(["benchmark", *arguments]) == 2
    assert said in (error := capsys.readouterr().err) and "Traceback" not in error


@pytest.mark.parametrize("ending", [".pt2", ".xml", ".onnx"])
def test_a_file_that_is_no_exported_one_is_one_sentence(tmp_path, ending, capsys):
    pytest.importorskip({".xml": "openvino", ".onnx": "onnxruntime"}.get(ending, "torch"))
    (file := tmp_path / f"net{ending}").write_text("hello")
    assert main(["benchmark", "-m", str(file)]) == 2
    error = capsys.readouterr().err
    assert f"{file}" in error and "cannot be loaded" in error and "Traceback" not in error


def test_weights_may_be_named_pt_and_exported_files_may_be_gray(tmp_path, exported):
    torch.save({}, tmp_path / "weights.pt")
    assert Variant(str(tmp_path / "weights.pt")).form == "eager" and Variant(exported).form == "torchscript"
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 8, 8)), tmp_path / "gray.pt")
    assert Variant(str(tmp_path / "gray.pt")).load().channels == 1
