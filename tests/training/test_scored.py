"""What `basicsr test` scores: the validation sets, and trained weights or nothing."""

import copy
from pathlib import Path

import pytest
import torch

from kd_plugins.cli import main


@pytest.fixture
def training(with_validation, tmp_path, monkeypatch):
    """A training file of a run whose student is far from its start."""
    monkeypatch.chdir(tmp_path)
    with_validation["logger"]["use_tb_logger"] = False
    with_validation["train"]["optim_g"]["lr"] = 0.05
    return with_validation


def test_a_training_file_scores_what_its_training_left_on_its_validation_sets(training, write, capfd):
    file = write(training)
    assert main(["train", "-opt", file]) == 0
    trained = [line for line in capfd.readouterr().err.splitlines() if line.strip().startswith("psnr ")][-1].split()
    assert main(["test", "-opt", file]) == 0
    said = capfd.readouterr().err
    assert "The option file names no weights; scored are those that its training left, " in said
    assert "Loading Restormer from " in said
    assert "Testing small..." in said and "photos" not in said.partition("Number of test images")[2]
    (row,) = [line.split() for line in said.splitlines() if line.strip().startswith("psnr ")]
    assert row[:5] == trained[:5]  # input, student, teacher, gap

    latest = Path("experiments/tiny/models/net_g_latest.pth")
    student = torch.load(latest, weights_only=True)["params"]
    torch.save({"params": student}, latest)  # a run without an average
    assert main(["test", "-opt", file, "--force_yml", "path:strict_load_g=true"]) == 0

    start = copy.deepcopy(training)
    for weights, is_another in ((latest, False), (latest.rename("start.pth"), True)):
        torch.save({"params": student}, latest)
        start["path"]["pretrain_network_g"] = str(weights)
        assert main(["test", "-opt", write(start)]) == 0
        said = capfd.readouterr().err
        assert (f"'{weights}', from which the training began, is scored, and not what it left, " in said) == is_another


@pytest.mark.parametrize("phase", ["train", "val", "test"])
def test_a_test_without_weights_is_refused(training, write, capfd, phase):
    val = training["datasets"].pop("val")
    training["datasets"] = {"train": training["datasets"]["train"], "val": val} if phase == "train" else {phase: val}
    file = write(training)
    for command in ["test"] if phase == "train" else ["test", "check"]:
        assert main([command, "-opt", file]) == 2
        said = capfd.readouterr().err
        assert "path:pretrain_network_g: missing, expected the weights to score; " in said
        assert "experiments/tiny/models/net_g_latest.pth, which training would have left, is not there" in said
    assert not Path("results").exists()


def test_weights_that_a_network_brings_are_scored(training, write, teacher_file, capfd):
    training["network_g"] = {"checkpoint": str(teacher_file)}
    training["datasets"].pop("train")
    assert main(["test", "-opt", write(training)]) == 0
    assert "names no weights" not in capfd.readouterr().err


def test_training_data_alone_is_nothing_to_score(training, write, capfd):
    training["datasets"].pop("val")
    assert main(["test", "-opt", write(training)]) == 2
    assert "datasets: nothing to score beside the training data, expected val or test" in capfd.readouterr().err


@pytest.mark.parametrize("command", ["train", "test", "check"])
def test_two_sets_of_one_name_are_refused(training, write, capfd, command):
    training["datasets"]["val"]["name"] = 7
    training["datasets"]["val_2"] = {**training["datasets"]["val"], "degradation": {"type": "noise"}, "name": "7"}
    assert main([command, "-opt", write(training)]) == 2
    assert "datasets:val_2:name: '7', as datasets:val, expected another: scores are kept by it" in capfd.readouterr().err
