"""Files that are no plain weights are refused, and what is in them is not run."""

import argparse
import pickle

import pytest
import torch
from safetensors.torch import save_file
from states import Code, same
from torch import nn

from kd_plugins.teachers.checkpoint import read_checkpoint


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_holds_code_is_refused_and_not_run(tmp_path, weights, how):
    ran, path = tmp_path / "ran", tmp_path / "net.pth"
    content = {"params": weights, "extra": Code(ran)}
    if how == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r"net\.pth: cannot be read as plain weights .*is refused: save its state_dict") as error:
        read_checkpoint(path)
    assert not ran.exists() and "weights_only" not in str(error.value)
    with open(path, "rb") as file:  # the file is as dangerous as it was meant to be
        torch.load(file, weights_only=False) if how == "torch" else pickle.load(file)
    assert ran.exists()


def test_a_whole_pickled_network_is_refused(tmp_path):
    torch.save(nn.Conv2d(3, 3, 1), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"\(it holds a <torch\.nn\.modules\.conv\.Conv2d object>, which is code\).* is refused"):
        read_checkpoint(tmp_path / "net.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04", b"PK\x03\x04"], ids=repr)
def test_a_broken_file_is_one_clear_error(tmp_path, suffix, content):
    path = tmp_path / f"net.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"checkpoint .*net\.{suffix}: cannot be read") as error:
        read_checkpoint(path)
    assert "weights_only" not in str(error.value)


def test_a_truncated_file_is_one_clear_error(tmp_path, weights):
    for path in (tmp_path / "net.pth", tmp_path / "net.safetensors"):
        torch.save(weights, path) if path.suffix == ".pth" else save_file(weights, path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match=f"{path.name}: cannot be read"):
            read_checkpoint(path)


def test_a_param_key_that_is_not_there_names_those_that_are(tmp_path, weights):
    torch.save({"params": weights, "iter": 1}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="no param_key 'params_ema'; it has params, iter; of these `param_key` can name params$"):
        read_checkpoint(tmp_path / "net.pth", "params_ema")


@pytest.mark.parametrize(
    "content", [{"epoch": 3}, [torch.zeros(3)], torch.zeros(3), {"params": [1, 2]}, {7: torch.zeros(3)}], ids=repr
)
def test_content_that_is_not_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="expected a dict of tensors"):
        read_checkpoint(tmp_path / "net.pth")


def test_a_file_without_usual_keys_says_which_it_has_and_how_to_name_one(tmp_path, weights):
    torch.save({"gen": weights, "disc": weights, "args": argparse.Namespace(a=1), "epoch": 3}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match="it has gen, disc, args, epoch; of these `param_key` can name gen, disc$"):
        read_checkpoint(tmp_path / "net.pth")
    assert same(read_checkpoint(tmp_path / "net.pth", "gen")[0], weights)
    torch.save({str(number): number for number in range(99)}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"it has 0, 1, 2, 3, 4, 5, 6, 7, ... \(99 in all\)$"):
        read_checkpoint(tmp_path / "net.pth")


def test_sparse_weights_are_refused(tmp_path, weights):
    torch.save({**weights, "0.weight": weights["0.weight"].to_sparse()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: 1 of its weights are sparse tensors \(0.weight\)"):
        read_checkpoint(tmp_path / "a.pth")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    torch.save({"params": {"good": torch.ones(2), "bad": torch.tensor([1.0, float("nan")])}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth: 1 of its weights are not numbers \(bad\)"):
        read_checkpoint(tmp_path / "a.pth")
