"""What tests of short runs share: starting them, and what they leave."""

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
