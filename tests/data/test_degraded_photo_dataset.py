"""DegradedPhotoDataset through BasicSR's own builders: training crops, fixed validation pairs, wrong options."""

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.data_sampler import EnlargedSampler

import kd_plugins.data  # noqa: F401  (registers the dataset)
from kd_plugins.data import BUILTIN, find_photos


def options(phase: str = "train", **changes):
    block = {"name": "photos", "type": "DegradedPhotoDataset", "phase": phase, "photos": "builtin"}
    block |= {"degradation": {"type": "rain"}, "gt_size": 64, "use_hflip": True, "use_rot": True}
    block |= {"use_shuffle": True, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "dataset_enlarge_ratio": 1}
    return block | changes


@pytest.fixture
def folder(tmp_path):
    """Six photos: parts of a built-in one, two of the same name in different folders, one gray, one JPEG."""
    chelsea = find_photos("builtin", "val")[0].load()
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for number, name in enumerate(["b.png", "a.png", "more/a.png", "c.jpg", "more/d.PNG", "e.bmp"]):
        part = chelsea[10 * number : 10 * number + 90, 50 * number : 50 * number + 110]
        assert cv2.imwrite(str(tmp_path / "photos" / name), part[..., 0] if name == "b.png" else part[..., ::-1])
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    return tmp_path / "photos"


def test_training_items_are_basicsrs_dictionary_with_rain_on_a_crop():
    item = build_dataset(options())[0]
    assert set(item) == {"lq", "gt", "lq_path", "gt_path"}
    for key in ("lq", "gt"):
        assert item[key].shape == (3, 64, 64) and item[key].dtype == torch.float32
        assert item[key].min() >= 0 and item[key].max() <= 1
    assert (item["lq"] >= item["gt"] - 1e-6).all()


def test_builtin_photos_are_real_colour_photos_and_the_splits_are_apart():
    assert not set(BUILTIN["train"]) & set(BUILTIN["val"])
    assert {"astronaut", "coffee"} <= set(BUILTIN["train"]) and {"chelsea", "rocket"} == set(BUILTIN["val"])
    for split in BUILTIN:
        for photo in find_photos("builtin", split):
            image = photo.load()
            assert image.dtype == np.uint8 and image.shape[2] == 3 and min(image.shape[:2]) >= 256
            assert (image[..., 0] != image[..., 2]).mean() > 0.2, photo.name
    assert np.array_equal(find_photos("builtin", "val")[0].load()[0, 0], [143, 120, 104])  # RGB, as scikit-image has it


