"""`basicsr check` of what a user brings: classes of their own, known by their signatures."""

import dataclasses
import os
from typing import Annotated

import pytest
import torch
from basicsr.utils.registry import DATASET_REGISTRY, LOSS_REGISTRY, METRIC_REGISTRY, MODEL_REGISTRY
from option_texts import GOOD

from kd_plugins.arguments import AtLeast, Between, Count
from kd_plugins.data import Phase, register_dataset
from kd_plugins.data.degradations import DEGRADATION_REGISTRY, Degradation
from kd_plugins.extractors import EXTRACTOR_REGISTRY
from kd_plugins.losses import ExtractorLoss
from kd_plugins.models import DistillationModel


def test_a_users_own_classes_are_read_by_their_signature(check, register):
    class MineLoss(torch.nn.Module):
        def __init__(self, alpha: float, mode: str = "a", extractor: str = "x", size: int = None):
            super().__init__()

        def forward(self, student, teacher):
            return (student - teacher).mean()

    class MineExtractor(torch.nn.Module):
        def __init__(self, *, depth: int = 2):
            super().__init__()

    class MineDataset(torch.utils.data.Dataset):
        def __init__(self, opt):
            super().__init__()

    register(LOSS_REGISTRY, MineLoss)
    register(EXTRACTOR_REGISTRY, MineExtractor)
    register(DATASET_REGISTRY, MineDataset)
    mine = "train:distill:m={type: MineLoss, between: output, alpha: 1, extractor: y, size: ~}"
    assert check(GOOD, mine, "datasets:val={name: a, type: MineDataset, whatever: 1, dataroot_gt: none}", code=0)
    assert "m:alpha: missing, MineLoss needs it" in check(GOOD, "train:distill:m={type: MineLoss, between: output}")[0]
    assert "m:mode: 3, expected text" in check(GOOD, "train:distill:m={type: MineLoss, alpha: 1, mode: 3}")[0]
    theirs = "train:distill:m={type: ExtractorLoss, between: encoder, extractor: {type: MineExtractor, DEPTH: 3}}"
    assert check(GOOD, theirs.replace("DEPTH", "depth"), code=0)
    assert "MineExtractor has no such key; nearest: depth" in check(GOOD, theirs.replace("DEPTH", "dept"))[0]


def test_a_users_own_dataset_has_checked_keys(check, monkeypatch):
    class MinePhotos(torch.utils.data.Dataset):
        needed_in_training = ("gt_size",)

        def __init__(self, root: str, sigma: Annotated[float, AtLeast(0)] = 1, gt_size: Count = None, phase: Phase = "train"):
            super().__init__()

    monkeypatch.setattr(DATASET_REGISTRY, "_obj_map", dict(DATASET_REGISTRY._obj_map))
    register_dataset(MinePhotos)
    val = "datasets:val={name: a, type: MinePhotos, root: a}"
    assert check(GOOD, val, code=0)
    assert "val:sigma: -1, expected a number of at least 0" in check(GOOD, val.replace("root: a", "root: a, sigma: -1"))[0]
    assert "val:roots: 'a', MinePhotos has no such key; nearest: root" in "".join(check(GOOD, val.replace("root:", "roots:")))
    said = check(GOOD, "datasets:train={name: a, type: MinePhotos, root: a, batch_size_per_gpu: 1, num_worker_per_gpu: 0}")
    assert "train:gt_size: missing, training on MinePhotos needs it" in said[0]


def test_keywords_that_a_users_class_hands_on_are_accepted(check, register):
    class WiderLoss(ExtractorLoss):
        def __init__(self, gain: float = 1.0, **kwargs):
            super().__init__(extractor={"type": "PiqeExtractor"}, **kwargs)

    class AnyLoss(torch.nn.Module):
        def __init__(self, gain=1.0, **kwargs):
            super().__init__()

        def forward(self, student, teacher):
            return (student - teacher).mean()

    register(LOSS_REGISTRY, WiderLoss)
    register(LOSS_REGISTRY, AnyLoss)
    assert check(GOOD, "train:distill:m={type: WiderLoss, between: encoder, window: 8, loss_weight: 2}", code=0) == [
        "a.yml: fine, for `basicsr train`"
    ]
    assert len(check(GOOD, "train:distill:m={type: AnyLoss, other: 1}", code=0)) == 1
    (fine, warning) = check(GOOD, "train:distill:m={type: AnyLoss, gains: 1}", code=0)
    assert "m:gains: 1, AnyLoss has no such key; nearest: gain" in warning and warning.endswith("(a warning)")


def test_a_users_own_model_may_read_keys_of_its_own(check, register):
    class MineModel(DistillationModel):
        pass

    register(MODEL_REGISTRY, MineModel)
    entries = (
        "model_type=MineModel",
        "my_block={a: 1}",
        "train:my_key=2",
        "path:my_path=a",
        "train:mixing_augs={mixup: true}",
    )
    assert len(check(GOOD, *entries, code=0)) == 1
    assert "teacher:chekpoint: 'a'" in check(GOOD, "model_type=MineModel", "teacher:chekpoint=a")[0]  # it is built as ever


def test_degradations_of_a_users_own_are_known(check, monkeypatch):
    @dataclasses.dataclass
    class Fog(Degradation):
        haze: float = 0.5

    monkeypatch.setitem(DEGRADATION_REGISTRY._obj_map, "fog", Fog)
    assert check(GOOD, "datasets:train:degradation={type: fog, haze: 0.1}", code=0)
    assert "Fog has no such key; nearest: haze" in check(GOOD, "datasets:train:degradation={type: fog, hazy: 0.1}")[0]


def test_a_users_own_method_says_which_blocks_it_reads(check, register):
    class Memory:
        def __init__(self, net, /, size: Annotated[int, AtLeast(1)] = 8, file: str | os.PathLike[str] | None = None):
            pass

    class MineMethod(DistillationModel):
        option_blocks = {"mine": {"rate": Annotated[float, Between(0, 1)], "memory": Memory}}

    register(MODEL_REGISTRY, MineMethod)
    mine = "mine={rate: 2, memry: {}, memory: {size: 0, net: 3, file: nowhere.pth}}"
    lines = "\n".join(check(GOOD, "model_type=MineMethod", mine))
    assert "mine:rate: 2, expected a number from 0 to 1" in lines
    assert "mine:memry: {}, mine has no such key; nearest: memory" in lines
    assert "mine:memory:size: 0, expected a whole number of at least 1" in lines
    assert "mine:memory:net: 3, Memory has no such key" in lines
    assert "mine:memory:file: 'nowhere.pth', no such file or folder" in lines
    check(GOOD, "model_type=MineMethod", "mine={rate: 0.5, memory: {size: 3}}", code=0)
    with pytest.raises(ValueError, match="mine:rate: 2, expected a number from 0 to 1"):
        MineMethod.check_option_blocks({"mine": {"rate": 2}})


def test_an_argument_that_is_a_file_has_to_be_there(check, register):
    def calculate_mine(img, img2, model: str | os.PathLike[str] = "", **kwargs):
        return 0.0

    register(METRIC_REGISTRY, calculate_mine)
    said = "val:metrics:m:model: 'nowhere.pth', no such file or folder"
    assert any(said in line for line in check(GOOD, "val:metrics={m: {type: calculate_mine, model: nowhere.pth}}"))
    check(GOOD, "val:metrics={m: {type: calculate_mine, model: images/a.png}}", code=0)
