"""The part that saves, alone: two networks and a state."""

import random

import pytest
import torch
from torch import nn

from kd_plugins.teachers.checkpoint import read_checkpoint
from kd_plugins.training.checkpoint_files import SaveError, load_state
from kd_plugins.training.saver import Saver


@pytest.fixture
def path(tmp_path):
    folders = {"models": tmp_path / "models", "training_states": tmp_path / "states"}
    for folder in folders.values():
        folder.mkdir()
    return {"experiments_root": str(tmp_path), **{key: str(folder) for key, folder in folders.items()}}


def test_what_it_saves_it_resumes(path, tmp_path):
    nets = {label: nn.Linear(2, 3) for label in ("net_g", "net_extra")}
    saver = Saver(path, {"type": "Mine"}, seed=7)
    saver.progress["samples"] = 12
    saver.save(1, 5, {label: {"params": net} for label, net in nets.items()}, {"bad_steps": 3})
    drawn = random.random(), torch.rand(1)

    state = load_state(str(tmp_path / "states/5.state"), path["models"])
    assert (state["epoch"], state["iter"], state["seed"], state["bad_steps"]) == (1, 5, 7, 3)
    assert sorted(state["files"]) == ["net_extra_5.pth", "net_g_5.pth"]
    assert read_checkpoint(tmp_path / "models/net_g_5.pth")[1] == {"type": "Mine"}
    other, extra = Saver(path), nn.Linear(2, 3)
    other.resume(state, {"net_extra": extra})
    assert other.progress == {"samples": 12} and torch.equal(extra.weight, nets["net_extra"].weight)
    assert (random.random(), torch.rand(1)) == drawn
    with pytest.raises(ValueError, match=r"net_extra_5\.pth"):
        other.resume(state, {"net_extra": nn.Linear(2, 4)})


def test_the_latest_has_no_state_and_both_keys_of_a_student(path, tmp_path):
    net, ema = nn.Linear(2, 3), nn.Linear(2, 3)
    Saver(path).save(-1, -1, {"net_g": {"params": net, "params_ema": ema}}, {})
    saved = torch.load(tmp_path / "models/net_g_latest.pth", weights_only=True)
    assert torch.equal(saved["params"]["weight"], net.weight) and torch.equal(saved["params_ema"]["weight"], ema.weight)
    assert not any((tmp_path / "states").iterdir())


def test_no_state_is_written_where_a_network_could_not_be(path, tmp_path):
    (tmp_path / "models").rmdir()
    with pytest.raises(SaveError, match=r"net_g_1\.pth"):
        Saver(path).save(0, 1, {"net_g": {"params": nn.Linear(1, 1)}}, {})
    assert not any((tmp_path / "states").iterdir())
