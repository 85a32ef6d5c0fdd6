"""tools/compare.py and tools/ablation.py train what is missing, go on where they were stopped, and write tables."""

import csv
import os
import runpy
import signal
from pathlib import Path

import cv2
import pytest
import skimage.data
import yaml

from kd_plugins.models import DistillationModel

pytestmark = pytest.mark.usefixtures("one_thread")
TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """A tool's main, imported as `python tools/NAME.py` does."""
    monkeypatch.syspath_prepend(str(TOOLS))
    return lambda name: runpy.run_path(str(TOOLS / f"{name}.py"))["main"]


@pytest.fixture
def options(tmp_path):
    """Two steps of a tiny student on the builtin photos, scored on a small one."""
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "cat.png"), skimage.data.chelsea()[100:132, 100:140, ::-1])
    photos = {"type": "DegradedPhotoDataset", "degradation": {"type": "rain"}}
    crops = {"gt_size": 16, "num_worker_per_gpu": 0, "batch_size_per_gpu": 1}
    return {
        **{"name": "tiny", "model_type": "DistillationModel", "scale": 1, "num_gpu": 0, "num_threads": 1},
        "datasets": {
            "train": {"name": "photos", **photos, "photos": "builtin", **crops},
            "val": {"name": "small", **photos, "photos": str(tmp_path / "photos")},
        },
        "network_g": {"type": "Restormer", "dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 0, "heads": [1, 1, 2, 2]},
        "teacher": {"checkpoint": "restormer_derain"},
        "path": {},
        "train": {
            "optim_g": {"type": "Adam", "lr": 1e-3},
            "scheduler": {"type": "CosineAnnealingLR", "T_max": 8, "eta_min": 0},
            "total_iter": 4,
            "pixel_opt": {"type": "L1Loss"},
        },
        "val": {"val_freq": 100, "save_img": False, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 0}}},
        "logger": {"print_freq": 100, "save_checkpoint_freq": 100, "use_tb_logger": False},
    }


@pytest.fixture
def files(options, tmp_path):
    """The same run without and with logits."""
    logits = {"logits": {"type": "L1Loss", "between": "output", "loss_weight": 1.0}}
    variants = {"alone": options, "logits": {**options, "train": {**options["train"], "distill": logits}}}
    for name, variant in variants.items():
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(variant))
    return [str(tmp_path / f"{name}.yml") for name in variants]


