"""What tests of short runs share: starting them, and what they leave."""

import pytest
import torch

from kd_plugins.cli import main


def weights(name="tiny", label="net_g", iteration="latest"):
    content = torch.load(f"experiments/{name}/models/{label}_{iteration}.pth", weights_only=True)
    return {(kind, key): value for kind, part in content.items() for key, value in part.items()}


def assert_same_bits(mine, theirs):
    assert mine.keys() == theirs.keys()
    different = [key for key in mine if not torch.equal(mine[key], theirs[key])]
    assert not different


def train(file, *arguments):
    return main(["train", "-opt", file, *arguments])


class Killed(BaseException):
    """In place of SIGKILL: nothing of the run gets to know it."""


def train_killed(monkeypatch, file, iteration):
    """A run that ends as by SIGKILL when it has taken a step and not yet saved, and then goes on."""
    from kd_plugins.models import DistillationModel

    original = DistillationModel.optimize_parameters

    def step(model, current_iter):
        original(model, current_iter)
        if current_iter == iteration:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(DistillationModel, "optimize_parameters", step)
        train(file)
    assert train(file, "--auto_resume") == 0
