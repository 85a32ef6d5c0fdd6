"""Runs of one name at once, runs that go on under other options, signals at any time."""

import math
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kd_plugins.cli import main
from kd_plugins.models import DistillationModel
from kd_plugins.options import OptionError
from kd_plugins.training.lock import only_run

TRAIN = [sys.executable, "-m", "kd_plugins.cli", "train"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
HOLD = """
import sys, time
from kd_plugins.training.lock import only_run
with only_run(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def hang_up_counts():
    """Whatever started these tests may have switched it off, as nohup does; what they start inherits it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def short(options, tmp_path, monkeypatch):
    """Four steps, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    options["datasets"]["train"]["gt_size"] = 16
    options["logger"].update(use_tb_logger=False, print_freq=1)
    options["train"]["scheduler"] = {"type": "CosineAnnealingLR", "T_max": 100}
    return options


# ------------------------------------------------------------------------------------------------ one at a time


@pytest.fixture
def holder(tmp_path):
    """Another process that holds a run's folder."""
    started = []

    def hold(folder):
        process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("command", "folder"), [("train", "experiments/tiny"), ("test", "results/tiny")])
def test_a_second_run_of_a_name_is_refused_and_changes_nothing(short, with_validation, write, holder, capfd, command, folder):
    with_validation["path"]["pretrain_network_g"] = "x.pth"
    Path("x.pth").touch()
    Path(folder).mkdir(parents=True)
    Path(folder, "mine").write_text("kept")
    process = holder(folder)
    for arguments in [(), ("--auto_resume",)] if command == "train" else [()]:
        assert main([command, "-opt", write(with_validation), *arguments]) == 2
        said = capfd.readouterr().err.splitlines()[-1]
        assert f"{folder} belongs to a run that has not ended (process {process.pid} on " in said and "another `name`" in said
    assert [path.name for path in Path(folder).iterdir()] == ["mine"] and len(list(Path(folder).parent.iterdir())) == 2


def test_what_a_killed_run_leaves_of_its_lock_stops_nobody(holder, tmp_path):
    process = holder(str(tmp_path / "experiments/x"))
    with pytest.raises(OptionError, match="has not ended"), only_run(str(tmp_path / "experiments/x")):
        pass
    with only_run(str(tmp_path / "experiments/y")):
        pass
    process.kill()
    process.wait()
    assert (tmp_path / "experiments/.x.lock").exists()
    with only_run(str(tmp_path / "experiments/x")):
        assert str(os.getpid()) in (tmp_path / "experiments/.x.lock").read_text()
    assert not (tmp_path / "experiments").exists()


def test_a_lock_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "experiments").write_text("a file")
    with pytest.raises(OptionError, match=r"cannot write .*\.x\.lock: "), only_run(str(tmp_path / "experiments/x")):
        pass


# ------------------------------------------------------------------------------------------------ other options


def resumed(file, capfd, *entries):
    arguments = ["--force_yml", "train:total_iter=6", *entries]
    code = main(["train", "-opt", file, "--auto_resume", *arguments])
    told = ("continues with", "from here on, ", "position")
    lines = capfd.readouterr().err.splitlines()
    return code, [line.partition(": ")[2] for line in lines if any(text in line for text in told)]


