"""Faults of a saved file."""

import argparse
import copy
import os
import zipfile

import pytest
import torch

from kd_plugins.extractors.safe_load import load_plain
from kd_plugins.teachers.program_files import program_kind
from kd_plugins.training.checkpoint_files import BadState, fault, load_state, newest_state


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "net.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("é", b"weights")
    return path


def test_a_file_that_is_whole_has_none(tmp_path):
    torch.save({"params": {}}, tmp_path / "net.pth")
    assert fault(str(tmp_path / "net.pth")) == ""


@pytest.mark.parametrize(
    ("old", "new"), [("é".encode(), b"\xb3\xb3"), (b"weights", b"weighty")], ids=["a name that is no UTF-8", "other bytes"]
)
def test_damage_is_told_and_raises_nothing(archive, old, new):
    assert fault(str(archive)) == ""
    archive.write_bytes(archive.read_bytes().replace(old, new))
    assert "corrupt" in fault(str(archive))
    assert program_kind(archive) is None


ODD = {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: os.symlink("/dev/zero", path)}


@pytest.mark.parametrize("odd", ODD)
def test_what_only_has_a_files_name_is_not_waited_for(tmp_path, odd):
    for name in ("3.state", "net_g_2.pth"):
        ODD[odd](tmp_path / name)
    torch.save({"iter": 2, "epoch": 0, "files": {"net_g_2.pth": [1, 1]}}, tmp_path / "2.state")
    torch.save({"iter": 1, "epoch": 0, "files": {}}, tmp_path / "1.state")
    newest, state, bad = newest_state(str(tmp_path), str(tmp_path), ())
    assert newest == str(tmp_path / "1.state") and state["iter"] == 1
    assert len(bad) == 2 and all("no file, but something else of that name" in line for line in bad)
    assert fault(str(tmp_path / "net_g_2.pth"), [0, 0])
    with pytest.raises(ValueError, match="it is no file"):
        load_plain(tmp_path / "3.state")


@pytest.mark.parametrize("content", [{"iter": argparse.Namespace(a=1)}, {"iter": torch.nn.Conv2d(3, 3, 1)}, "junk"], ids=str)
def test_a_state_that_is_refused_is_not_said_to_be_readable_nonetheless(tmp_path, content):
    torch.save(content, tmp_path / "2.state")
    with pytest.raises(BadState) as error:
        load_state(str(tmp_path / "2.state"), str(tmp_path), ())
    assert "no training state: " in str(error.value) and "weights_only" not in str(error.value)


def test_a_state_with_sparse_tensors_is_none(tmp_path):
    state = {"iter": 2, "epoch": 0, "files": {}, "optimizers": [{"state": {0: {"step": torch.eye(2).to_sparse()}}}]}
    torch.save(state, tmp_path / "2.state")
    with pytest.raises(BadState, match=r"2\.state \(no training state: it has sparse tensors"):
        load_state(str(tmp_path / "2.state"), str(tmp_path), ())


def test_a_state_that_lacks_what_the_optimizer_keeps_of_a_parameter_is_none(options, build):
    model = build(options)
    model.optimize_parameters(1)
    optimizer = copy.deepcopy(model.updater.optimizer.state_dict())
    state = {"iter": 1, "optimizers": [optimizer], "schedulers": [each.state_dict() for each in model.schedulers]}
    del optimizer["state"][3]["exp_avg_sq"]
    with pytest.raises(ValueError, match="the optimizer keeps less of some parameters than of others"):
        model.resume_training(state)
