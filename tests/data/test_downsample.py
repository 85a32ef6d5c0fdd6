"""Downsampling: the field's bicubic, alone, beside other degradations, and in a dataset."""

import cv2
import numpy as np
import pytest
from basicsr.data import build_dataset
from basicsr.metrics import calculate_psnr

from kd_plugins.data import build_degradation, find_photos
from kd_plugins.data.downsample import enlarge


def smaller(image, *steps):
    return build_degradation([{"type": "downsample", "scale": 4}, *steps])(image, np.random.RandomState(0))


def options(**changes):
    block = {"name": "photos", "type": "DegradedPhotoDataset", "phase": "train", "photos": "builtin", "gt_size": 48, "scale": 4}
    return {**block, "degradation": {"type": "downsample", "scale": 4}, "use_rot": True, **changes}


def test_a_ramp_keeps_its_slope_and_its_levels_are_those_of_a_file():
    ramp = np.tile(np.linspace(0.1, 0.9, 64, dtype=np.float32)[:, None, None], (1, 32, 3))
    small = smaller(ramp)
    assert small.shape == (16, 8, 3) and small.dtype == np.float32
    centres = ramp.reshape(16, 4, 32, 3).mean((1, 2))  # a symmetric kernel gives a line its value at the centre
    np.testing.assert_allclose(small[2:-2, 0], centres[2:-2], atol=0.5 / 255 + 1e-4)
    np.testing.assert_allclose(small * 255, np.rint(small * 255), atol=1e-4)


def test_it_is_the_published_benchmarks_kernel(shared):
    gt, lq = (cv2.imread(str(shared("set5") / name)) for name in ("HR/butterfly.png", "LR_bicubic/X4/butterflyx4.png"))
    small = smaller(gt.astype(np.float32) / 255) * 255
    assert small.shape == lq.shape and np.abs(small - lq).max() < 1.01  # MATLAB also rounds between the two directions
    assert (np.abs(small - lq) > 0.5).mean() < 0.15


def test_the_margin_of_several_steps_is_in_pixels_of_the_photo():
    steps = [{"type": "blur", "length": 5}, {"type": "downsample", "scale": 4}, {"type": "blur", "length": 9}]
    degrade = build_degradation(steps)
    assert degrade.factor == 4 and degrade.margin == 4 + 8 + 4 * 6


def test_noise_comes_after_it_at_the_small_size():
    noisy = smaller(np.full((256, 256, 3), 0.5, np.float32), {"type": "noise", "sigma": 10})
    assert noisy.shape == (64, 64, 3) and noisy.std() * 255 == pytest.approx(10, rel=0.03)


def test_a_training_crop_is_what_the_whole_photo_gives_there():
    dataset = build_dataset(options(use_rot=False))
    for index in (0, 1):
        item = dataset.seeded_item(index, 5)
        assert item["gt"].shape == (3, 48, 48) and item["lq"].shape == (3, 12, 12)
        rng = np.random.RandomState(5)
        photo = dataset.photos[index].load().astype(np.float32) / 255
        top, left = (int(rng.randint(side - 47)) for side in photo.shape[:2])
        around = photo[top % 4 :, left % 4 :]  # so that the pixels of the small photo are those of the crop
        whole = smaller(around[: around.shape[0] // 4 * 4, : around.shape[1] // 4 * 4])
        same = whole[top // 4 : top // 4 + 12, left // 4 : left // 4 + 12].transpose(2, 0, 1)
        np.testing.assert_allclose(item["lq"].numpy(), same, atol=1e-6)


def test_a_validation_photo_is_cut_to_a_multiple_of_the_scale():
    dataset = build_dataset({**options(phase="val"), "photos": "builtin"})
    item = dataset[0]
    assert item["gt"].shape[1:] == (300, 448) and item["lq"].shape[1:] == (75, 112)  # of 300 x 451
    assert find_photos("builtin", "val")[0].load().shape[:2] == (300, 451)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"scale": 2}, "4 times smaller, expected 2"),
        ({"degradation": {"type": "rain"}}, "1 times smaller, expected 4"),
        ({"gt_size": 50}, "gt_size: 50, expected a multiple of the scale, 4"),
        ({"degradation": {"type": "downsample", "scale": 1.5}}, "scale: 1.5, expected a whole number"),
    ],
)
def test_what_does_not_fit_the_scale_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        build_dataset(options(**changes))


# ------------------------------------------------------------------------------------------------ the other way


def test_the_enlarged_input_of_a_benchmark_scores_what_its_tables_say(shared):
    """Bicubic x4 on Set5: 28.42 dB in every paper (Y channel, 4 pixels of border left out); OpenCV's kernel has another."""
    scores = []
    for file in sorted((shared("set5") / "HR").iterdir()):
        gt, lq = cv2.imread(str(file)), cv2.imread(str(shared("set5") / f"LR_bicubic/X4/{file.stem}x4.png"))
        gt = gt[: 4 * lq.shape[0], : 4 * lq.shape[1]]
        scores.append(calculate_psnr(enlarge(lq, *gt.shape[:2]), gt, crop_border=4, test_y_channel=True))
    assert np.mean(scores) == pytest.approx(28.42, abs=0.02)


@pytest.mark.parametrize("shape", [(8, 12, 3), (8, 12), (2, 3, 3)])
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (4, 3)])
def test_any_image_grows_to_any_size_by_one_kernel(shape, size):
    image = np.rint(np.ones(shape[:2]) * np.linspace(0, 250, shape[1])).astype(np.uint8)
    image = np.repeat(image[..., None], 3, axis=2) if len(shape) == 3 else image
    grown = enlarge(image, shape[0] * size[0], shape[1] * size[1])
    assert grown.dtype == np.uint8 and grown.shape == (shape[0] * size[0], shape[1] * size[1], *shape[2:])
    assert np.array_equal(grown, image) if size == (1, 1) else abs(grown.mean() - image.mean()) < 2


def test_a_single_bright_pixel_spreads_as_the_fields_kernel():
    dark = np.zeros((16, 16), np.uint8)
    dark[8, 8] = 255
    row = enlarge(dark, 32, 32)[16].astype(int)  # 1/4 pixel from the centre: w(-1/4) = 0.8671875 in both directions
    assert row[16] == round(255 * 0.8671875**2)
