"""A dataset whose option keys are the arguments of its constructor, as a user writes one."""

from typing import Annotated

import pytest
from basicsr.data import build_dataset
from basicsr.utils.registry import DATASET_REGISTRY
from torch.utils.data import Dataset

from kd_plugins.arguments import AtLeast
from kd_plugins.data import Phase, register_dataset


@pytest.fixture
def mine():
    @register_dataset
    class MySyntheticDataset(Dataset):
        needed_in_training = ("size",)

        def __init__(
            self, sigma: Annotated[float, AtLeast(0)], size: Annotated[int, AtLeast(1)] | None = None, phase: Phase = "train"
        ) -> None:
            self.arguments = sigma, size, phase

    yield MySyntheticDataset
    del DATASET_REGISTRY._obj_map["MySyntheticDataset"]


def block(**keys):
    return {"name": "a", "type": "MySyntheticDataset", "phase": "val", "scale": 1, "batch_size_per_gpu": 2, "sigma": 3, **keys}


def test_basicsr_builds_it_from_its_block_and_python_from_keywords(mine):
    dataset = build_dataset(block(size=None))
    assert dataset.arguments == (3, None, "val") and dataset.opt["batch_size_per_gpu"] == 2
    assert mine(sigma=1, size=4).arguments == (1, 4, "train")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"sigma": -1}, r"MySyntheticDataset: sigma: -1, expected a number of at least 0"),
        ({"sigma": None}, r"MySyntheticDataset: sigma: missing"),
        ({"phase": "train"}, r"MySyntheticDataset: size: missing"),
        ({"sigmas": 3}, r"MySyntheticDataset: sigmas: 3, no such key; nearest: sigma"),
    ],
)
def test_a_wrong_key_is_refused_when_it_is_built(mine, keys, said):
    with pytest.raises(ValueError, match=said):
        build_dataset(block(**keys))
