import pytest
import torch
from torch import nn


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
