"""Images that cannot be read: named with their dataset and what is wrong, or passed over."""

import shutil

import cv2
import pytest
from basicsr.data import build_dataset
from basicsr.utils.lmdb_util import make_lmdb_from_imgs
from skimage import data

from kd_plugins.data.bad_images import SKIPPED, ReadableItems
from kd_plugins.data.loading import readable_loader
from kd_plugins.errors import BadData


@pytest.fixture
def folders(tmp_path):
    """Four pairs, the degraded half the size."""
    for number, name in enumerate(("astronaut", "chelsea", "coffee", "rocket")):
        clean = getattr(data, name)()[100:164, 100:180, ::-1]
        for kind, image in (("gt", clean), ("lq", cv2.resize(clean, (40, 32), interpolation=cv2.INTER_AREA))):
            (tmp_path / kind).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / kind / f"{number}.png"), image)
    return tmp_path


def pairs(folders, phase="train", **changes):
    roots = {"dataroot_gt": str(folders / "gt"), "dataroot_lq": str(folders / "lq"), "io_backend": {"type": "disk"}}
    crop = {"gt_size": 32, "use_hflip": False, "use_rot": False} if phase == "train" else {}
    block = {"name": "mine", "type": "PairedImageDataset", "phase": phase, "scale": 2, **roots, **crop, **changes}
    return ReadableItems(build_dataset(block))


def index_of(dataset, name):
    return next(index for index, path in enumerate(dataset.dataset.paths) if name in str(path))


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def crop(file, *size):
    assert cv2.imwrite(str(file), cv2.imread(str(file))[: size[1], : size[0]])


DAMAGE = {
    "cut off": (lambda root: cut(root / "lq/1.png"), "lq/1.png' cannot be decoded"),
    "empty": (lambda root: (root / "gt/1.png").write_bytes(b""), "gt/1.png' is empty"),
    "no image": (lambda root: (root / "gt/1.png").write_text("?"), "gt/1.png' cannot be decoded"),
    "gone": (lambda root: (root / "lq/1.png").unlink(), "lq/1.png' cannot be read: No such file or directory"),
    "other size": (lambda root: crop(root / "lq/1.png", 36, 32), "gt/1.png' is 80x64, expected 2 times its size, 36x32 of "),
}


