"""The length of a training: how a course keeps its shape, and how a time becomes a number of steps."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from kd_plugins.cli import main
from kd_plugins.training import length
from kd_plugins.training.fade import read_fade
from kd_plugins.training.length import Pace, at_length, resize

pytestmark = pytest.mark.usefixtures("one_thread")


def test_what_is_told_in_iterations_moves_with_the_length_and_shares_stay():
    opt = {
        "train": {
            "total_iter": 1e3,
            "warmup_iter": 100,
            "net_d_init_iters": 200,
            "scheduler": {"milestones": [500, 900], "periods": [333, 333, 334], "restarts": [0, 500]},
            "distill": {
                "a": {"fade": {"start": 0, "end": 500}},
                "b": {"fade": {"end": 0.5}},
                "short": {"fade": {"start": 1, "end": 9}},
                "longer": {"fade": {"end": 2000}},
                "gone": None,
            },
        },
        "datasets": {"train": {"stages": [{"until": 400, "gt_size": 8}, {"until": 401}, {"gt_size": 9}], "iters": [300, 700]}},
    }
    resize(opt, 10)
    assert opt["train"]["total_iter"] == 10 and opt["train"]["warmup_iter"] == 1
    assert opt["train"]["net_d_init_iters"] == 2
    assert opt["train"]["scheduler"] == {"milestones": [5, 9], "periods": [3, 4, 3], "restarts": [0, 5]}
    fades = {name: block and read_fade(block["fade"], 10) for name, block in opt["train"]["distill"].items()}
    spans = {name: (fade.start, fade.end) for name, fade in fades.items() if fade}
    assert spans == {"a": (0, 5), "b": (0, 5), "short": (0.01, 0.09), "longer": (0, 20)} and fades["gone"] is None
    assert opt["datasets"]["train"]["stages"] == [{"until": 4, "gt_size": 8}, {"until": 5}, {"gt_size": 9}]
    assert opt["datasets"]["train"]["iters"] == [3, 7]
    assert at_length({"train": {"total_iter": 4, "warmup_iter": -1}}, 8) == {("train", "total_iter"): 8}


@pytest.fixture
def timed(options, tmp_path, monkeypatch):
    """A run of 40 steps with a budget in which 6 fit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(length, "_LEAST", 1)
    options.update(num_threads=1)
    options["logger"].update(use_tb_logger=False, save_checkpoint_freq=2)
    options["train"].update(total_iter=40, max_minutes=60, scheduler={"type": "CosineAnnealingLR", "T_max": 40, "eta_min": 1e-6})
    options["datasets"]["train"]["stages"] = [{"until": 20, "gt_size": 16}, {"gt_size": 24}]
    monkeypatch.setattr(length, "measure", lambda opt, build: Pace(0.0, 500.0))
    return options


def weights(name):
    content = torch.load(f"experiments/{name}/models/net_g_latest.pth", weights_only=True)
    return list(content["params"].values())


def test_a_budget_sets_the_length_once_and_all_that_follows_it(timed, write, monkeypatch):
    file = write(timed)
    assert main(["train", "-opt", file]) == 0
    (log,) = (path.read_text() for path in Path("experiments/tiny").glob("*.log"))
    assert "train:max_minutes: 60: 6 steps in place of 40, the schedule with them (a step takes 500 s)." in log
    assert "Stage 2 of 2, from iteration 4 on" in log
    state = torch.load("experiments/tiny/training_states/6.state", weights_only=True)
    assert state["progress"]["total_iter"] == 6 and state["schedulers"][0]["T_max"] == 6
    kept = yaml.safe_load(Path("experiments/tiny/options.yml").read_text())
    assert kept["train"]["total_iter"] == 6 and "max_minutes" not in kept["train"]
    assert kept["datasets"]["train"]["stages"][0] == {"until": 3, "gt_size": 16}

    assert main(["train", "-opt", write({**kept, "name": "again"}, "again.yml")]) == 0  # the kept file alone
    assert all(map(torch.equal, weights("tiny"), weights("again")))

    monkeypatch.setattr(length, "measure", lambda opt, build: Pace(0.0, 1.0))  # a faster machine goes on
    for path in ("models/net_g_latest.pth", "models/net_g_6.pth", "training_states/6.state"):
        (Path("experiments/tiny") / path).unlink()
    assert main(["train", "-opt", file, "--auto_resume"]) == 0
    assert all(map(torch.equal, weights("tiny"), weights("again")))


def test_total_iter_comes_first_where_it_fits_and_too_short_a_time_is_refused(timed, write, capsys, monkeypatch):
    timed["train"].update(total_iter=2, max_minutes=600)
    assert main(["train", "-opt", write(timed)]) == 0
    assert "all 2 steps fit" in "".join(path.read_text() for path in Path("experiments/tiny").glob("*.log"))
    monkeypatch.setattr(length, "_LEAST", 10)
    timed["name"] = "hurried"
    assert main(["train", "-opt", write(timed), "--force_yml", "train:max_minutes=10"]) == 2
    assert (
        "train:max_minutes: 600 seconds, and the start takes 0 seconds, a step 500.00; expected at least "
        "5556 seconds (92.6 minutes)" in capsys.readouterr().err
    )
    assert not Path("experiments/hurried").exists()


def test_all_processes_take_the_steps_of_the_slowest(monkeypatch):
    monkeypatch.setattr(length, "measure", lambda opt, build: Pace(0.0, 1.0))
    monkeypatch.setattr(length.distributed, "all_gather_objects", lambda own: [own, (1620, Pace(0.0, 2.0), 0.0)])
    assert length.steps_within(3600, {}, None, "train:max_minutes") == (1620, 2.0)


def test_steps_of_every_stage_and_a_validation_are_measured(with_validation, write, tmp_path, monkeypatch):
    from kd_plugins.run_options import parse_options
    from kd_plugins.train import build_run

    options = with_validation
    options["train"]["total_iter"] = 40
    options["datasets"]["train"]["stages"] = [{"until": 20, "gt_size": 16}, {"gt_size": 24}]
    opt, _ = parse_options(str(tmp_path), True, ["-opt", write(options)])
    monkeypatch.setattr(length, "_since", lambda begun: 1.0)
    before = torch.get_rng_state()
    pace = length.measure(opt, build_run)
    assert pace == Pace(1 + 2, 1 + 2 / 2)  # two images, validated every second step
    assert torch.equal(before, torch.get_rng_state()) and opt["datasets"]["train"]["stages"]


@pytest.mark.parametrize(("period", "seconds", "mean"), [(1, [9, 2, 4], 3), (2, [9, 9, 1, 5], 3), (3, [9, 9, 9, 1, 1, 7], 3)])
def test_steps_are_timed_in_whole_rounds_after_one_that_warms_up(monkeypatch, period, seconds, mean):
    clock, costs = [0.0], iter(seconds)
    monkeypatch.setattr(length.time, "perf_counter", lambda: clock[0])
    batches = SimpleNamespace(batches=lambda *_: (((0, 0), {}) for _ in itertools.count()))
    loop = SimpleNamespace(period=period, data=batches, step=lambda _: clock.__setitem__(0, clock[0] + next(costs)))
    assert length._step_seconds(loop, 0) == mean
