"""GPUs that an option file asks for, and those that there are."""

import pytest
import torch
from option_texts import GOOD

from kd_plugins.checks.gpus import gpu_fault
from kd_plugins.cli import main


def test_more_gpus_than_there_are_are_refused_before_anything_is_built(check, tmp_path, capsys):
    check(code=0)
    there = torch.cuda.device_count()
    assert main(["train", "-opt", "a.yml", "--force_yml", f"num_gpu={there + 1}"]) == 2
    assert f"num_gpu: {there + 1}, but there are {there} GPUs here, expected auto, or 0 for the CPU" in capsys.readouterr().err
    assert {file.name for file in tmp_path.iterdir()} == {"a.yml", "images"}


def test_the_check_alone_may_run_on_another_machine_than_the_training(check):
    assert check(GOOD, "num_gpu=8", code=0)
    (line,) = check(GOOD, "num_gpu=-1")
    assert "num_gpu: -1, expected a whole number of at least 0 or auto" in line


@pytest.mark.parametrize(
    ("wanted", "there", "processes", "said"),
    [
        (2, 0, 0, "but there are 0 GPUs here"),
        (2, 0, 2, "but there are 0 GPUs here"),
        (4, 2, 0, "but there are 2 GPUs here"),
        ("auto", 1, 2, "but 2 processes have 1 GPUs here, expected one for each"),
        (1, 1, 2, "but 2 processes have 1 GPUs here, expected one for each"),
        (2, 2, 0, "but one process trains on one GPU, expected 1 or auto, or `torchrun --nproc_per_node=2"),
    ],
)
def test_gpus_that_a_run_cannot_have(wanted, there, processes, said):
    assert gpu_fault(wanted, there, processes, only_one=True).startswith(said)


@pytest.mark.parametrize(
    ("wanted", "there", "processes"), [(0, 0, 0), ("auto", 0, 2), (0, 1, 2), ("auto", 4, 0), (1, 4, 0), (8, 2, 2), ("auto", 2, 2)]
)
def test_gpus_that_a_run_can_have(wanted, there, processes):
    assert gpu_fault(wanted, there, processes, only_one=True) == ""
    assert gpu_fault(2, 2, 0, only_one=False) == ""  # BasicSR's own models, as there
