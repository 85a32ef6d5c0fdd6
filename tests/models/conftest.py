"""What a teacher shows of a batch."""

import pytest
import torch

from kd_plugins.teachers import Observation


@pytest.fixture
def seen():
    torch.manual_seed(0)
    features = {"level1": torch.rand(2, 4, 32, 32), "level2": torch.rand(2, 4, 16, 16), "latent": torch.rand(2, 4, 4, 4)}
    return Observation(torch.rand(2, 3, 32, 32), features)
