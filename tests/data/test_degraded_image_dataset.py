"""DegradedImageDataset through BasicSR's own builders: crops to train on, whole images, no ground truth."""

import shutil

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs

from kd_plugins.data import find_photos, is_unlabelled
from kd_plugins.data.photos import load_image


@pytest.fixture
def folder(tmp_path):
    """Three parts of a real photo, two of them of the same name."""
    chelsea = find_photos("builtin", "val")[0].load()
    (tmp_path / "noisy" / "more").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png", "more/a.png"]):
        part = chelsea[20 * number : 20 * number + 60, 50 * number : 50 * number + 70]
        assert cv2.imwrite(str(tmp_path / "noisy" / name), part[..., ::-1])
    return tmp_path / "noisy"


def options(folder, phase="train", **changes):
    block = {"name": "noisy", "type": "DegradedImageDataset", "phase": phase, "scale": 1, "dataroot_lq": str(folder)}
    return {**block, "io_backend": {"type": "disk"}, "gt_size": 32, "use_hflip": True, "use_rot": True, **changes}


def test_whole_images_of_all_folders_with_names_of_their_own(folder):
    dataset = build_dataset(options(folder, "val"))
    items = [dataset[index] for index in range(len(dataset))]
    assert all(set(item) == {"lq", "lq_path"} for item in items)
    assert [item["lq_path"] for item in items] == [str(folder / name) for name in ("a.png", "b.png", "more/more_a.png")]
    photo = load_image(folder / "more/a.png")
    assert torch.equal(items[2]["lq"], torch.from_numpy(photo.astype(np.float32) * np.float32(1 / 255)).permute(2, 0, 1))


def test_a_training_crop_is_a_window_and_a_function_of_the_seed(folder):
    dataset = build_dataset(options(folder, use_hflip=False, use_rot=False))
    first, again, other = (dataset.seeded_item(1, seed)["lq"] for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    whole = build_dataset(options(folder, "val"))[1]["lq"]
    windows = whole.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4)
    assert (windows == first).flatten(2).all(2).sum() == 1
    turned = build_dataset(options(folder))
    assert len({turned.seeded_item(1, seed)["lq"].sum().item() for seed in range(20)}) > 1


def test_a_crop_is_smaller_by_the_scale(folder):
    assert build_dataset(options(folder, scale=2))[0]["lq"].shape == (3, 16, 16)


def test_images_may_be_chosen_by_a_file_of_names(folder, tmp_path):
    (tmp_path / "names.txt").write_text("more/a.png (60,70,3)\nb.png (60,70,3)\n")
    dataset = build_dataset(options(folder, "val", meta_info_file=str(tmp_path / "names.txt")))
    assert [dataset[index]["lq_path"][-5:] for index in range(2)] == ["a.png", "b.png"] and len(dataset) == 2


def test_lmdb_holds_the_same_images(folder, tmp_path):
    make_lmdb_from_imgs(str(folder), str(tmp_path / "noisy.lmdb"), ["a.png", "b.png"], ["a", "b"])
    dataset = build_dataset(options(tmp_path / "noisy.lmdb", io_backend={"type": "lmdb"}))
    disk = build_dataset(options(folder))
    assert len(dataset) == 2
    for index in range(2):
        assert torch.equal(dataset.seeded_item(index, 3)["lq"], disk.seeded_item(index, 3)["lq"])


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"gt_size": None}, ValueError, "DegradedImageDataset: gt_size: missing"),
        ({"gt_size": 33, "scale": 2}, ValueError, "gt_size: 33, expected a multiple of the scale, 2"),
        ({"io_backend": {"type": "memcached"}}, ValueError, "expected {type: disk} or {type: lmdb}"),
        ({"dataroot_lq": "nowhere"}, FileNotFoundError, "dataroot_lq names 'nowhere', which does not exist; expected a folder"),
    ],
)
def test_wrong_options_are_named(folder, changes, error, said):
    with pytest.raises(error) as raised:
        build_dataset(options(folder, **changes))
    assert said in str(raised.value)


def test_an_image_smaller_than_a_crop_and_one_that_is_none_are_named(folder):
    with pytest.raises(ValueError, match="a.png' is 70x60, expected at least the crop's 64 on each side"):
        build_dataset(options(folder, gt_size=64))[0]
    (folder / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="b.png' cannot be decoded"):
        build_dataset(options(folder))[1]
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(FileNotFoundError, match="dataroot_lq names '.*', which holds no image"):
        build_dataset(options(folder))


def test_datasets_without_ground_truth_are_told_by_their_block(monkeypatch):
    from basicsr.utils.registry import DATASET_REGISTRY

    mine = type("MineDataset", (), {"unlabelled": True})
    monkeypatch.setitem(DATASET_REGISTRY._obj_map, "MineDataset", mine)
    without = ({"type": name} for name in ("DegradedImageDataset", "SingleImageDataset", "MineDataset"))
    assert all(map(is_unlabelled, (*without, {"type": "DegradedPhotoDataset", "unlabelled": True})))
    given = ({"type": name} for name in ("DegradedPhotoDataset", "PairedImageDataset", "NoSuchDataset", ["x"], None))
    assert not any(map(is_unlabelled, (*given, {"type": "PairedImageDataset", "unlabelled": True})))
