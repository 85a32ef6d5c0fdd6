"""A student made of its teacher stays the one that the run began with: another timing would choose another one."""

import pytest
import torch
import yaml

from kd_plugins.cli import main
from kd_plugins.models import student_init
from kd_plugins.students.from_teacher import Student

pytestmark = pytest.mark.usefixtures("one_thread")
LAYOUT = {"type": "Restormer", "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 0, "heads": [1, 1, 2, 2]}


@pytest.fixture
def timing_says(monkeypatch):
    """A function: the width of the student that is fast enough from now on."""

    def say(dim):
        block = {**LAYOUT, "dim": dim}
        monkeypatch.setattr(student_init, "student_of", lambda *_: Student(block, None, "0.5 of its latency"))

    return say


@pytest.fixture
def begun(options, write, tmp_path, monkeypatch, timing_says):
    """The options of a run that has taken two steps of four, with a student of width 4; by now it would have width 2."""
    monkeypatch.chdir(tmp_path)
    options.update(
        num_threads=1,
        model_type="DistillationModel",
        init="random",
        features=None,
        network_g={"from_teacher": {"ms": 20, "size": "32x64"}},
    )
    options["logger"].update(use_tb_logger=False, save_checkpoint_freq=2)
    options["train"].update(total_iter=2, pixel_opt={"type": "L1Loss"})
    timing_says(4)
    assert main(["train", "-opt", write(options)]) == 0
    options["train"]["total_iter"] = 4
    timing_says(2)
    return options


def width(name="tiny"):
    weights = torch.load(f"experiments/{name}/models/net_g_latest.pth", weights_only=True)["params"]
    return weights["patch_embed.proj.weight"].shape[0]


def test_a_run_goes_on_with_its_student_and_another_run_has_its_own(begun, write, tmp_path):
    assert main(["train", "-opt", write(begun), "--auto_resume"]) == 0 and width() == 4
    kept = yaml.safe_load((tmp_path / "experiments/tiny/student.yml").read_text())
    assert kept["from_teacher"] == {"ms": 20, "size": "32x64"} and kept["network_g"] == {**LAYOUT, "dim": 4}
    repeated = yaml.safe_load((tmp_path / "experiments/tiny/options.yml").read_text())
    assert repeated["network_g"] == {**LAYOUT, "dim": 4} and repeated["teacher"] == begun["teacher"]
    assert main(["train", "-opt", write({**begun, "name": "other"})]) == 0 and width("other") == 2


def test_what_is_tested_is_the_runs_student(begun, write, photo_folder):
    begun["datasets"] = {"test": {**begun["datasets"]["train"], "name": "set", "photos": str(photo_folder)}}
    begun["val"] = {"metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}}
    assert main(["test", "-opt", write(begun)]) == 0
    weights = "experiments/tiny/models/net_g_2.pth"
    assert main(["test", "-opt", write(begun), "--force_yml", f"path:pretrain_network_g={weights}"]) == 0


def test_another_request_needs_another_run_and_weights_of_an_unknown_student_are_not_timed(begun, write, tmp_path, capsys):
    def said(request):
        begun["network_g"] = {"from_teacher": request}
        assert main(["train", "-opt", write(begun), "--auto_resume"]) == 2
        error = capsys.readouterr().err
        assert "Traceback" not in error and str(tmp_path / "experiments/tiny/student.yml") in error
        return error

    for request, words in (({"ms": 10, "size": "32x64"}, "{ms: 10, size: 32x64}"), ({"flops": 0.5}, "{flops: 0.5}")):
        expected = f"from_teacher: {words}, but the run has the student of {{ms: 20, size: 32x64}}"
        assert expected in (error := said(request)) and "expected that, or another `name`" in error
    (tmp_path / "experiments/tiny/student.yml").write_text("from_teacher: [")
    assert "student.yml cannot be read: " in said({"ms": 20})
    (tmp_path / "experiments/tiny/student.yml").unlink()
    assert "which says what student" in (error := said({"ms": 20})) and "expected that file, or `network_g`" in error
