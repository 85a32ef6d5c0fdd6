"""Real-ESRGAN's degradation: BasicSR's own, on the batches of any model here, and its pool goes on to the bit."""

import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.data import build_dataset
from basicsr.models.realesrgan_model import RealESRGANModel
from basicsr.models.realesrnet_model import RealESRNetModel
from short_runs import assert_same_bits, train_killed, weights

from kd_plugins.cli import main
from kd_plugins.data.realesrgan import SHARPENED, RealESRGANBatches
from kd_plugins.yaml_loader import load


@pytest.fixture
def batch(real_esrgan):
    """A batch as RealESRGANDataset makes it, of smaller images: the degradation takes any."""
    dataset = build_dataset({**real_esrgan["datasets"]["train"], "phase": "train", "scale": 4})
    items = [dataset[0] for _ in range(2)]
    whole = {key: torch.stack([item[key] for item in items]) for key in ("gt", "kernel1", "kernel2", "sinc_kernel")}
    return {**whole, "gt": whole["gt"][..., :64, :64], "gt_path": [item["gt_path"] for item in items]}


def seed():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)


@pytest.mark.parametrize("upstream", [RealESRNetModel, RealESRGANModel])
def test_a_batch_is_that_of_basicsrs_own_model(upstream, real_esrgan, batch):
    if upstream is RealESRGANModel:
        real_esrgan.pop("gt_usm")
        real_esrgan.update(dict.fromkeys(SHARPENED.values(), True))
    mine = RealESRGANBatches(real_esrgan, torch.device("cpu"))
    theirs = object.__new__(upstream)
    theirs.opt, theirs.is_train, theirs.device, theirs.queue_size = real_esrgan, True, torch.device("cpu"), 4
    theirs.jpeger, theirs.usm_sharpener = mine.jpeger, mine.usm_sharpener
    theirs.queue_lr, theirs.queue_gt, theirs.queue_ptr = torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 32, 32), 0  # it has a GPU
    seed()
    made = [mine(batch) for _ in range(4)]
    seed()
    for each in made:
        theirs.feed_data({**batch, "gt": batch["gt"].contiguous()})
        assert torch.equal(each["lq"], theirs.lq) and torch.equal(each["gt"], theirs.gt)
        assert each["lq"].shape == (2, 3, 8, 8) and each["gt"].shape == (2, 3, 32, 32)
        if upstream is RealESRGANModel:
            assert torch.equal(each["gt_usm"], theirs.gt_usm) and not torch.equal(each["gt_usm"], each["gt"])
        else:
            assert "gt_usm" not in each


def test_the_pool_takes_a_quarter_on_disk_and_goes_on_from_there(real_esrgan, batch):
    straight, resumed = (RealESRGANBatches(real_esrgan, torch.device("cpu")) for _ in range(2))
    for steps in (1, 2):  # a pool that is filling, a full one
        for _ in range(steps):
            straight(batch)
        state = straight.state_dict()
        assert {images.dtype for images in state["pool"].values()} == {torch.uint8} and len(state["pool"]["lq"]) == 2 * steps
        resumed.load_state_dict(state)
    random_state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    expected = straight(batch)
    torch.set_rng_state(random_state[0])
    random.setstate(random_state[1])
    np.random.set_state(random_state[2])
    assert all(torch.equal(value, expected[key]) for key, value in resumed(batch).items())
    resumed.gt = resumed.queue_gt / 3  # sharpened images have more than 256 levels
    resumed.queue_gt = resumed.gt
    assert torch.equal(resumed.state_dict()["pool"]["gt"], resumed.gt)


def test_a_smaller_pool_begins_anew_and_says_so(real_esrgan, batch, log):
    full = RealESRGANBatches(real_esrgan, torch.device("cpu"))
    for _ in range(2):
        full(batch)
    smaller = RealESRGANBatches({**real_esrgan, "queue_size": 2}, torch.device("cpu"))
    smaller.load_state_dict(full.state_dict())
    assert "begins anew" in log() and not smaller.state_dict()


def test_losses_compare_with_the_sharpened_image_where_the_options_say_so(real_esrgan, build):
    loader = {key: real_esrgan["datasets"]["train"][key] for key in ("name", "num_worker_per_gpu", "batch_size_per_gpu")}
    photos = {"type": "DegradedPhotoDataset", "photos": "builtin", "degradation": {"type": "downsample"}, "gt_size": 32}
    real_esrgan["datasets"]["train"] = {**loader, **photos}
    plain = build(real_esrgan).compute_losses()
    sharp = build({**real_esrgan, "l1_gt_usm": True}).compute_losses()
    assert sharp["l_pix"] != plain["l_pix"] and sharp["l_logits"] == plain["l_logits"]


