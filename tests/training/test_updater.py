"""The part that takes steps, alone: with a network of one layer and losses that a test makes up."""

import copy

import pytest
import torch
from torch import nn

from kd_plugins.training.bad_steps import BadSteps
from kd_plugins.training.precision import Precision
from kd_plugins.training.updater import Updater

OPTIONS = {
    "optim_g": {"type": "Adam", "lr": 0.1},
    "scheduler": {"type": "MultiStepLR", "milestones": [10]},
    "ema_decay": 0.5,
    "grad_clip": 1.0,
    "max_bad_steps": 2,
}


class Scene:
    """An updater, what it updates, and what was called after its steps."""

    def __init__(self, amp=None, **options):
        torch.manual_seed(0)
        self.net, self.ema, self.extra = (nn.Linear(2, 1) for _ in range(3))
        self.ema.load_state_dict(self.net.state_dict())
        self.after, self.factor = [], 1.0
        networks = {"net_g": self.net, "net_extra": self.extra}
        cpu = torch.device("cpu")
        precision = Precision({"amp": amp})
        self.updater = Updater({**OPTIONS, **options}, networks, ema=self.ema, losses=[], precision=precision, device=cpu)

    def losses(self):
        x = torch.ones(1, 2)
        return {"l_a": self.factor * self.net(x).square().sum(), "l_b": (self.extra(x) - 1).square().sum()}

    def step(self, iteration, factor=1.0, parts=1):
        self.factor = factor
        self.updater.step(iteration, [self.losses] * parts, lambda: "a.png", self.after.append)

    def weights(self):
        return [p.detach().clone() for net in (self.net, self.extra, self.ema) for p in net.parameters()]


def test_a_step_updates_all_networks_and_the_average_follows_the_first():
    scene = Scene()
    before = scene.weights()
    scene.step(1)
    changed = [not torch.equal(old, new) for old, new in zip(before, scene.weights(), strict=True)]
    assert all(changed) and scene.after == [1] and scene.updater.bad_steps == 0
    torch.testing.assert_close(scene.ema.weight.detach(), (before[0] + scene.net.weight.detach()) / 2)
    assert scene.net.weight.grad.norm() <= 1 and list(scene.updater.losses) == ["l_a", "l_b"]


def test_a_step_that_is_not_finite_changes_nothing_and_too_many_end_the_run():
    scene = Scene()
    before = scene.weights()
    scene.step(1, float("nan"))
    assert all(torch.equal(old, new) for old, new in zip(before, scene.weights(), strict=True))
    assert scene.updater.bad_steps == 1 and scene.after == [1]
    with pytest.raises(BadSteps, match="2 steps in a row .* iteration 2: l_a is nan; images: a.png"):
        scene.step(2, float("nan"))
    assert scene.after == [1]


def test_it_goes_on_from_a_state_as_if_nothing_had_been():
    one, other = Scene(), Scene()
    one.step(1)
    one.step(2, float("nan"))
    for mine, theirs in ((other.net, one.net), (other.extra, one.extra), (other.ema, one.ema)):
        mine.load_state_dict(theirs.state_dict())
    other.updater.load_state_dict(copy.deepcopy(one.updater.state_dict()))
    assert other.updater.bad_steps == 1
    for scene in (one, other):
        scene.step(3)
    assert all(torch.equal(a, b) for a, b in zip(one.weights(), other.weights(), strict=True))


def test_it_says_from_when_on_a_step_cannot_be_taken_back():
    scene = Scene()

    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        scene.updater.step(1, [fail])
    assert not scene.updater.updating
    with pytest.raises(ZeroDivisionError):
        scene.updater.step(1, [scene.losses], after=lambda iteration: 1 / 0)
    assert scene.updater.updating


def test_a_step_reads_the_device_once(monkeypatch):
    scene, reads = Scene(optim_g={"type": "SGD", "lr": 0.1}), []
    with monkeypatch.context() as patch:
        for read in (torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.__bool__, torch.Tensor.__float__):
            patch.setattr(torch.Tensor, read.__name__, lambda x, read=read: reads.append(x) or read(x))
        scene.step(1)
    assert len(reads) == 1


def test_parts_add_up_to_the_gradients_and_the_losses_of_the_whole():
    one, other = Scene(), Scene()
    one.step(1)
    other.step(1, parts=4)
    assert all(torch.equal(a, b) for a, b in zip(one.weights(), other.weights(), strict=True))
    assert one.updater.losses == other.updater.losses and not any(value.requires_grad for value in other.updater.losses.values())


class TestHalfPrecision:
    """`amp: fp16`; with a factor of 1000 the gradient does not fit at a scale of 128."""

    @staticmethod
    def scene(scale=1024.0):
        scene = Scene("fp16")
        scene.updater.loss_scale.load_state_dict({**scene.updater.loss_scale.state_dict(), "scale": scale})
        return scene

    def test_gradients_are_those_without_a_scale_and_steps_that_overflow_halve_it(self, log):
        one, other = Scene(), self.scene()
        for scene in (one, other):
            scene.step(1)
        torch.testing.assert_close(other.net.weight.grad, one.net.weight.grad, rtol=5e-3, atol=0)
        before = other.weights()
        for iteration in range(2, 6):
            other.step(iteration, 1000.0)
        assert all(torch.equal(old, new) for old, new in zip(before, other.weights(), strict=True))
        assert other.updater.bad_steps == 0 and other.after == [1, 2, 3, 4, 5]
        assert other.updater.loss_scale.state_dict()["scale"] == 64 and "the loss scale falls to 64." in log()

    def test_a_loss_that_is_not_finite_is_a_bad_step_and_none_of_the_scale(self):
        scene = self.scene()
        scene.step(1, float("nan"))
        assert scene.updater.bad_steps == 1 and scene.updater.loss_scale.state_dict()["scale"] == 1024
        scene.step(2)
        assert scene.updater.bad_steps == 0

    def test_at_the_floor_of_the_scale_an_overflow_is_a_bad_step(self, log):
        scene = self.scene(1.0)
        hook = scene.net.weight.register_hook(lambda grad: grad / 0)
        scene.step(1)
        assert scene.updater.bad_steps == 1 and scene.updater.loss_scale.state_dict()["scale"] == 1
        assert "iteration 1: the gradient of l_a is not finite; images: a.png" in log()
        hook.remove()
        scene.step(2)
        assert scene.updater.bad_steps == 0

    def test_the_scale_is_resumed_and_a_state_without_one_starts_anew(self):
        one, other = self.scene(), Scene("fp16")
        one.step(1, 1000.0)
        for state in (one.updater.state_dict(), Scene().updater.state_dict()):
            other.updater.load_state_dict(copy.deepcopy(state))
            assert other.updater.loss_scale.state_dict()["scale"] == 512
        plain = Scene()
        plain.updater.load_state_dict(one.updater.state_dict())
        assert plain.updater.loss_scale.state_dict() == {}