def test_a_crop_is_a_flipped_or_turned_window_of_its_photo(folder):
    dataset = build_dataset(options(photos=str(folder / "a.png"), gt_size=60, degradation={"type": "noise"}))
    photo = find_photos(folder / "a.png")[0].load()
    windows = np.lib.stride_tricks.sliding_window_view(photo, 60, axis=1).transpose(0, 1, 3, 2)  # rows of 60 pixels
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        crop = np.rint(dataset[0]["gt"].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        for turns in range(8):
            back = np.rot90(crop[:, ::-1] if turns >= 4 else crop, turns % 4)
            places = np.argwhere((windows == back[0]).all(axis=(2, 3)))
            place = next(((y, x) for y, x in places if np.array_equal(photo[y : y + 60, x : x + 60], back)), None)
            if place:
                seen.add((turns, *place))
                break
        else:
            pytest.fail("the crop is no part of the photo")
    assert len({s[0] for s in seen}) == 8 and len({s[1:] for s in seen}) > 20


def test_without_augmentation_the_crop_stays_upright(folder):
    dataset = build_dataset(options(photos=str(folder / "c.jpg"), gt_size=90, use_hflip=False, use_rot=False))
    photo = torch.from_numpy(find_photos(folder / "c.jpg")[0].load()).permute(2, 0, 1) / 255
    gt = dataset[0]["gt"]
    assert any(torch.allclose(gt, photo[:, :, x : x + 90]) for x in range(21))


@pytest.mark.parametrize("degradation", [{"type": "blur", "length": 21, "angle": 30, "curve": 0}, {"type": "defocus", "radius": 6}])
def test_a_blurred_crop_sees_the_photo_around_it(folder, degradation):
    gt_size, photo = 40, folder / "a.png"
    block = {"photos": str(photo), "degradation": degradation, "use_hflip": False, "use_rot": False}
    pair = build_dataset(options(gt_size=gt_size, **block))[0]
    whole = build_dataset(options("val", **block))[0]
    windows = whole["gt"].unfold(1, gt_size, 1).unfold(2, gt_size, 1)
    y, x = np.argwhere((windows - pair["gt"][:, None, None]).abs().amax(dim=(0, 3, 4)).numpy() < 1e-4)[0]
    expected = whole["lq"][:, y : y + gt_size, x : x + gt_size]
    assert (pair["lq"] - expected).abs().max() < 1.5 / 255


def test_every_read_draws_new_rain_and_torchs_seed_repeats_it():
    dataset = build_dataset(options(photos="builtin"))
    torch.manual_seed(3)
    first, second = dataset[1]["lq"], dataset[1]["lq"]
    torch.manual_seed(3)
    assert not torch.equal(first, second) and torch.equal(first, dataset[1]["lq"])


def test_workers_and_epochs_differ_under_basicsrs_own_loader(folder):
    opt = options(photos=str(folder / "a.png"), num_worker_per_gpu=2, batch_size_per_gpu=1, dataset_enlarge_ratio=4)
    dataset = build_dataset(opt)
    torch.manual_seed(0)
    loader = build_dataloader(dataset, opt, sampler=EnlargedSampler(dataset, 1, 0, 4), seed=0)
    items = [batch["lq"] for _ in range(2) for batch in loader]
    assert len(items) == 8
    for i, one in enumerate(items):
        assert not any(torch.equal(one, other) for other in items[:i])


def test_validation_is_the_same_at_every_call_in_every_process_whatever_the_seeds(folder):
    opt = options("val", photos=str(folder), degradation=[{"type": "rain"}, {"type": "noise"}], seed=7)
    torch.manual_seed(11)
    np.random.seed(11)
    dataset = build_dataset(opt)
    before = [dataset[i]["lq"] for i in range(len(dataset))]
    torch.manual_seed(12)
    np.random.seed(12)
    assert all(torch.equal(dataset[i]["lq"], before[i]) for i in reversed(range(len(dataset))))
    workers = torch.utils.data.DataLoader(build_dataset(opt), num_workers=2)
    for batch, lq in zip(workers, before, strict=True):
        assert torch.equal(batch["lq"][0], lq)


def test_validation_depends_on_the_seed_and_the_file_name_only(folder, tmp_path):
    def rain(path, seed=0):
        item = build_dataset(options("val", photos=str(path), seed=seed))[0]
        return item["lq"]

    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "a.png").write_bytes((folder / "a.png").read_bytes())
    (moved / "z.png").write_bytes((folder / "a.png").read_bytes())
    base = rain(folder / "a.png")
    assert torch.equal(base, rain(moved / "a.png"))
    assert not torch.equal(base, rain(moved / "z.png"))
    assert not torch.equal(base, rain(folder / "a.png", seed=1))


def test_validation_rain_is_the_rain_of_every_release_and_platform():
    """Literal values: scores on `builtin` stay comparable only while these hold."""
    dataset = build_dataset(options("val"))
    names = ["chelsea.png", "rocket.png"]
    shapes = [(3, 300, 451), (3, 427, 640)]
    moments = [(10.363, 25.467), (1.621, 5.167)]
    for item, name, shape, (mean, std) in zip((dataset[0], dataset[1]), names, shapes, moments, strict=True):
        assert item["lq_path"] == name and item["lq"].shape == item["gt"].shape == shape
        layer = (item["lq"] - item["gt"]) * 255
        assert (float(layer.mean()), float(layer.std())) == pytest.approx((mean, std), abs=0.002)
    layer = (dataset[0]["lq"] - dataset[0]["gt"])[1, 100, 200:210] * 255
    np.testing.assert_allclose(layer.numpy(), [161, 114, 52, 6, 20, 23, 2, 0, 0, 0], atol=1.01)  # a rounding step


