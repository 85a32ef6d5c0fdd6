"""Optimizers and schedules under the names that option files use."""

import math

import pytest
import torch
from basicsr.models.base_model import BaseModel
from torch import nn

from kd_plugins.training.optimizers import SCHEDULERS, build_optimizer, build_schedulers, gradient_bound, upstream


@pytest.fixture
def parameters():
    return [nn.Parameter(torch.ones(3))]


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adamax", "RMSprop", "NAdam"])
def test_any_optimizer_of_torch_with_its_arguments(name, parameters):
    opt = {"type": name, "lr": 0.02, "weight_decay": 0.1}
    optimizer = build_optimizer(opt, parameters)
    assert type(optimizer) is getattr(torch.optim, name)
    assert optimizer.param_groups[0]["lr"] == 0.02 and optimizer.param_groups[0]["weight_decay"] == 0.1
    assert opt == {"type": name, "lr": 0.02, "weight_decay": 0.1}  # BasicSR logs the options afterwards


def test_adamw_decays_weights_apart_from_the_gradient(parameters):
    optimizer = build_optimizer({"type": "AdamW", "lr": 0.1, "weight_decay": 0.5, "betas": [0.9, 0.9]}, iter(parameters))
    parameters[0].grad = torch.zeros(3)
    optimizer.step()
    torch.testing.assert_close(parameters[0].detach(), torch.full((3,), 1 - 0.1 * 0.5))


@pytest.mark.parametrize("name", ["Optimizer", "adam", "Adan", None, "lr_scheduler", "LBFGS", "SparseAdam"], ids=str)
def test_an_optimizer_that_is_unknown_or_could_take_no_step_lists_the_known(name, parameters):
    with pytest.raises(ValueError, match=rf"train:optim_g:type: ({name!r}, no registered optimizer; |missing, expected .*AdamW)"):
        build_optimizer({"type": name, "lr": 0.1}, parameters)


def test_the_nearest_optimizer_is_named(parameters):
    with pytest.raises(ValueError, match=r"nearest: Ada"):
        build_optimizer({"type": "Adamm"}, parameters)


def test_arguments_that_an_optimizer_does_not_take(parameters):
    with pytest.raises(ValueError, match=r"train:optim_g:momentum: 0.9, Adam has no such key"):
        build_optimizer({"type": "Adam", "lr": 0.1, "momentum": 0.9}, parameters)


# ------------------------------------------------------------------------------------------------ schedulers


def rates(opt, parameters, steps):
    optimizer = build_optimizer({"type": "SGD", "lr": 1.0}, parameters)
    (scheduler,) = build_schedulers(opt, [optimizer])
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "TrueCosineAnnealingLR"])
def test_the_cosine_by_torchs_and_by_nafnets_name(name, parameters):
    opt = {"type": name, "T_max": 10, "eta_min": 0.1}
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(11)]
    assert rates(opt, parameters, 11) == pytest.approx(expected)
    assert opt["type"] == name


@pytest.mark.parametrize("name", ["MultiStepLR", "MultiStepRestartLR"])
def test_steps_by_both_of_basicsrs_names(name, parameters):
    opt = {"type": name, "milestones": [2, 4], "gamma": 0.5}
    assert rates(opt, parameters, 6) == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25])


def test_basicsrs_cosine_with_restarts(parameters):
    opt = {"type": "CosineAnnealingRestartLR", "periods": [4, 4], "restart_weights": [1, 0.5], "eta_min": 0.0}
    expected = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert rates(opt, parameters, 5)[:4] == pytest.approx(expected)


def test_one_scheduler_for_each_optimizer(parameters):
    optimizers = [build_optimizer({"type": "Adam"}, parameters) for _ in range(2)]
    schedulers = build_schedulers({"type": "MultiStepLR", "milestones": [1]}, optimizers)
    assert [scheduler.optimizer for scheduler in schedulers] == optimizers
    assert all(isinstance(scheduler, upstream.MultiStepRestartLR) for scheduler in schedulers)


@pytest.mark.parametrize(
    "opt",
    [
        {"type": "CosineAnnealingLR", "T_max": 40, "eta_min": 0.1},
        {"type": "CosineAnnealingRestartLR", "periods": [40], "eta_min": 0.1},
        {"type": "MultiStepLR", "milestones": [4, 15, 15, 30], "gamma": 0.5},
        {"type": "MultiStepRestartLR", "milestones": [4, 20, 25], "restarts": [0, 20], "restart_weights": [1, 0.5]},
        {"type": "MultiStepRestartLR", "milestones": [0, 25], "restarts": [20], "restart_weights": [2]},
    ],
    ids=str,
)
def test_after_a_warm_up_the_rate_is_the_schedules(opt, parameters):
    optimizer = build_optimizer({"type": "SGD", "lr": 1.0}, parameters)
    upstreams = {**SCHEDULERS, **dict.fromkeys(("MultiStepLR", "MultiStepRestartLR"), upstream.MultiStepRestartLR)}
    (arguments := dict(opt)).pop("type")
    reference = upstreams[opt["type"]](build_optimizer({"type": "SGD", "lr": 1.0}, [nn.Parameter(torch.ones(1))]), **arguments)
    model = BaseModel({"num_gpu": 0, "is_train": True})
    model.optimizers, model.schedulers = [optimizer], build_schedulers(opt, [optimizer])
    for iteration in range(1, 40):
        model.update_learning_rate(iteration, warmup_iter=10)
        if iteration > 1:
            reference.optimizer.step()
            reference.step()
        expected = iteration / 10 if iteration < 10 else reference.optimizer.param_groups[0]["lr"]
        assert model.get_current_learning_rate() == pytest.approx([expected]), iteration
        optimizer.step()


def test_wrong_schedulers_are_one_clear_error(parameters):
    optimizers = [build_optimizer({"type": "Adam"}, parameters)]
    with pytest.raises(ValueError, match=r"train:scheduler:type: 'CosineLR', no registered scheduler; nearest: Cosine"):
        build_schedulers({"type": "CosineLR"}, optimizers)
    with pytest.raises(ValueError, match=r"train:scheduler:type: missing"):
        build_schedulers({"T_max": 5}, optimizers)
    with pytest.raises(ValueError, match=r"train:scheduler:T_max: missing"):
        build_schedulers({"type": "CosineAnnealingLR"}, optimizers)
    with pytest.raises(ValueError, match=r"train:scheduler:step_size: 3, MultiStepRestartLR has no such key"):
        build_schedulers({"type": "MultiStepLR", "milestones": [1], "step_size": 3}, optimizers)


@pytest.mark.parametrize(
    ("opt", "bound"),
    [
        ({}, 0.0),
        ({"grad_clip": 0.5}, 0.5),
        ({"grad_clip": None}, 0.0),
        ({"use_grad_clip": True}, 0.01),
        ({"use_grad_clip": False}, 0.0),
        ({"use_grad_clip": True, "grad_clip": 1}, 1.0),
        ({"use_grad_clip": False, "grad_clip": 1}, 1.0),
    ],
    ids=str,
)
def test_the_bound_on_the_gradient(opt, bound):
    assert gradient_bound(opt) == bound