@pytest.mark.parametrize("phase", ["train", "val"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_bad_pair_is_named(folders, phase, damage):
    spoil, said = DAMAGE[damage]
    dataset = pairs(folders, phase)
    spoil(folders)
    with pytest.raises(BadData) as raised:
        dataset[index_of(dataset, "1.png")]
    assert str(raised.value).startswith("dataset 'mine': image '") and said in str(raised.value)
    assert dataset[index_of(dataset, "2.png")]["lq"].shape[0] == 3


def test_an_image_smaller_than_the_crop_is_named(folders):
    dataset = pairs(folders, gt_size=72)
    with pytest.raises(BadData, match="gt/0.png' is 80x64, smaller than the crop, gt_size 72"):
        dataset[index_of(dataset, "0.png")]


def test_a_rest_below_the_scale_is_cut_in_validation_alone(folders):
    for name in ("gt/0.png", "gt/1.png"):
        shutil.copy(folders / name, folders / "copy.png")
        cv2.imwrite(str(folders / name), cv2.copyMakeBorder(cv2.imread(str(folders / "copy.png")), 0, 1, 0, 1, cv2.BORDER_REFLECT))
    whole, crops = pairs(folders, "val"), pairs(folders)
    assert whole[index_of(whole, "0.png")]["gt"].shape == (3, 64, 80)
    with pytest.raises(BadData, match="is 81x65, expected 2 times"):
        crops[index_of(crops, "0.png")]


def test_a_bad_image_of_a_database_is_named(folders):
    cut(folders / "lq/1.png")
    for kind in ("gt", "lq"):
        keys = [str(number) for number in range(4)]
        shutil.copytree(folders / kind, folders / f"{kind}_all")
        shutil.copy(folders / "gt/1.png", folders / f"{kind}_all/1.png")  # the script reads them
        make_lmdb_from_imgs(str(folders / f"{kind}_all"), str(folders / f"{kind}.lmdb"), [f"{key}.png" for key in keys], keys)
    roots = {"dataroot_gt": str(folders / "gt.lmdb"), "dataroot_lq": str(folders / "lq.lmdb"), "io_backend": {"type": "lmdb"}}
    dataset = pairs(folders, **roots)
    with pytest.raises(BadData, match="image '1' is 80x64, expected 2 times its size, 80x64 of '1'"):
        dataset[index_of(dataset, "'1'")]


def test_single_images_too(folders):
    cut(folders / "lq/1.png")
    (folders / "lq/Thumbs.db").write_bytes(b"no image")
    block = {"name": "lone", "type": "SingleImageDataset", "phase": "test", "dataroot_lq": str(folders / "lq")}
    dataset = ReadableItems(build_dataset({**block, "io_backend": {"type": "disk"}}))
    assert len(dataset) == 4
    with pytest.raises(BadData, match="dataset 'lone': image '.*lq/1.png' cannot be decoded"):
        dataset[1]


def test_a_bad_image_is_passed_over_where_the_block_says_so(folders):
    cut(folders / "lq/1.png")
    training = pairs(folders, on_bad_image="skip")
    bad = index_of(training, "1.png")
    item, good = training[bad], training[(bad + 1) % 4]
    assert item["gt_path"] == good["gt_path"] and good[SKIPPED] == ""
    assert item[SKIPPED] == f"dataset 'mine': image '{folders / 'lq/1.png'}' cannot be decoded"
    whole = pairs(folders, "val", on_bad_image="skip")
    loader = readable_loader(type("Loader", (), {"dataset": whole.dataset, "pin_memory": False}))
    assert [len(list(loader)) for _ in range(2)] == [3, 3]
    for number in range(4):
        cut(folders / f"gt/{number}.png")
    with pytest.raises(BadData, match="4 images in a row cannot be used; the first: dataset 'mine': "):
        training[0]


def test_photos_and_degraded_images_too(folders, capsys):
    cut(folders / "lq/1.png")
    noisy = {"name": "noisy", "type": "DegradedImageDataset", "dataroot_lq": str(folders / "lq"), "io_backend": {"type": "disk"}}
    photos = {"name": "photos", "type": "DegradedPhotoDataset", "photos": str(folders / "lq"), "degradation": {"type": "rain"}}
    common = {"phase": "train", "scale": 1, "gt_size": 16}
    for block in (noisy, {**photos, "cache": False}):
        dataset = ReadableItems(build_dataset({**block, **common}))
        with pytest.raises(BadData, match=f"dataset '{block['name']}': photo '.*1.png' cannot be decoded"):
            dataset.seeded_item(1, 0)
        passing = ReadableItems(build_dataset({**block, **common, "on_bad_image": "skip"}))
        assert "1.png" in passing.seeded_item(1, 0)[SKIPPED] and passing.seeded_item(2, 0)[SKIPPED] == ""
    with pytest.raises(ValueError, match="dataset 'photos': photo '.*1.png' cannot be decoded"):
        build_dataset({**photos, **common})
    assert len(build_dataset({**photos, **common, "on_bad_image": "skip"})) == 3
    log = capsys.readouterr().err
    assert "1.png' cannot be decoded" in log and "left out." in log


def test_the_data_of_each_task_pass_over_their_own(folders):
    cut(folders / "lq/1.png")
    block = {"type": "DegradedImageDataset", "dataroot_lq": str(folders / "lq"), "io_backend": {"type": "disk"}, "gt_size": 16}
    whole = {"name": "all", "type": "TaskDataset", "tasks": {"rain": block, "noise": block}, "phase": "train", "scale": 1}
    with pytest.raises(BadData, match="dataset 'all, noise': photo '.*1.png' cannot be decoded"):
        ReadableItems(build_dataset(whole)).seeded_item(3, 0)
    item = ReadableItems(build_dataset({**whole, "on_bad_image": "skip"})).seeded_item(3, 0)
    assert item["task"] == "noise" and "1.png" in item[SKIPPED]


def test_what_is_no_fault_of_an_image_is_told_with_its_place(folders, monkeypatch):
    dataset = pairs(folders)
    monkeypatch.setattr("basicsr.data.paired_image_dataset.augment", lambda *_: {}["flip"])
    with pytest.raises(BadData, match=r"dataset 'mine': item 0: KeyError: 'flip' \(test_bad_images.py:\d+\)"):
        dataset[0]
