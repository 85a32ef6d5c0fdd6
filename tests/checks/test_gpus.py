"""GPUs that an option file asks for, and those that there are."""

from pathlib import Path

import torch

from kd_plugins.cli import main

GOOD = (Path(__file__).parents[2] / "options" / "slkd_derain.yml").read_text(encoding="utf-8")


def test_more_gpus_than_there_are_are_refused_before_anything_is_built(check, tmp_path, capsys):
    check(code=0)
    there = torch.cuda.device_count()
    assert main(["train", "-opt", "a.yml", "--force_yml", f"num_gpu={there + 1}"]) == 2
    assert f"num_gpu: {there + 1}, but there are {there} GPUs here, expected auto, or 0 for the CPU" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["a.yml"]


def test_the_check_alone_may_run_on_another_machine_than_the_training(check):
    assert check(GOOD, "num_gpu=8", code=0)
    (line,) = check(GOOD, "num_gpu=-1")
    assert "num_gpu: -1, expected a whole number of at least 0 or auto" in line
