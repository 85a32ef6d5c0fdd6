"""A batch that is computed in parts: the step of the whole, with the memory of a part."""

from types import SimpleNamespace

import pytest
import torch

from kd_plugins.losses import ContrastiveImageLoss
from kd_plugins.training.accumulation import part_size, try_parts


def stepped(build, options, count, batch):
    """A model after one step of a batch in `count` parts."""
    options["train"]["accumulate"] = count
    options["datasets"]["train"]["batch_size_per_gpu"] = len(batch["lq"])
    model = build(options)
    model.feed_data(batch)
    model.optimize_parameters(1)
    return model


def gradients(model):
    return {(label, name): p.grad for label, net in model.networks().items() for name, p in net.named_parameters()}


@pytest.mark.parametrize("terms", ["of each sample", "all"])
def test_slkd_takes_the_step_of_the_larger_batch(terms, build, options):
    torch.manual_seed(3)
    batch = {key: torch.rand(4, 3, 32, 32) for key in ("lq", "gt")}
    options["train"]["optim_g"] = {"type": "SGD", "lr": 1e-3}
    options["train"]["distill"] = {"kl": {"trust": {"window": 3}}}
    options["train"]["distill"].update(nc={"window": None}, et={"window": None})
    if terms == "all":  # the scale of a layer's features is that of the part: alike in parts that are alike
        batch = {key: value[:2].repeat(2, 1, 1, 1) for key, value in batch.items()}
    else:
        options["train"]["distill"].update(nc=None, et=None)
    whole, parts = (stepped(build, options, count, batch) for count in (1, 2))
    mine, theirs = gradients(whole), gradients(parts)
    for key, grad in mine.items():
        assert (theirs[key] - grad).abs().max() <= 1e-6 * max(float(grad.norm()), 1), key
    assert parts.get_current_log() == pytest.approx(whole.get_current_log(), rel=1e-6)
    assert "trust/kl" in parts.get_current_log()
    assert torch.equal(parts.lq, batch["lq"]) and len(parts.output) == 2


def test_a_bad_image_in_one_part_is_named_among_those_of_the_batch(build, normed, log):
    batch = {"lq": torch.rand(4, 3, 32, 32), "gt": torch.rand(4, 3, 32, 32), "lq_path": list("abcd")}
    model = stepped(build, normed, 2, batch)
    assert model.net_g.norm.num_batches_tracked == 2  # once for each part
    batch["lq"][3] = float("nan")
    model.feed_data(batch)
    model.optimize_parameters(2)
    assert "l_logits is nan; images: a, b, c, d (not finite itself)." in log() and model.net_g.norm.num_batches_tracked == 2


def test_samples_of_several_tasks_go_to_their_parts(build, normed):
    model = stepped(build, normed, 2, {"lq": torch.rand(4, 3, 16, 16), "gt": torch.rand(4, 3, 16, 16)})
    model.feed_data({"lq": torch.rand(4, 3, 16, 16), "task": list("abcd")})
    seen = []
    model.compute_losses = lambda: seen.append((model.tasks, model.gt, len(model.lq)))
    for part in model._parts():
        part()
    assert seen == [(["a", "b"], None, 2), (["c", "d"], None, 2)]


@pytest.mark.parametrize("count", [3, 0, 8, True, 1.5, "two"])
def test_parts_that_are_not_equal_are_refused(count):
    with pytest.raises(ValueError, match="train:accumulate: .*, expected a divisor of the batch of 4: 1, 2, 4"):
        part_size({"accumulate": count or -1}, 4)
    assert part_size({}, 4) == part_size({"accumulate": None}, 4) == 4 and part_size({"accumulate": 4}, 4) == 1


def test_parts_of_a_later_stage_that_are_too_small_for_a_loss_are_found_before_the_run():
    terms = {"cl": SimpleNamespace(loss=ContrastiveImageLoss())}
    try_parts({"accumulate": 2}, [8, 4], terms)
    with pytest.raises(ValueError, match="train:distill:cl: ContrastiveImageLoss: .*, but a batch of 1 has 0 others"):
        try_parts({"accumulate": 2}, [8, 2], terms)
