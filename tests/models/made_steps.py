"""Steps of a training, made up for terms to compare."""

import torch

from kd_plugins.features import Pair
from kd_plugins.models.step import Step


def a_step(seen, view="degraded", output=None, features=None, raw=None):
    output = torch.rand(2, 3, 32, 32) if output is None else output
    return Step(output, torch.rand(2, 3, 32, 32), raw or {}, given(features or {}), {view: seen})


def given(features):
    """A conversion that comes to these features, whatever it is given."""
    return lambda group, stage, raw, size: features[group][stage]


def pairs(*layers):
    return [Pair(f"my_{layer}", layer) for layer in layers]


def raw(*layers):
    return {f"my_{layer}": torch.rand(2, 2, 4, 4) for layer in layers}
