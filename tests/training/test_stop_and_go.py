"""Runs that are stopped and go on: killed, asked to end, out of disk; what they leave, and that they end the same."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY

from kd_plugins.cli import main
from kd_plugins.models import DistillationModel
from kd_plugins.training.checkpoint_files import fault

pytestmark = pytest.mark.usefixtures("one_thread")
TRAIN = [sys.executable, "-m", "kd_plugins.cli", "train"]


class Killed(BaseException):
    """In place of SIGKILL: nothing of the run gets to know it."""


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def short(options):
    """Seven steps over epochs of a few, a state after every second."""
    options.update(num_threads=1)
    options["datasets"]["train"].update(dataset_enlarge_ratio=1, gt_size=16)
    options["logger"].update(use_tb_logger=False, print_freq=1)
    options["train"]["total_iter"] = 7
    options["train"]["scheduler"]["periods"] = [100]
    return options


def weights(name="tiny", label="net_g", iteration="latest"):
    content = torch.load(f"experiments/{name}/models/{label}_{iteration}.pth", weights_only=True)
    return {(kind, key): value for kind, part in content.items() for key, value in part.items()}


def assert_same_bits(mine, theirs):
    assert mine.keys() == theirs.keys()
    different = [key for key in mine if not torch.equal(mine[key], theirs[key])]
    assert not different


def train(file, *arguments):
    return main(["train", "-opt", file, *arguments])


def kill_after(monkeypatch, iteration):
    """Let a run end as by SIGKILL when it has taken a step and not yet saved."""
    original = DistillationModel.optimize_parameters

    def step(model, current_iter):
        original(model, current_iter)
        if current_iter == iteration:
            raise Killed

    monkeypatch.setattr(DistillationModel, "optimize_parameters", step)


@pytest.mark.parametrize("method", ["SKD", "DCKD", "SLKD in fp16"])
def test_a_run_killed_in_an_epoch_ends_with_the_same_bits(method, request, short, write, in_folder, monkeypatch):
    options = request.getfixturevalue("dckd_options") if method == "DCKD" else short
    options["model_type"] = f"{method.split()[0]}Model"
    if "fp16" in method:  # in two parts; the first steps find the scale
        options["amp"] = "fp16"
        options["train"]["accumulate"] = 2
        options["train"]["distill"] = {"kl": {"loss_weight": 1e4}}
    if method == "SKD":
        attention = {"type": "CrossNetAttentionLoss", "between": ["encoder", "decoder"], "loss_weight": 0.1, "learnable": True}
        fades = {"gk": {"start": 2, "end": 0.9}, "cl": {"from": 0, "to": 1, "start": 4}, "out": {"end": 3}}  # killed on the way
        logits = {"type": "L1Loss", "between": "output", "trust": {"window": 3}}
        options["train"]["distill"] = {"gk": attention, "out": logits, "cl": {"trust": {"tau": 0.1}}}
        for name, fade in fades.items():
            options["train"]["distill"][name]["fade"] = fade
    if method == "DCKD":
        options["train"]["transforms"] = {"invert": 0.5}
        options["train"]["distill"] = {"consistency": {"type": "L1Loss", "between": "output", "view": "transformed"}}
    assert train(write({**options, "name": "straight"}, "straight.yml")) == 0
    file = write(options)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, 5)
        train(file)
    assert train(file, "--auto_resume") == 0
    assert len(os.listdir("experiments/tiny/models")) == len(os.listdir("experiments/straight/models"))
    for checkpoint in sorted(Path("experiments/straight/models").iterdir()):
        label, iteration = checkpoint.stem.rsplit("_", 1)
        assert_same_bits(weights("tiny", label, iteration), weights("straight", label, iteration))


def wait_for(file, process):
    for _ in range(6000):
        if file.exists():
            return
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)
    raise AssertionError(f"no {file}")


def test_a_compiled_run_killed_ends_with_the_same_bits_and_validates_uncompiled(
    normed, short, with_validation, write, in_folder, monkeypatch, capfd
):
    shared = Path(__file__).parents[1].joinpath("conftest.py").read_text()
    lines = next(part for part in shared.split("\n\n\n") if part.startswith("class Normed("))
    Path("normed.py").write_text(f"import torch\nfrom torch import nn\n\n\n{lines}\n")
    torch.save(ARCH_REGISTRY.get("Normed")().state_dict(), "teacher.pth")
    network = {"class": "Normed", "file": "normed.py"}
    options = {**normed, "network_g": network, "teacher": {**network, "checkpoint": "teacher.pth"}, "compile": True}
    options["logger"]["save_checkpoint_freq"] = 4
    options["train"]["total_iter"] = 40
    file = write({**options, "channels_last": "auto"})
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TORCHINDUCTOR_CACHE_DIR": str(in_folder / "cache")}
    process = subprocess.Popen([*TRAIN, "-opt", file], stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(in_folder / "experiments/tiny/training_states/4.state", process)
    process.kill()
    log = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL
    assert "channels_last: auto: " in log and " graphs in iteration 1, which took" in log and log.count("which took") == 1

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", environment["TORCHINDUCTOR_CACHE_DIR"])  # what the killed run compiled
    torch._dynamo.reset()
    assert train(file, "--auto_resume") == 0
    assert "channels_last: auto: " not in capfd.readouterr().err  # the state's choice
    options["channels_last"] = torch.load("experiments/tiny/training_states/4.state", weights_only=True)["channels_last"]
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(in_folder / "another"))  # all is compiled anew
    torch._dynamo.reset()
    assert train(write({**options, "name": "straight"}, "straight.yml")) == 0
    assert list(Path("another").rglob("*.so"))
    assert_same_bits(weights(), weights("straight"))
    assert not any("_orig_mod" in key for _, key in weights())


def test_real_signals_a_kill_then_sigterm_and_the_same_bits_at_the_end(short, write, in_folder):
    short["logger"]["save_checkpoint_freq"] = 4
    short["amp"] = "fp16"
    short["train"]["total_iter"] = 16  # upstream counts 4 batches in an epoch of 3 and would end at 15
    file, environment = write(short), {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    states = in_folder / "experiments/tiny/training_states"

    process = subprocess.Popen([*TRAIN, "-opt", file], stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(states / "4.state", process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL

    process = subprocess.Popen([*TRAIN, "-opt", file, "--auto_resume"], stderr=subprocess.PIPE, text=True, env=environment)
    wait_for(states / "8.state", process)
    process.send_signal(signal.SIGTERM)
    error = process.communicate()[1]
    assert process.returncode == 75, error[-3000:]
    newest = max(int(state.stem) for state in states.iterdir())
    assert f"stopped by SIGTERM. Saved at iteration {newest}; `--auto_resume` continues" in error.splitlines()[-1]
    assert 8 <= newest < 16 and not list(in_folder.rglob("*.part"))

    assert train(file, "--auto_resume") == 0
    assert train(write({**short, "name": "straight"}, "straight.yml")) == 0
    assert (states / "16.state").exists()
    assert_same_bits(weights("tiny"), weights("straight"))


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


@pytest.mark.parametrize("killed", [4, 5, 7])  # the state is that of a step before the border, at it, after it
def test_a_run_whose_crops_and_batches_change_goes_on_around_a_border(killed, short, write, in_folder, monkeypatch):
    short["datasets"]["train"]["stages"] = [{"until": 4}, {"gt_size": 24, "batch_size_per_gpu": 1}]
    assert train(write({**short, "name": "straight"}, "straight.yml")) == 0
    file = write(short)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, killed)
        train(file)
    assert train(file, "--auto_resume") == 0
    assert_same_bits(weights("tiny"), weights("straight"))
    logs = "".join(log.read_text() for log in Path("experiments/straight").glob("*.log"))
    assert "Stage 1 of 2, from iteration 1 on: crops of 16, batches of 2." in logs
    assert "Stage 2 of 2, from iteration 5 on: crops of 24, batches of 1." in logs


@pytest.mark.parametrize("mode", [None, "cpu"])
def test_no_worker_outlives_a_run_that_is_stopped(mode, short, write, in_folder, monkeypatch):
    short["datasets"]["train"].update(num_worker_per_gpu=1, prefetch_mode=mode)  # at its end a process waits for its workers
    send(monkeypatch, 3, signal.SIGUSR1)
    assert train(write(short)) == 75
    assert not multiprocessing.active_children()
