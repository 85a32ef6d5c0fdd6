import pytest
import torch


@pytest.fixture
def image():
    return torch.rand(2, 3, 48, 32, generator=torch.Generator().manual_seed(1))