def test_noise_for_validation_is_not_clipped():
    item = build_dataset(options("val", degradation={"type": "noise", "sigma": 50}))[1]
    assert item["lq"].min() < 0 and item["gt"].min() >= 0


def test_names_are_unique_and_files_found_in_sub_folders(folder):
    dataset = build_dataset(options("val", photos=[str(folder), str(folder / "a.png")]))
    names = [dataset[i]["lq_path"] for i in range(len(dataset))]
    assert names == ["a.png", "b.png", "c.png", "e.png", "more_a.png", "d.png", "photos_a.png"]
    gray = dataset[1]["gt"]
    assert gray.shape[0] == 3 and torch.equal(gray[0], gray[2])


def test_photos_read_anew_are_the_photos_kept(folder):
    kept, anew = (build_dataset(options("val", photos=str(folder), cache=cache)) for cache in (True, False))
    assert all(torch.equal(kept[i]["lq"], anew[i]["lq"]) for i in range(6))
    for path in folder.rglob("*.*"):
        path.unlink()
    assert kept[0]["gt"].shape[0] == 3
    with pytest.raises(FileNotFoundError):
        anew[0]


@pytest.mark.parametrize(
    "changes, error, words",
    [
        ({"photos": "buildin"}, FileNotFoundError, ["buildin", "builtin"]),
        ({"photos": []}, ValueError, ["photos", "empty"]),
        ({"photos": 3}, ValueError, ["photos", "3"]),
        ({"split": "trian"}, ValueError, ["split", "'trian'", "train, val"]),
        ({"degradation": {"type": "snow"}}, ValueError, ["degradation:type", "'snow'", "noise"]),
        ({"gt_size": 513}, ValueError, ["astronaut", "512x512", "gt_size = 513"]),
        ({"gt_size": 0}, ValueError, ["gt_size", "0"]),
        ({"gt_size": "64"}, ValueError, ["gt_size", "'64'"]),
        ({"gtsize": 64}, ValueError, ["gtsize", "gt_size"]),
        ({"phase": "training"}, ValueError, ["phase", "'training'", "train, val"]),
    ],
)
def test_a_wrong_option_is_refused_by_name(changes, error, words):
    with pytest.raises(error) as caught:
        build_dataset(options(**changes))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("key", ["photos", "degradation", "gt_size"])
def test_a_missing_key_is_named(key):
    block = options()
    del block[key]
    with pytest.raises(ValueError, match=f"DegradedPhotoDataset: {key}: missing"):
        build_dataset(block)


def test_empty_folder_and_broken_file_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty.*holds no image"):
        build_dataset(options(photos=str(tmp_path / "empty")))
    for content in (b"", b"not a picture"):
        (tmp_path / "broken.png").write_bytes(content)
        with pytest.raises(ValueError, match="broken.png.*decoded"):
            build_dataset(options(photos=str(tmp_path / "broken.png")))


def test_keys_of_other_tools_are_let_through():
    assert len(build_dataset(options(my_own_note="x", mean=[0, 0, 0], photos="builtin"))) == len(BUILTIN["train"])


def test_withheld_photos_leave_the_degraded_ones_as_they_are():
    for phase in ("train", "val"):
        given, withheld = (build_dataset(options(phase, unlabelled=flag)).seeded_item(1, 7) for flag in (False, True))
        assert set(withheld) == {"lq", "lq_path"}
        assert torch.equal(given["lq"], withheld["lq"]) and given["lq_path"] == withheld["lq_path"]


def test_a_list_says_which_photos_of_a_folder_are_taken(tmp_path):
    for name in ("one", "two", "three"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((40, 40, 3), np.uint8))
    (tmp_path / "list.txt").write_text("two.png\none.png\n")
    listed = {"meta_info_file": str(tmp_path / "list.txt"), "degradation": {"type": "noise"}}
    assert [photo.name for photo in build_dataset(options("val", photos=str(tmp_path), **listed)).photos] == ["two", "one"]
    with pytest.raises(ValueError, match="meta_info_file"):
        build_dataset(options("val", **listed))
