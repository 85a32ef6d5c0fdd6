"""Faults of a saved file."""

import zipfile

import pytest
import torch

from kd_plugins.models.checkpoints import BadState, fault, load_state
from kd_plugins.teachers.programs import program_kind


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


def test_a_state_with_sparse_tensors_is_none(tmp_path):
    state = {"iter": 2, "epoch": 0, "files": {}, "optimizers": [{"state": {0: {"step": torch.eye(2).to_sparse()}}}]}
    torch.save(state, tmp_path / "2.state")
    with pytest.raises(BadState, match=r"2\.state \(no training state: it has sparse tensors"):
        load_state(str(tmp_path / "2.state"), str(tmp_path), ())