def test_options_that_a_state_overrules_are_said_and_other_kinds_refused(short, write, capfd):
    file = write(short)
    assert main(["train", "-opt", file]) == 0
    state = Path("experiments/tiny/training_states/4.state").read_bytes()
    for entry, kind in (
        ("train:optim_g={type: AdamW, lr: 0.001}", "train:optim_g: type: AdamW, but it has Adam"),
        ("train:optim_g={type: SGD, lr: 0.001}", "train:optim_g: type: SGD, but it has Adam"),
        ("train:scheduler={type: MultiStepLR, milestones: [5]}", "train:scheduler: type: MultiStepRestartLR, but it has Cosine"),
    ):
        assert main(["train", "-opt", file, "--auto_resume", "--force_yml", entry]) == 2
        assert kind in capfd.readouterr().err
    assert Path("experiments/tiny/training_states/4.state").read_bytes() == state

    entries = ("train:optim_g:lr=0.005", "train:scheduler:T_max=50", "train:optim_g:betas=[0.5, 0.9]")
    code, said = resumed(file, capfd, *entries, f"datasets:train:photos={photo()}")
    assert code == 0 and sorted(said) == [
        "datasets:train: 1 images, 7 before: the state's position in the epoch does not fit.",
        "train:optim_g:betas: [0.5, 0.9], but the run continues with its state's, [0.9, 0.999].",
        "train:optim_g:lr: 0.005, but the run continues with its state's, 0.001.",
        "train:scheduler:T_max: 50 from here on, 100 before.",
    ]
    schedule = torch.load("experiments/tiny/training_states/6.state", weights_only=True)["schedulers"][0]
    assert schedule["T_max"] == 50 and schedule["base_lrs"] == [0.001]
    assert schedule["_last_lr"][0] == pytest.approx(1e-3 * (1 + math.cos(math.pi * 5 / 50)) / 2)


def photo():
    import cv2
    from skimage import data

    Path("more").mkdir()
    cv2.imwrite("more/coffee.png", data.coffee()[:64, :64])
    return Path("more").resolve()


def test_the_same_options_and_states_of_basicsr_go_on_without_a_word(short, write, capfd):
    file = write(short)
    assert main(["train", "-opt", file]) == 0
    capfd.readouterr()
    path = Path("experiments/tiny/training_states/4.state")
    state = torch.load(path, weights_only=True)
    torch.save({key: state[key] for key in ("epoch", "iter", "optimizers", "schedulers")}, path)
    assert main(["train", "-opt", file, "--auto_resume", "--force_yml", "train:optim_g={type: SGD, lr: 0.1}"]) == 2
    assert "train:optim_g: type: SGD, but it has another" in capfd.readouterr().err
    assert resumed(file, capfd) == (0, [])


# ------------------------------------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_while_a_run_is_built_ends_it_with_75_and_leaves_nothing(short, write, monkeypatch, capfd, number):
    before = signal.getsignal(number)
    monkeypatch.setattr("kd_plugins.models.building.build_teachers", lambda *_: signal.raise_signal(number))
    assert main(["train", "-opt", write(short)]) == 75
    said = capfd.readouterr().err.splitlines()[-1]
    assert said == f"basicsr train: stopped by {number.name} before the first step; the same command starts again"
    assert not Path("experiments").exists() and signal.getsignal(number) == before


def test_a_signal_while_pytorch_is_imported_ends_it_with_75(short, write):
    process = subprocess.Popen(
        [*TRAIN, "-opt", write(short)], stderr=subprocess.PIPE, text=True, env={**ENVIRONMENT, "PYTHONPROFILEIMPORTTIME": "1"}
    )
    for line in process.stderr:  # the time that each import took, the package's own first module among the first
        if line.rstrip().endswith("kd_plugins.options"):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    error = process.communicate()[1]
    assert process.returncode == 75 and "stopped by SIGTERM before the first step" in error and not Path("experiments").exists()


def test_a_terminal_that_goes_away_saves_the_run(short, write):
    short["train"]["total_iter"] = 5000
    file = write(short)
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [*TRAIN, "-opt", file], ENVIRONMENT)
    states = Path("experiments/tiny/training_states")
    for _ in range(3000):
        if (states / "2.state").exists():
            break
        os.set_blocking(terminal, False)
        try:
            os.read(terminal, 1 << 16)
        except BlockingIOError:
            time.sleep(0.02)
    os.close(terminal)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 75
    newest = max(int(state.stem) for state in states.iterdir())
    (log,) = Path("experiments/tiny").glob("train_*.log")
    assert f"Stopped: stopped by SIGHUP. Saved at iteration {newest};" in log.read_text()


def test_what_nohup_has_switched_off_stays_off(short, write, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    original = DistillationModel.optimize_parameters

    def step(model, current_iter):
        signal.raise_signal(signal.SIGHUP)
        original(model, current_iter)

    monkeypatch.setattr(DistillationModel, "optimize_parameters", step)
    try:
        assert main(["train", "-opt", write(short)]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
