"""What torch.save wrote is read without running code, also where classes that are not installed stand beside the weights."""

import argparse
import collections
import pathlib
import shutil
import sys
import types
import zipfile

import numpy as np
import pytest
import torch

from kd_plugins.extractors.safe_load import load_plain

FRAMEWORK = """
import enum
class AttributeDict(dict):
    pass
class Config:
    def __init__(self, **content):
        self.content = content
    def __getstate__(self):
        return {"content": self.content}
    def __setstate__(self, state):
        raise RuntimeError("run")
class ModelCheckpoint:
    best = 1.0
class Stage(enum.Enum):
    FIT = "fit"
"""


@pytest.fixture
def framework(monkeypatch):
    """A training framework that is installed where the checkpoint is written; the test takes it away."""
    module = types.ModuleType("training_framework")
    exec(FRAMEWORK, module.__dict__)
    for name in ("AttributeDict", "Config", "ModelCheckpoint", "Stage"):
        getattr(module, name).__module__ = module.__name__
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "before 1.6"])
def test_a_lightning_checkpoint_is_read_where_its_classes_are_not_installed(tmp_path, framework, monkeypatch, archive):
    path, weights = tmp_path / "last.ckpt", {"net.weight": torch.rand(2, 3)}
    hyper_parameters = framework.AttributeDict(lr=1e-4, data=framework.Config(root="a"))
    hyper_parameters.kept = True  # as an attribute, beside the items
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "1.0.8",
        "state_dict": weights,
        "callbacks": {framework.ModelCheckpoint: {"best_model_score": np.float64(31.5), "dirpath": pathlib.Path("a")}},
        "loops": [framework.ModelCheckpoint(), framework.Stage.FIT, collections.deque([1, 2])],
        "hyper_parameters": hyper_parameters,
        "args": argparse.Namespace(lr=1e-4),
    }
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    monkeypatch.delitem(sys.modules, framework.__name__)
    with pytest.raises(ModuleNotFoundError):
        torch.load(path, weights_only=False)
    with pytest.raises(ValueError, match=r"^it names \S+, which is code$"):
        load_plain(path)
    read = load_plain(path, inert=True)
    assert (
        read["epoch"] == 3 and list(read) == list(content) and torch.equal(read["state_dict"]["net.weight"], weights["net.weight"])
    )
    assert "<training_framework.AttributeDict object>" in read["hyper_parameters"] and read["hyper_parameters"]["lr"] == 1e-4
    assert list(read["loops"][0]) == ["<training_framework.ModelCheckpoint object>"] and read["loops"][2] == [1, 2]


class Call:
    """Pickled, it calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_code_in_a_file_is_not_run(tmp_path):
    (tmp_path / "source").mkdir()
    path, ran = tmp_path / "net.pth", tmp_path / "ran"
    torch.save({"params": {"a": torch.ones(1)}, "extra": Call(shutil.copytree, str(tmp_path / "source"), str(ran))}, path)
    assert torch.equal(load_plain(path, inert=True)["params"]["a"], torch.ones(1)) and not ran.exists()
    torch.load(path, weights_only=False)  # the file is as dangerous as it was meant to be
    assert ran.exists()


def with_pickle(folder, commands, **more):
    """A file as torch.save writes it, with another pickle in it, and more files."""
    torch.save({}, folder / "plain.pth")
    with zipfile.ZipFile(folder / "plain.pth") as plain, zipfile.ZipFile(folder / "made.pth", "w") as made:
        for name in plain.namelist():
            made.writestr(name, commands if name.endswith("data.pkl") else plain.read(name))
        for name, content in more.items():
            made.writestr(f"plain/{name}.pkl", content)
    return folder / "made.pth"


def test_a_pickle_cannot_write_to_what_it_may_call(tmp_path):
    # A hand-made pickle: GLOBAL _rebuild_tensor_v2, a dict, BUILD, STOP.
    commands = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x07\x00\x00\x00changedK\x01sb."
    with pytest.raises(ValueError, match="it is no file of tensors"):
        load_plain(with_pickle(tmp_path, commands), inert=True)
    assert not hasattr(torch._utils._rebuild_tensor_v2, "changed")


@pytest.mark.filterwarnings("ignore:'torch.load' received a zip file that looks like a TorchScript archive")
def test_a_torchscript_archive_is_refused(tmp_path):
    with pytest.raises(ValueError, match="it is no file of tensors"):
        load_plain(with_pickle(tmp_path, b"\x80\x02}.", constants=b"\x80\x02)."), inert=True)


@pytest.mark.parametrize("content", [b"text\n", b"", b"\x08\x0b\x12\x07pytorch"], ids=["text", "nothing", "onnx"])
def test_what_is_no_such_file_is_said_in_words(tmp_path, content):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(ValueError, match="it is no file of tensors, numbers and strings that torch.save wrote"):
        load_plain(tmp_path / "net.pth", inert=True)
