"""Runs whose data or memory give out: what they say, what they leave, and that they go on to the same bits."""

import os
import re
import shutil
import signal
from pathlib import Path

import cv2
import pytest
import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from skimage import data

from kd_plugins.cli import main
from kd_plugins.errors import BadData
from kd_plugins.models import DistillationModel
from kd_plugins.training.interrupt import Interrupt

pytestmark = pytest.mark.usefixtures("one_thread")
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."


@pytest.fixture
def pairs(options, tmp_path, monkeypatch):
    """Seven steps on six real pairs, two in a batch: three in an epoch, a state after every second."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")):
        clean = getattr(data, name)()[100:132, 100:140, ::-1]
        for kind, image in (("gt", clean), ("lq", cv2.GaussianBlur(clean, (5, 5), 1))):
            Path(kind).mkdir(exist_ok=True)
            assert cv2.imwrite(f"{kind}/{number}.png", image)
    folders = {"dataroot_gt": "gt", "dataroot_lq": "lq", "io_backend": {"type": "disk"}}
    loading = {"num_worker_per_gpu": 0, "batch_size_per_gpu": 2, "use_shuffle": False}
    block = {"name": "mine", "type": "PairedImageDataset", **folders, **loading}
    options["datasets"] = {"train": {**block, "gt_size": 16, "use_hflip": True, "use_rot": True}}
    options.update(num_threads=1, model_type="DistillationModel", teacher=None, features=None, init="random")
    options["train"].update(total_iter=7, pixel_opt={"type": "L1Loss"})
    options["train"]["scheduler"] = {"type": "CosineAnnealingLR", "T_max": 7}
    options["logger"].update(use_tb_logger=False, print_freq=1)
    return options


def train(file, *arguments):
    return main(["train", "-opt", file, *arguments])


@pytest.fixture
def straight(pairs, write):
    """The weights of a run that nothing happens to, and a function that holds the same run, gone on with, against them."""
    file = write(pairs)
    assert train(file) == 0
    shutil.move("experiments", "straight")
    end = "tiny/models/net_g_latest.pth"
    theirs = torch.load(f"straight/{end}", weights_only=True)

    def ends_the_same():
        assert train(file, "--auto_resume") == 0
        mine = torch.load(f"experiments/{end}", weights_only=True)
        assert all(torch.equal(value, mine[kind][key]) for kind, part in theirs.items() for key, value in part.items())

    return ends_the_same


def at_step(monkeypatch, iteration, happens, after=False):
    """Let something happen in a step, before its update or after it."""
    original = DistillationModel.optimize_parameters

    def step(model, current_iter):
        if current_iter == iteration and not after:
            happens()
        original(model, current_iter)
        if current_iter == iteration and after:
            happens()

    monkeypatch.setattr(DistillationModel, "optimize_parameters", step)


def fail(error):
    raise error


def last_line(capfd):
    return capfd.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(("workers", "mode"), [(0, None), (1, None), (1, "cpu"), (0, "cpu")])
def test_a_bad_image_ends_the_run_with_its_name_and_the_state(pairs, straight, write, monkeypatch, capfd, workers, mode):
    shutil.copytree("lq", "good")
    loading = [f"datasets:train:num_worker_per_gpu={workers}", f"datasets:train:prefetch_mode={mode or '~'}"]
    with monkeypatch.context() as patch:
        at_step(patch, 1, lambda: [file.write_bytes(file.read_bytes()[:200]) for file in Path("lq").iterdir()])
        assert train(write(pairs), "--force_yml", *loading, "train:total_iter=20") == 1
    said = last_line(capfd)
    assert said.startswith("basicsr train: dataset 'mine': image 'lq/") and ".png' cannot be decoded. Saved at iteration " in said
    saved = int(said.partition("at iteration ")[2].partition(";")[0])
    assert saved >= 1 and Path(f"experiments/tiny/training_states/{saved}.state").exists()
    shutil.rmtree("lq")
    shutil.move("good", "lq")
    if saved < 7 and not (mode and not workers):  # where a thread draws, a run that goes on sees other crops
        straight()


def test_a_bad_image_of_the_first_batch_too(pairs, write, capfd):
    for file in Path("gt").iterdir():
        file.write_bytes(b"")
    assert train(write(pairs)) == 1
    assert ".png' is empty. Nothing was saved" in last_line(capfd)


def test_bad_images_are_passed_over_and_counted(pairs, write, capfd):
    Path("lq/3.png").write_bytes(b"")
    pairs["datasets"]["train"]["on_bad_image"] = "skip"
    assert train(write(pairs)) == 0
    said = capfd.readouterr().err
    assert said.count("dataset 'mine': image 'lq/3.png' is empty; another image takes its place.") == 1
    assert "Bad images skipped in training: 1, 2 times in all." in said or "1, 3 times in all." in said


def test_bad_images_of_the_validation(pairs, with_validation, write, capfd):
    pairs["datasets"]["val"] = {"name": "held", "type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "lq_val"}
    pairs["datasets"]["val"]["io_backend"] = {"type": "disk"}
    pairs["val"]["metrics"].pop("piqe")
    shutil.copytree("lq", "lq_val")
    Path("lq_val/3.png").write_bytes(b"")
    file = write(pairs)
    assert train(file) == 1
    assert "dataset 'held': image 'lq_val/3.png' is empty. Saved at iteration 2" in last_line(capfd)
    skip = ["--force_yml", "datasets:val:on_bad_image=skip"]
    assert train(file, "--auto_resume", *skip, "train:total_iter=4") == 0
    said = capfd.readouterr().err
    assert said.count("lq_val/3.png' is empty; left out of the scores (1 of 6 so far).") == 1 and "Result on held" in said
    assert main(["test", "-opt", file, *skip, "path:pretrain_network_g=experiments/tiny/models/net_g_latest.pth"]) == 0
    for image in Path("lq_val").iterdir():
        image.write_bytes(b"")
    assert train(file, *skip) == 1
    assert "dataset 'held': none of its images can be used" in last_line(capfd)


@pytest.mark.parametrize("mode", [None, "cpu"])
def test_a_worker_that_is_killed_ends_the_run_with_the_state(pairs, straight, write, monkeypatch, capfd, mode):
    original, main_process = PairedImageDataset.__getitem__, os.getpid()

    def read(dataset, index):
        if os.getpid() != main_process and read.count == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        read.count += 1
        return original(dataset, index)

    read.count = 0
    with monkeypatch.context() as patch:
        patch.setattr(PairedImageDataset, "__getitem__", read)
        block = ["datasets:train:num_worker_per_gpu=1", f"datasets:train:prefetch_mode={mode or '~'}"]
        assert train(write(pairs), "--force_yml", *block, "datasets:train:dataset_enlarge_ratio=5") == 1
    said = last_line(capfd)
    assert re.search(
        "(is killed by signal: Killed|exited unexpectedly); with fewer `num_worker_per_gpu` less memory is needed. ", said
    )


@pytest.mark.parametrize("error", [RuntimeError(NO_MEMORY), MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory.")])
def test_a_step_without_memory_ends_the_run_where_it_was_before_it(straight, pairs, write, monkeypatch, capfd, error):
    with monkeypatch.context() as patch:
        patch.setattr(DistillationModel, "compute_losses", failing(DistillationModel.compute_losses, 4, error))
        assert train(write(pairs)) == 1
    said = last_line(capfd)
    assert said.startswith("basicsr train: not enough memory") and "Saved at iteration 3; `--auto_resume` continues" in said
    straight()


def failing(compute, iteration, error):
    """compute_losses that draws, and then fails at an iteration."""

    def losses(model):
        losses.count += 1
        found = compute(model)
        if losses.count == iteration:
            torch.rand(1)
            raise error
        return found

    losses.count = 0
    return losses


def test_a_failed_step_leaves_no_trace_in_statistics(pairs, build):
    model = build(pairs)
    norm = torch.nn.BatchNorm2d(3).train()
    model.net_g.add_module("norm", norm)

    def compute():
        norm(model.lq)
        raise MemoryError

    model.compute_losses = compute
    before = norm.running_mean.clone()
    with pytest.raises(MemoryError):
        model.optimize_parameters(1)
    assert torch.equal(norm.running_mean, before) and norm.num_batches_tracked == 0


def test_a_step_that_ends_between_two_weights_is_not_saved(pairs, write, monkeypatch, capfd):
    steps = iter(range(1, 9))
    monkeypatch.setattr("kd_plugins.training.updater.ema_update", lambda *_: next(steps) == 4 and fail(MemoryError()))
    at_step(monkeypatch, 4, lambda: fail(RuntimeError(NO_MEMORY)), after=True)
    assert train(write(pairs)) == 1
    assert "Saved at iteration 2; " in last_line(capfd) and not Path("experiments/tiny/training_states/3.state").exists()


def test_any_other_error_saves_as_well_and_stays_one(straight, pairs, write, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: fail(AttributeError("mine")))
        with pytest.raises(AttributeError, match="mine"):
            train(write(pairs))
    assert "AttributeError: mine. Saved at iteration 3; " in capfd.readouterr().err
    straight()


def test_a_validation_without_memory_leaves_the_state(pairs, with_validation, write, monkeypatch, capfd):
    monkeypatch.setattr(DistillationModel, "test", lambda model: fail(RuntimeError(NO_MEMORY)))
    pairs["logger"]["save_checkpoint_freq"] = 100
    with_validation["datasets"] = {**pairs["datasets"], "val": with_validation["datasets"].get("val") or VALIDATION}
    assert train(write(pairs)) == 1
    assert "not enough memory: [enforce fail" in (said := last_line(capfd)) and "Saved at iteration 2; " in said


VALIDATION = {
    "name": "held",
    "type": "PairedImageDataset",
    "dataroot_gt": "gt",
    "dataroot_lq": "lq",
    "io_backend": {"type": "disk"},
}


def test_datasets_of_ones_own_that_hold_nothing_are_refused(pairs, write, capfd, monkeypatch):
    monkeypatch.setattr(PairedImageDataset, "__len__", lambda dataset: 0 if dataset.opt["name"] == "empty" else 6)
    file = write(pairs)
    assert train(file, "--force_yml", "datasets:train:name=empty") == 2
    assert last_line(capfd).endswith("datasets:train: no image to train on")
    pairs["datasets"]["val"], pairs["val"] = {**VALIDATION, "name": "empty"}, {"val_freq": 2}
    assert train(write(pairs)) == 2
    assert last_line(capfd).endswith("dataset 'empty' holds no image") and not Path("experiments").exists()


def test_what_one_process_cannot_read_stops_all_of_them(monkeypatch):
    monkeypatch.setattr("kd_plugins.distributed.all_reduce_max", lambda number: max(number, 1000))  # another one's
    monkeypatch.setattr("kd_plugins.distributed.all_gather_objects", lambda text: [text, "dataset 'mine': image 'a.png' is empty"])
    with pytest.raises(BadData, match="image 'a.png' is empty"):
        Interrupt().check()
