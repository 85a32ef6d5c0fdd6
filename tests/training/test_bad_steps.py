"""Steps whose loss or gradient is not finite: named, skipped, counted."""

import copy

import pytest
import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import nn

from kd_plugins.training.bad_steps import BadSteps, are_finite, bad_step_bound, name_images, wrong_values


@pytest.fixture
def root_loss():
    """A loss of 0 whose gradient is not a number."""

    class RootOfNothingLoss(nn.Module):
        def forward(self, student, teacher):
            return ((student - student.detach()).abs().sqrt()).mean()

    LOSS_REGISTRY._obj_map["RootOfNothingLoss"] = RootOfNothingLoss
    yield
    del LOSS_REGISTRY._obj_map["RootOfNothingLoss"]


def values(model):
    nets = [model.net_g_ema, *model.networks().values()]
    return copy.deepcopy([net.state_dict() for net in nets])


def same(mine, theirs):
    return all(torch.equal(a[key], b[key]) for a, b in zip(mine, theirs, strict=True) for key in a)


def test_a_bad_image_is_named_and_changes_nothing_and_good_steps_count_anew(build, options, log):
    options["train"]["max_bad_steps"] = 2
    model = build(options)
    model.optimize_parameters(1)
    before, moments = values(model), copy.deepcopy(model.updater.optimizer.state_dict()["state"])
    good = {"lq": model.lq, "gt": model.gt, "lq_path": ["a.png", "b.png"]}
    bad = {**good, "lq": good["lq"].clone()}
    bad["lq"][1, 0, 0, 0] = float("nan")

    model.feed_data(bad)
    model.optimize_parameters(2)
    line = log().splitlines()[-1]
    assert "Step skipped (1 in a row), iteration 2: l_pix is nan, l_kl is nan" in line
    assert line.endswith("images: a.png, b.png (not finite itself).")
    assert same(before, values(model))
    assert all(
        torch.equal(moments[key][name], value[name])
        for key, value in model.updater.optimizer.state_dict()["state"].items()
        for name in value
    )

    model.feed_data(good)
    model.optimize_parameters(3)
    assert model.updater.bad_steps == 0 and not same(before, values(model))
    model.feed_data(bad)
    model.optimize_parameters(4)
    with pytest.raises(BadSteps, match=r"2 steps in a row .* the last, iteration 5: l_pix is nan"):
        model.optimize_parameters(5)


def test_a_skipped_step_leaves_no_trace_in_batch_norms_and_other_buffers(normed, build, log):
    model = build(normed)
    model.terms["logits"].loss.register_buffer("seen", torch.zeros(()))
    model.terms["logits"].loss.register_forward_pre_hook(lambda module, args: module.seen.add_(1) and None)
    model.optimize_parameters(1)
    before = values(model)
    model.lq[1, 0, 0, 0] = float("nan")
    model.optimize_parameters(2)
    assert "Step skipped" in log() and same(before, values(model))
    assert model.terms["logits"].loss.seen == 1
    model.lq[1, 0, 0, 0] = 0
    model.optimize_parameters(3)
    assert model.net_g.norm.num_batches_tracked == 2 and model.net_g.norm.running_mean.isfinite().all()


def test_a_bad_gradient_of_a_finite_loss_names_its_term(build, options, log, root_loss):
    options["train"]["distill"] = {"root": {"type": "RootOfNothingLoss", "between": "output", "view": "degraded"}}
    model = build(options)
    before, start = values(model), torch.get_rng_state()
    model.compute_losses()
    drawn = torch.get_rng_state()
    torch.set_rng_state(start)
    model.optimize_parameters(1)
    assert "iteration 1: the gradient of l_root is not finite; images: number 0 of the batch, number 1" in log().splitlines()[-1]
    assert same(before, values(model))
    assert torch.equal(drawn, torch.get_rng_state())  # looking for it drew nothing more


def test_what_is_finite_is_told_with_one_look():
    one, half, infinite = torch.ones(()), torch.ones((), dtype=torch.bfloat16), torch.tensor(float("inf"))
    assert are_finite(one, half) == [True, True]
    assert are_finite(one, infinite, infinite - infinite) == [True, False, False]


def test_finite_terms_whose_sum_is_not():
    big = torch.tensor(3e38)
    assert wrong_values({"a": big, "b": big}) == "the sum of a, b is not finite"
    assert wrong_values({"a": big / 9}) == ""


def test_images_without_names_have_numbers():
    assert name_images([], [torch.ones(2, 3, 4, 4)]) == "number 0 of the batch, number 1 of the batch"


@pytest.mark.parametrize("value", [-1, 2.5, True, "many", None])
def test_a_bound_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="train:max_bad_steps: .*expected a whole number from 0 up"):
        bad_step_bound({"max_bad_steps": value})


def test_the_bound_is_ten_unless_said_otherwise():
    assert bad_step_bound({}) == 10 and bad_step_bound({"max_bad_steps": 0}) == 0
