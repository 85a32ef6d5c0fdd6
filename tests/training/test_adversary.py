"""A discriminator beside any term: BasicSR's steps, its files, and runs that go on to the bit."""

import copy
import random

import numpy as np
import pytest
import torch
from basicsr.models import build_model
from short_runs import assert_same_bits, train_killed, weights

from kd_plugins.cli import main

UNET = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}


@pytest.fixture
def gan(real_esrgan):
    """A run with a discriminator on Real-ESRGAN's degradation."""
    real_esrgan["network_d"] = UNET
    real_esrgan["train"]["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}
    real_esrgan["train"]["optim_d"] = {"type": "Adam", "lr": 1e-3}
    return real_esrgan


@pytest.fixture
def built(gan):
    """A model on one batch, as a function of changes to its options."""

    def make(model_type="DistillationModel", **train):
        options = copy.deepcopy(gan)
        options.update(model_type=model_type, is_train=True, dist=False, rank=0, world_size=1)
        options["path"].update(models="", training_states="", experiments_root="", visualization="")
        options["train"].update(train)
        torch.manual_seed(0)
        return build_model(options)

    return make


def batch():
    generator = torch.Generator().manual_seed(3)
    return {"lq": torch.rand(2, 3, 8, 8, generator=generator), "gt": torch.rand(2, 3, 32, 32, generator=generator)}


@pytest.mark.parametrize("train", [{}, {"net_d_iters": 2, "net_d_init_iters": 1}])
def test_steps_are_those_of_basicsrs_own_model(built, train):
    mine, theirs = built(distill={}, **train), built("SRGANModel", distill={}, **train)
    for key in ("net_g", "net_g_ema"):
        getattr(theirs, key).load_state_dict(getattr(mine, key).state_dict())
    theirs.net_d.load_state_dict(mine.adversary.net.state_dict())
    for iteration in range(1, 5):
        for model in (mine, theirs):
            model.update_learning_rate(iteration)
            model.feed_data(batch())
            model.optimize_parameters(iteration)
        mine_log, their_log = mine.get_current_log(), theirs.get_current_log()
        names = {name: name.replace("l_pix", "l_g_pix") for name in mine_log}
        assert set(names.values()) == set(their_log)
        assert all(mine_log[name] == pytest.approx(their_log[names[name]], rel=1e-5) for name in names)
    for net, other in ((mine.net_g, theirs.net_g), (mine.adversary.net, theirs.net_d)):
        for name, value in other.state_dict().items():
            torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-3, atol=2e-5)
    assert not any(parameter.requires_grad for parameter in mine.adversary.net.parameters())


def test_the_discriminator_sees_each_part_of_a_batch_once(built):
    model = built(accumulate=2)
    seen = []
    model.adversary.net.register_forward_hook(lambda net, args, out: seen.append(len(args[0])))
    model.feed_data(batch())
    model.optimize_parameters(1)
    assert seen == [1] * 6  # each of two parts: in the student's step, a clean one, the student's
    assert {"l_g_gan", "l_d_real", "l_d_fake", "out_d_real", "out_d_fake"} <= set(model.get_current_log())


def test_a_bad_step_of_the_discriminator_is_skipped_and_named(built, log):
    model = built()
    model.feed_data(batch())
    model.gt[0] = float("nan")
    before = copy.deepcopy(model.adversary.net.state_dict())
    model.optimize_parameters(1)
    assert "l_d_real is nan" in log() and model.parts()[-1].state_dict()["discriminator"]["bad_steps"] == 1
    assert all(torch.equal(value, before[name]) for name, value in model.adversary.net.state_dict().items())


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (
            {"type": "UNetDiscriminatorSN", "num_in_ch": 1},
            "network_d: UNetDiscriminatorSN does not take images of \\(1, 3, 32, 32\\)",
        ),
        (
            {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": 128},
            "network_d: VGGStyleDiscriminator does not take images of .*: Input size must be",
        ),
    ],
)
def test_a_discriminator_of_other_images_is_refused(gan, built, network, said):
    gan["network_d"] = network
    with pytest.raises(ValueError, match=said):
        built()


def test_what_does_not_go_together_is_said_by_the_check(gan, write, capsys):
    del gan["network_d"], gan["train"]["optim_d"]
    gan["train"]["gan_opt"] = {"type": "L1Loss"}
    gan["train"]["net_d_init_iters"] = 6
    assert main(["check", "-opt", write(gan)]) == 2
    said = capsys.readouterr().err
    for text in (
        "network_d: missing, train:gan_opt needs it",
        "train:optim_d: missing",
        "'L1Loss', no loss of a discriminator, expected GANLoss or MultiScaleGANLoss",
        "train:net_d_init_iters: 6, expected less than total_iter, 6",
    ):
        assert text in said
    gan["network_d"] = UNET
    gan["train"].update(gan_opt={"type": "GANLoss", "gan_type": "vanila"}, optim_d={"type": "Adam", "lr": 1}, net_d_init_iters=0)
    assert main(["check", "-opt", write(gan)]) == 2
    assert "train:gan_opt:gan_type: 'vanila', expected one of vanilla, lsgan, wgan, wgan_softplus, hinge; nearest: vanilla" in (
        capsys.readouterr().err
    )


def test_images_without_clean_ones_are_refused(gan, write, capsys, tmp_path):
    gan["datasets"]["train"] = {
        **{"name": "a", "type": "DegradedImageDataset", "dataroot_lq": str(tmp_path / "clean"), "io_backend": {"type": "disk"}},
        **{"gt_size": 32, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2},
    }
    gan["train"]["pixel_opt"] = None
    assert main(["check", "-opt", write(gan)]) == 2
    assert "train:gan_opt: it compares with the clean image" in capsys.readouterr().err


@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_ends_with_the_same_bits_and_its_discriminator_starts_another(gan, write, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "-opt", write({**gan, "name": "straight"}, "straight.yml")]) == 0
    train_killed(monkeypatch, write(gan), 5)
    for label, iteration in (("net_g", "6"), ("net_d", "6")):
        assert_same_bits(weights("tiny", label, iteration), weights("straight", label, iteration))
    state = torch.load("experiments/tiny/training_states/6.state", weights_only=True)
    assert len(state["optimizers"]) == len(state["schedulers"]) == 2

    gan["train"]["total_iter"] = 8
    without = {key: value for key, value in gan.items() if key != "network_d"}
    without["train"] = {key: value for key, value in gan["train"].items() if key != "gan_opt"}
    assert main(["train", "-opt", write(without, "without.yml"), "--auto_resume"]) == 2
    assert "it has 2 optimizers, not 1: `gan_opt` joins or leaves in a new run" in capfd.readouterr().err
    assert main(["train", "-opt", write({**without, "name": "plain"}, "plain.yml")]) == 0
    joined = write({**gan, "name": "plain", "train": {**gan["train"], "total_iter": 9}}, "joined.yml")
    assert main(["train", "-opt", joined, "--auto_resume"]) == 2
    assert "has no discriminator: `gan_opt` joins or leaves in a new run" in capfd.readouterr().err
    gan["path"]["pretrain_network_d"] = "experiments/tiny/models/net_d_6.pth"
    random.seed(0), np.random.seed(0)
    gan.update(name="next", is_train=True, dist=False, rank=0, world_size=1)
    model = build_model(gan)
    kept = torch.load(gan["path"]["pretrain_network_d"], weights_only=True)["params"]
    assert all(torch.equal(value, kept[name]) for name, value in model.adversary.net.state_dict().items())
