"""BasicSR's own PairedImageDataset loads and trains here as ever: folders and lmdb."""

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.data_sampler import EnlargedSampler
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

from kd_plugins.data import build_degradation, find_photos


@pytest.fixture(params=["disk", "lmdb"])
def pairs(request, tmp_path):
    """Four rainy and clean pairs cut from a real photo, and the options that name them."""
    photo = find_photos("builtin", "val")[0].load()
    rain = build_degradation({"type": "rain", "density": 9})
    roots = {}
    for kind in ("gt", "lq"):
        (tmp_path / kind).mkdir()
    for number in range(4):
        clean = np.ascontiguousarray(photo[60 * number : 60 * number + 80, 90 * number : 90 * number + 96])
        rainy = rain(clean.astype(np.float32) / 255, np.random.RandomState(number))
        for kind, image in (("gt", clean), ("lq", np.rint(rainy * 255).astype(np.uint8))):
            assert cv2.imwrite(str(tmp_path / kind / f"{number}.png"), image[..., ::-1])
    for kind in ("gt", "lq"):
        roots[kind] = str(tmp_path / kind)
        if request.param == "lmdb":
            roots[kind] += ".lmdb"
            names = [f"{number}.png" for number in range(4)]
            make_lmdb_from_imgs(str(tmp_path / kind), roots[kind], names, [name[:-4] for name in names])
    return {
        **{"name": "pairs", "type": "PairedImageDataset", "phase": "train", "scale": 1, "gt_size": 48},
        **{"dataroot_gt": roots["gt"], "dataroot_lq": roots["lq"], "io_backend": {"type": request.param}},
        **{"use_hflip": True, "use_rot": True, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2},
    }


def test_pairs_load_aligned(pairs):
    dataset = build_dataset(pairs)
    assert len(dataset) == 4
    for item in (dataset[i] for i in range(4)):
        assert item["lq"].shape == item["gt"].shape == (3, 48, 48)
        assert (item["lq"] >= item["gt"]).all() and (item["lq"] > item["gt"]).any()  # rain only adds light


def test_a_model_trains_on_pairs(pairs):
    torch.manual_seed(0)
    dataset = build_dataset(pairs)
    loader = build_dataloader(dataset, pairs, sampler=EnlargedSampler(dataset, 1, 0, 5), seed=0)
    weight = torch.ones(1, requires_grad=True)  # the best single gain on rainy pixels is below 1
    for batch in loader:
        loss = (weight * batch["lq"] - batch["gt"]).square().mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        weight = (weight - 0.5 * gradient).detach().requires_grad_()
    assert 0.5 < weight.item() < 0.999
