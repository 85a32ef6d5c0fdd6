import contextlib
import importlib.util
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml

from kd_plugins.cli import main
from kd_plugins.deploy.export import export_checked
from kd_plugins.deploy.model import load_model
from kd_plugins.training.loop import Loop

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime", "onnxscript"))


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
    with monkeypatch.context() as patched:
        patched.setattr("kd_plugins.distill.stages.quantize", refuse)
        asked = ["--int8", "--max-loss", "0.2"] if HAS_ONNX else []
        assert main([*words, "--steps", "4", *asked, "-o", "out"]) == bool(asked)
    out = tmp_path / "out"
    opt = yaml.safe_load((out / "options.yml").read_text())
    assert opt["train"]["total_iter"] == 4 and opt["train"]["distill"]["hint"]["type"] == "FitNetFeatureLoss"
    image = torch.rand(1, 3, 20, 28)
    first, second = (load_model(str(out / name))(image) for name in ("student.pth", "student.safetensors"))
    assert torch.equal(first, second) and first.shape == image.shape
    said, page = capsys.readouterr(), (out / "report.html").read_text()
    assert "Start, before training" in page and "out: " in said.out and "against its teacher" in said.out
    assert "is created" not in said.err.partition("Student: ")[2]  # the log is the training's
    before, words = (out / "student.pth").stat().st_mtime_ns, ["distill", "-o", "out", "--device", "cpu"]
    if not HAS_ONNX:
        assert not (out / "student.onnx").exists() and "pip install kd_plugins[export]" in said.out
        return
    assert torch.allclose(first, load_model(str(out / "student.onnx"))(image), atol=1e-4)
    assert "Exported: student.onnx" in page and "student_int8.onnx is left out: loses 0.2 dB" in said.out and "int8" not in page

    assert main([*words, "--int8", "--max-loss", "inf"]) == 0  # of the student that is there
    said, page = capsys.readouterr().out, (out / "report.html").read_text()
    assert re.search(r"Student in int8: out/student_int8.onnx\n  On 1 held-out image .*: .*\d dB lost against the truth", said)
    model = load_model(str(out / "student_int8.onnx"))
    assert model.precision == "int8" and model(image).shape == image.shape
    assert "In int8: student_int8.onnx" in page and "Time of student_int8.onnx" in page
    assert main(words) == 0 and capsys.readouterr().out == ""  # all is done
    assert (out / "student.pth").stat().st_mtime_ns == before


def refuse(plain, path, samples, max_loss, say):
    raise ValueError(f"loses {max_loss} dB")


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
        ({"--max-loss": "0.1"}, "expected --int8 beside it"),
        ({"--params": "0.3 0.00001"}, "no student within 30 %"),
    ],
)
def test_a_wrong_word_is_one_error_and_nothing_is_written(words, tmp_path, capsys, change, said):
    found = dict(zip([*words[1::2], "--steps", "-o"], [*words[2::2], "4", "out"], strict=True)) | change
    assert main(["distill", *(word for flag, value in found.items() if value is not None for word in (flag, *value.split()))]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_command_for_the_same_folder_is_refused(words, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "options.yml").write_text("# basicsr distill -m other --photos builtin\nname: student\n")
    assert main([*words, "--steps", "4", "-o", "out"]) == 2
    assert "was written by" in capsys.readouterr().err


def test_an_export_that_takes_no_end_is_left_out(words, tmp_path, monkeypatch, capsys):
    from kd_plugins.distill import stages

    def export(model, path):
        if path.suffix == ".onnx":
            with contextlib.suppress(Exception):  # as exporters do
                time.sleep(60)
        return export_checked(model, path)

    monkeypatch.setattr(stages, "_FORMS", (".pth", ".onnx"))
    monkeypatch.setattr(stages, "_EXPORT_SECONDS", 5.0)
    monkeypatch.setattr(stages, "export_checked", export)
    monkeypatch.setattr(stages, "write_report", lambda *_, **__: None)
    assert main([*words, "--steps", "2", "-o", "out"]) == 0
    assert "student.onnx is left out: takes more than 5 s" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "out").glob("*student*")) == ["student.pth"]


@pytest.mark.parametrize("stage", ["_export", "_report"])
def test_killed_at_any_stage_it_goes_on_and_leaves_nothing_behind(words, tmp_path, stage):
    """SIGKILL in the middle of a write of each stage; the whole is done once more."""
    program = f"""
import os, signal, sys
from kd_plugins import atomic_files, cli
from kd_plugins.deploy import benchmark
from kd_plugins.distill import images, plan, stages
from kd_plugins.report import make
benchmark.peak_memory, make.RESTORED, plan.CROP, images._SIDE = (lambda *_: None), 32, 32, 48
stages._FORMS = (".pth", ".safetensors")
run, replace = getattr(stages.Distillation, {stage!r}), os.replace
def killed(student):
    def stop(source, target):
        if str(target).endswith(("student.safetensors", "report.html")):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    os.replace = stop
    run(student)
setattr(stages.Distillation, {stage!r}, killed)
sys.exit(cli.main(sys.argv[1:]))
"""
    done = subprocess.run([sys.executable, "-c", program, *words, "--steps", "4", "-o", "out"], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert list((tmp_path / "out").rglob(".*.part"))
    assert main(["distill", "-o", "out", "--device", "cpu"]) == 0
    assert (tmp_path / "out" / "report.html").exists() and not list((tmp_path / "out").rglob(".*.part"))
