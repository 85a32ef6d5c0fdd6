import cv2
import numpy as np
import pytest

from kd_plugins.data import find_photos
from kd_plugins.distill.images import pair_blocks, photo_blocks, unlabelled_blocks


def folder(path, sizes, ending="", scale=1):
    path.mkdir()
    rng = np.random.RandomState(0)
    for number, (height, width) in enumerate(sizes):
        large = rng.randint(0, 256, (height, width, 3), np.uint8)
        cv2.imwrite(str(path / f"{number}{ending}.png"), large[::scale, ::scale])
    return str(path)


def names(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))


def test_some_photos_are_held_out_and_small_ones_left_out(tmp_path):
    source = folder(tmp_path / "photos", [(80, 90)] * 10 + [(40, 400)])
    blocks = photo_blocks(source, {"type": "rain"}, 1, 64, tmp_path / "out")
    blocks.write()
    trained = (tmp_path / "out" / "train.txt").read_text().split()
    held = names(tmp_path / "out" / "val")
    assert len(held) == 1 and len(trained) == 9 and not set(held) & set(trained) and "10.png" not in trained
    assert blocks.train["photos"] == source and blocks.val["photos"] == str(tmp_path / "out" / "val")


def test_of_a_large_photo_the_middle_is_measured_on(tmp_path):
    source = folder(tmp_path / "photos", [(600, 700), (600, 700)])
    photo_blocks(source, {"type": "noise"}, 1, 64, tmp_path / "out").write()
    (held,) = find_photos(tmp_path / "out" / "val")
    whole = next(photo for photo in find_photos(source) if photo.name == held.name)
    assert np.array_equal(held.load(), whole.load()[44:556, 94:606])


@pytest.mark.parametrize(("ending", "template"), [("", None), ("x2", "{}x2")])
def test_pairs_stay_pairs_and_tell_the_scale(tmp_path, ending, template):
    gt = folder(tmp_path / "gt", [(602, 1102)] * 3)
    lq = folder(tmp_path / "lq", [(602, 1102)] * 3, ending, scale=2)
    blocks = pair_blocks(lq, gt, 64, tmp_path / "out")
    blocks.write()
    assert blocks.scale == 2 and blocks.train.get("filename_tmpl") == template
    (large,), (small,) = (find_photos(tmp_path / "out" / "val" / name) for name in ("gt", "lq"))
    assert np.array_equal(large.load()[::2, ::2], small.load()) and large.load().shape == (512, 512, 3)


def test_images_without_truth_are_split_alike(tmp_path):
    source = folder(tmp_path / "noisy", [(80, 80)] * 4)
    blocks = unlabelled_blocks(source, 64, tmp_path / "out")
    blocks.write()
    assert len(names(tmp_path / "out" / "val")) == 1 and blocks.train["dataroot_lq"] == source and blocks.scale == 0


@pytest.mark.parametrize(
    ("lq", "gt", "words"),
    [
        ([(80, 80)] * 2, [(80, 80)] * 3, "no counterpart"),
        ([(80, 80)] * 3, [(120, 120)] * 3, "expected a multiple"),
        ([(80, 80)] * 3, [(20, 20)] * 3, "64 pixels"),
    ],
)
def test_pairs_that_are_none_are_one_error(tmp_path, lq, gt, words):
    with pytest.raises(ValueError, match="--pairs") as error:
        pair_blocks(folder(tmp_path / "lq", lq), folder(tmp_path / "gt", gt), 64, tmp_path / "out")
    assert words in str(error.value)
    assert not (tmp_path / "out").exists()


def test_one_photo_is_not_enough(tmp_path):
    with pytest.raises(ValueError, match="--photos"):
        photo_blocks(folder(tmp_path / "photos", [(80, 80)]), {"type": "rain"}, 1, 64, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="--photos"):
        photo_blocks(str(tmp_path / "nowhere"), {"type": "rain"}, 1, 64, tmp_path / "out")


def test_every_pair_is_held_to_the_scale_of_the_first(tmp_path):
    gt = folder(tmp_path / "gt", [(80, 80)] * 3)
    lq = folder(tmp_path / "lq", [(80, 80), (80, 72), (80, 80)])
    with pytest.raises(ValueError, match=r"1\.png is 80x80, its counterpart 72x80, expected 1 times as much, as .*0\.png"):
        pair_blocks(lq, gt, 64, tmp_path / "out")