def rows(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def steps(monkeypatch):
    """The iterations that are taken; a signal after the third of all, when asked for."""
    taken, original = [], DistillationModel.optimize_parameters

    def step(model, current_iter):
        original(model, current_iter)
        taken.append(current_iter)
        if step.stop_at == len(taken):
            os.kill(os.getpid(), signal.SIGINT)

    step.stop_at = None
    monkeypatch.setattr(DistillationModel, "optimize_parameters", step)
    return taken, step


def test_a_comparison_goes_on_where_it_was_stopped(tool, files, tmp_path, steps, capsys):
    (taken, step), out = steps, tmp_path / "out"
    call = [*files, "--out", str(out), "--seeds", "0", "1", "--iterations", "2"]
    step.stop_at = 3
    assert tool("compare")(call) == 75
    assert "goes on" in capsys.readouterr().err
    assert taken == [1, 2, 1] and {(row["file"], row["seed"]) for row in rows(out / "runs.csv")} == {("alone", "0")}
    assert tool("compare")(call) == 0
    assert taken == [1, 2, 1, 2, 1, 2, 1, 2]  # the second step of the stopped run, then the second seed
    found = rows(out / "runs.csv")
    assert [(row["file"], row["seed"]) for row in found if row["role"] == "student"] == [
        *(("alone", "0"), ("logits", "0"), ("alone", "1"), ("logits", "1"))
    ]
    lines = (out / "table.md").read_text().splitlines()
    assert lines[0] == "| file | small/psnr |" and [line.split("|")[1].strip() for line in lines[2:]] == [
        *("alone", "logits", "(teacher)", "(input)")
    ]
    values = [float(row["value"]) for row in found if (row["file"], row["role"]) == ("logits", "student")]
    mean, deviation = sum(values) / 2, abs(values[0] - values[1]) / 2**0.5
    assert f"| logits | {mean:.3f} ± {deviation:.3f} (2) |" == lines[3]
    table = {row["file"]: row for row in rows(out / "table.csv")}
    assert float(table["logits"]["mean"]) == pytest.approx(mean, abs=1e-4) and table["logits"]["seeds"] == "2"
    assert (out / "experiments/logits_1/models/net_g_latest.pth").is_file()
    if (out / "plot.svg").exists():  # where matplotlib is
        assert all(text in (out / "plot.svg").read_text() for text in ("alone", "logits", "small/psnr", "teacher"))
    assert tool("compare")(call) == 0 and len(taken) == 8


def test_the_stopped_run_ends_as_one_that_was_not(tool, files, tmp_path, steps):
    taken, step = steps
    outs = {tmp_path / "straight": None, tmp_path / "stopped": 1}
    for out, step.stop_at in outs.items():
        taken.clear()
        call = [files[1], "--out", str(out), "--seeds", "3", "--iterations", "2"]
        assert tool("compare")(call) == (75 if step.stop_at else 0)
        assert tool("compare")(call) == 0
        assert taken == [1, 2]
    first, second = (rows(out / "runs.csv") for out in outs)
    assert first == second


def test_steps_scale_the_schedule_and_force_yml_has_the_last_word(tool, files, tmp_path):
    call = [files[0], "--out", str(tmp_path / "out"), "--seeds", "0", "--iterations", "2"]
    assert tool("compare")([*call, "--force_yml", "train:optim_g:lr=1e-4", "name=x"]) == 0
    (log,) = (tmp_path / "out/experiments/alone_0").glob("train_*.log")
    text = log.read_text()
    assert "T_max: 4" in text and "total_iter: 2" in text and "lr: 0.0001" in text and "manual_seed: 0" in text


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({"datasets": {"train": {"gt_size": 24}}}, [], "b.yml: datasets:train:gt_size: 24, expected 16 as "),
        ({"train": {"total_iter": 6}}, [], "b.yml: train:total_iter: 6, expected 4 as "),
        ({"train": {"total_iter": 6}}, ["--force_yml", "datasets:train:gt_siz=16"], "DegradedPhotoDataset has no such key"),
        ({"val": {"metrics": None}}, [], "b.yml: no val:metrics or no datasets:val, expected both"),
    ],
)
def test_unequal_conditions_are_refused_before_anything_runs(tool, options, files, tmp_path, capsys, change, arguments, said):
    for key, block in change.items():
        for name, value in block.items():
            inner = options[key][name]
            options[key][name] = {**inner, **value} if isinstance(value, dict) else value
    (tmp_path / "b.yml").write_text(yaml.safe_dump(options))
    assert tool("compare")([files[0], str(tmp_path / "b.yml"), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "experiments").exists()


def test_runs_under_other_conditions_do_not_enter_the_table(tool, files, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out"), "--seeds", "0"]
    assert tool("compare")([files[0], *out, "--iterations", "1"]) == 0
    capsys.readouterr()
    assert tool("compare")([files[1], *out, "--iterations", "2"]) == 2
    assert "logits.yml: train:total_iter: 2, expected 1 as " in capsys.readouterr().err
    assert tool("compare")([files[0], *out, "--iterations", "1", "--force_yml", "train:optim_g:lr=1"]) == 2
    assert "has runs of" in capsys.readouterr().err
    assert tool("compare")([files[0], files[0], *out]) == 2
    assert "two files are called 'alone'" in capsys.readouterr().err


def test_an_ablation_goes_on_and_keeps_its_columns(tool, files, tmp_path, steps, capsys):
    taken, _ = steps
    plan = {"base": files[0], "force_yml": ["train:total_iter=1"], "starts": ["random"], "seeds": [0, 1]}
    logits = "train:distill={logits: {type: L1Loss, between: output}}"
    (tmp_path / "plan.yml").write_text(yaml.safe_dump({**plan, "variants": {"none": [], "with, logits": [logits]}}))
    call = [str(tmp_path / "plan.yml"), "--out", str(tmp_path / "out")]
    tool("ablation")([*call, "--share", "1/2"])
    assert len(taken) == 2
    tool("ablation")(call)
    assert len(taken) == 4
    said = capsys.readouterr().out.splitlines()
    assert said[-4] == "| metric | variant | start: random |"
    assert said[-1].startswith("| small/psnr | with, logits | ") and said[-1].endswith(" (2) |")
    assert (tmp_path / "out/runs.csv").read_text().splitlines()[0] == "start,variant,seed,metric,value,seconds"


def test_another_number_of_steps_scales_the_schedule_and_fades_become_shares(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    steps = runpy.run_path(str(TOOLS / "compare.py"))["steps"]
    fades = {"a": {"start": 0, "end": 40}, "b": {"start": 0.5, "end": 1.0}, "c": {"from": 0, "to": 1, "start": 5e1}}
    terms = {"plain": {"loss_weight": 2}, "gone": None, **{name: {"fade": fade} for name, fade in fades.items()}}
    train = {"total_iter": 100, "scheduler": {"milestones": [10, 50]}, "distill": terms}
    assert steps({"train": train}, 200) == [
        "train:total_iter=200",
        "train:scheduler:milestones=[20, 100]",
        "train:distill:a:fade:end=0.4",
        "train:distill:c:fade:start=0.5",
    ]