def test_a_start_that_needs_degraded_images_is_refused(real_esrgan, build):
    real_esrgan["network_g"] = {key: value for key, value in real_esrgan["teacher"].items() if key != "checkpoint"}
    real_esrgan["init"] = "teacher"
    with pytest.raises(ValueError, match="init: importance and refit need degraded images, which RealESRGANDataset does not have"):
        build(real_esrgan)


def test_tasks_and_missing_options_are_refused(real_esrgan, batch):
    with pytest.raises(ValueError, match="would mix the tasks"):
        RealESRGANBatches(real_esrgan, torch.device("cpu"))({**batch, "task": ["a", "b"]})
    with pytest.raises(ValueError, match="noise_range: 3, expected"):
        RealESRGANBatches({**real_esrgan, "noise_range": 3}, torch.device("cpu"))(batch)
    del real_esrgan["jpeg_range"]
    with pytest.raises(ValueError, match="jpeg_range: missing"):
        RealESRGANBatches(real_esrgan, torch.device("cpu"))(batch)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_ends_with_the_same_bits_and_real_photos_are_validated(real_esrgan, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = real_esrgan["datasets"]["train"]["dataroot_gt"]
    small = tmp_path / "real"
    small.mkdir()
    cv2.imwrite(str(small / "real.png"), cv2.imread(f"{folder}/photo.png")[:40, :56])
    real_esrgan["datasets"]["val"] = {
        **{"name": "real", "type": "SingleImageDataset", "dataroot_lq": str(small), "io_backend": {"type": "disk"}},
    }
    real_esrgan["val"] = {"val_freq": 2, "save_img": True, "metrics": {"piqe": {"type": "calculate_piqe", "better": "lower"}}}
    assert main(["check", "-opt", write({**real_esrgan, "name": "straight"}, "straight.yml")]) == 0
    assert main(["train", "-opt", "straight.yml"]) == 0
    train_killed(monkeypatch, write(real_esrgan), 5)
    for label, iteration in (("net_g", "6"), ("net_g", "latest")):
        assert_same_bits(weights("tiny", label, iteration), weights("straight", label, iteration))
    assert Path("experiments/straight/visualization/real/real_6.png").exists()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("adversarial", [False, True])
def test_the_option_file_runs_with_small_networks_with_and_without_its_discriminator(
    adversarial, real_esrgan, write, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "options/realesrgan_compact_x4.yml").read_text(encoding="utf-8")
    assert text.count("# gan: ") == 4
    options = load(text.replace("# gan: ", "") if adversarial else text)
    options.update({key: real_esrgan[key] for key in ("network_g", "teacher", "num_gpu", "num_threads", "gt_size", "queue_size")})
    data, small = options["datasets"]["train"], real_esrgan["datasets"]["train"]
    data.update({key: small[key] for key in ("dataroot_gt", "meta_info", "num_worker_per_gpu", "batch_size_per_gpu")})
    data["dataset_enlarge_ratio"] = 20
    (tmp_path / "real").mkdir()
    cv2.imwrite(str(tmp_path / "real/real.png"), cv2.imread(f"{small['dataroot_gt']}/photo.png")[:56, :64])
    options["datasets"]["val"]["dataroot_lq"] = str(tmp_path / "real")
    options["val"]["metrics"] = {
        "piqe": {"type": "calculate_piqe", "better": "lower"}
    }  # NIQE wants larger images, of a trained student
    options["train"]["total_iter"] = 2
    options["logger"].update(use_tb_logger=False, print_freq=1)
    if adversarial:
        options["network_d"]["num_feat"] = 4
        del options["path"]["pretrain_network_d"]
    file = write(options)
    assert main(["check", "-opt", file]) == main(["train", "-opt", file]) == 0
    folder = Path("experiments/realesrgan_compact_x4")
    assert (folder / "models/net_d_latest.pth").exists() == adversarial
    log = next(folder.glob("train_*.log")).read_text()
    assert ("l_d_real" in log) == ("l_g_gan" in log) == adversarial and "l_logits" in log and "piqe" in log
