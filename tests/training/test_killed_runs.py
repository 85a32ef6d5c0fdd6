"""Runs that are killed go on, and end with the bits of a run that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY
from short_runs import assert_same_bits, train, train_killed, weights

pytestmark = pytest.mark.usefixtures("one_thread")
TRAIN = [sys.executable, "-m", "kd_plugins.cli", "train"]


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
    train_killed(monkeypatch, write(options), 5)
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


@pytest.mark.parametrize("killed", [4, 5, 7])  # the state is that of a step before the border, at it, after it
def test_a_run_whose_crops_and_batches_change_goes_on_around_a_border(killed, short, write, in_folder, monkeypatch):
    short["datasets"]["train"]["stages"] = [{"until": 4}, {"gt_size": 24, "batch_size_per_gpu": 1}]
    assert train(write({**short, "name": "straight"}, "straight.yml")) == 0
    train_killed(monkeypatch, write(short), killed)
    assert_same_bits(weights("tiny"), weights("straight"))
    logs = "".join(log.read_text() for log in Path("experiments/straight").glob("*.log"))
    assert "Stage 1 of 2, from iteration 1 on: crops of 16, batches of 2." in logs
    assert "Stage 2 of 2, from iteration 5 on: crops of 24, batches of 1." in logs
