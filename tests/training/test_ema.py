"""The averaged copy of a student, and whatever else follows a network: its batch norms' statistics come along."""

import copy
import json

import pytest
import torch
from basicsr.archs import build_network
from safetensors.torch import save_file
from torch import nn

from kd_plugins.models.history import History
from kd_plugins.training.ema import ema_update

STATISTICS = ("norm.running_mean", "norm.running_var")


def train(model, steps=3):
    for iteration in range(1, steps + 1):
        model.optimize_parameters(iteration)
    return model.net_g.state_dict()


def test_weights_and_statistics_are_averaged_other_buffers_are_copied_and_caches_stay():
    nets = [nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)) for _ in range(2)]
    for net, size in zip(nets, (2, 3), strict=True):
        net.register_buffer("table", torch.tensor([float("-inf"), float(size)]))
        net.register_buffer("cache", torch.zeros(size), persistent=False)
        net(torch.rand(2, 3, 4, 4) * size)
    mine, theirs = (copy.deepcopy(net.state_dict()) for net in nets)
    ema_update(nets[0], nets[1], 0.75)
    for name, value in nets[0].state_dict().items():
        averaged = value.is_floating_point() and name != "table"
        torch.testing.assert_close(value, 0.75 * mine[name] + 0.25 * theirs[name] if averaged else theirs[name], msg=name)
    assert len(nets[0].cache) == 2
    ema_update(nets[0], nets[1], 0)
    assert all(torch.equal(value, theirs[name]) for name, value in nets[0].state_dict().items())


def test_the_averaged_copy_has_statistics_of_its_own_and_is_scored_and_saved_with_them(normed, build, tmp_path):
    model = build(normed)
    start = copy.deepcopy(model.net_g_ema.state_dict())
    student, average = train(model, 1), model.net_g_ema.state_dict()
    for name in STATISTICS:
        torch.testing.assert_close(average[name], 0.9 * start[name] + 0.1 * student[name])
        assert not torch.equal(average[name], start[name])
    assert average["norm.num_batches_tracked"] == 1 and torch.equal(average["passes"], student["passes"])
    (tmp_path / "experiments/tiny/models").mkdir(parents=True)
    (tmp_path / "experiments/tiny/training_states").mkdir()
    model.save(0, 1)
    saved = torch.load(tmp_path / "experiments/tiny/models/net_g_1.pth", weights_only=True)["params_ema"]
    assert all(torch.equal(value, saved[name]) for name, value in average.items())
    model.test()
    reference = build_network(normed["network_g"]).eval()
    reference.load_state_dict(saved)
    assert torch.equal(model.output, reference(model.lq))


def test_dckds_history_follows_with_its_statistics(normed, dckd_options, build):
    normed.update(model_type="DCKDModel")
    del normed["train"]["distill"]
    model = build(normed)
    start = copy.deepcopy(model.history.net.state_dict())
    train(model, 2)  # it follows every second step
    history, average = model.history.net.state_dict(), model.net_g_ema.state_dict()
    for name in STATISTICS:
        torch.testing.assert_close(history[name], 0.1 * start[name] + 0.9 * average[name])
    assert history["norm.num_batches_tracked"] == 2


def test_a_start_from_the_teacher_is_that_of_the_averaged_copy_too(normed, build, tmp_path):
    teacher = build_network(normed["network_g"])
    teacher(torch.rand(2, 3, 8, 8))
    file = tmp_path / "normed.safetensors"
    save_file(teacher.state_dict(), file, metadata={"network": json.dumps(normed["network_g"])})
    normed.update(init="teacher", teacher={"checkpoint": str(file)})
    model = build(normed)
    for net in (model.net_g, model.net_g_ema):
        assert all(torch.equal(net.state_dict()[name], value) for name, value in teacher.state_dict().items())


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_history_starts_as_what_it_follows(value):
    student, net = (nn.BatchNorm2d(2) for _ in range(2))
    student.running_mean.fill_(value)
    assert torch.equal(History(net, student).net.running_mean, student.running_mean)


def test_a_file_of_basicsrs_average_is_read_with_the_students_statistics(normed, build, tmp_path):
    model = build(normed)
    before = copy.deepcopy(model.net_g_ema.state_dict())
    student = train(model)
    torch.save({"params": student, "params_ema": before}, tmp_path / "basicsrs.pth")
    model.load_network(model.net_g_ema, str(tmp_path / "basicsrs.pth"), True, "params_ema")
    read = model.net_g_ema.state_dict()
    assert all(torch.equal(read[name], student[name]) for name in STATISTICS) and torch.equal(
        read["head.weight"], before["head.weight"]
    )
