"""Faults of a saved file."""

import zipfile

import pytest
import torch

from kd_plugins.models.checkpoints import fault
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
