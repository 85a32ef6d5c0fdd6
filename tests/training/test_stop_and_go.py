"""Runs that are stopped and go on: asked to end, damaged, out of disk, always bad; what they leave."""

import multiprocessing
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from short_runs import assert_same_bits, train, weights

from kd_plugins.models import DistillationModel
from kd_plugins.training.checkpoint_files import fault

pytestmark = pytest.mark.usefixtures("one_thread")


def send(monkeypatch, iteration, *signals):
    original = DistillationModel.optimize_parameters

    def step(model, current_iter):
        if current_iter == iteration:
            for number in signals:
                signal.raise_signal(number)
        original(model, current_iter)

    monkeypatch.setattr(DistillationModel, "optimize_parameters", step)


def test_a_signal_in_a_step_ends_it_and_saves_and_upstreams_state_of_it_would_do(short, write, in_folder, monkeypatch, capfd):
    before = signal.getsignal(signal.SIGUSR1)
    send(monkeypatch, 3, signal.SIGUSR1)
    assert train(write(short)) == 75
    path = Path("experiments/tiny/training_states/3.state")
    state = torch.load(path, weights_only=True)
    assert state["iter"] == 3 and signal.getsignal(signal.SIGUSR1) == before
    upstreams = {"epoch", "iter", "optimizers", "schedulers"}
    assert upstreams < set(state)
    torch.save({key: state[key] for key in upstreams}, path)
    assert train(write(short), "--auto_resume", "--force_yml", "train:total_iter=4") == 0
    assert "Resuming training from epoch: 0, iter: 3." in capfd.readouterr().err


def test_a_longer_run_goes_on_with_the_schedule_of_its_file(short, write, in_folder, capfd):
    short["train"].update(total_iter=2)
    short["train"]["scheduler"]["periods"] = [2]
    assert train(write(short)) == 0
    short["train"].update(total_iter=4)
    short["train"]["scheduler"]["periods"] = [4]
    assert train(write(short), "--auto_resume") == 0
    assert "train:scheduler:periods: [4] from here on, [2] before." in capfd.readouterr().err
    schedule = torch.load("experiments/tiny/training_states/4.state", weights_only=True)["schedulers"][0]
    assert schedule["cumulative_period"] == [4] and schedule["_last_lr"][0] == pytest.approx(1e-6 + 999e-6 * (1 - 0.5**0.5) / 2)


def test_a_second_sigint_stops_at_once(short, write, in_folder, monkeypatch):
    send(monkeypatch, 3, signal.SIGINT, signal.SIGINT)
    assert train(write(short)) == 130  # as shells have it
    assert not Path("experiments/tiny/training_states/3.state").exists()


def test_a_signal_in_a_validation_ends_it_and_the_next_run_makes_up_for_it(short, with_validation, write, in_folder, monkeypatch):
    from kd_plugins.training import validator as validation

    file = write(short)
    scored = []
    original = validation.score

    def score(pair, opt):
        scored.append(opt["type"])
        if len(scored) == 1:
            signal.raise_signal(signal.SIGTERM)
        return original(pair, opt)

    monkeypatch.setattr(validation, "score", score)
    monkeypatch.setattr(validation.Validator, "try_metrics", lambda *_: None)  # it scores noise before the run
    assert train(file) == 75
    assert len(scored) == 6  # the first image of two: student, teacher and input, two metrics each
    assert train(file, "--auto_resume", "--force_yml", "train:total_iter=4") == 0
    best = torch.load("experiments/tiny/training_states/4.state", weights_only=True)["best"]
    assert best["small"]["psnr"]["iter"] == 2  # scored by the second run, before its first step


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(short, write, in_folder, capfd):
    file = write(short)
    assert train(file) == 0
    straight = weights()
    network, state = Path("experiments/tiny/models/net_scm_4.pth"), Path("experiments/tiny/training_states/6.state")
    state.write_bytes(state.read_bytes()[:-100])
    damaged = bytearray(network.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    network.write_bytes(damaged)
    leftover = Path("experiments/tiny/models/.net_g_7.pth.part")
    leftover.mkdir()
    (leftover / "net_g_7.pth").write_bytes(b"half")
    capfd.readouterr()
    assert train(file, "--auto_resume") == 0
    log = capfd.readouterr().err
    assert "The state of iteration 6 is not used: " in log and "6.state (truncated or corrupt" in log
    assert "net_scm_4.pth (not what was written: its checksum differs)" in log
    assert "Resuming training from epoch" in log and "iter: 2." in log and not leftover.exists()
    assert_same_bits(weights(), straight)

    assert not fault(str(network))  # written anew
    network.unlink()
    assert train(file, "--force_yml", f"path:resume_state={network.parents[1] / 'training_states/4.state'}") == 2
    assert "net_scm_4.pth (missing); --auto_resume takes the newest good one" in capfd.readouterr().err
    for path in Path("experiments/tiny/training_states").iterdir():
        path.write_bytes(b"")
    assert train(file, "--auto_resume") == 2
    assert "can be used; without --auto_resume a new run begins" in capfd.readouterr().err


def test_a_full_disk_stops_the_run_and_keeps_what_was_there(short, write, in_folder, capfd, monkeypatch):
    file = write(short)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    original = DistillationModel.save

    def save(model, epoch, current_iter):
        if current_iter == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        original(model, epoch, current_iter)

    monkeypatch.setattr(DistillationModel, "save", save)
    try:
        assert train(file) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    error = capfd.readouterr().err.splitlines()[-1]
    assert error.startswith("basicsr train: cannot save ") and "File too large" in error and "_4.pth" in error
    assert [path.name for path in Path("experiments/tiny/training_states").iterdir()] == ["2.state"]
    assert not list(in_folder.rglob("*.part"))


def test_steps_that_stay_bad_end_the_run_with_the_state_saved(short, write, in_folder, capfd, monkeypatch):
    from kd_plugins.data import DegradedPhotoDataset

    original = DegradedPhotoDataset.seeded_item
    monkeypatch.setattr(
        DegradedPhotoDataset,
        "seeded_item",
        lambda dataset, index, seed: {**(item := original(dataset, index, seed)), "lq": item["lq"] * np.inf},
    )
    short["train"]["max_bad_steps"] = 3
    assert train(write(short)) == 1
    log = capfd.readouterr().err
    assert log.count("Step skipped") == 3 and "l_pix is nan" in log and "(not finite itself)" in log
    assert "basicsr train: 3 steps in a row" in log.splitlines()[-1] and "Saved at iteration 3" in log.splitlines()[-1]
    first, last = weights(iteration=2), weights(iteration=3)
    assert_same_bits(first, last)
    assert all(torch.isfinite(value).all() for value in last.values())
    assert torch.load("experiments/tiny/training_states/3.state", weights_only=True)["bad_steps"] == 3


@pytest.mark.parametrize("mode", [None, "cpu"])
def test_no_worker_outlives_a_run_that_is_stopped(mode, short, write, in_folder, monkeypatch):
    short["datasets"]["train"].update(num_worker_per_gpu=1, prefetch_mode=mode)  # at its end a process waits for its workers
    send(monkeypatch, 3, signal.SIGUSR1)
    assert train(write(short)) == 75
    assert not multiprocessing.active_children()
