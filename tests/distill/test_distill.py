import importlib.util
import re

import pytest
import torch
import yaml

from kd_plugins.cli import main
from kd_plugins.deploy.model import load_model
from kd_plugins.training.loop import Loop


@pytest.fixture
def words(teacher_file, photo_folder, tmp_path, monkeypatch, one_thread):
    """The words of a distillation in four steps of crops that fit small photos."""
    from kd_plugins.distill import images, plan, stages

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kd_plugins.deploy.benchmark.peak_memory", lambda *_: None)  # a process for each network
    monkeypatch.setattr("kd_plugins.report.make.RESTORED", 32)
    monkeypatch.setattr(plan, "CROP", 32)
    monkeypatch.setattr(stages, "_FORMS", (".pth", ".safetensors"))  # an .onnx file takes its time: one test writes it
    monkeypatch.setattr(images, "_SIDE", 48)
    return [
        *("distill", "-m", str(teacher_file), "--photos", str(photo_folder), "--degradation", "rain", "--params", "0.3"),
        *("--threads", "1", "--device", "cpu"),
    ]


def changed(path, **values):
    text = path.read_text()
    for key, value in values.items():
        text, count = re.subn(rf"\b{key}: \S+?(?=[,\s])", f"{key}: {value}", text)
        assert count
    path.write_text(text)


def test_a_teacher_becomes_a_student_with_all_that_belongs_to_it(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kd_plugins.distill.stages._FORMS", (".pth", ".safetensors", ".onnx"))
    assert main([*words, "--steps", "4", "-o", "out"]) == 0
    out = tmp_path / "out"
    opt = yaml.safe_load((out / "options.yml").read_text())
    assert opt["train"]["total_iter"] == 4 and opt["train"]["distill"]["hint"]["type"] == "FitNetFeatureLoss"
    image = torch.rand(1, 3, 20, 28)
    first, second = (load_model(str(out / name))(image) for name in ("student.pth", "student.safetensors"))
    assert torch.equal(first, second) and first.shape == image.shape
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        assert torch.allclose(first, load_model(str(out / "student.onnx"))(image), atol=1e-4)
        assert "Exported: student.onnx" in (out / "report.html").read_text()
    else:
        assert not (out / "student.onnx").exists() and "pip install kd_plugins[export]" in capsys.readouterr().out
    assert "Start, before training" in (out / "report.html").read_text()

    before = (out / "student.pth").stat().st_mtime_ns
    capsys.readouterr()
    assert main(["distill", "-o", "out", "--device", "cpu"]) == 0  # all is done
    assert "Training" not in capsys.readouterr().out and (out / "student.pth").stat().st_mtime_ns == before


def test_a_change_of_the_option_file_counts(words, tmp_path, capsys):
    assert main([*words, "--steps", "2", "-o", "out"]) == 0
    runs = tmp_path / "out" / "experiments"
    changed(tmp_path / "out" / "options.yml", total_iter=4, T_max=4)
    assert main(["distill", "-o", "out", "--device", "cpu"]) == 0
    assert "Going on" in capsys.readouterr().out and [run.name for run in runs.iterdir()] == ["student"]
    assert (runs / "student" / "models" / "net_g_4.pth").exists()
    changed(tmp_path / "out" / "options.yml", lr=0.5)
    assert main(["distill", "-o", "out", "--device", "cpu"]) == 0
    assert "Going on" not in capsys.readouterr().out and len(list(runs.iterdir())) == 2  # the one before is archived


def test_a_distillation_that_was_stopped_goes_on(words, tmp_path, monkeypatch, capsys):
    step = Loop.step

    def stop(loop, *arguments):
        step(loop, *arguments)
        if loop.current_iter == 3:
            loop.interrupt.received = 15

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "step", stop)
        assert main([*words, "--steps", "4", "-o", "out"]) == 75
    assert "the same command goes on" in capsys.readouterr().err
    assert main([*words, "--steps", "4", "-o", "out"]) == 0
    assert "Going on with the training" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists()


def test_several_targets_make_a_family_and_a_budget_becomes_steps(words, tmp_path, capsys, monkeypatch):
    from kd_plugins.distill import budget, stages
    from kd_plugins.training import length

    monkeypatch.setattr(length, "_LEAST", 1)
    monkeypatch.setattr(stages, "steps_within", lambda seconds, text: (min(budget.steps_within(seconds, text)[0], 2), 0.1))
    assert (
        main([*[w for w in words if w not in ("--params", "0.3")], "--params", "0.3", "0.6", "--budget", "30s", "-o", "out"]) == 0
    )
    said = capsys.readouterr().out
    assert "2 steps in 0.5 minutes" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Decibels over milliseconds" in page and 'href="params_0.3/report.html"' in page
    sizes = [
        sum(p.numel() for p in load_model(str(tmp_path / "out" / f"params_{x}" / "student.pth")).run.parameters())
        for x in (0.3, 0.6)
    ]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"-m": "restormer_derian"}, "restormer_derain"),
        ({"--photos": "nowhere"}, "--photos"),
        ({"--degradation": "rian"}, "nearest: rain"),
        ({"--degradation": "downsample:4"}, "enlarges images 1 times"),
        ({"--params": "0"}, "params"),
        ({"--params": None}, "missing: --flops"),
        ({"--photos": None}, "missing: --photos"),
        ({"--degradation": None}, "expected --degradation"),
        ({"--steps": "0"}, "--steps"),
        ({"--device": "cdua"}, "nearest"),
        ({"--size": "256"}, "--latency or --ms"),
    ],
)
def test_a_wrong_word_is_one_error_and_nothing_is_written(words, tmp_path, capsys, change, said):
    found = dict(zip([*words[1::2], "--steps", "-o"], [*words[2::2], "4", "out"], strict=True)) | change
    assert main(["distill", *(word for flag, value in found.items() if value is not None for word in (flag, value))]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_command_for_the_same_folder_is_refused(words, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "options.yml").write_text("# basicsr distill -m other --photos builtin\nname: student\n")
    assert main([*words, "--steps", "4", "-o", "out"]) == 2
    assert "was written by" in capsys.readouterr().err
